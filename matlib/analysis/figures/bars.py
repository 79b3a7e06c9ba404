"""Bars and dots with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from textwrap import fill

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from matlib.analysis.figures.style import (
    BLUE,
    GREY,
    VERMILLION,
    WIDTH,
    colour_of,
    label_of,
    panels,
    styled,
)


@styled
def robustness_bars(
    table: pd.DataFrame,
    *,
    panel: str,
    bars: str = "row",
    chance: float,
    gallery: str,
    title: str,
    clean: Mapping[str, float] | None = None,
) -> Figure:
    """One bar per model (or attack) with its interval, one panel per attack or threat.

    Args:
        table: columns value, low, high (shares of 1) and those named by `panel` and `bars`.
        panel: column whose values are the panels, in order of appearance.
        bars: column whose values are the bars, from top to bottom: `row` or `attack`.
        chance: recall of a random ranking, a dotted line.
        gallery: what was searched, for the axis, e.g. `250 images, 1,250 captions`.
        title: what the bars show.
        clean: recall without attack by bar, marked by a diamond.

    Raises:
        ValueError: an empty table.
    """
    kinds = _values(table, panel)
    rows = _values(table, bars)
    n_columns = min(3, len(kinds))
    n_lines = -(-len(kinds) // n_columns)
    labels = [fill(label_of(row, bars), 17) for row in rows]
    wrapped = any("\n" in a and "\n" in b for a, b in pairwise(labels))
    height = n_lines * ((0.45 if wrapped else 0.36) * len(rows) + 0.5) + 1.0
    figure, axes = plt.subplots(
        n_lines, n_columns, figsize=(WIDTH, height), sharex=True, sharey=True, squeeze=False
    )
    for axis, kind in zip(axes.flat, kinds, strict=False):
        part = table[table[panel] == kind].set_index(bars).reindex(rows)
        _bars(axis, part, rows, chance)
        if clean is not None:
            points = [100 * clean[row] for row in rows]
            axis.plot(points, range(len(rows)), "D", mfc="white", mec="black", ms=6)
        axis.set_title(label_of(kind, panel))
    for axis in list(axes.flat)[len(kinds) :]:
        axis.set_visible(False)
    axes[0, 0].set_yticks(range(len(rows)), labels)
    axes[0, 0].invert_yaxis()
    figure.suptitle(title, fontsize=12)
    marks = "dotted: chance" + ("; diamond: without attack" if clean is not None else "")
    figure.supxlabel(f"mean of TR@1 and IR@1, % (gallery: {gallery})\n{marks}", fontsize=11)
    return figure


def _bars(axis: Axes, part: pd.DataFrame, rows: list[str], chance: float) -> None:
    """Horizontal bars in percent with whiskers, and the value at the end of each."""
    value, low, high = (100 * part[c].to_numpy(dtype=float) for c in ("value", "low", "high"))
    spread = np.nan_to_num(np.clip([value - low, high - value], 0, None))
    colours = [colour_of(row, rows) for row in rows]
    axis.barh(range(len(rows)), value, color=colours, height=0.7)
    axis.errorbar(
        value, range(len(rows)), xerr=spread, fmt="none", ecolor="#333333", capsize=3, lw=1.3
    )
    for y, (v, top) in enumerate(zip(value, np.fmax(high, value), strict=True)):
        if not np.isnan(v):
            axis.annotate(
                f"{v:.0f}", (top, y), (4, 0), textcoords="offset points", va="center", fontsize=10
            )
    axis.axvline(100 * chance, color="black", ls=":", lw=1.2)
    axis.set_xlim(0, 105)


@styled
def interval_dots(
    table: pd.DataFrame,
    *,
    panels_by: Sequence[tuple[str, str]],
    x_labels: Mapping[tuple[str, str], str],
    lines: Mapping[tuple[str, str], float] | None = None,
    line_label: str = "",
) -> Figure:
    """Techniques from top to bottom, a dot with its interval per panel.

    Args:
        table: columns technique, measure, modality, value, low, high.
        panels_by: (measure, modality) of each panel.
        x_labels: what each panel's axis is called, with its unit.
        lines: where a panel has a reference value: a dashed line.
        line_label: what the dashed lines mean.

    Raises:
        ValueError: an empty table.
    """
    names = _values(table, "technique")
    figure, axes = panels(len(panels_by), 0.42 * len(names) + 1.5, sharey=True)
    for axis, key in zip(axes, panels_by, strict=True):
        part = table[(table["measure"] == key[0]) & (table["modality"] == key[1])]
        part = part.set_index("technique").reindex(names)
        value = part["value"].to_numpy(dtype=float)
        spread = np.stack([value - part["low"], part["high"] - value]).astype(float)
        spread = np.clip(np.nan_to_num(spread), 0, None)
        axis.errorbar(value, range(len(names)), xerr=spread, fmt="o", color=BLUE, ms=7, capsize=3)
        for y in np.flatnonzero(np.isnan(value)).tolist():
            axis.text(0.5, y, "not touched", transform=axis.get_yaxis_transform(), color=GREY,
                      ha="center", va="center", fontsize=10, zorder=3,
                      bbox={"facecolor": "white", "edgecolor": "none", "pad": 1})  # fmt: skip
        if lines and key in lines:
            axis.axvline(lines[key], color=VERMILLION, ls="--", lw=1.5)
        axis.set_xlabel(x_labels[key])
        axis.grid(axis="y", color="#DDDDDD", lw=0.8)
        axis.locator_params(axis="x", nbins=4)
    axes[0].set_yticks(range(len(names)), [label_of(name, "technique") for name in names])
    axes[0].set_ylim(len(names) - 0.5, -0.5)
    if lines and line_label:
        figure.suptitle(f"dashed: {line_label}", fontsize=11, color=VERMILLION)
    return figure


def _values(table: pd.DataFrame, column: str) -> list[str]:
    found = [str(value) for value in dict.fromkeys(table[column])]
    if not found:
        raise ValueError(f"the table has no row, so there is no {column} to draw")
    return found
