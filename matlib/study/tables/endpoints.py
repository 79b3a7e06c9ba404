"""The primary endpoint of every model, as the tables that figures are drawn from."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import pandas as pd

from matlib.evaluation.retrieval import Outcomes, chance_recall
from matlib.evaluation.robustness import WORST, key_of
from matlib.study.made.protocols import HELD_OUT_ATTACKS, TRANSFER_ATTACKS, GalleryName
from matlib.study.made.transfer import sources, subjects, transferred
from matlib.study.profile.rows import Run, row_defence
from matlib.study.recipes import inside_seeds_of, row_name, schedule_of
from matlib.study.study import Study
from matlib.study.tables.recalls import Recalls, in_short, shown

LEVELS = ("value", "low", "high", "n_seeds")
"""Columns that `shown` gives: shares of 1 and the trained weights behind them."""

ENDPOINT_COLUMNS = ("row", "attack", "text_threat", *LEVELS)
CURVE_COLUMNS = ("row", "eps_255", *LEVELS)
GAP_COLUMNS = ("row", "pairs", "attack", *LEVELS)
HELD_OUT_COLUMNS = ("row", "attack", "text_threat", "is_held_out", "recall", *LEVELS[1:])
INSIDE_COLUMNS = (
    "row", "choice", "value", "default", "attack", "recall", "low", "high", "difference",
    "difference_low", "difference_high", "n_seeds",
)  # fmt: skip
TRANSFER_COLUMNS = ("source", "target", "attack", *LEVELS[:3])
RANKING_COLUMNS = ("architecture", "row", *LEVELS)

INSIDE_TABLE_ATTACKS = ("clean", "pgd", "bert", WORST)

KNOWN = {"true_held_out": "bert_true", "typo_held_out": "typo"}
"""What each held-out kind is to be compared with; the first is part of its threat."""

GALLERIES: dict[str, GalleryName] = {"training pairs": "train-1", "held-out pairs": "test-1"}

NOBODY = "none"
"""Source of the rows of `transfer_table` without an attack."""


def row_names(study: Study) -> list[str]:
    """Names of the study's rows, `base` first, without their seeds."""
    return list(dict.fromkeys(name for name, _ in study.rows()))


def endpoint_table(study: Study, names: Sequence[str] | None = None) -> pd.DataFrame:
    """Mean of TR@1 and IR@1 on the test gallery, one row per model, attack and text threat.

    Args:
        names: rows of the study; all by default.

    Returns:
        `ENDPOINT_COLUMNS`. From three trained weights on, their mean; below, the
        first seed and an interval over images.
    """
    evaluated = Recalls(study)
    return _table(ENDPOINT_COLUMNS, [
        {"row": name, "attack": attack, "text_threat": threat,
         **shown(evaluated.recall(name, attack, threat))}
        for name in names or row_names(study)
        for attack, threat in evaluated.keys(name)
    ])  # fmt: skip


def curve_table(study: Study, names: Sequence[str] | None = None) -> pd.DataFrame:
    """The same endpoint under PGD by image budget; empty where the profile asks for no curve.

    Args:
        names: rows of the study; all by default.

    Returns:
        `CURVE_COLUMNS`.
    """
    evaluated, rows = Recalls(study), []
    is_asked = bool(study.profile.evaluation.curve_eps_255)
    for name in (names or row_names(study)) if is_asked else ():
        curves = evaluated.curves(name)
        for eps in sorted(curves[0]):
            found = evaluated.estimate([curve[eps] for curve in curves])
            rows.append({"row": name, "eps_255": eps, **shown(found)})
    return _table(CURVE_COLUMNS, rows)


def gap_table(study: Study, names: Sequence[str]) -> pd.DataFrame:
    """Training pairs against held-out pairs: equal galleries, one caption per image.

    Args:
        names: rows of the study.

    Returns:
        `GAP_COLUMNS`; pairs are `training pairs` or `held-out pairs`, attack `clean` or `joint`.
    """
    evaluated = {
        pairs: Recalls(study, study.gap_protocol(name)) for pairs, name in GALLERIES.items()
    }
    return _table(GAP_COLUMNS, [
        {"row": name, "pairs": pairs, "attack": attack,
         **shown(evaluated[pairs].recall(name, attack))}
        for name, pairs, attack in product(names, GALLERIES, ("clean", "joint"))
    ])  # fmt: skip


def held_out_table(study: Study) -> pd.DataFrame:
    """Edits of kinds that no training has: what is left under them, beside those of known kinds.

    Returns:
        `HELD_OUT_COLUMNS`, one row per model, attack and threat, held out or known: what text
        alone (`bert`) leaves, and the worst of text alone and both sides (`worst`). Empty where
        the profile holds nothing out.
    """
    e = study.profile.evaluation
    kinds = [each for kind in e.held_out for each in (kind, KNOWN[kind])]
    threats = [threat for threat in kinds if threat in (*KNOWN, *e.threats)]
    evaluated = {
        threat: Recalls(study, study.held_out_protocol() if threat in KNOWN else None,
                        attacks=HELD_OUT_ATTACKS)
        for threat in threats
    }  # fmt: skip
    return _table(HELD_OUT_COLUMNS, [
        {"row": name, "attack": attack, "text_threat": threat, "is_held_out": threat in KNOWN,
         **shown(evaluated[threat].recall(name, attack, threat), "recall")}
        for name, threat, attack in product(row_names(study), threats, ("bert", WORST))
    ])  # fmt: skip


