"""Claim C8a: do techniques that are good on one model rank alike on others?"""

from __future__ import annotations

import pandas as pd

from matlib.evaluation.inference import MIN_SEEDS_FOR_INTERVAL, t_interval
from matlib.evaluation.ranking import MIN_ROWS, agreement_of_rankings
from matlib.evaluation.retrieval import Outcomes
from matlib.evaluation.statistics import primary_difference, primary_endpoint
from matlib.evaluation.worst import worst_under
from matlib.study.contrasts import Contrast, is_near_chance
from matlib.study.runs import Study
from matlib.study.subjects import Subject
from matlib.study.transfer import judged_in_short

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
