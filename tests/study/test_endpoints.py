"""Tables behind the figures equal the outcomes they come from."""

from __future__ import annotations

import pytest

from matlib.evaluation.statistics import primary_endpoint
from matlib.study.made.protocols import EvaluationProtocol
from matlib.study.study import Study
from matlib.study.tables.endpoints import (
    chance,
    curve_table,
    endpoint_table,
    gallery_size,
    gap_table,
    row_names,
)


def test_endpoint_table_holds_the_primary_endpoint_of_every_attack(base_study: Study) -> None:
    table = endpoint_table(base_study).set_index(["row", "attack", "text_threat"])
    outcomes = base_study.evaluated("base").outcomes
    assert len(table) == len(outcomes)
    for (attack, threat), found in outcomes.items():
        row = table.loc[("base", attack, threat)]
        assert row["value"] == pytest.approx(primary_endpoint(found))
        assert 0 <= row["low"] <= row["value"] <= row["high"] <= 1
        assert row["n_seeds"] == 1


def test_curve_starts_at_the_clean_model(base_study: Study) -> None:
    curve = curve_table(base_study).set_index("eps_255")["value"]
    assert list(curve.index) == [0.0, 2.0, 8.0]
    assert curve[0.0] == pytest.approx(
        primary_endpoint(base_study.evaluated("base").outcomes["clean", ""])
    )


def test_no_curve_is_an_empty_table_with_columns(base_study: Study) -> None:
    evaluation = base_study.profile.evaluation.model_copy(update={"curve_eps_255": ()})
    profile = base_study.profile.model_copy(update={"evaluation": evaluation})
    table = curve_table(Study(profile, base_study.root.parent))
    assert table.empty and "eps_255" in table


def test_gap_table_compares_equal_galleries(base_study: Study) -> None:
    table = gap_table(base_study, ["base"]).set_index(["pairs", "attack"])["value"]
    e = base_study.profile.evaluation
    how = EvaluationProtocol("train-1", (e.primary_threat,), e.eps_255, ("clean", "joint"))
    found = base_study.evaluated("base", 0, how).outcomes["joint", e.primary_threat]
    assert table["training pairs", "joint"] == pytest.approx(primary_endpoint(found))
    assert len(table) == 4


def test_chance_is_that_of_a_random_ranking(base_study: Study) -> None:
    n = len(base_study.pairs("test-1"))
    relevant = base_study.pairs("test-1").relevance()
    assert relevant.sum() == n  # no caption is true of two of these images
    assert chance(base_study, "test-1") == pytest.approx(1 / n)
    assert gallery_size(base_study) == "16 images, 32 captions"
    assert row_names(base_study) == ["base"]