def inside_table(study: Study) -> pd.DataFrame:
    """The choices inside one defence: each variation beside the defence itself, seed by seed.

    Returns:
        `INSIDE_COLUMNS`, one row per variation (`profile.inside`) and attack (`clean`, `pgd`,
        `bert`, and `worst` of `INSIDE_ATTACKS` with the primary threat): the recall that is
        left and its difference from the unvaried defence, each with its interval.
    """
    evaluated, rows = in_short(study, "", inside_seeds_of(study.profile)), []
    for run in study.profile.inside:
        about = dict(zip(("choice", "value", "default"), described(study, run), strict=True))
        for attack in INSIDE_TABLE_ATTACKS:
            gain = evaluated.recall(row_name(run), attack, reference=_plain(run))
            rows.append({
                "row": row_name(run), **about, "attack": attack,
                **shown(evaluated.recall(row_name(run), attack), "recall"),
                **gain.columns("difference", "difference_"),
            })  # fmt: skip
    return _table(INSIDE_COLUMNS, rows)


def transfer_table(study: Study, attacks: Sequence[str] = TRANSFER_ATTACKS) -> pd.DataFrame:
    """The primary endpoint of every target under every source's attacks, first seed.

    Args:
        attacks: some of `TRANSFER_ATTACKS`.

    Returns:
        `TRANSFER_COLUMNS`: names as `str(Subject)`, e.g. `mat` or `convnet:base`; shares of 1
        with an interval over images. Where source and target are the same the attack knows its
        victim (white-box). Rows of the source `none` are the recall without attack (`clean`).
        Empty where the study has only one model to compare.
    """
    evaluated, rows, origin = Recalls(study), [], sources(study.profile)
    first, threat = study.profile.seeds[:1], study.profile.evaluation.primary_threat

    def add(source: str, target: str, attack: str, found: Sequence[Outcomes]) -> None:
        about = {"source": source, "target": target, "attack": attack}
        rows.append({**about, **shown(evaluated.estimate(found))})

    for target in subjects(study.profile) if origin else []:
        clean = in_short(study, target.architecture, first).found(target.row, "clean")
        add(NOBODY, str(target), "clean", clean)
    for source in origin:
        for name, found in study.get(transferred(study, source)).items():
            for attack in attacks:
                add(str(source), name, attack, [found[key_of(attack, threat)]])
    return _table(TRANSFER_COLUMNS, rows)


def ranking_table(study: Study) -> pd.DataFrame:
    """What C8a ranks: worst-of recall per architecture and technique, undefended model first.

    Returns:
        `RANKING_COLUMNS`: architecture ("" is the study's own model), row, and the recall as in
        `endpoint_table`. Empty without other architectures.
    """
    names = architectures(study)
    evaluated = {name: in_short(study, name) for name in names if len(names) > 1}
    return _table(RANKING_COLUMNS, [
        {"architecture": name, "row": row, **shown(evaluated[name].recall(row, WORST))}
        for name, row in product(evaluated, ("base", *ranked_rows(study)))
    ])  # fmt: skip


def _table(columns: Sequence[str], rows: list[dict[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=list(columns))


def ranked_rows(study: Study) -> list[str]:
    """The techniques that are compared on every architecture; the undefended model is none."""
    names = [run.row for run in study.profile.runs]
    return [row for row in names if row in study.profile.transfer_rows]


def architectures(study: Study) -> list[str]:
    """Names of the models that rank them, "" (the study's own) first."""
    return ["", *study.profile.architectures]


def gallery_size(study: Study, gallery: GalleryName = "test") -> str:
    """What is searched, in words for an axis."""
    pairs = study.pairs(gallery)
    return f"{len(pairs):,} images, {pairs.n_captions:,} captions"


def chance(study: Study, gallery: GalleryName = "test") -> float:
    """Mean of TR@1 and IR@1 of a random ranking."""
    relevant = study.pairs(gallery).relevance()
    return (chance_recall(relevant, "TR", 1) + chance_recall(relevant, "IR", 1)) / 2


def described(study: Study, run: Run) -> tuple[str, str, str]:
    """What a variation changes, to what, and what the defence has instead; in words.

    Raises:
        ValueError: it changes nothing, or more than one thing.
    """
    profile = study.profile
    assert profile.finetune is not None
    how, steps = row_defence(run.defence), profile.train_attack.pgd_steps
    plain = schedule_of(profile.finetune)
    found = [
        (choice, str(value), str(default))
        for choice, value, default in (
            ("order of the attacks", run.order, how.order),
            ("image step in training", run.image_step, how.image),
            ("share of half-clean pairs", run.mixed_pairs, 0.0),
            ("share of clean pairs", run.clean_pairs, 0.0),
            ("image steps in training", run.pgd_steps, steps),
            ("weight averaging (decay)", run.ema_decay, plain.ema_decay or "none"),
            ("learning rate", run.lr, plain.lr),
        )
        if value is not None
    ]
    own = study.run(_plain(run))  # its learning rate is no change
    found = [each for each in found if each[0] != "learning rate" or run.lr != own.lr]
    if len(found) != 1:
        raise ValueError(
            f"{row_name(run)}: one choice is to change, so that its effect can be told; "
            f"got {[each[0] for each in found]}"
        )
    choice, value, default = found[0]
    return choice, value.replace("_", " "), default.replace("_", " ")


def _plain(run: Run) -> str:
    return row_name(run.model_copy(update={"label": ""}))


def plain_levels(table: pd.DataFrame) -> pd.DataFrame:
    """The unvaried defences under the same attacks and seeds: each variation's recall less its
    difference.

    Args:
        table: as `inside_table` gives it or `inside.csv` holds it.

    Returns:
        columns row, attack, recall, one row per unvaried defence and attack.
    """
    plain = table.assign(
        row=[row.rpartition(".")[0] for row in table["row"]],  # without the variation's label
        recall=table["recall"] - table["difference"],
    )
    return plain.drop_duplicates(["row", "attack"])[["row", "attack", "recall"]]
