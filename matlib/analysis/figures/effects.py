"""What makes a good pair: dose-response of the dials, effects, and predicted techniques."""

from __future__ import annotations

from collections.abc import Mapping
from textwrap import fill

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from matlib.analysis.factorial import BEND, DIALS
from matlib.analysis.figures.names import place_names
from matlib.analysis.figures.style import BLUE, GREY, VERMILLION, label_of, panels, styled
from matlib.analysis.words import ADDED

_ENDS = {
    "alignment": ("alignment", "wrong", "true"),
    "diversity": ("diversity", "copies", "varied"),
    "shift": ("distribution shift", "none", "large"),
}
_LOOKS = {"text": (VERMILLION, "o", ADDED["text"]), "image": (BLUE, "s", ADDED["image"])}
_MODALITY = "captions rather than images"


@styled
def dose_response(table: pd.DataFrame, *, gain_label: str) -> Figure:
    """Gain against the set level of each dial, one panel per dial, a line per modality.

    Args:
        table: columns dial, modality, level, value, low, high (gain in shares of 1), as from
            `matlib.analysis.responses.dose_response`.
        gain_label: what was gained, for the axis, e.g. `robust recall gained, points`.

    Raises:
        ValueError: an empty table.
    """
    dials = [dial for dial in DIALS if dial in set(table["dial"])]
    if not dials:
        raise ValueError("no dial was turned, so there is no response to draw")
    figure, axes = panels(len(dials), 3.8, sharey=True)
    for axis, dial in zip(axes, dials, strict=True):
        _dial_panel(axis, table[table["dial"] == dial], dial, scale=100)
        axis.axhline(0, color="black", lw=1.0)
    axes[0].set_ylabel(gain_label)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=2, fontsize=13)
    figure.supxlabel("mean over the other dials, with 95 % intervals", fontsize=11)
    return figure


@styled
def effect_dots(table: pd.DataFrame, *, gain_label: str) -> Figure:
    """Main effects and interactions with their intervals, from top to bottom.

    Args:
        table: columns term, value, low, high (shares of 1), as from `Effects.table`.
        gain_label: the unit of the effects.
    """
    part = table[table["term"] != "mean"].reset_index(drop=True)
    if part.empty:
        raise ValueError("no effect to draw: no factor of the design varies")
    figure, (axis,) = panels(1, 0.42 * len(part) + 1.3)
    value, low, high = (100 * part[c].to_numpy(dtype=float) for c in ("value", "low", "high"))
    for y, term in enumerate(part["term"]):
        is_clear = low[y] > 0 or high[y] < 0
        axis.errorbar(
            value[y], y, xerr=[[max(0, value[y] - low[y])], [max(0, high[y] - value[y])]],
            fmt="s" if ":" in term else "^" if term.endswith(BEND) else "o", ms=7, capsize=3,
            color=BLUE if is_clear else GREY, mfc=BLUE if is_clear else "white",
        )  # fmt: skip
    axis.axvline(0, color="black", lw=1.0)
    axis.set_yticks(range(len(part)), [_term_label(str(term)) for term in part["term"]])
    axis.set_ylim(len(part) - 0.5, -0.5)
    axis.grid(axis="y", color="#DDDDDD", lw=0.8)
    axis.set_xlabel(f"effect of the whole range on {gain_label}\n(filled: interval excludes 0)")
    return figure


@styled
def predicted_gains(table: pd.DataFrame, *, gain_label: str) -> Figure:
    """Predicted against measured gain of techniques that took no part in the fit.

    Args:
        table: columns technique, modality, inside, gain, theory (shares of 1), as from
            `predict_left_out`.
        gain_label: what was gained.

    Raises:
        ValueError: an empty table.
    """
    if table.empty:
        raise ValueError("no technique was predicted")
    figure, (axis,) = panels(1, 6.6)
    both = 100 * table[["gain", "theory"]].to_numpy(dtype=float)
    for modality, (colour, marker, label) in _LOOKS.items():
        part = table[table["modality"] == modality]
        for inside, face in ((True, colour), (False, "white")):
            own = part[part["inside"] == inside]
            if len(own):
                name = label if inside else f"{label}, beyond the dials"
                axis.scatter(100 * own["gain"], 100 * own["theory"], s=80, marker=marker, c=face,
                             edgecolors=colour, linewidths=1.8, zorder=3, label=name)  # fmt: skip
    axis.margins(0.16)
    axis.set_xlabel(f"measured: {gain_label}\n(dashed: as predicted; dotted: mean of all)")
    axis.set_ylabel(f"predicted: {gain_label}")
    figure.legend(loc="outside upper center", ncols=2)
    names = [label_of(str(name), "technique") for name in table["technique"]]
    place_names(figure, axis, both, names)
    # after the names, which may lie on these two lines
    axis.axline((both.mean(), both.mean()), slope=1, color=GREY, lw=1.2, ls="--", zorder=0)
    axis.axvline(float(both[:, 0].mean()), color="black", ls=":", lw=1.2, zorder=0)
    return figure


@styled
def achieved_curves(table: pd.DataFrame, *, labels: Mapping[str, str]) -> Figure:
    """What each dial achieved at each of its levels: a panel per dial, whiskers over the runs.

    Args:
        table: columns dial, modality, level, value, low, high, as from `achieved_levels`.
        labels: dial -> name and unit of the measure that it is meant to move.

    Raises:
        ValueError: an empty table.
    """
    dials = [dial for dial in DIALS if dial in set(table["dial"])]
    if not dials:
        raise ValueError("no dial was turned, so nothing was achieved")
    figure, axes = panels(len(dials), 3.4)
    for axis, dial in zip(axes, dials, strict=True):
        _dial_panel(axis, table[table["dial"] == dial], dial, scale=1.0)
        axis.set_ylabel(fill(labels[dial], 24))
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=2)
    figure.supxlabel("level that was set (whiskers: lowest and highest run)", fontsize=11)
    return figure


def _dial_panel(axis: Axes, part: pd.DataFrame, dial: str, *, scale: float) -> None:
    """Value against level with whiskers, a line per modality, ends named in words."""
    for place, (modality, (colour, marker, label)) in enumerate(_LOOKS.items()):
        own = part[part["modality"] == modality].sort_values("level")
        if own.empty:
            continue
        value, low, high = (scale * own[c].to_numpy(dtype=float) for c in ("value", "low", "high"))
        axis.errorbar(
            own["level"] + 0.03 * (place - 0.5), value,
            yerr=np.clip([value - low, high - value], 0, None), color=colour, marker=marker,
            lw=2.4, ms=8, capsize=4, elinewidth=1.5, label=label,
        )  # fmt: skip
    title, first, last = _ENDS[dial]
    axis.set_title(title, fontsize=14)
    levels = sorted(part["level"].unique())
    middle = ["half" if level == 0.5 else f"{level:g}" for level in levels[1:-1]]
    axis.set_xticks(levels, [first, *middle, last][: len(levels)])
    axis.set_xlim(levels[0] - 0.15, levels[-1] + 0.15)


def _term_label(term: str) -> str:
    if term.endswith(BEND):
        return f"{term.removesuffix(BEND)}: ends over middle"
    return _MODALITY if term == "modality" else term.replace(":", " × ")
