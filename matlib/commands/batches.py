"""An attack's output folder: finished batches in a store, and beside it what a person looks at.

`runs/` is a store like a study's: each batch is whole or not there, found again by its own
content (images, captions, settings, code) and verified by hash; what was damaged or lost is made
again, and that is said. `images/` and `arrays/` hold the same files under readable names.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from matlib.attacks.edits import Table, from_table
from matlib.files import write_durably
from matlib.study.store.provenance import canonical_json, text_hash
from matlib.study.store.store import Artefact, ArtefactSpec, Store

BATCH, _TABLE = "attacked", "candidates"
MAKER = "attack"
"""What makes them: `matlib.commands.attack.run_attack`."""
RECORD, TENSORS, PIXELS, EDITS = "batch.json", "embeddings.safetensors", "pixels", "table.json"
_PAIRS, _IMAGES, _ARRAYS = "pairs.json", "images", "arrays"
_OWN = frozenset({"runs", "store.json", _PAIRS, _IMAGES, _ARRAYS})
LONGEST_STEM = 80
"""Bytes of an image's name in the names of results; most systems end at 255 in all."""


@dataclass(frozen=True)
class AttackedBatch:
    """One attacked batch: B images with their m captions.

    Attributes:
        captions: m adversarial captions.
        tensors: float (B or m, D) unit embeddings: `image_clean`, `text_clean`, `image_float`
            (adversarial as computed), `image_8bit` (as 8-bit files hold it), `text`.
        counts: of the gradients: `n_gradients`, `n_zero`, `n_non_finite`, `n_images_vanished`.
    """

    captions: tuple[str, ...]
    tensors: Mapping[str, Tensor]
    counts: Mapping[str, int]


class AttackFolder:
    """The output folder of one attack.

    Args:
        out: the folder; new, empty, or of the same settings.
        settings: everything that all batches depend on, JSON types only.
        seed: of the attack.
        chosen: the entries that count in the tables of choices which the attack reaches.
        device: where the computing is done, for the record.

    Raises:
        ValueError: the folder holds something else, or was made with other settings.
        OSError: it cannot be written.
    """

    def __init__(
        self,
        out: Path,
        settings: Mapping[str, Any],
        seed: int,
        chosen: tuple[str, ...],
        device: str = "cpu",
    ) -> None:
        check_folder(out)
        self.out, self._seed, self._chosen = out, seed, chosen
        self._settings: dict[str, Any] = json.loads(canonical_json(settings))
        self._store = Store(out, device=device)
        self._used: set[Path] = set()
        self._refuse_other_settings()

    def has_batch(self, number: int, content: str) -> bool:
        """Whether a batch of that content is finished and whole."""
        return self._store.find(self._spec(BATCH, f"{number:04d}", content)) is not None

    def batch(
        self,
        number: int,
        content: str,
        names: tuple[str, ...],
        make: Callable[[], tuple[AttackedBatch, Tensor]],
    ) -> tuple[AttackedBatch, list[Any]]:
        """A batch, loaded or made, and where each of its B adversarial images lies.

        Args:
            content: identity of its images and captions.
            names: of the B results, without an ending.
            make: attacks it; returns the batch and its adversarial images (B, 3, H, W): uint8
                is kept as PNG files, float as an array.

        Returns:
            the batch, and per image its PNG file, or `{"file", "row"}` of an array; relative
            to the folder.
        """

        def write(folder: Path) -> None:
            made, pixels = make()
            _write(folder, made, pixels)

        kept = self._get(self._spec(BATCH, f"{number:04d}", content), write)
        record = json.loads(kept.file(RECORD).read_text(encoding="utf-8"))
        batch = AttackedBatch(
            tuple(record["captions"]), load_file(str(kept.file(TENSORS))), record["counts"]
        )
        return batch, self._show(kept, number, names)

    def table(self, captions: Sequence[str], make: Callable[[], Table]) -> Table:
        """The allowed edits of every caption, loaded or made."""

        def write(folder: Path) -> None:
            text = json.dumps(make(), ensure_ascii=False)
            (folder / EDITS).write_text(text, encoding="utf-8")

        content = text_hash(json.dumps([*captions]))
        kept = self._get(self._spec(_TABLE, "words", content), write)
        rows = json.loads(kept.file(EDITS).read_text(encoding="utf-8"))
        return from_table(captions, rows, whole=True)

    def finish(self, content: Mapping[str, Any]) -> None:
        """Write `pairs.json`, then remove what only an earlier run on other data used."""
        text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        write_durably(self.out / _PAIRS, text)
        for path in self.out.glob("runs/*"):
            if path.name.startswith((f"{BATCH}-", f"{_TABLE}-")) and path not in self._used:
                shutil.rmtree(path, ignore_errors=True)
        for path in (*self.out.glob(f"{_IMAGES}/*"), *self.out.glob(f"{_ARRAYS}/*")):
            if path not in self._used and re.match(r"\.?\d{4,}", path.name):
                path.unlink()

    def _get(self, spec: ArtefactSpec, write: Callable[[Path], None]) -> Artefact:
        kept = self._store.get_or_make(spec, write)
        self._used.add(kept.path)
        return kept

    def _spec(self, kind: str, name: str, content: str) -> ArtefactSpec:
        return ArtefactSpec(
            kind, name, self._seed, self._settings, {"content": content}, MAKER, self._chosen
        )

    def _show(self, kept: Artefact, number: int, names: tuple[str, ...]) -> list[Any]:
        array = f"{PIXELS}.safetensors"
        if array in kept.provenance["outputs"]:
            file = f"{_ARRAYS}/{number:04d}.safetensors"
            self._link(kept.file(array), file)
            return [{"file": file, "row": i} for i in range(len(names))]
        files = [f"{_IMAGES}/{name}.png" for name in names]
        for i, file in enumerate(files):
            self._link(kept.file(f"{PIXELS}/{i:04d}.png"), file)
        return files

    def _link(self, source: Path, name: str) -> None:
        """The file of the store under a readable name; a copy where the disk has no links."""
        target = self.out / name
        self._used.add(target)
        target.parent.mkdir(exist_ok=True)
        if target.is_file() and target.samefile(source):
            return
        beside = target.with_name(f".{target.name}.{os.getpid()}")
        try:
            beside.hardlink_to(source)
        except OSError:
            shutil.copyfile(source, beside)
        beside.replace(target)

    def _refuse_other_settings(self) -> None:
        for record in self._store.records():
            there = record.get("config")
            if record.get("kind") == BATCH and there != self._settings:
                raise ValueError(
                    f"{self.out} was made with other settings "
                    f"({told_apart(there, self._settings)}); "
                    "choose another --out, or delete the folder to start again"
                )


