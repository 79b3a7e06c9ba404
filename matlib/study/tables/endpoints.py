"""The primary endpoint of every model, as the tables that figures are drawn from.

Edits of kinds that no training has: what is left under them, beside those of known kinds.

The choices inside one defence: each variation beside the defence itself, seed by seed.

Claim C8a: do techniques that are good on one model rank alike on others?
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
from torch import Tensor

from matlib.analysis.agreement import MIN_ROWS, agreement_of_rankings
from matlib.defences.table import defence
from matlib.evaluation.retrieval import Outcomes, chance_recall
from matlib.evaluation.robustness import WORST, worst_under
from matlib.evaluation.statistics import (
    MIN_SEEDS_FOR_INTERVAL,
    Estimate,
    per_seed_differences,
    primary_difference,
    primary_endpoint,
    t_interval,
)
from matlib.evaluation.suite import Key
from matlib.study.made.judgings import HELD_OUT_ATTACKS, INSIDE_ATTACKS, GalleryName
from matlib.study.made.transfer import Subject, judged_in_short
from matlib.study.profile.rows import Run
from matlib.study.recipes import inside_seeds_of, row_name, schedule_of
from matlib.study.study import Study
from matlib.study.tables.contrasts import Contrast, is_near_chance


def row_names(study: Study) -> list[str]:
    """Names of the study's rows, `base` first, without their seeds."""
    return list(dict.fromkeys(name for name, _ in study.rows()))


def endpoint_table(study: Study, names: Sequence[str] | None = None) -> pd.DataFrame:
    """Mean of TR@1 and IR@1 on the test gallery, one row per model, attack and text threat.

    Args:
        names: rows of the study; all by default.

    Returns:
        columns row, attack, text_threat, value, low, high (shares of 1), n_seeds. From three
        seeds on, mean and t-interval over seeds; below, the first seed and an interval over
        images.
    """
    rows: list[dict[str, Any]] = []
    own = study.pairs("test").image_of
    for name in names or row_names(study):
        seeds = [seed for row, seed in study.rows() if row == name]
        found = [study.judged(name, seed).outcomes for seed in seeds]
        for attack, threat in found[0]:
            outcomes = [each[attack, threat] for each in found]
            estimate = _over_seeds(outcomes, own, study.profile.evaluation.n_boot)
            about = {"row": name, "attack": attack, "text_threat": threat}
            rows.append({**about, **_numbers(estimate, outcomes)})
    return pd.DataFrame(rows)


def _numbers(estimate: Estimate, outcomes: Sequence[Outcomes]) -> dict[str, Any]:
    n_seeds = len(outcomes) if estimate.unit == "seed" else 1
    limits = {"low": max(0.0, estimate.low), "high": min(1.0, estimate.high)}
    return {"value": estimate.value, **limits, "n_seeds": n_seeds}


def _over_seeds(outcomes: Sequence[Outcomes], own: Tensor, n_boot: int) -> Estimate:
    if len(outcomes) >= MIN_SEEDS_FOR_INTERVAL:
        return t_interval([primary_endpoint(each) for each in outcomes])
    return primary_difference(outcomes[0], None, own, n_boot=n_boot)


def curve_table(study: Study, names: Sequence[str] | None = None) -> pd.DataFrame:
    """The same endpoint under PGD by image budget; empty where the profile asks for no curve.

    Args:
        names: rows of the study; all by default.

    Returns:
        columns row, eps_255, value, low, high, n_seeds.
    """
    if not study.profile.evaluation.curve_eps_255:
        return pd.DataFrame(columns=["row", "eps_255", "value", "low", "high", "n_seeds"])
    rows: list[dict[str, Any]] = []
    own = study.pairs("test").image_of
    for name in names or row_names(study):
        judged = [study.judged(name, seed) for row, seed in study.rows() if row == name]
        curves = [{0.0: each.outcomes["clean", ""], **each.curve} for each in judged]
        for eps in sorted(curves[0]):
            outcomes = [curve[eps] for curve in curves]
            estimate = _over_seeds(outcomes, own, study.profile.evaluation.n_boot)
            rows.append({"row": name, "eps_255": eps, **_numbers(estimate, outcomes)})
    return pd.DataFrame(rows)


def gap_table(study: Study, names: Sequence[str]) -> pd.DataFrame:
    """Training pairs against held-out pairs: equal galleries, one caption per image.

    Args:
        names: rows of the study.

    Returns:
        columns row, pairs (`training pairs` or `held-out pairs`), attack (`clean` or `joint`),
        value, low, high, n_seeds.
    """
    e = study.profile.evaluation
    galleries: dict[str, GalleryName] = {"training pairs": "train-1", "held-out pairs": "test-1"}
    rows: list[dict[str, Any]] = []
    for name in names:
        seeds = [seed for row, seed in study.rows() if row == name]
        for pairs, gallery in galleries.items():
            how = study.gap_judging(gallery)
            found = [study.judged(name, seed, how).outcomes for seed in seeds]
            keys: tuple[Key, ...] = (("clean", ""), ("joint", e.primary_threat))
            for key in keys:
                outcomes = [each[key] for each in found]
                estimate = _over_seeds(outcomes, study.pairs(gallery).image_of, e.n_boot)
                about = {"row": name, "pairs": pairs, "attack": key[0]}
                rows.append({**about, **_numbers(estimate, outcomes)})
    return pd.DataFrame(rows)


