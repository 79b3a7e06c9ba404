"""Maps: augmentations by diversity, alignment and shift; agreement of measures; attacks exchanged.

Whether the measures can be believed shows in their calibration against truth.
"""

from __future__ import annotations

from textwrap import fill

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.transforms import Bbox
from numpy.typing import NDArray

from matlib.analysis.figures.sentences import ADDED
from matlib.analysis.figures.style import (
    BLUE,
    GREY,
    VERMILLION,
    WIDTH,
    label_of,
    nothing,
    panels,
    place_names,
    styled,
)

_MARKERS = {"text": ("o", ADDED["text"]), "image": ("s", ADDED["image"])}


def map_points(table: pd.DataFrame) -> pd.DataFrame:
    """Position and colour of every technique on the map.

    Args:
        table: columns technique, measure, modality, value, low, high, with the measures
            similarity, vendi and accuracy.

    Returns:
        columns technique, modality, diversity, diversity_low, diversity_high, alignment,
        alignment_low, alignment_high, shift; one row per technique and modality that it adds.
    """
    rows = []
    similarity = table[table["measure"] == "similarity"].set_index("technique")
    accuracy = table[table["measure"] == "accuracy"].set_index(["technique", "modality"])
    for _, found in table[table["measure"] == "vendi"].iterrows():
        name, modality = str(found["technique"]), str(found["modality"])
        rows.append(
            {
                "technique": name,
                "modality": modality,
                "diversity": found["value"],
                "diversity_low": found["low"],
                "diversity_high": found["high"],
                "alignment": similarity.loc[name, "value"],
                "alignment_low": similarity.loc[name, "low"],
                "alignment_high": similarity.loc[name, "high"],
                "shift": accuracy.loc[(name, modality), "value"],
            }
        )
    return pd.DataFrame(rows)


@styled
def augmentation_map(table: pd.DataFrame, *, model: str) -> Figure:
    """Every technique as a point: good augmentations are at the top right and pale.

    Args:
        table: as for `map_points`; the technique `none` (originals) gives the dashed line.
        model: the reference model, for the axis.
    """
    points = map_points(table)
    if points.empty:
        return nothing("no technique with a diversity to draw here")
    figure, (axis,) = panels(1, 4.6)
    shown = None
    for modality, (marker, added) in _MARKERS.items():
        part = points[points["modality"] == modality]
        if part.empty:
            continue
        _crosses(axis, part)
        shown = axis.scatter(
            part["diversity"], part["alignment"], c=100 * part["shift"], cmap="cividis_r",
            vmin=50, vmax=100, s=170, marker=marker, edgecolors="black", zorder=3,
            label=added,
        )  # fmt: skip
    originals = table[(table["technique"] == "none") & (table["measure"] == "similarity")]
    if len(originals):
        level = float(originals["value"].iloc[0])
        axis.axhline(level, color="black", ls="--", lw=1.2)
        axis.annotate("original pairs", (1, level), (-4, 4), xycoords=("axes fraction", "data"),
                      textcoords="offset points", ha="right", fontsize=10)  # fmt: skip
    axis.margins(0.22)
    axis.set_xlabel("diversity: Vendi score of an original's set (1: all copies)")
    axis.set_ylabel(f"alignment: cosine of image and\ncaption under the {model} model")
    axis.legend(loc="lower left", handletextpad=0.3)
    assert shown is not None
    bar = figure.colorbar(shown, ax=axis)
    bar.set_label("shift: told from test data, % (50: not at all)")
    _name_points(figure, axis, points)
    return figure


def _name_points(figure: Figure, axis: Axes, points: pd.DataFrame) -> None:
    """The name of each technique, at the first place around its point that is free."""
    figure.draw_without_rendering()
    spots = axis.transData.transform(points[["diversity", "alignment"]].to_numpy(float))
    taken = []
    for end in ("low", "high"):  # half of a cross each
        for name in ("diversity", "alignment"):
            ends = points[["diversity", "alignment"]].assign(**{name: points[f"{name}_{end}"]})
            tips = axis.transData.transform(ends.to_numpy(float))
            taken += [Bbox([spot, tip]) for spot, tip in zip(spots, tips, strict=True)]
    names = [label_of(str(name), "technique") for name in points["technique"]]
    place_names(figure, axis, points[["diversity", "alignment"]].to_numpy(float), names, taken)


def _crosses(axis: Axes, part: pd.DataFrame) -> None:
    """Intervals in both directions."""
    spread = {}
    for name in ("diversity", "alignment"):
        value, low, high = (part[f"{name}{end}"].astype(float) for end in ("", "_low", "_high"))
        spread[name] = np.clip(np.stack([value - low, high - value]), 0, None)
    axis.errorbar(
        part["diversity"], part["alignment"], xerr=spread["diversity"], yerr=spread["alignment"],
        fmt="none", ecolor="#777777", lw=1.2, zorder=2,
    )  # fmt: skip


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
    """
    if table.empty:
        return nothing("no calibration to draw: these data know no truth")
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
    """
    if table.empty:
        return nothing("no agreement to draw: two measures are needed")
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
    """
    part = table[(table["attack"] == attack) | (table["source"] == "none")]
    targets = list(dict.fromkeys(part["target"]))
    made_on = [name for name in targets if name in set(part["source"])]
    if not made_on:
        return nothing(f"no attack {attack} was sent from model to model here")
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
