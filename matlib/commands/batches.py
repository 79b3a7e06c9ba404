"""Finished batches of an attack on disk: each written whole, keyed by the settings' hash."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from matlib.commands.user_data import settings_hash

SETTINGS, BATCHES, IMAGES = "settings.json", "batches", "images"


@dataclass(frozen=True)
class Batch:
    """One attacked batch: B images with their m captions.

    Attributes:
        captions: m adversarial captions.
        tensors: float (B or m, D) unit embeddings: `image_clean`, `text_clean`, `image_float`
            (adversarial as computed), `image_8bit` (as 8-bit files hold it), `text`; and
            `pixels`, float (B, 3, H, W), where images are kept as float arrays.
        counts: of the gradients: `n_gradients`, `n_zero`, `n_non_finite`, `n_images_vanished`.
        images: names of the PNG files, B or none.
    """

    captions: tuple[str, ...]
    tensors: Mapping[str, Tensor]
    counts: Mapping[str, int]
    images: tuple[str, ...] = ()


class BatchFolder:
    """The output folder of one attack.

    Args:
        out: the folder; new, empty, or of the same settings.
        settings: everything the result depends on, JSON types only.

    Raises:
        ValueError: the folder holds something else, or was made with other settings.
    """

    def __init__(self, out: Path, settings: Mapping[str, Any]) -> None:
        self.out, self.hash = out, settings_hash(settings)
        if (out / SETTINGS).is_file():
            self._check(json.loads((out / SETTINGS).read_text(encoding="utf-8")), settings)
        elif out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise ValueError(f"{out} is not empty and no folder of an attack; choose another --out")
        (out / BATCHES).mkdir(parents=True, exist_ok=True)
        (out / IMAGES).mkdir(exist_ok=True)
        write_json(out / SETTINGS, {"hash": self.hash, "settings": dict(settings)})

    def _check(self, found: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
        n_made = sum(1 for path in (self.out / BATCHES).glob("*") if path.suffix == ".json")
        if found.get("hash") == self.hash or not n_made:
            return
        there = found.get("settings", {})
        different = [
            f"{key}: {_short(there.get(key))} there, {_short(settings.get(key))} now"
            for key in sorted({*there, *settings})
            if there.get(key) != settings.get(key)
        ]
        raise ValueError(
            f"{self.out} was made with other settings ({'; '.join(different)}); "
            "choose another --out, or delete the folder to start again"
        )

    def load(self, number: int) -> Batch | None:
        """A finished batch, or None if it is missing, of other settings, or damaged."""
        record, arrays = self._paths(number)
        try:
            found = json.loads(record.read_text(encoding="utf-8"))
            tensors = load_file(str(arrays))
        except (OSError, ValueError, SafetensorError):
            return None
        batch = Batch(
            tuple(found["captions"]), tensors, found["counts"], tuple(found["images"])
        )  # fmt: skip
        whole = found["hash"] == self.hash and all((self.out / i).is_file() for i in batch.images)
        return batch if whole else None

    def save(self, number: int, batch: Batch) -> None:
        """Write a batch; its record comes last, so that a reader finds all of it or none."""
        record, arrays = self._paths(number)
        beside = _beside(arrays)
        save_file({k: v.detach().cpu().contiguous() for k, v in batch.tensors.items()}, str(beside))
        beside.replace(arrays)
        content = {k: v for k, v in asdict(batch).items() if k != "tensors"}
        write_json(record, {"hash": self.hash, **content})

    def _paths(self, number: int) -> tuple[Path, Path]:
        stem = self.out / BATCHES / f"{number:04d}"
        return stem.with_suffix(".json"), stem.with_suffix(".safetensors")

    def save_images(self, names: Sequence[str], pixels: Tensor) -> None:
        """Write uint8 (B, 3, H, W) as PNG files at `names`, relative to the folder."""
        for name, image in zip(names, pixels.cpu(), strict=True):
            path = self.out / name
            beside = _beside(path)
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(beside, format="PNG")
            beside.replace(path)


def write_json(path: Path, content: Any, indent: int | None = 1) -> None:
    """Write beside, then move into place."""
    beside = _beside(path)
    text = json.dumps(content, indent=indent, ensure_ascii=False) + "\n"
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}")


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 24 else text[:12] + "…"
