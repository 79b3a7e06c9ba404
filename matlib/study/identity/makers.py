"""The mark in the code for what the hash of an artefact's code follows; see `reached`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

_Function = TypeVar("_Function", bound=Callable[..., object])


def makes(maker: str) -> Callable[[_Function], _Function]:
    """Mark the function that says what an artefact is, of what, and how it is made and read.

    It changes nothing about the function: the files are read. The artefact's code is all that
    the function reaches. Where another maker reaches it, its inner function `make` is left out:
    the hash of what that makes is among the other's inputs.

    Args:
        maker: the name that `ArtefactSpec.maker` gives.
    """
    return lambda function: function
