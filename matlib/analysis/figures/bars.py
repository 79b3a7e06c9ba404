"""Bars and dots with intervals: rows, single choices, known beside unknown, and sanity checks."""

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
    nothing,
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
        clean: recall without attack by bar, in brackets beside its number. The axis reaches as far
            as the bars do, so that small ones can be told apart.
    """
    if table.empty:
        return nothing("no recall to draw here")
    kinds, rows = ([str(value) for value in dict.fromkeys(table[each])] for each in (panel, bars))
    n_columns = 2 if len(kinds) == 4 else min(3, len(kinds))
    n_lines = -(-len(kinds) // n_columns)
    labels = [fill(label_of(row, bars), 17) for row in rows]
    wrapped = any("\n" in a and "\n" in b for a, b in pairwise(labels))
    height = n_lines * ((0.45 if wrapped else 0.36) * len(rows) + 0.5) + 1.0
    figure, axes = plt.subplots(
        n_lines, n_columns, figsize=(WIDTH, height), sharex=True, sharey=True, squeeze=False
    )
    for axis, kind in zip(axes.flat, kinds, strict=False):
        part = table[table[panel] == kind].set_index(bars).reindex(rows)
        _bars(axis, part, rows, chance, clean or {})
        axis.set_title(label_of(kind, panel))
    for axis in list(axes.flat)[len(kinds) :]:
        axis.set_visible(False)
    axes[0, 0].set_yticks(range(len(rows)), labels)
    axes[0, 0].invert_yaxis()
    reach = 100 * float(np.nanmax([*table["value"], *table["high"], chance]))
    axes[0, 0].set_xlim(0, min(1.3 * reach, 112) if clean else min(1.15 * reach, 105))
    figure.suptitle(title, fontsize=12)
    marks = "dotted: chance" + ("; in brackets: without attack" if clean else "")
    figure.supxlabel(f"mean of TR@1 and IR@1, % (gallery: {gallery})\n{marks}", fontsize=11)
    return figure


def _bars(
    axis: Axes, part: pd.DataFrame, rows: list[str], chance: float, clean: Mapping[str, float]
) -> None:
    """Horizontal bars in percent with whiskers, and the value at the end of each."""
    value, low, high = (100 * part[c].to_numpy(dtype=float) for c in ("value", "low", "high"))
    spread = np.nan_to_num(np.clip([value - low, high - value], 0, None))
    colours = [colour_of(row, rows) for row in rows]
    axis.barh(range(len(rows)), value, color=colours, height=0.7)
    axis.errorbar(
        value, range(len(rows)), xerr=spread, fmt="none", ecolor="#333333", capsize=3, lw=1.3
    )
    for y, (row, v, top) in enumerate(zip(rows, value, np.fmax(high, value), strict=True)):
        if not np.isnan(v):
            text = f"{v:.{int(v < 10)}f}" + (f" ({100 * clean[row]:.0f})" if row in clean else "")
            axis.annotate(
                text, (top, y), (4, 0), textcoords="offset points", va="center", fontsize=10
            )
    axis.axvline(100 * chance, color="black", ls=":", lw=1.2)


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
    """
    if table.empty:
        return nothing("no technique was measured here")
    names = [str(name) for name in dict.fromkeys(table["technique"])]
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


@styled
def choice_dots(table: pd.DataFrame, *, panels_by: Mapping[str, str]) -> Figure:
    """Points gained by each variation, a dot with its interval; groups are the choices.

    Args:
        table: columns choice, value, default, attack, difference, difference_low,
            difference_high (shares of 1; the interval may be missing).
        panels_by: attack -> title, one panel each.
    """
    if table.empty:
        return nothing("no variation to draw here (the profile's `inside` is empty)")
    kinds = table[["choice", "value", "default"]].drop_duplicates()
    places, labels, y = [], [], 0.0
    for choice, part in kinds.groupby("choice", sort=False):
        default = part["default"].iloc[0]
        labels.append((y, f"{choice}\n(else {default})", True))
        for value in part["value"]:
            y += 1.0
            places.append((choice, value, y))
            labels.append((y, str(value), False))
        y += 1.3
    figure, axes = panels(len(panels_by), 0.34 * y + 1.2, sharey=True)
    for axis, (attack, title) in zip(axes, panels_by.items(), strict=True):
        part = table[table["attack"] == attack].set_index(["choice", "value"])
        for choice, value, at in places:
            row = part.loc[[(choice, value)]].iloc[0]
            _dot(axis, at, row, ("difference", "difference_low", "difference_high"))
        axis.axvline(0, color=VERMILLION, lw=1.2, ls="--")
        axis.set_title(title)
        axis.grid(axis="x", color="#DDDDDD", lw=0.8)
    axes[0].set_yticks([at for at, _, _ in labels], [text for _, text, _ in labels])
    for tick, (_, _, is_head) in zip(axes[0].get_yticklabels(), labels, strict=True):
        tick.set_fontweight("bold" if is_head else "normal")
        tick.set_fontsize(10 if is_head else 11)
    axes[0].tick_params(axis="y", length=0)
    axes[0].set_ylim(y - 0.6, -0.9)
    figure.supxlabel("recall points against the defence as it is (mean of TR@1 and IR@1)",
                     fontsize=11)  # fmt: skip
    return figure


