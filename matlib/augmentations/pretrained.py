"""Loading pretrained generators: what is missing is said before any work, with the remedy."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, TypeVar

import torch

Loaded = TypeVar("Loaded")

EXTRA = "pip install 'matlib[generative]'"


class MissingExtraError(ImportError):
    """An optional package that a technique needs is not installed."""


def optional(module: str, what: str) -> ModuleType:
    """An optional package.

    Raises:
        MissingExtraError: it is not installed; the message has the command.
    """
    try:
        with warnings.catch_warnings():
            # diffusers compiles a module on import in a way that torch is giving up
            warnings.simplefilter("ignore", DeprecationWarning)
            return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"{what} needs the package {module}: {EXTRA}") from error


def load_pretrained(load: Callable[..., Loaded], source: str, what: str, **options: Any) -> Loaded:
    """`load(source)` from a local folder or a hub; safetensors only, never pickled weights.

    Raises:
        FileNotFoundError: no such folder here, and no such model on a hub that can be reached.
    """
    try:
        return load(source, **options)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FileNotFoundError(
            f"no {what} at {source!r}, and none of that name on a hub that can be reached "
            f"({reason}). Pass a local folder with its safetensors, or download it first."
        ) from error


@contextmanager
def seeded(generator: torch.Generator, device: torch.device) -> Iterator[None]:
    """torch's global generators seeded from `generator` inside, and put back after.

    transformers samples from the global generator of the model's device.
    """
    seed = int(torch.randint(2**31, (), generator=generator))
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield
