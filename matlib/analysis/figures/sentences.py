"""Results in words: numbers with intervals, comparisons, and captions with the change marked."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matlib.analysis.as_text import NO_FORMULAS, html_text

ADDED = {"text": "added captions", "image": "added images"}
"""What an augmentation adds, by its modality, in figures and sentences."""


def percent(value: float, low: float = math.nan, high: float = math.nan) -> str:
    """A share as `12.3 % [10.0, 14.6]`; without limits if they are NaN."""
    if math.isnan(value):
        return "not measured"
    text = f"{100 * value:.1f} %"
    if not (math.isnan(low) or math.isnan(high)):
        text += f" [{100 * low:.1f}, {100 * high:.1f}]"
    return text


def comparison(first: str, other: str, difference: float, low: float, high: float) -> str:
    """What an interval of `first` minus `other` (shares of 1) says, in points.

    >>> compare("MAT", "TeCoA", 0.12, 0.08, 0.16)
    'MAT is above TeCoA by 12.0 points [8.0, 16.0]'
    """
    numbers = f"{100 * abs(difference):.1f} points"
    if low > 0:
        return f"{first} is above {other} by {numbers} [{100 * low:.1f}, {100 * high:.1f}]"
    if high < 0:
        return f"{first} is below {other} by {numbers} [{-100 * high:.1f}, {-100 * low:.1f}]"
    signed = f"{100 * difference:+.1f} points [{100 * low:.1f}, {100 * high:.1f}]"
    return f"{first} cannot be told from {other} ({signed})"


def marked_text(before: str, after: str) -> str:
    """`after` with each changed word as `[old→new]`; all of it if the lengths differ."""
    old, new = before.split(" "), after.split(" ")
    if len(old) != len(new):
        return f"[{before}→{after}]"
    return " ".join(a if a == b else f"[{a}→{b}]" for a, b in zip(old, new, strict=True))


def marked_html(before: str, after: str) -> str:
    """`after` as HTML with changed words struck out and the new ones bold and underlined."""
    old, new = before.split(" "), after.split(" ")
    if len(old) != len(new):
        old, new = [before], [after]
    return " ".join(
        html_text(a) if a == b else f"<del>{html_text(a)}</del> <ins><b>{html_text(b)}</b></ins>"
        for a, b in zip(old, new, strict=True)
    )


def captions_html(before: Sequence[str], after: Mapping[str, Sequence[str]]) -> str:
    """A table: one row per caption, one column per attack, the change marked.

    Args:
        before: n captions.
        after: heading -> n adversarial captions.

    Raises:
        ValueError: a column of another length.
    """
    if any(len(column) != len(before) for column in after.values()):
        raise ValueError(f"every column needs {len(before)} captions")
    head = "".join(f"<th>{html_text(name)}</th>" for name in after)
    rows = [
        "<tr>"
        + "".join(f"<td>{marked_html(old, column[i])}</td>" for column in after.values())
        + "</tr>"
        for i, old in enumerate(before)
    ]
    head = f"<thead><tr>{head}</tr></thead>"
    return f'<table class="{NO_FORMULAS}">{head}<tbody>{"".join(rows)}</tbody></table>'


def claim_sentence(claim: Mapping[str, Any]) -> str:
    """A decided claim of the ledger in one sentence.

    Args:
        claim: a row with `estimate`, as in claims.json.
    """
    return f"{claim['id']} ({claim['claim']}): {claim['verdict']}. {claim_numbers(claim)}."


def claim_numbers(claim: Mapping[str, Any]) -> str:
    """Contrast, estimate, interval and what is behind them, of a decided claim."""
    low, high = claim["ci_low"], claim["ci_high"]
    limits = f"≥ {100 * low:+.1f}" if high is None else f"{100 * low:+.1f}, {100 * high:+.1f}"
    # what the experiment's effects are resampled over is named in their contrast
    over = {"query": "images", "seed": "seeds", "point": "design points"}[claim["unit"]]
    behind = "" if claim["id"].startswith("C7") else f"over {claim['n']} {over}, "
    return (
        f"{claim['contrast']}: {100 * claim['estimate']:+.1f} points [{limits}], {behind}"
        f"{claim['n_seeds']} training seed{'' if claim['n_seeds'] == 1 else 's'}"
    )


def effect_sentence(dial: str, value: float, low: float, high: float, *, modality: str = "") -> str:
    """What turning a dial from its lowest to its highest level did (shares of 1), in points.

    Args:
        modality: text or image, where the effect is that on added captions or images alone.
    """
    limits = f"[{100 * low:+.1f}, {100 * high:+.1f}]"
    word = "helps" if low > 0 else "hurts" if high < 0 else "makes no difference that can be told"
    points = f"{100 * value:+.1f} points {limits} over its whole range"
    where = f"{ADDED[modality]}: " if modality else ""
    return f"{where}more {dial} {word}: {points}"


def bend_sentence(modality: str, dial: str, value: float) -> str:
    """That the middle of a dial differs from what its ends foretell (shares of 1), in points.

    Args:
        value: both ends minus the middle, told apart from 0.
    """
    word = "better" if value < 0 else "worse"
    return (
        f"{ADDED[modality]}: half {dial} is {word} than its ends foretell, "
        f"by {100 * abs(value):.1f} points"
    )


def theory_sentence(
    error: float, better_low: float, better_high: float, n_inside: int, n: int
) -> str:
    """How far the theory misses unseen techniques, beside the mean of the others (shares of 1).

    Args:
        error: the theory's mean absolute error.
        better_low: lower limit of by how much it is nearer than the mean; negative: farther.
        better_high: upper limit.
        n_inside: techniques within the range of the dials.
        n: techniques that were predicted.
    """
    limits = sorted(abs(100 * limit) for limit in (better_low, better_high))
    if better_low > 0 or better_high < 0:
        word = "nearer than" if better_low > 0 else "farther than"
        beside = f"{limits[0]:.1f} to {limits[1]:.1f} points {word} the mean of the others"
    else:
        nearer = f"{100 * better_low:+.1f} to {100 * better_high:+.1f} points nearer"
        beside = f"not told apart from the mean of the others ({nearer})"
    text = f"the theory misses an unseen technique by {100 * error:.1f} points, {beside}"
    if n_inside >= n:
        return f"{text} ({n} techniques)"
    return f"{text}; {n_inside} of {n} techniques lie within the range of the dials"
