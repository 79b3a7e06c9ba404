"""Weights and checkpoints on disk: safetensors and JSON, written whole or not at all.

A checkpoint is a folder `step-00000120/` with `tensors.safetensors` (weights, averages, the
optimiser's moments) and `state.json` (everything else, and the SHA-256 of the tensors). It is
written beside, synced, and moved into place; the last two are kept. Nothing is unpickled.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from matlib.models.checkpoints import check_architecture, read_tensors
from matlib.models.settings import Settings, metadata_of

TENSORS, STATE = "tensors.safetensors", "state.json"
N_KEPT = 2


class DamagedCheckpointError(RuntimeError):
    """A checkpoint whose content is not what was written."""


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint.

    Attributes:
        tensors: by name, on the CPU.
        state: what was given to `write_checkpoint`.
        path: its folder.
    """

    tensors: dict[str, Tensor]
    state: dict[str, Any]
    path: Path


def write_checkpoint(
    folder: Path, step: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any]
) -> Path:
    """Write the checkpoint of `step` into `folder`, and remove all but the last two.

    Returns:
        the folder of the checkpoint.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step-{step:08d}"
    beside = folder / f".{path.name}.part"
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir()
    save_file(_on_cpu(tensors), str(beside / TENSORS))
    body = json.dumps(dict(state))
    whole = {"sha256": _sha256(beside / TENSORS), "state_sha256": _digest(body), "state": body}
    (beside / STATE).write_text(json.dumps(whole), encoding="utf-8")
    for file in (beside / TENSORS, beside / STATE, beside):
        _sync(file)
    shutil.rmtree(path, ignore_errors=True)  # a damaged one of the same step
    beside.rename(path)
    _sync(folder)
    for old in _kept(folder)[:-N_KEPT]:
        shutil.rmtree(old, ignore_errors=True)
    return path


def read_checkpoint(path: Path) -> Checkpoint:
    """A checkpoint's content.

    Raises:
        DamagedCheckpointError: a file is missing, cut, or not what was written.
    """
    try:
        whole = json.loads((path / STATE).read_text(encoding="utf-8"))
        if _digest(whole["state"]) != whole["state_sha256"]:
            raise DamagedCheckpointError(f"{path.name}/{STATE} is not what was written")
        if _sha256(path / TENSORS) != whole["sha256"]:
            raise DamagedCheckpointError(f"{path.name}/{TENSORS} is not what was written")
        return Checkpoint(load_file(str(path / TENSORS)), json.loads(whole["state"]), path)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise DamagedCheckpointError(f"{path.name} cannot be read: {error}") from error


def last_checkpoint(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint that is whole, and what is wrong with newer ones.

    Returns:
        the checkpoint (None: there is none) and one sentence per damaged one.
    """
    damaged: list[str] = []
    for path in reversed(_kept(folder)):
        try:
            return read_checkpoint(path), damaged
        except DamagedCheckpointError as error:
            damaged.append(str(error))
    return None, damaged


def remove_checkpoints(folder: Path) -> None:
    """Remove all checkpoints in `folder`, whole or not, and nothing else."""
    for path in [*_kept(folder), *folder.glob(".step-*.part")]:
        shutil.rmtree(path, ignore_errors=True)


def save_weights(module: nn.Module, path: Path) -> None:
    """Write the module's state to `path`, with the settings of a model that has any.

    A reader never sees half a file.
    """
    partial = path.with_name(path.name + ".part")
    settings = getattr(module, "settings", None)
    about = metadata_of(settings) if isinstance(settings, Settings) else None
    save_file(_on_cpu(module.state_dict()), str(partial), about)
    partial.replace(path)


def load_weights(module: nn.Module, path: Path) -> None:
    """Load what `save_weights` wrote.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a damaged file, or weights of another architecture; the message lists the
            tensors that differ.
    """
    stored = read_tensors(path)
    check_architecture(stored, module.state_dict(), path.name)
    module.load_state_dict(stored)


def _on_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies where tensors share memory, which safetensors refuses to write."""
    taken: set[int] = set()
    found = {}
    for name, value in tensors.items():
        own = value.detach().cpu().contiguous()
        storage = own.untyped_storage().data_ptr()
        found[name] = own.clone() if storage in taken else own
        taken.add(storage)
    return found


def _kept(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*"))


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()


def _sha256(path: Path) -> str:
    digest = sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _sync(path: Path) -> None:
    """Wait until a file or folder is on the disk; folders cannot be opened on Windows."""
    if path.is_dir() and os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
