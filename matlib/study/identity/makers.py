"""Marks in the code for what the hash of an artefact's code follows; see `reached`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

Function = TypeVar("Function", bound=Callable[..., object])


def makes(maker: str, *handed: str, **handed_where: str) -> Callable[[Function], Function]:
    """Mark the function that makes an artefact, or loads it where it is there.

    It changes nothing about the function: the files are read. The artefact's code is all that
    the function reaches. Where another maker reaches it, its inner function `make` is left out:
    the hash of what that makes is among the other's inputs.

    Args:
        maker: the name that `ArtefactSpec.maker` gives.
        handed: definitions behind what it is handed, a callable or a finished object: no text
            in the function leads there. `name` of the same module, or `module:name`.
        handed_where: the same, by the choice (with `_` for `-`) without which it is not used.
    """
    return lambda function: function


def hands_over(function: Function) -> Function:
    """Mark a function whose methods in the text are handed over, not called.

    Its text counts. What it hands over is followed from the makers that say so (`handed`): else
    the candidates' making, which asks the study for its language model, would reach all that the
    study's models are ever handed.
    """
    return function
