"""What single choices change: differences with intervals, and known beside unknown."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from matlib.analysis.figures.style import (
    BLUE,
    GREY,
    VERMILLION,
    colour_of,
    label_of,
    panels,
    styled,
)


@styled
def choice_dots(table: pd.DataFrame, *, panels_by: Mapping[str, str]) -> Figure:
    """Points gained by each variation, a dot with its interval; groups are the choices.

    Args:
        table: columns choice, value, default, attack, difference, difference_low,
            difference_high (shares of 1; the interval may be missing).
        panels_by: attack -> title, one panel each.

    Raises:
        ValueError: an empty table.
    """
    if table.empty:
        raise ValueError("no variation to draw: the profile has none (`inside` is empty)")
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

    Raises:
        ValueError: an empty table.
    """
    if table.empty:
        raise ValueError("nothing was held out (evaluation.held_out is empty)")
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

    Raises:
        ValueError: nothing to draw.
    """
    if not histories:
        raise ValueError("nothing was measured beside training (finetune.validate_every is 0)")
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