def told_apart(there: Any, now: Mapping[str, Any]) -> str:
    """What two settings do not share, for a message; `there` comes from a disk."""
    there = there if isinstance(there, dict) else {}
    return "; ".join(
        f"{key}: {_short(there.get(key))} there, {_short(now.get(key))} now"
        for key in sorted({*there, *now})
        if there.get(key) != now.get(key)
    )


def check_folder(out: Path) -> None:
    """Whether results can go there; nothing is written.

    Raises:
        ValueError: it is not empty and no folder of an attack.
        OSError: it cannot be written.
    """
    existing = next(path for path in (out, *out.resolve().parents) if path.exists())
    if not existing.is_dir():
        raise ValueError(f"{existing} is a file; choose another --out")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise PermissionError(f"{existing} cannot be written to; choose another --out")
    if existing == out:
        names = [path.name for path in out.iterdir() if path.name not in _OWN]
        runs = [path.name for path in out.glob("runs/*")]
        names += [name for name in runs if not name.startswith((f"{BATCH}-", f"{_TABLE}-"))]
        if strangers := [name for name in names if not name.startswith(".")]:
            raise ValueError(
                f"{out} is not empty and no folder of an attack (it holds {strangers[0]}); choose "
                "another --out"
            )


def result_name(row: int, image_id: str) -> str:
    """Of the adversarial image of row `row`: short, and of characters that every disk takes."""
    stem = re.sub(r"[^\w.+-]", "_", Path(image_id).stem)
    return f"{row:06d}_{stem.encode()[:LONGEST_STEM].decode(errors='ignore')}"


def _write(folder: Path, batch: AttackedBatch, pixels: Tensor) -> None:
    save_file(
        {k: v.detach().cpu().contiguous() for k, v in batch.tensors.items()},
        str(folder / TENSORS),
    )
    if pixels.is_floating_point():
        save_file(
            {PIXELS: pixels.detach().cpu().contiguous()}, str(folder / f"{PIXELS}.safetensors")
        )
    else:
        (folder / PIXELS).mkdir()
        for i, image in enumerate(pixels.cpu()):
            path = folder / PIXELS / f"{i:04d}.png"
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(path, format="PNG")
    text = json.dumps({"captions": batch.captions, "counts": batch.counts}, ensure_ascii=False)
    (folder / RECORD).write_text(text, encoding="utf-8")


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 24 else text[:12] + "…"
