"""What makes a good pair: dose-response, effects, and what techniques gain or should gain."""

from __future__ import annotations

from collections.abc import Mapping
from textwrap import fill

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from matlib.analysis.experiment import BEND, DIALS
from matlib.analysis.figures.sentences import ADDED
from matlib.analysis.figures.style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY,
    VERMILLION,
    WIDTH,
    label_of,
    nothing,
    panels,
    place_names,
    styled,
)

_NO_DIAL = "no dial was turned here"
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
            `matlib.analysis.experiment.dose_response`.
        gain_label: what was gained, for the axis, e.g. `robust recall gained, points`.
    """
    if table.empty:
        return nothing(_NO_DIAL)
    dials = [dial for dial in DIALS if dial in set(table["dial"])]
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
        return nothing(_NO_DIAL)
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
    """
    if table.empty:
        return nothing("too few techniques of the experiment's modalities to predict here")
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
    """
    if table.empty:
        return nothing(_NO_DIAL)
    dials = [dial for dial in DIALS if dial in set(table["dial"])]
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


_MODALITIES = {
    "text": (VERMILLION, "o", "adds captions"),
    "image": (BLUE, "s", "adds images"),
    "both": (GREEN, "D", "adds both"),
    "": (GREY, "^", "adds nothing"),
}
_ATTACKS = {
    "clean": (GREY, "o", "-"),
    "pgd": (SKY, "s", "--"),
    "bert": (PURPLE, "^", "-."),
    "co-attack": (ORANGE, "v", ":"),
    "sga": (BLUE, "D", "--"),
    "words": (PURPLE, "<", ":"),
    "gallery": (BLUE, "P", "-."),
    "worst": (VERMILLION, "o", "-"),
}

_REFERENCE = "MAT itself"


@styled
def technique_gains(table: pd.DataFrame, *, gain_label: str) -> Figure:
    """What each technique gains over MAT, from top to bottom, with intervals.

    Args:
        table: columns row, technique, modality, gain, low, high (shares of 1), as from
            `matlib.analysis.gains.gains_of_techniques`.
        gain_label: what was gained, for the axis.
    """
    if table.empty:
        return nothing("no technique was compared here")
    figure, (axis,) = panels(1, 0.42 * len(table) + 1.5)
    value, low, high = (100 * table[c].to_numpy(dtype=float) for c in ("gain", "low", "high"))
    for modality, (colour, marker, label) in _MODALITIES.items():
        rows = np.flatnonzero((table["modality"].fillna("") == modality).to_numpy())
        if len(rows):
            axis.errorbar(
                value[rows], rows, fmt=marker, color=colour, ms=7, capsize=3, label=label,
                xerr=np.nan_to_num(np.clip(
                    [value[rows] - low[rows], high[rows] - value[rows]], 0, None)),
            )  # fmt: skip
    axis.axvline(0, color="black", lw=1.0)
    named = zip(table["row"], table["technique"], strict=True)
    names = [row_words(str(row), str(t)).replace(" (", "\n(") for row, t in named]
    axis.set_yticks(range(len(table)), names)
    axis.set_ylim(len(table) - 0.5, -0.5)
    axis.grid(axis="y", color="#DDDDDD", lw=0.8)
    axis.set_xlabel(gain_label)
    figure.legend(loc="outside upper center", ncols=4)
    return figure


_OPTION_WORDS = {
    "t": "{} pairs", "n": "{} variants", "x": "strength {}", "a": "cosine at least {}",
    "k": "{} most diverse", "v": "Vendi {}",
}  # fmt: skip


def row_words(row: str, technique: str) -> str:
    """A row of the comparison in words: technique, options, label."""
    augmentation, *options = _parts(technique)
    named = [_OPTION_WORDS[o[0]].format(o[1:]) for o in options if o[:1] in _OPTION_WORDS]
    label = "" if augmentation != "none" else row.partition(".")[2]
    words = label_of(augmentation, "technique") if augmentation != "none" else "MAT"
    more = [*named, *([label] if label and not named else [])]
    return f"{words} ({', '.join(more)})" if more else words


def _parts(technique: str) -> list[str]:
    """`eda.x0.3.n2` -> eda, x0.3, n2: a point before a digit belongs to the number."""
    parts: list[str] = []
    for part in technique.split("."):
        if parts and part[:1].isdigit():
            parts[-1] += f".{part}"
        else:
            parts.append(part)
    return parts


def with_true_names(table: pd.DataFrame, dataset: str) -> pd.DataFrame:
    """The table with rows and techniques called what they are on these data, for figures.

    Of a photograph there is no other rendering: there `captions+renderings` adds images by
    RandAugment. Whether its other captions are true nobody knows: they are people's. Rows keep
    their names in all files.

    Args:
        table: with any of the columns row, technique, augmentation.
        dataset: `scenes`, or the name of real data.
    """
    if dataset == "scenes":
        return table
    columns = [c for c in ("row", "technique", "augmentation") if c in table.columns]
    both, captions = "captions and RandAugment", r"\1people's captions"

    def renamed(names: pd.Series) -> pd.Series:
        named = names.str.replace("captions+renderings", both, regex=False)
        return named.str.replace(r"(^|\.)captions$", captions, regex=True)

    return table.assign(**{c: renamed(table[c]) for c in columns})


@styled
def sweep_curves(table: pd.DataFrame, dial: str, *, reference: str) -> Figure:
    """Recall by amount or strength of each technique, a panel per technique, a line per attack.

    Points of several seeds are filled, those of one are hollow.

    Args:
        table: columns augmentation, dial, unit, level, attack, value, low, high (shares of 1),
            and n_seeds (all 1 without it). What has no level (not a number) is the reference of
            a panel, drawn as a line across it without an attack and under the worst one.
        dial: `amount`, `strength` or `pairs`.
        reference: what the lowest level is, for the caption below.
    """
    part = table[table["dial"] == dial]
    part = part if "n_seeds" in part.columns else part.assign(n_seeds=1)
    names = list(dict.fromkeys(part["augmentation"]))
    if not names:
        return nothing(f"no sweep over {dial} was made here")
    n_columns = min(3, len(names))
    n_rows = -(-len(names) // n_columns)
    figure, axes = plt.subplots(
        n_rows, n_columns, figsize=(WIDTH, 2.5 * n_rows + 1.0), sharey=True, squeeze=False
    )
    for axis, name in zip(axes.flat, names, strict=False):
        own = part[part["augmentation"] == name]
        _sweep_panel(axis, own[own["level"].notna()], dial)
        _reference_lines(axis, own[own["level"].isna()])
        axis.set_title("MAT" if name == "none" else label_of(str(name), "technique"))
    for axis in list(axes.flat)[len(names) :]:
        axis.set_axis_off()
    figure.supylabel("mean of TR@1 and IR@1, %", fontsize=12)
    every = [zip(*axis.get_legend_handles_labels(), strict=True) for axis in axes.flat]
    handle_of = {label: handle for pairs in every for handle, label in pairs}
    labels = sorted(handle_of, key=lambda label: label.startswith(_REFERENCE))  # lines come last
    figure.legend([handle_of[label] for label in labels], labels, loc="outside upper center",
                  ncols=3, fontsize=11, columnspacing=1.6, handletextpad=0.4)  # fmt: skip
    said = [reference] if reference else []
    figure.supxlabel("\n".join([*said, _seeds_in_words(part["n_seeds"])]), fontsize=11)
    return figure


def _seeds_in_words(n_seeds: pd.Series[int]) -> str:
    """What the intervals of the points are over, for the caption."""
    several = sorted({int(n) for n in n_seeds} - {1})
    over_seeds = f"{' or '.join(map(str, several))} seeds, interval over seeds"
    if not several:
        return "one seed, intervals over images"
    if 1 not in set(n_seeds):
        return over_seeds
    return f"filled: {over_seeds}; hollow: one seed, interval over images"


def _sweep_panel(axis: Axes, part: pd.DataFrame, dial: str) -> None:
    levels = sorted(part["level"].unique())
    for attack, (colour, marker, style) in _ATTACKS.items():
        own = part[part["attack"] == attack].sort_values("level")
        if own.empty:
            continue
        value, low, high = (100 * own[c].to_numpy(dtype=float) for c in ("value", "low", "high"))
        axis.errorbar(
            own["level"], value, yerr=np.clip([value - low, high - value], 0, None), color=colour,
            marker=marker, ls=style, ms=4, lw=1.6, capsize=2, elinewidth=0.8, mfc="white",
            label=label_of(attack, "attack"),
        )  # fmt: skip
        full = (own["n_seeds"] > 1).to_numpy()
        axis.plot(own["level"][full], value[full], marker, color=colour, ms=4, zorder=3)
    if dial != "strength":
        axis.set_xscale("log", base=2)
    axis.set_xticks(levels, [f"{level:g}" for level in levels])
    axis.minorticks_off()
    axis.set_xlabel(str(part["unit"].iloc[0]), fontsize=10)
    axis.set_ylim(bottom=0)


def _reference_lines(axis: Axes, part: pd.DataFrame) -> None:
    """MAT itself, where no level of the dial is MAT."""
    for attack in ("clean", "worst"):
        for value in part[part["attack"] == attack]["value"]:
            axis.axhline(100 * value, color=_ATTACKS[attack][0], lw=1.2, ls=(0, (1, 1)),
                         label=f"{_REFERENCE}, {label_of(attack, 'attack')}")  # fmt: skip
