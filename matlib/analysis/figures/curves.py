"""Lines over budget, over training steps, and over known doses of shift and sizes of a sample."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from matlib.analysis.figures.maps import measure_label
from matlib.analysis.figures.style import (
    BLUE,
    GREEN,
    ORANGE,
    PURPLE,
    VERMILLION,
    colour_of,
    label_of,
    nothing,
    panels,
    styled,
)

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
    """
    if table.empty:
        return nothing("this profile asks for no strength curve (`curve_eps_255` is empty)")
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
    """
    if not histories:
        return nothing("nothing was trained here")
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


_LOOKS = {
    "mmd2": (BLUE, "o", "-"),
    "kernel_distance": (GREEN, "s", "--"),
    "frechet": (ORANGE, "^", "-."),
    "accuracy": (PURPLE, "D", ":"),
}


@styled
def dose_curves(table: pd.DataFrame) -> Figure:
    """How often each measure notices a known share of shifted items, a panel per modality.

    Args:
        table: columns modality, measure, dose, n, detected, detected_low, detected_high, as
            from `dose_curve`.
    """
    if table.empty:
        return nothing("no draws of known shift to draw here")
    kinds = [str(kind) for kind in dict.fromkeys(table["modality"])]
    figure, axes = panels(len(kinds), 3.9, sharey=True)
    for axis, kind in zip(axes, kinds, strict=True):
        part = table[table["modality"] == kind]
        for k, (name, own) in enumerate(part.groupby("measure", sort=False)):
            _line(axis, own, "dose", str(name), k, scale=100)
        axis.set_title(f"{'images' if kind == 'image' else 'captions'}, {_sizes(part)}")
        axis.set_xlabel("items that are shifted, %")
    _finish(figure, axes)
    return figure


@styled
def size_curves(table: pd.DataFrame) -> Figure:
    """Detection of one dose against sample size, beside what the measures say without shift.

    Left: the share of draws in which the dose is detected. Right: the Fréchet distance with
    and without shift, whose bias the sample size alone decides.

    Args:
        table: as for `dose_curves`, with value, low, high, two doses (one of them 0) and several
            sizes n.

    Raises:
        ValueError: not two doses.
    """
    if table.empty:
        return nothing("no draws of known shift to draw here")
    doses = sorted(table["dose"].unique())
    if len(doses) != 2 or doses[0] != 0:
        raise ValueError(f"one dose beside dose 0 is expected; got {doses}")
    figure, axes = panels(2, 3.9)
    with_shift = table[table["dose"] == doses[1]]
    for k, (name, own) in enumerate(with_shift.groupby("measure", sort=False)):
        _line(axes[0], own, "n", str(name), k)
    axes[0].set_title(f"{100 * doses[1]:.0f} % of the items shifted")
    axes[0].set_xlabel("items in each sample")
    frechet = table[table["measure"] == "frechet"]
    for dose, colour, marker, label in (
        (doses[1], VERMILLION, "s", f"{100 * doses[1]:.0f} % shifted"),
        (doses[0], BLUE, "o", "no shift"),
    ):
        part = frechet[frechet["dose"] == dose].sort_values("n")
        axes[1].fill_between(part["n"], part["low"], part["high"], color=colour, alpha=0.18, lw=0)
        axes[1].plot(part["n"], part["value"], color=colour, marker=marker, lw=2, label=label)
    axes[1].set_title("no shift is not zero")
    axes[1].set_xlabel("items in each sample")
    axes[1].set_ylabel("Fréchet distance, squared\n(band: 95 % of the draws)")
    axes[1].set_ylim(bottom=0)
    axes[1].legend(loc="upper right")
    for axis in axes:
        axis.set_xscale("log")
        sizes = sorted(table["n"].unique())
        axis.set_xticks(sizes, [str(n) for n in sizes])
        axis.minorticks_off()
    _finish(figure, axes[:1])
    return figure


def _line(
    axis: Axes, own: pd.DataFrame, x: str, name: str, place: int, *, scale: float = 1
) -> None:
    """One measure's detections with Clopper-Pearson whiskers, a little beside the others."""
    colour, marker, style = _LOOKS[name]
    own = own.sort_values(x)
    at = own[x].to_numpy(dtype=float) * scale
    at = at * 1.05 ** (place - 1.5) if x == "n" else at + 1.1 * (place - 1.5)
    value, low, high = (
        100 * own[c].to_numpy(dtype=float) for c in ("detected", "detected_low", "detected_high")
    )
    axis.errorbar(
        at, value, yerr=np.clip([value - low, high - value], 0, None), color=colour, marker=marker,
        ls=style, lw=1.8, ms=5, elinewidth=1.0, capsize=2, label=measure_label(name),
    )  # fmt: skip


def _finish(figure: Figure, axes: list[Axes]) -> None:
    for axis in axes:
        axis.axhline(5, color="black", ls=":", lw=1.2)
        axis.set_ylim(-4, 104)
    axes[0].annotate("false alarms set to 5 %", (1, 5), (-2, 3), ha="right", fontsize=10,
                     xycoords=("axes fraction", "data"),
                     textcoords="offset points")  # fmt: skip
    axes[0].set_ylabel("draws in which the shift\nis detected, %")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=4)


def _sizes(part: pd.DataFrame) -> str:
    sizes = sorted(part["n"].unique())
    return f"samples of {sizes[0]}" if len(sizes) == 1 else "several sample sizes"
