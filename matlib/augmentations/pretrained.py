"""What pretrained generators need: optional packages, and draws from a given generator."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import torch

EXTRA = "pip install -e '.[generative]' in this project's folder"


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
