"""The primary endpoint of every model, as the tables that figures are drawn from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
from torch import Tensor

from matlib.evaluation.bootstrap import Estimate
from matlib.evaluation.inference import MIN_SEEDS_FOR_INTERVAL, t_interval
from matlib.evaluation.retrieval import Outcomes, chance_recall
from matlib.evaluation.statistics import primary_difference, primary_endpoint
from matlib.evaluation.suite import Key
from matlib.study.judgings import GalleryName
from matlib.study.runs import Study


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
