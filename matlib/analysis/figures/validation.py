"""Whether the measures can be believed: calibration against truth, and agreement of measures."""

from __future__ import annotations

from textwrap import fill

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from matlib.analysis.figures.style import BLUE, GREY, VERMILLION, label_of, panels, styled

MEASURES = {
    "distinct_1": "distinct-1",
    "distinct_2": "distinct-2",
    "compressed": "compressed share",
    "n_distinct": "different captions",
    "distance": "distance",
    "vendi": "Vendi score",
    "similarity": "similarity",
    "mmd2": "MMD²",
    "kernel_distance": "kernel distance",
    "frechet": "Fréchet distance",
    "accuracy": "told apart",
}
_LOOKS = ((BLUE, "o"), (VERMILLION, "s"), (GREY, "D"))


def measure_label(name: str) -> str:
    """The words for a measure, `vendi (base)` included: the reference in words too."""
    measure, _, reference = name.partition(" (")
    label = MEASURES.get(measure, measure)
    return f"{label} ({label_of(reference[:-1])})" if reference else label


@styled
def calibration_curve(table: pd.DataFrame, *, score_label: str) -> Figure:
    """True share of the captions of each bin of a score, a line per reference model.

    Args:
        table: columns reference, score, value, low, high (shares of 1), as from `calibration`.
        score_label: name and unit of the score.

    Raises:
        ValueError: an empty table.
    """
    if table.empty:
        raise ValueError("no calibration to draw: the data know no truth")
    figure, (axis,) = panels(1, 4.0)
    for k, (name, part) in enumerate(table.groupby("reference", sort=False)):
        colour, marker = _LOOKS[k % len(_LOOKS)]
        value = 100 * part["value"].to_numpy(dtype=float)
        ends = [100 * part[end].to_numpy(dtype=float) for end in ("low", "high")]
        spread = np.clip([value - ends[0], ends[1] - value], 0, None)
        axis.errorbar(
            part["score"], value, yerr=spread, color=colour, marker=marker, ms=6, lw=1.6, capsize=3,
            label=f"{label_of(str(name))} model",
        )  # fmt: skip
    axis.set_xlabel(score_label)
    axis.set_ylabel("facts in the caption that\nare true of the image, %")
    axis.set_ylim(0, 104)
    axis.legend(loc="lower right")
    return figure


@styled
def agreement_matrix(table: pd.DataFrame) -> Figure:
    """Rank correlation of every two measures, with its interval written below.

    Args:
        table: columns first, second, value, low, high, n_points, as from `rank_agreement`.

    Raises:
        ValueError: an empty table.
    """
    if table.empty:
        raise ValueError("no agreement to draw: two measures are needed")
    names = list(dict.fromkeys([*table["first"], *table["second"]]))
    size = len(names)
    grid = np.full((size, size), np.nan)
    figure, (axis,) = panels(1, 0.62 * size + 1.4)
    for row in table.to_dict("records"):
        i, j = names.index(row["second"]), names.index(row["first"])
        grid[i, j] = row["value"]
        is_dark = abs(row["value"]) > 0.62
        axis.text(
            j, i, f"{row['value']:.2f}\n", ha="center", va="center", fontsize=11,
            color="white" if is_dark else "black",
        )  # fmt: skip
        axis.text(
            j, i, f"\n{row['low']:.2f} to {row['high']:.2f}", ha="center", va="center",
            fontsize=8 if size > 6 else 9, color="white" if is_dark else "black",
        )  # fmt: skip
    shown = axis.imshow(grid, cmap="PuOr", vmin=-1, vmax=1, aspect="auto")
    labels = [fill(measure_label(name), 16) for name in names]
    axis.set_xticks(range(size - 1), labels[:-1], rotation=40, ha="right", rotation_mode="anchor")
    axis.set_yticks(range(1, size), labels[1:])
    axis.set_xlim(-0.5, size - 1.5)
    axis.set_ylim(size - 0.5, 0.5)
    for side in ("left", "bottom"):
        axis.spines[side].set_visible(False)
    axis.tick_params(length=0)
    bar = figure.colorbar(shown, ax=axis, shrink=0.8)
    bar.set_label(f"rank correlation over {int(table['n_points'].iloc[0])} kinds of sets")
    return figure
