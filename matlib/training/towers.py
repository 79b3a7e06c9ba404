"""The parts of a model that a defence trains, and the rest, which stays as it is."""

from __future__ import annotations

from typing import Any

from torch import nn

from matlib.models.open_clip import OpenClipEncoder
from matlib.training.defence import Defence


def learning_part(encoder: OpenClipEncoder, how: Defence, name: str) -> list[nn.Parameter]:
    """Parameters of one tower that a defence trains.

    Raises:
        ValueError: the model has no such tower.
    """
    try:
        parameters = encoder.tower(name)
    except (ValueError, AttributeError) as error:
        raise ValueError(
            f"{how.name} trains the part {name!r}, which this model has not: {error}"
        ) from error
    if not parameters:
        raise ValueError(f"{how.name} trains the part {name!r}, which has no weights here")
    return parameters


def set_modes(encoder: OpenClipEncoder, how: Defence) -> None:
    """Training mode where weights learn: a tower that does not keeps its batch statistics too."""
    encoder.train()
    towers: dict[str, Any] = {"image": encoder.clip.visual, "text": encoder.clip.text}
    for name, tower in towers.items():
        if name not in how.towers:
            tower.eval()
