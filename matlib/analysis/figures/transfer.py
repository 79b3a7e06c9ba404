"""The exchange of attacks as a heat map: made on the rows, judged on the columns."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from matlib.analysis.figures.style import VERMILLION, WIDTH, label_of, panels, styled

LIGHT_TEXT_BELOW = 0.45
"""Share of the colour scale below which numbers are written in white."""


@styled
def transfer_map(table: pd.DataFrame, *, attack: str, gallery: str, title: str) -> Figure:
    """Recall that each model has left under the attacks made on each model.

    The first row is recall without attack; frames mark attacks on the judged model itself.

    Args:
        table: columns source, target, attack, value, low, high (shares of 1), as from
            `transfer_table`; rows of the source `none` hold recall without attack.
        attack: the attack that is shown.
        gallery: what is searched, for the axis.

    Raises:
        ValueError: nothing in the table of that attack.
    """
    part = table[(table["attack"] == attack) | (table["source"] == "none")]
    targets = list(dict.fromkeys(part["target"]))
    made_on = [name for name in targets if name in set(part["source"])]
    if not made_on:
        raise ValueError(f"no rows of attack {attack!r} in the table")
    sources = ["none", *made_on]
    grid = [
        100 * part.pivot(index="source", columns="target", values=value).loc[sources, targets]
        for value in ("value", "low", "high")
    ]
    height = min(1.7 + 0.52 * len(sources), 1.3 * WIDTH)
    figure, (axis,) = panels(1, height)
    shown = axis.imshow(grid[0], cmap="cividis", vmin=0, vmax=100, aspect="auto")
    _numbers(axis, [each.to_numpy() for each in grid])
    for i, name in enumerate(made_on, start=1):
        corner = (targets.index(name) - 0.48, i - 0.46)
        axis.add_patch(Rectangle(corner, 0.96, 0.92, fill=False, edgecolor=VERMILLION, lw=2.5))
    axis.axhline(0.5, color="white", lw=4)
    axis.set_xticks(range(len(targets)), map(subject_label, targets), rotation=40, ha="right")
    axis.set_yticks(range(len(sources)), ["no attack", *map(subject_label, made_on)])
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    axis.set_ylabel("attack made on")
    axis.set_xlabel(f"judged model ({gallery})")
    axis.set_title(title, loc="left")
    bar = figure.colorbar(shown, ax=axis, shrink=0.8)
    bar.set_label("recall left, % (mean of TR@1 and IR@1)")
    return figure


def subject_label(name: str) -> str:
    """The words for a model of the exchange: `convnet:base` is the undefended convnet."""
    architecture, _, row = name.rpartition(":")
    label = label_of(row)
    return f"{label} ({architecture})" if architecture else label


def _numbers(axis: Axes, grid: list[NDArray[np.float64]]) -> None:
    """The value in each cell, its interval below."""
    left, low, high = grid
    for i, j in np.ndindex(left.shape):
        colour = "white" if left[i, j] < 100 * LIGHT_TEXT_BELOW else "black"
        axis.text(j, i - 0.14, f"{left[i, j]:.0f}", ha="center", va="center", color=colour)
        between = f"{low[i, j]:.0f}–{high[i, j]:.0f}"
        axis.text(j, i + 0.25, between, ha="center", va="center", color=colour, fontsize=8)
