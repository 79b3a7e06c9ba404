"""Lines over budget and over training steps."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from matlib.analysis.figures.style import colour_of, label_of, panels, styled

_MARKERS = "oDsv^PX<>"


@styled
def strength_curves(
    table: pd.DataFrame, *, chance: float, gallery: str, budgets: Mapping[str, float] | None = None
) -> Figure:
    """Recall against the budget of the image attack, a line and a band per model.

    Args:
        table: columns row, eps_255, value, low, high (shares of 1).
        chance: recall of a random ranking, a dotted line.
        gallery: what was searched, for the axis.
        budgets: name -> eps in 1/255, vertical lines, e.g. that of training.

    Raises:
        ValueError: an empty table.
    """
    if table.empty:
        raise ValueError("no curve to draw: the profile asks for none (curve_eps_255 is empty)")
    rows = list(dict.fromkeys(table["row"]))
    figure, (axis,) = panels(1, 4.2)
    for row, marker in zip(rows, _MARKERS, strict=False):
        part = table[table["row"] == row].sort_values("eps_255")
        x, colour = part["eps_255"], colour_of(row, rows)
        axis.plot(x, 100 * part["value"], color=colour, marker=marker, lw=2, label=label_of(row))
        axis.fill_between(x, 100 * part["low"], 100 * part["high"], color=colour, alpha=0.12, lw=0)
    axis.axhline(100 * chance, color="black", ls=":", lw=1.2)
    axis.annotate("chance", (0, 100 * chance), (4, 3), xycoords=("axes fraction", "data"),
                  textcoords="offset points", fontsize=10)  # fmt: skip
    merged: dict[float, list[str]] = {}
    for name, eps in (budgets or {}).items():
        merged.setdefault(eps, []).append(name)
    for eps, names in merged.items():
        axis.axvline(eps, color="#999999", ls="--", lw=1.2)
        axis.annotate(" and ".join(names), (eps, 1), (0, 2), fontsize=10, ha="center",
                      xycoords=("data", "axes fraction"), textcoords="offset points",
                      va="bottom", color="#555555")  # fmt: skip
    axis.set_xlabel("budget of the image attack (PGD), 1/255 of the pixel range")
    axis.set_ylabel(f"mean of TR@1 and IR@1, %\n(gallery: {gallery})")
    axis.set_ylim(bottom=0)
    axis.set_xticks(sorted(set(table["eps_255"])))
    figure.legend(loc="outside right upper")
    return figure


@styled
def learning_curves(
    histories: Mapping[str, pd.DataFrame], *, distances: Collection[str] = (), smooth: int = 10
) -> Figure:
    """Training loss per step, one line per model.

    Args:
        histories: row -> table with columns step and loss.
        distances: rows whose loss is a squared distance of embeddings (FARE, LEAF) and no
            cross-entropy: they have a panel of their own, for the unit is another.
        smooth: steps that are averaged (a running mean over those before).

    Raises:
        ValueError: nothing to draw.
    """
    if not histories:
        raise ValueError("no training to draw")
    rows = list(histories)
    by_unit = {
        "loss in nats": [row for row in rows if row not in distances],
        "squared distance": [row for row in rows if row in distances],
    }
    by_unit = {unit: drawn for unit, drawn in by_unit.items() if drawn}
    figure, axes = panels(len(by_unit), 3.6)
    for axis, (unit, drawn) in zip(axes, by_unit.items(), strict=True):
        for row in drawn:
            mean = histories[row]["loss"].rolling(smooth, min_periods=1).mean()
            axis.plot(np.asarray(histories[row]["step"]) + 1, mean, color=colour_of(row, rows),
                      lw=2, label=label_of(row))  # fmt: skip
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.set_xlabel("optimiser step")
        axis.set_ylabel(f"{unit} (mean of {smooth} steps)")
        axis.set_ylim(bottom=0)
    figure.legend(loc="outside right upper")
    return figure
