"""What a budget may be: no attack with less than nothing, or with something that is no number."""

from __future__ import annotations

import math
from numbers import Integral, Real


def check_count(name: str, value: object, least: int = 0) -> None:
    """Refuse what is not a whole number of `least` or more.

    Raises:
        ValueError: the name, what is expected and what came.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ValueError(f"{name} must be {least} or more, a whole number; got {value!r}")


def check_positive(name: str, value: object, unit: str = "") -> None:
    """Refuse what is not a finite number above zero: a step backwards helps the model.

    Args:
        unit: for the message, e.g. ` in 1/255`.

    Raises:
        ValueError: the name, what is expected and what came.
    """
    if not (_is_finite(value) and value > 0):  # type: ignore[operator]
        raise ValueError(f"{name} must be above 0 and finite{unit}; got {value!r}")


def check_weights(name: str, values: tuple[float, ...]) -> None:
    """Refuse weights that are not finite, below 0, or all 0: such terms help the model.

    Raises:
        ValueError: the name and the weights.
    """
    if not (all(_is_finite(value) and value >= 0 for value in values) and any(values)):
        raise ValueError(f"{name} must be finite, 0 or more and not all 0; got {values}")


def _is_finite(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
