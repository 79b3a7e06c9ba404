"""Tables as a notebook shows them: percent and points, with their intervals in one cell.

Where nothing was measured they have no row.
"""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from matlib.analysis.experiment import range_check, steps_of_dials
from matlib.analysis.figures.style import label_of
from matlib.analysis.prediction import coordinate_correlations, prediction_errors
from matlib.study.publish.full import PairStudy, plain_techniques, real_techniques
from matlib.study.tables.endpoints import KNOWN, plain_levels
from matlib.study.tables.ledger import CONTRAST_COLUMNS
from matlib.study.tables.other_tasks import RANKED_BY
from matlib.study.tables.techniques import COORDINATES

MIN_CORRELATED = 4
"""Techniques from which on their coordinates are set beside their gains."""


def in_points(table: pd.DataFrame, value: str, low: str, high: str) -> list[str]:
    """Shares of 1 in points, `+1.2 [-0.3, 2.7]`, row by row.

    Args:
        table: with the three columns; what is not a number was not measured and is "", limits
            that are none are left out.
    """
    rows = 100 * table[[value, low, high]].to_numpy(dtype=float)
    told = ["{:+.1f} [{:.1f}, {:.1f}]".format(*row) for row in rows.tolist()]
    return ["" if t.startswith("+nan") else t.removesuffix(" [nan, nan]") for t in told]


def variation_cells(inside: pd.DataFrame) -> pd.DataFrame:
    """Recall left and difference of each variation of a defence, the defence as it is first.

    Args:
        inside: `INSIDE_COLUMNS`.

    Returns:
        rows by choice, value and default; columns recall and difference by attack.
    """
    plain = plain_levels(inside).rename(columns={"row": "value"})
    plain = plain.assign(choice="(as it is)", default="", difference="")
    spans = in_points(inside, "difference", "difference_low", "difference_high")
    both = pd.concat([plain, inside.assign(difference=spans)])
    both["recall"] = [f"{100 * recall:.1f} %" for recall in both["recall"]]
    index = ["choice", "value", "default"]
    return both.pivot(index=index, columns="attack", values=["recall", "difference"])


def held_out_cells(words_alone: pd.DataFrame) -> pd.DataFrame:
    """Recall in percent under edits of known and of held-out kinds, beside each other.

    Args:
        words_alone: `HELD_OUT_COLUMNS` of one attack.

    Returns:
        a row per defence in their order, a column per kind in words.
    """
    kinds = [kind for pair in KNOWN.items() for kind in reversed(pair)]
    wide = words_alone.pivot(index="row", columns="text_threat", values="recall")
    wide = wide.reindex(
        index=list(dict.fromkeys(words_alone["row"])), columns=[k for k in kinds if k in wide]
    )
    return (100 * wide).round(1).rename(columns=lambda kind: label_of(kind, "threat"))


def gain_cells(gains: pd.DataFrame) -> pd.DataFrame:
    """What techniques keep and gain, in points, and where their pairs lie.

    Args:
        gains: as `PairStudy.gains`.

    Returns:
        a row per row of the comparison.
    """
    levels = {"worst": "worst", "sga": "SGA", "clean": "no attack"}
    spans = {"gain": ("gain", "low", "high"), "gain, SGA": ("sga_gain", "sga_low", "sga_high"),
             "gap": ("gap", "gap_low", "gap_high")}  # fmt: skip
    rest = ["similarity", "vendi", "true_fraction", "seconds"]
    wanted = [*levels, *(name for span in spans.values() for name in span), "mmd2", *rest]
    each = gains.reindex(columns=["row", *wanted]).set_index("row").astype(float)
    cells = (100 * each[list(levels)]).round(1).rename(columns=levels)
    cells = cells.assign(**{title: in_points(each, *span) for title, span in spans.items()})
    cells["MMD², 1e-3"] = (1000 * each["mmd2"]).round(2)
    return cells.join(each[rest].round(2))


def curve_cells(curves: pd.DataFrame) -> pd.DataFrame:
    """Gap, recall left and gain by number of training pairs, in points.

    Args:
        curves: `PAIR_CURVE_COLUMNS`.

    Returns:
        rows by defence, choice of weights and number of pairs.
    """
    index = ["defence", "weights", "n_train"]
    each = curves.sort_values(index).set_index(index)
    spans = {"gap": ("gap_low", "gap_high"), "worst": ("low", "high"),
             "gain": ("gain_low", "gain_high")}  # fmt: skip
    told = {title: in_points(each, title, *ends) for title, ends in spans.items()}
    return pd.DataFrame(told, index=each.index)


def truth_cells(gains: pd.DataFrame) -> pd.DataFrame:
    """Similarity beside truth of what plain techniques say, the most similar first.

    Args:
        gains: as `PairStudy.gains`.

    Returns:
        a row per technique in words whose truth is known.
    """
    columns = ["technique", "similarity", "true_fraction"]
    told = plain_techniques(gains).reindex(columns=columns).dropna(subset="true_fraction")
    told = told.sort_values("similarity", ascending=False).set_index("technique")
    return told.astype(float).round(2).rename(index=lambda name: label_of(name, "technique"))


