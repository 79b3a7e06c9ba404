"""What a measure of shift sees: against a known dose, and against the size of the sample."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from matlib.analysis.figures.style import BLUE, GREEN, ORANGE, PURPLE, VERMILLION, panels, styled
from matlib.analysis.figures.validation import measure_label

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

    Raises:
        ValueError: an empty table.
    """
    kinds = _kinds(table)
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
        ValueError: an empty table, or not two doses.
    """
    _kinds(table)
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


def _kinds(table: pd.DataFrame) -> list[str]:
    if table.empty:
        raise ValueError("no draws of known shift to draw")
    return [str(kind) for kind in dict.fromkeys(table["modality"])]