def gallery_size(study: Study, gallery: GalleryName = "test") -> str:
    """What is searched, in words for an axis."""
    pairs = study.pairs(gallery)
    return f"{len(pairs):,} images, {pairs.n_captions:,} captions"


def chance(study: Study, gallery: GalleryName = "test") -> float:
    """Mean of TR@1 and IR@1 of a random ranking."""
    relevant = study.pairs(gallery).relevance()
    return (chance_recall(relevant, "TR", 1) + chance_recall(relevant, "IR", 1)) / 2


KNOWN = {"true_held_out": "bert_true", "typo_held_out": "typo"}
"""What each held-out kind is to be compared with; the first is part of its threat."""

HELD_OUT_COLUMNS = (
    "row",
    "attack",
    "text_threat",
    "is_held_out",
    "recall",
    "low",
    "high",
    "n_seeds",
)


def held_out_table(study: Study) -> pd.DataFrame:
    """Text alone (`bert`), and the worst of text alone and both sides (`worst`), per threat.

    Returns:
        `COLUMNS`, one row per model, attack and threat, held out or known: the primary
        endpoint with its interval (t-interval over seeds from three on; below, over images).
        Empty where the profile holds nothing out.
    """
    rows: list[dict[str, Any]] = []
    held_out, e = study.profile.evaluation.held_out, study.profile.evaluation
    threats = [name for kind in held_out for name in (kind, KNOWN[kind])]
    own = study.pairs("test").image_of
    for name in row_names(study):
        seeds = [seed for row, seed in study.rows() if row == name]
        for threat in threats:
            is_held_out = threat in KNOWN
            if not is_held_out and threat not in e.threats:
                continue
            how = study.held_out_judging() if is_held_out else study.main_judging("test")
            found = [study.judged(name, seed, how).outcomes for seed in seeds]
            for attack in ("bert", WORST):
                outcomes = [
                    worst_under(each, threat, HELD_OUT_ATTACKS)
                    if attack == WORST
                    else each[attack, threat]
                    for each in found
                ]
                if len(outcomes) >= MIN_SEEDS_FOR_INTERVAL:
                    estimate = t_interval([primary_endpoint(each) for each in outcomes])
                else:
                    estimate = primary_difference(outcomes[0], None, own, n_boot=e.n_boot)
                rows.append(
                    {
                        "row": name, "attack": attack, "text_threat": threat,
                        "is_held_out": is_held_out, "recall": estimate.value,
                        "low": max(0.0, estimate.low), "high": min(1.0, estimate.high),
                        "n_seeds": len(outcomes),
                    }
                )  # fmt: skip
    return pd.DataFrame(rows, columns=list(HELD_OUT_COLUMNS))


INSIDE_COLUMNS = (
    "row", "choice", "value", "default", "attack", "recall", "low", "high", "difference",
    "difference_low", "difference_high", "n_seeds",
)  # fmt: skip

INSIDE_TABLE_ATTACKS = ("clean", "pgd", "bert", "worst")


