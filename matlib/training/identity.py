"""What a run is, so that a checkpoint is never continued by another run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import fields, is_dataclass
from hashlib import blake2b
from typing import Any

import torch
from torch import Tensor, nn

from matlib.data.pairs import OneToMany
from matlib.training.defence import Defence
from matlib.training.inner import Candidates, InnerAttack
from matlib.training.schedule import Schedule
from matlib.training.selection import Validation

CHANGES_NOTHING = ("checkpoint_every",)


def run_identity(
    encoder: nn.Module,
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