def _dot(
    axis: Axes, at: float, row: pd.Series, columns: tuple[str, str, str], colour: str = BLUE,
    marker: str = "o",
) -> None:  # fmt: skip
    value, low, high = (100 * float(row[column]) for column in columns)
    spread = np.nan_to_num(np.clip([[value - low], [high - value]], 0, None))
    axis.errorbar([value], [at], xerr=spread, fmt=marker, color=colour, ms=7, capsize=3, lw=1.5)


@styled
def known_and_held_out(table: pd.DataFrame, *, pairs: Mapping[str, str], gallery: str) -> Figure:
    """Recall under edits of known kinds and of kinds that no training has, model by model.

    Args:
        table: columns row, text_threat, recall, low, high (shares of 1), one attack.
        pairs: held-out threat -> known threat, one panel each.
        gallery: what was searched, for the axis.
    """
    if table.empty:
        return nothing("no kind of edits was held out here (`evaluation.held_out` is empty)")
    names = [str(name) for name in dict.fromkeys(table["row"])]
    figure, axes = panels(len(pairs), 0.42 * len(names) + 1.6, sharey=True, sharex=True)
    for axis, (held_out, known) in zip(axes, pairs.items(), strict=True):
        for threat, offset, marker in ((known, -0.15, "o"), (held_out, 0.15, "D")):
            part = table[table["text_threat"] == threat].set_index("row")
            colour = GREY if threat == known else VERMILLION
            for y, name in enumerate(names):
                if name in part.index:
                    columns = ("recall", "low", "high")
                    _dot(axis, y + offset, part.loc[[name]].iloc[0], columns, colour, marker)
        axis.set_title(label_of(held_out, "threat"))
        axis.grid(axis="y", color="#DDDDDD", lw=0.8)
        axis.set_xlim(left=0)
    axes[0].set_yticks(range(len(names)), [label_of(name) for name in names])
    axes[0].set_ylim(len(names) - 0.5, -0.5)
    figure.supxlabel(f"mean of TR@1 and IR@1, % (gallery: {gallery})\n"
                     "grey dot: edits of the kinds known; red diamond: held out",
                     fontsize=11)  # fmt: skip
    return figure


@styled
def held_out_curves(histories: Mapping[str, pd.DataFrame]) -> Figure:
    """Recall on validation pairs beside training, clean and attacked; a ring on what was kept.

    Args:
        histories: row -> table with columns step, held_out and clean (shares of 1).
    """
    if not histories:
        return nothing("nothing was measured beside a training here")
    rows = list(histories)
    figure, axes = panels(2, 3.6)
    for axis, column, title in (
        (axes[0], "clean", "without attack"),
        (axes[1], "held_out", "both sides attacked"),
    ):
        for row, history in histories.items():
            step, recall = history["step"] + 1, 100 * history[column]
            colour = colour_of(row, rows)
            label = label_of(row) if column == "clean" else None
            axis.plot(step, recall, color=colour, marker="o", lw=2, label=label)
            kept = int(history["held_out"].to_numpy().argmax())
            axis.plot(
                step[kept], recall[kept], "o", mfc="none", mec=colour, ms=13, mew=1.5, clip_on=False
            )
        axis.set_title(title)
        axis.set_xlabel("optimiser step")
        axis.set_xticks(
            sorted({step + 1 for table in histories.values() for step in table["step"]})
        )
        axis.set_ylim(bottom=0)
    axes[0].set_ylabel("mean of TR@1 and IR@1\non validation pairs, %")
    figure.legend(loc="outside lower center", ncols=3, fontsize=10)
    return figure


_MARKERS = "oDsv^PX<>"


@styled
def violation_dots(table: pd.DataFrame, *, tolerance: float) -> Figure:
    """A dot per check and model: points by which what should hold fails; left is good.

    Args:
        table: columns model, check, estimate_points, lower_points and upper_points (one-sided
            95 % bounds).
        tolerance: points from which on a failure counts, a dashed line.
    """
    if table.empty:
        return nothing("no check to draw: no defended model was examined here")
    checks = list(dict.fromkeys(table["check"]))
    models = list(dict.fromkeys(table["model"]))  # a row's name, and its seed where there are more
    rows = list(dict.fromkeys(model.split(" ")[0] for model in models))
    figure, (axis,) = panels(1, 0.5 * len(checks) + 1.8)
    offsets = np.linspace(-0.28, 0.28, len(models)) if len(models) > 1 else np.zeros(1)
    for model, marker, offset in zip(models, _MARKERS * len(models), offsets, strict=False):
        part = table[table["model"] == model].set_index("check").reindex(checks)
        value = part["estimate_points"].to_numpy(float)
        ends = [value - part["lower_points"].to_numpy(float), part["upper_points"].to_numpy(float)]
        spread = np.clip([ends[0], ends[1] - value], 0, None)
        row = model.split(" ")[0]
        axis.errorbar(
            value, np.arange(len(checks)) + offset, xerr=spread, fmt=marker,
            color=colour_of(row, rows), ms=6, lw=1.2,
            label=label_of(row) + model.removeprefix(row),
        )  # fmt: skip
    axis.axvline(tolerance, color="black", ls="--", lw=1.2)
    axis.annotate(f"counts from {tolerance:g} points on", (tolerance, 1), (4, 4), fontsize=10,
                  xycoords=("data", "axes fraction"), textcoords="offset points")  # fmt: skip
    axis.axvline(0, color="#999999", lw=0.8)
    axis.set_yticks(range(len(checks)), [name.replace("_", " ") for name in checks])
    axis.invert_yaxis()
    axis.set_xlabel("recall points by which the assertion fails\n(bar: one-sided 95 % bounds)")
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=10)
    return figure
