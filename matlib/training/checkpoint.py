"""Weights and checkpoints on disk: safetensors and JSON, written whole or not at all.

A checkpoint is a folder `step-00000120/` with `tensors.safetensors` (weights, averages, the
optimiser's moments) and `state.json` (everything else, and the SHA-256 of the tensors). It is
written beside, synced, and moved into place; the last two are kept. Nothing is unpickled. It also
says what its run is (`run_identity`), so that no other run continues it.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Mapping, Sequence, Set as AbstractSet
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from hashlib import blake2b, sha256
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from matlib.data.pairs import OneToMany
from matlib.defences.defence import Defence
from matlib.defences.inner_attack import Candidates, InnerAttack
from matlib.models.checkpoints import check_architecture, read_tensors
from matlib.models.dual_encoder import TrainableEncoder
from matlib.models.settings import Settings, metadata_of
from matlib.training.log import History
from matlib.training.schedule import Schedule
from matlib.training.selection import Validation
from matlib.training.step import Stepper

_TENSORS, _STATE = "tensors.safetensors", "state.json"
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
    save_file(_on_cpu(tensors), str(beside / _TENSORS))
    body = json.dumps(dict(state))
    whole = {"sha256": _sha256(beside / _TENSORS), "state_sha256": _digest(body), "state": body}
    (beside / _STATE).write_text(json.dumps(whole), encoding="utf-8")
    for file in (beside / _TENSORS, beside / _STATE, beside):
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
        whole = json.loads((path / _STATE).read_text(encoding="utf-8"))
        if _digest(whole["state"]) != whole["state_sha256"]:
            raise DamagedCheckpointError(f"{path.name}/{_STATE} is not what was written")
        if _sha256(path / _TENSORS) != whole["sha256"]:
            raise DamagedCheckpointError(f"{path.name}/{_TENSORS} is not what was written")
        return Checkpoint(load_file(str(path / _TENSORS)), json.loads(whole["state"]), path)
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


CHANGES_NOTHING = ("checkpoint_every",)


def run_identity(
    encoder: TrainableEncoder,
    data: OneToMany,
    how: Defence,
    schedule: Schedule,
    seed: int,
    inner: InnerAttack | None,
    candidates: Candidates | None,
    validation: Validation | None = None,
) -> dict[str, Any]:
    """Everything that decides the final weights, by name; contents as hashes.

    The number of processes is not in it: it changes rounding only.

    Args:
        encoder: as it is before the first step.
    """
    settings = {"schedule": schedule, "defence": how, "inner": inner}
    flat = {
        key: value
        for name, part in settings.items()
        for key, value in _flat(name, _plain(part)).items()
        if key.rpartition(".")[2] not in CHANGES_NOTHING
    }
    weights = [(name, value) for name, value in sorted(encoder.state_dict().items())]
    chosen = validation if validation is not None and validation.keep_best else None
    edits = sorted((candidates or {}).items()) if how.needs_candidates else []
    return {
        **flat,
        "seed": seed,
        "kept": "last" if chosen is None else f"best of every {chosen.every} {chosen.identity}",
        "data.shape": list(data.images.shape),
        "data.images": data.origin,
        "data.captions": _digest_of_parts(data.captions),
        "candidates": _digest_of_parts((c, [tuple(e) for e in row]) for c, row in edits),
        "initial weights": _digest_of_parts(part for pair in weights for part in pair),
    }


def check_identity(stored: Mapping[str, Any], wanted: Mapping[str, Any], where: object) -> None:
    """Refuse to continue another run.

    Raises:
        ValueError: the two differ; the message says in what.
    """
    differ = [k for k in sorted(stored.keys() | wanted.keys()) if stored.get(k) != wanted.get(k)]
    if differ:
        shown = ", ".join(f"{k} ({stored.get(k)} there, {wanted.get(k)} here)" for k in differ[:5])
        more = " …" if len(differ) > 5 else ""
        raise ValueError(
            f"{where} holds a checkpoint of another run; they differ in {shown}{more}. "
            "Give this run a folder of its own, or remove that one."
        )


def _plain(value: Any) -> Any:
    """Values of a configuration as JSON has them; objects by the name of their type."""
    if is_dataclass(value):
        own = {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
        return {"type": type(value).__name__, **own}
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, AbstractSet):
        return _digest_of_parts(sorted(map(str, value)))
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(part) for part in value]
    return value if value is None or isinstance(value, bool | int | float | str) else _name(value)


def _name(value: object) -> str:
    return str(getattr(value, "__qualname__", type(value).__qualname__))


def _flat(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        return {name: value}
    parts = [_flat(f"{name}.{key}", part) for key, part in value.items()]
    return {key: leaf for part in parts for key, leaf in part.items()}


def _digest_of_parts(parts: Any) -> str:
    digest = blake2b(digest_size=8)
    for part in parts:
        if isinstance(part, Tensor):
            digest.update(part.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
        else:
            digest.update(repr(part).encode())
    return digest.hexdigest()


@dataclass
class Keeper:
    """Keeps a run's last two checkpoints in a folder, and finds them again.

    Attributes:
        folder: None: nothing is kept.
        identity: what the run is (`run_identity`).
        is_first: whether this process writes; all of them read.
        damaged: what was wrong with checkpoints that `resume` passed over.
    """

    folder: Path | None
    identity: Mapping[str, Any]
    is_first: bool = True
    damaged: list[str] = field(default_factory=list)

    def resume(self, stepper: Stepper) -> History:
        """Bring a run to where its last whole checkpoint was; else it is at its beginning.

        Raises:
            ValueError: a checkpoint of another architecture or another run.
        """
        if self.folder is None:
            return History()
        found, damaged = last_checkpoint(self.folder)
        begin = "the beginning" if found is None else found.path.name
        self.damaged = [f"{text}: training goes on from {begin}" for text in damaged]
        if found is None:
            return History()
        weights = _part(found, "weights")
        check_architecture(weights, stepper.encoder.state_dict(), f"{self.folder}")
        check_identity(found.state["identity"], self.identity, self.folder)
        stepper.encoder.load_state_dict(weights)
        _load_moments(stepper, _part(found, "moments"))
        if stepper.averages is not None:
            stepper.averages.load(_part(found, "averages"))
        if stepper.scaler is not None:
            stepper.scaler.load_state_dict(found.state["scaler"])
        history = History(**found.state["history"])
        robust = max((m["held_out"] for m in history.held_out), default=-math.inf)
        stepper.best.load(_part(found, "best"), robust)
        return history

    def keep(self, step: int, schedule: Schedule, stepper: Stepper, history: History) -> None:
        """Write a checkpoint after a step, where it is due: the first, then every so often."""
        if self.folder is None or not self.is_first or step % schedule.checkpoint_every:
            return
        averages = {} if stepper.averages is None else stepper.averages.state()
        tensors = {
            **_named("weights", stepper.encoder.state_dict()),
            **_named("averages", averages),
            **_named("moments", _moments(stepper)),
            **_named("best", stepper.best.kept),
        }
        scaler = None if stepper.scaler is None else stepper.scaler.state_dict()
        state = {"identity": dict(self.identity), "history": asdict(history), "scaler": scaler}
        write_checkpoint(self.folder, step + 1, tensors, state)

    def restore_last_good(self, stepper: Stepper) -> str:
        """Put the last checkpoint's weights back; says what was done."""
        found = None if self.folder is None else last_checkpoint(self.folder)[0]
        if found is None:
            return "no checkpoint had been kept"
        stepper.encoder.load_state_dict({**_part(found, "weights"), **_part(found, "averages")})
        return f"the last good weights were restored and stay in {found.path}"


def _named(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}/{name}": value for name, value in tensors.items()}


def _part(found: Checkpoint, prefix: str) -> dict[str, Tensor]:
    begin = f"{prefix}/"
    return {k.removeprefix(begin): v for k, v in found.tensors.items() if k.startswith(begin)}


def _parameters(stepper: Stepper) -> list[torch.nn.Parameter]:
    return [p for group in stepper.optimiser.param_groups for p in group["params"]]


def _moments(stepper: Stepper) -> dict[str, Tensor]:
    """The optimiser's state by the number of the weight: `12/exp_avg`."""
    return {
        f"{i}/{name}": value
        for i, parameter in enumerate(_parameters(stepper))
        for name, value in stepper.optimiser.state[parameter].items()
    }


def _load_moments(stepper: Stepper, moments: Mapping[str, Tensor]) -> None:
    parameters = _parameters(stepper)
    for key, value in moments.items():
        number, name = key.split("/")
        parameter = parameters[int(number)]
        stepper.optimiser.state[parameter][name] = value.to(parameter.device)
