"""Techniques of augmentation: what each gains, and how that depends on amount and strength."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from matlib.analysis.figures.style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY,
    VERMILLION,
    WIDTH,
    label_of,
    panels,
    plt,
    styled,
)

_MODALITIES = {
    "text": (VERMILLION, "o", "adds captions"),
    "image": (BLUE, "s", "adds images"),
    "both": (GREEN, "D", "adds both"),
    "": (GREY, "^", "adds nothing"),
}
_ATTACKS = {
    "clean": (GREY, "o", "-"),
    "pgd": (SKY, "s", "--"),
    "bert": (PURPLE, "^", "-."),
    "co-attack": (ORANGE, "v", ":"),
    "sga": (BLUE, "D", "--"),
    "worst": (VERMILLION, "o", "-"),
}


@styled
def technique_gains(table: pd.DataFrame, *, gain_label: str) -> Figure:
    """What each technique gains over MAT, from top to bottom, with intervals.

    Args:
        table: columns row, technique, modality, gain, low, high (shares of 1), as from
            `matlib.analysis.gains.technique_gains`.
        gain_label: what was gained, for the axis.

    Raises:
        ValueError: an empty table.
    """
    if table.empty:
        raise ValueError("no technique was compared")
    figure, (axis,) = panels(1, 0.42 * len(table) + 1.5)
    value, low, high = (100 * table[c].to_numpy(dtype=float) for c in ("gain", "low", "high"))
    for modality, (colour, marker, label) in _MODALITIES.items():
        rows = np.flatnonzero((table["modality"].fillna("") == modality).to_numpy())
        if len(rows):
            axis.errorbar(
                value[rows], rows, fmt=marker, color=colour, ms=7, capsize=3, label=label,
                xerr=np.nan_to_num(np.clip(
                    [value[rows] - low[rows], high[rows] - value[rows]], 0, None)),
            )  # fmt: skip
    axis.axvline(0, color="black", lw=1.0)
    named = zip(table["row"], table["technique"], strict=True)
    names = [row_words(str(row), str(t)).replace(" (", "\n(") for row, t in named]
    axis.set_yticks(range(len(table)), names)
    axis.set_ylim(len(table) - 0.5, -0.5)
    axis.grid(axis="y", color="#DDDDDD", lw=0.8)
    axis.set_xlabel(gain_label)
    figure.legend(loc="outside upper center", ncols=4)
    return figure


_OPTION_WORDS = {
    "t": "{} pairs", "n": "{} variants", "x": "strength {}", "a": "cosine at least {}",
    "k": "{} most diverse", "v": "Vendi {}",
}  # fmt: skip


def row_words(row: str, technique: str) -> str:
    """A row of the comparison in words: technique, options, label."""
    augmentation, *options = _parts(technique)
    named = [_OPTION_WORDS[o[0]].format(o[1:]) for o in options if o[:1] in _OPTION_WORDS]
    label = "" if augmentation != "none" else row.partition(".")[2]
    words = label_of(augmentation, "technique") if augmentation != "none" else "MAT"
    more = [*named, *([label] if label and not named else [])]
    return f"{words} ({', '.join(more)})" if more else words


def _parts(technique: str) -> list[str]:
    """`eda.x0.3.n2` -> eda, x0.3, n2: a point before a digit belongs to the number."""
    parts: list[str] = []
    for part in technique.split("."):
        if parts and part[:1].isdigit():
            parts[-1] += f".{part}"
        else:
            parts.append(part)
    return parts


@styled
def sweep_curves(table: pd.DataFrame, dial: str, *, reference: str) -> Figure:
    """Recall by amount or strength of each technique, a panel per technique, a line per attack.

    Args:
        table: columns augmentation, dial, unit, level, attack, value, low, high (shares of 1).
        dial: `amount`, `strength` or `pairs`.
        reference: what the lowest level is, for the caption below.

    Raises:
        ValueError: nothing of this dial.
    """
    part = table[table["dial"] == dial]
    names = list(dict.fromkeys(part["augmentation"]))
    if not names:
        raise ValueError(f"no sweep over {dial} to draw")
    n_columns = min(3, len(names))
    n_rows = -(-len(names) // n_columns)
    figure, axes = plt.subplots(
        n_rows, n_columns, figsize=(WIDTH, 2.5 * n_rows + 0.8), sharey=True, squeeze=False
    )
    for axis, name in zip(axes.flat, names, strict=False):
        _sweep_panel(axis, part[part["augmentation"] == name], dial)
        axis.set_title("MAT" if name == "none" else label_of(str(name), "technique"))
    for axis in list(axes.flat)[len(names) :]:
        axis.set_axis_off()
    for row in axes:
        row[0].set_ylabel("mean of TR@1 and IR@1, %")
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, fontsize=11,
                  columnspacing=1.6, handletextpad=0.4)  # fmt: skip
    if reference:
        figure.supxlabel(reference, fontsize=11)
    return figure


def _sweep_panel(axis: Axes, part: pd.DataFrame, dial: str) -> None:
    levels = sorted(part["level"].unique())
    for attack, (colour, marker, style) in _ATTACKS.items():
        own = part[part["attack"] == attack].sort_values("level")
        if own.empty:
            continue
        value, low, high = (100 * own[c].to_numpy(dtype=float) for c in ("value", "low", "high"))
        axis.errorbar(
            own["level"], value, yerr=np.clip([value - low, high - value], 0, None), color=colour,
            marker=marker, ls=style, ms=4, lw=1.6, capsize=2, elinewidth=0.8,
            label=label_of(attack, "attack"),
        )  # fmt: skip
    if dial != "strength":
        axis.set_xscale("log", base=2)
    axis.set_xticks(levels, [f"{level:g}" for level in levels])
    axis.minorticks_off()
    axis.set_xlabel(str(part["unit"].iloc[0]), fontsize=10)
    axis.set_ylim(bottom=0)
