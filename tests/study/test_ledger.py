"""From contrasts to verdicts: what counts for a claim, and what counts against it."""

from __future__ import annotations

import pytest

from matlib.evaluation.statistics import Estimate, t_interval
from matlib.study.tables.contrasts import Contrast
from matlib.study.tables.ledger import CLAIMS, _p_above, _verdict, contrast_table, decided_contrasts


def over_seeds(name: str, centre: float, spread: float = 0.01) -> Contrast:
    values = [centre + spread * step for step in (-2, -1, 0, 1, 2)]
    return Contrast(name, t_interval(values), len(values), "seed")


def verdict_of(found: dict[str, list[Contrast]], claim: str = "C2") -> str:
    return _verdict(decided_contrasts(found, 2000)[claim])


def test_a_difference_far_below_0_in_every_seed_is_not_supported() -> None:
    assert verdict_of({"C2": [over_seeds("mat - a", -0.1)]}) == "not supported"
    assert verdict_of({"C2": [over_seeds("mat - a", 0.1)]}) == "supported"


def test_against_a_claim_too_a_p_value_is_corrected_over_all_claims() -> None:
    slightly = over_seeds("mat - a", -0.022)  # p = 0.018, the interval ends below 0
    assert slightly.estimate.high < 0
    assert verdict_of({"C2": [slightly]}) == "not supported"
    others = {claim: [over_seeds("b - c", 0.1)] for claim in ("C0", "C1", "C3")}
    assert verdict_of({"C2": [slightly], **others}) == "inconclusive"
    certain = {"C2": [over_seeds("mat - a", -0.1)], **others}
    assert verdict_of(certain) == "not supported"


def test_the_weakest_of_many_contrasts_may_be_below_0_by_chance() -> None:
    slightly, fine = over_seeds("mat - a", -0.022), over_seeds("mat - b", 0.1)
    assert verdict_of({"C2": [slightly]}) == "not supported"
    assert verdict_of({"C2": [slightly, fine, fine]}) == "inconclusive"
    evaluated = decided_contrasts({"C2": [fine, slightly]}, 2000)["C2"]
    assert evaluated.contrast.name == "mat - a"  # the weakest one stands for the claim


def test_these_weights_only_also_needs_a_corrected_p_value() -> None:
    below = Contrast("mat - a", Estimate(-0.03, -0.06, -0.001, 250, 0.98), 1, "query")
    far = Contrast("mat - a", Estimate(-0.3, -0.4, -0.2, 250, 1.0), 1, "query")
    others = {"C0": [Contrast("b - c", Estimate(0.3, 0.2, 0.4, 250, 1 / 2001), 1, "query")]}
    assert verdict_of({"C2": [below]}).startswith("unfavourable")
    assert verdict_of({"C2": [below], **others}).startswith("inconclusive, for these weights")
    assert verdict_of({"C2": [far], **others}).startswith("unfavourable")


def test_effects_over_design_points_are_about_these_weights_only() -> None:
    effect = Estimate(0.1, 0.05, 0.15, 54, 1 / 2001)
    found = {"C7a": [Contrast("high - low", effect, 5, "point")]}
    assert verdict_of(found, "C7a") == "favourable, for these weights only"


def test_a_p_value_of_the_other_side_is_never_0_where_it_was_sampled() -> None:
    assert _p_above(Estimate(-0.3, -0.4, -0.2, 250, 1.0), 2000) == pytest.approx(1 / 2001)
    assert _p_above(Estimate(0.3, 0.2, 0.4, 250, 1 / 2001), 2000) == 1.0
    same = t_interval([0.0, 0.0, 0.0])  # no spread: nothing speaks against the claim
    assert _p_above(same, 2000) == 1.0 and _p_above(t_interval([-0.1] * 3), 2000) == 0.0


def test_a_ranking_is_never_refuted_by_a_test_of_the_other_side() -> None:
    ranks = Contrast("rank correlation", Estimate(-0.5, -0.7, -0.3, 5, 1.0, "seed"), 5, "seed")
    assert verdict_of({"C8a": [ranks]}, "C8a") == "inconclusive"


def test_the_table_holds_every_contrast_in_the_order_of_the_claims() -> None:
    found = {
        "C4": [over_seeds("mat+ - mat", 0.02)],
        "C2": [over_seeds("mat - a", 0.02), over_seeds("mat - b", 0.1)],
        "C5": [],
    }
    table = contrast_table(found)
    assert table["contrast"].tolist() == ["mat - a", "mat - b", "mat+ - mat"]
    assert list(dict.fromkeys(table["claim"])) == [c for c in CLAIMS if found.get(c)]
    alone = over_seeds("mat - a", 0.02).estimate.p_below
    assert table["p_adjusted_within"].tolist()[0] == pytest.approx(alone)  # the largest of two
    assert table["p_adjusted_within"].tolist()[2] == pytest.approx(alone)
    assert contrast_table({}).empty
