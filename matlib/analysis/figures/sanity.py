"""How far each assertion of the sanity battery fails, model by model."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from matlib.analysis.figures.style import colour_of, label_of, panels, styled

_MARKERS = "oDsv^PX<>"


@styled
def violation_dots(table: pd.DataFrame, *, tolerance: float) -> Figure:
    """A dot per check and model: points by which what should hold fails; left is good.

    Args:
        table: columns model, check, estimate_points, lower_points (one-sided 95 % lower bound).
        tolerance: points from which on a failure counts, a dashed line.

    Raises:
        ValueError: an empty table.
    """
    if table.empty:
        raise ValueError("no check to draw: the study trained no defended model")
    checks = list(dict.fromkeys(table["check"]))
    models = list(dict.fromkeys(table["model"]))
    figure, (axis,) = panels(1, 0.5 * len(checks) + 1.8)
    offsets = np.linspace(-0.28, 0.28, len(models)) if len(models) > 1 else np.zeros(1)
    for model, marker, offset in zip(models, _MARKERS * len(models), offsets, strict=False):
        part = table[table["model"] == model].set_index("check").reindex(checks)
        value = part["estimate_points"].to_numpy(float)
        down = np.clip(value - part["lower_points"].to_numpy(float), 0, None)
        row, colour = model.split(" ")[0], colour_of(model.split(" ")[0], models)
        axis.errorbar(
            value, np.arange(len(checks)) + offset, xerr=[down, np.zeros_like(down)], fmt=marker,
            color=colour, ms=6, lw=1.2, label=label_of(row) + model.removeprefix(row),
        )  # fmt: skip
    axis.axvline(tolerance, color="black", ls="--", lw=1.2)
    axis.annotate(f"counts from {tolerance:g} points on", (tolerance, 1), (4, 4), fontsize=10,
                  xycoords=("data", "axes fraction"), textcoords="offset points")  # fmt: skip
    axis.axvline(0, color="#999999", lw=0.8)
    axis.set_yticks(range(len(checks)), [name.replace("_", " ") for name in checks])
    axis.invert_yaxis()
    axis.set_xlabel("recall points by which the assertion fails\n(bar: down to the lower bound)")
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=10)
    return figure