def described(study: Study, run: Run) -> tuple[str, str, str]:
    """What a variation changes, to what, and what the defence has instead; in words.

    Raises:
        ValueError: it changes nothing, or more than one thing.
    """
    profile = study.profile
    assert profile.finetune is not None
    how, steps = defence(run.defence), profile.train_attack.pgd_steps
    plain = schedule_of(profile.finetune)
    found = [
        (choice, str(value), str(default))
        for choice, value, default in (
            ("order of the attacks", run.order, how.order),
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


def inside_table(study: Study) -> pd.DataFrame:
    """Every variation (`profile.inside`) and the defence that it varies.

    Returns:
        `COLUMNS`, one row per variation and attack (`clean`, `pgd`, `bert`, and `worst` of
        `INSIDE_ATTACKS` with the primary threat): the primary endpoint with its
        interval, and its difference from the unvaried defence, paired by seed and query. From
        three seeds on intervals are t-intervals over seeds; below, over images.
    """
    rows: list[dict[str, Any]] = []
    for run in study.profile.inside:
        choice, value, default = described(study, run)
        for attack in INSIDE_TABLE_ATTACKS:
            varied = _per_seed(study, row_name(run), attack)
            plain = _per_seed(study, _plain(run), attack)
            level, gain = _level(study, varied), _difference(study, varied, plain)
            about = {"row": row_name(run), "choice": choice, "value": value, "default": default}
            rows.append(
                {
                    **about, "attack": attack, "n_seeds": len(varied),
                    "recall": level.value, "low": max(0.0, level.low),
                    "high": min(1.0, level.high), "difference": gain.value,
                    "difference_low": gain.low, "difference_high": gain.high,
                }
            )  # fmt: skip
    return pd.DataFrame(rows, columns=list(INSIDE_COLUMNS))


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


def _per_seed(study: Study, name: str, attack: str) -> list[Outcomes]:
    """Outcomes by seed; `worst` over the attacks that variations are judged by."""
    threat, found = study.profile.evaluation.primary_threat, []
    is_varied = name in {row for row, _ in study.inside_rows()}
    how = study.inside_judging() if is_varied else study.main_judging("test")
    for seed in inside_seeds_of(study.profile):
        outcomes = study.judged(name, seed, how).outcomes
        by_attack = {
            a: outcomes[a, "" if a in ("clean", "pgd") else threat] for a in INSIDE_ATTACKS
        }
        by_attack["worst"] = worst_under(outcomes, threat, INSIDE_ATTACKS)
        found.append(by_attack[attack])
    return found


def _level(study: Study, found: list[Outcomes]) -> Estimate:
    if len(found) >= MIN_SEEDS_FOR_INTERVAL:
        return t_interval([primary_endpoint(each) for each in found])
    own, n_boot = study.pairs("test").image_of, study.profile.evaluation.n_boot
    return primary_difference(found[0], None, own, n_boot=n_boot)


def _difference(study: Study, varied: list[Outcomes], plain: list[Outcomes]) -> Estimate:
    if len(varied) >= MIN_SEEDS_FOR_INTERVAL:
        return t_interval(per_seed_differences(varied, plain))
    own, n_boot = study.pairs("test").image_of, study.profile.evaluation.n_boot
    return primary_difference(varied[0], plain[0], own, n_boot=n_boot)


RANKING_COLUMNS = ("architecture", "row", "value", "low", "high", "n_seeds")


def ranked_rows(study: Study) -> list[str]:
    """The techniques that are compared on every architecture; the undefended model is none."""
    names = [run.row for run in study.profile.runs]
    return [row for row in names if row in study.profile.transfer_rows]


def architectures(study: Study) -> list[str]:
    """Names of the models that rank them, "" (the study's own) first."""
    return ["", *study.profile.architectures]


def worst_in_short(study: Study, subject: Subject, seed: int) -> Outcomes:
    """Worst of `INSIDE_ATTACKS`, primary threat."""
    threat = study.profile.evaluation.primary_threat
    return worst_under(judged_in_short(study, subject, seed), threat)


def transfer_of_ranking(study: Study) -> list[Contrast]:
    """C8a: mean rank correlation of the techniques' robustness between architectures.

    Empty without other architectures, and with fewer than three techniques on them.
    """
    names, rows = architectures(study), ranked_rows(study)
    if len(names) < 2 or len(rows) < MIN_ROWS:
        return []
    seeds, e = study.profile.seeds, study.profile.evaluation
    own = study.pairs("test").image_of
    found = [
        [[worst_in_short(study, Subject(name, row), seed) for seed in seeds] for row in rows]
        for name in names
    ]
    # a model on which every technique is at chance has no order that could carry over
    has_floor = any(
        all(is_near_chance(study, each, own) for row in model for each in row) for model in found
    )
    estimate = agreement_of_rankings(found, own, n_boot=e.n_boot)
    n_seeds = len(seeds) if len(seeds) >= MIN_SEEDS_FOR_INTERVAL else 1
    label = (
        f"rank correlation (100: the same order) of the robustness of {len(rows)} techniques "
        f"between {len(names)} architectures"
    )
    return [Contrast(label, estimate, n_seeds, estimate.unit, has_floor)]


def ranking_table(study: Study) -> pd.DataFrame:
    """What C8a ranks: worst-of recall per architecture and technique, undefended model first.

    Returns:
        columns architecture ("" is the study's own model), row, value, low, high, n_seeds:
        shares of 1. From three seeds on the mean with its t-interval over seeds; below, the
        first seed's with an interval over images. Empty without other architectures.
    """
    own, rows = study.pairs("test").image_of, []
    names, n_boot = architectures(study), study.profile.evaluation.n_boot
    for name in names if len(names) > 1 else []:
        for row in ("base", *ranked_rows(study)):
            seeds = study.profile.seeds if row != "base" else (0,)
            found = [worst_in_short(study, Subject(name, row), seed) for seed in seeds]
            if len(found) >= MIN_SEEDS_FOR_INTERVAL:
                level = t_interval([primary_endpoint(each) for each in found])
            else:
                level = primary_difference(found[0], None, own, n_boot=n_boot)
            rows.append((name, row, level.value, level.low, level.high, len(seeds)))
    return pd.DataFrame(rows, columns=list(RANKING_COLUMNS))
