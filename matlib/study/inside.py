"""The choices inside one defence: each variation beside the defence itself, seed by seed."""

from __future__ import annotations

from typing import Any

import pandas as pd

from matlib.config.rows import Run
from matlib.evaluation.bootstrap import Estimate
from matlib.evaluation.inference import MIN_SEEDS_FOR_INTERVAL, t_interval
from matlib.evaluation.retrieval import Outcomes
from matlib.evaluation.statistics import per_seed_differences, primary_difference, primary_endpoint
from matlib.evaluation.worst import worst_under
from matlib.study.judgings import INSIDE_ATTACKS
from matlib.study.recipes import inside_seeds_of, row_name, schedule_of
from matlib.study.runs import Study
from matlib.training.defences import defence

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
    own = study.specs.run(_plain(run))  # its learning rate is no change
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
