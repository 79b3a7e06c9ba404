"""Adversarial images as image files hold them: whole steps of 1/255."""

from __future__ import annotations

import math

from torch import Tensor

from matlib.attacks.balls import Norm, check_eps

_ROUNDING = 1e-4
"""In 1/255: float32 pixels are this close to the number that they stand for."""


def to_8bit(moved: Tensor, clean: Tensor, eps_255: float, norm: Norm = "linf") -> Tensor:
    """Changes in whole steps of 1/255, still inside the ball around the 8-bit original.

    Plain rounding may leave the ball: with eps 1.5 a change of 1.5 becomes 2. For L-infinity
    changes are rounded and cut to whole steps not above eps, so a budget below 1 leaves none.
    For L2 they are rounded towards zero, which never lengthens them.

    Args:
        moved: float (B, 3, H, W) in [0, 1].
        clean: the originals, 8-bit values divided by 255.
        eps_255: the attack's budget.

    Returns:
        float like `moved`, every value k / 255 with k whole.

    Raises:
        ValueError: a budget that is none, see `check_eps`.
    """
    check_eps(eps_255, norm)
    original = (clean.to(moved.device).double() * 255).round()
    change = moved.double() * 255 - original
    if norm == "linf":
        most = math.floor(eps_255 + _ROUNDING)
        change = change.round().clamp(-most, most)
    else:
        change = (change.abs() + _ROUNDING).floor() * change.sign()
    return ((original + change).clamp(0, 255) / 255).to(moved.dtype)