def ranking_cells(ranking: pd.DataFrame, own: str) -> pd.DataFrame:
    """Recall left in percent of every technique on every architecture.

    Args:
        ranking: `RANKING_COLUMNS`.
        own: what the study's own model is called.
    """
    wide = 100 * ranking.pivot(index="row", columns="architecture", values="value")
    wide = wide.reindex(list(dict.fromkeys(ranking["row"])))
    return wide.rename(columns={"": own}, index=label_of).round(1)


def task_cells(tasks: pd.DataFrame) -> pd.DataFrame:
    """Every measure of the other tasks in percent, the worst attack behind those it is made of.

    Args:
        tasks: `OTHER_TASK_COLUMNS`.

    Returns:
        rows by architecture (where there are several), task, measure and attack; a column per row
        of the study.
    """
    places = ["architecture"] if tasks["architecture"].nunique() > 1 else []
    ordered = tasks.assign(last=tasks["attack"] == "worst").sort_values("last", kind="stable")
    ordered = ordered.astype({"value": float})
    index = [*places, "task", "measure", "attack"]
    return (100 * ordered.pivot_table("value", index, "row", sort=False)).round(1)


def ranked_by_task(tasks: pd.DataFrame) -> pd.DataFrame:
    """What C8b ranks: the rows of `OTHER_TASK_COLUMNS` on the study's own model, under the worst
    attack, by the measure of each task."""
    of_own = (tasks["architecture"] == "") & (tasks["attack"] == "worst")
    return tasks[of_own & (tasks["measure"] == tasks["task"].map(RANKED_BY))]


def contrast_cells(contrasts: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """All contrasts of claims that have several, in points.

    Args:
        contrasts: study -> `CONTRAST_COLUMNS`, or what was recorded of them.

    Returns:
        rows by study, claim and contrast.
    """
    nothing = pd.DataFrame(columns=["study", *CONTRAST_COLUMNS])
    parts = [each.assign(study=name) for name, each in contrasts.items() if len(each)]
    every = pd.concat(parts or [nothing], ignore_index=True)
    every = every[every.duplicated(["study", "claim"], keep=False)]
    points = {c: (100 * every[c].astype(float)).round(1) for c in ("estimate", "ci_low", "ci_high")}
    return every.assign(**points).set_index(["study", "claim", "contrast"])


def range_cells(runs: pd.DataFrame, gains: pd.DataFrame) -> pd.DataFrame:
    """Whether the dials reach as far as real techniques: `range_check`, by modality and dial.

    Args:
        runs: `INTERVENTION_COLUMNS`.
        gains: as `PairStudy.gains`.
    """
    real, index = real_techniques(gains), ["modality", "dial"]
    found = range_check(runs, COORDINATES, real) if len(real) else pd.DataFrame()
    return found.set_index(index).round(4) if len(found) else pd.DataFrame(columns=index)


def step_cells(runs: pd.DataFrame) -> pd.DataFrame:
    """What each step of a dial adds, in points, with its interval and what that is over.

    Args:
        runs: `INTERVENTION_COLUMNS`.
    """
    rows = [
        (dial, kind, f"{low:g} to {high:g}", *(100 * v for v in (e.value, e.low, e.high)), e.unit)
        for (dial, kind), steps in (steps_of_dials(runs) if len(runs) else {}).items()
        for low, high, e in steps
    ]
    columns = ["dial", "added", "step", "points", "from", "to", "interval over"]
    return pd.DataFrame(rows, columns=columns).round(1)


def modality_cells(pairs: PairStudy) -> pd.DataFrame:
    """Effects in points on added captions (`text`) and on added images, term by term."""
    apart = {kind: pairs.effects(kind) for kind in ("image", "text")}
    return pd.DataFrame({
        kind: pd.Series(in_points(found, "value", "low", "high"), found["term"], dtype=object)
        for kind, found in apart.items()
    })  # fmt: skip


def error_cells(pairs: PairStudy) -> pd.DataFrame:
    """By how many points each model misses techniques, of all and of those within the dials.

    Returns:
        `prediction_errors` in points, by techniques and model.
    """
    predicted = {"all": pairs.predictions(), "within the dials": pairs.predictions(within=True)}
    errors = {name: prediction_errors(each).set_index(["model", "n"])
              for name, each in predicted.items() if len(each)}  # fmt: skip
    if not errors:
        return pd.DataFrame(columns=["techniques", "model"])
    return (100 * pd.concat(errors, names=["techniques"])).round(2).reset_index("n")


def correlation_cells(gains: pd.DataFrame) -> pd.DataFrame:
    """Rank correlation of each coordinate with the gain, over plain techniques.

    Args:
        gains: as `PairStudy.gains`.

    Returns:
        `coordinate_correlations`; without a row for fewer than `MIN_CORRELATED` techniques.
    """
    plain = plain_techniques(gains)
    named = plain.rename(columns={column: dial for dial, column in COORDINATES.items()})
    if len(plain) < MIN_CORRELATED:
        return pd.DataFrame(columns=["coordinate"])
    return coordinate_correlations(named).round(3)
