"""Weights on disk: safetensors, written whole or not at all."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import nn


def save_weights(module: nn.Module, path: Path) -> None:
    """Write the module's state to `path`; a reader never sees half a file."""
    partial = path.with_name(path.name + ".part")
    state = {name: value.detach().cpu().contiguous() for name, value in module.state_dict().items()}
    save_file(state, str(partial))
    partial.replace(path)


def load_weights(module: nn.Module, path: Path) -> None:
    """Load what `save_weights` wrote.

    Raises:
        FileNotFoundError: no such file.
        ValueError: weights of another architecture; the message lists the tensors that differ.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no weights at {path}")
    stored = load_file(str(path))
    expected = module.state_dict()
    differ = [
        name
        for name in sorted(stored.keys() | expected.keys())
        if name not in stored or name not in expected or stored[name].shape != expected[name].shape
    ]
    if differ:
        shown = ", ".join(differ[:5]) + (" …" if len(differ) > 5 else "")
        raise ValueError(f"{path.name}: {len(differ)} tensors do not fit this model: {shown}")
    module.load_state_dict(stored)
