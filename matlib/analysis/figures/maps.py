"""The map of augmentations: diversity to the right, alignment upwards, shift as colour."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from matlib.analysis.figures.names import place_names
from matlib.analysis.figures.style import label_of, panels, styled
from matlib.analysis.words import ADDED

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

    Raises:
        ValueError: no technique in the table.
    """
    points = map_points(table)
    if points.empty:
        raise ValueError("no technique with a diversity to draw")
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
