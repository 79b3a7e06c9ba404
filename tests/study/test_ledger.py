"""From contrasts to verdicts: what counts for a claim, and what counts against it."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import pytest

from matlib.evaluation.statistics import Estimate, t_interval
from matlib.study.study import Study
from matlib.study.tables.contrasts import Contrast, p_above
from matlib.study.tables.ledger import (
    CLAIMS,
    ClaimEntry,
    _entry,
    by_family,
    contrast_table,
    one_family,
)


def over_seeds(name: str, centre: float, spread: float = 0.01) -> Contrast:
    values = [centre + spread * step for step in (-2, -1, 0, 1, 2)]
    return Contrast(name, t_interval(values), len(values), "seed")


def verdicts(study: Study, *ledgers: dict[str, list[Contrast]]) -> list[list[str]]:
    """Of each study's claims, corrected over all of them."""
    rows: dict[str, list[ClaimEntry]] = {
        str(i): [_entry(study, claim, "", found) for claim, found in claims.items()]
        for i, claims in enumerate(ledgers)
    }
    return [[each["verdict"] for each in rows] for rows in one_family(rows).values()]


def verdict_of(study: Study, found: dict[str, list[Contrast]]) -> str:
    return verdicts(study, found)[0][0]


def test_a_difference_far_below_0_in_every_seed_is_not_supported(base_study: Study) -> None:
    assert verdict_of(base_study, {"C2": [over_seeds("mat - a", -0.1)]}) == "not supported"
    assert verdict_of(base_study, {"C2": [over_seeds("mat - a", 0.1)]}) == "supported"


def test_p_values_are_corrected_over_the_claims_of_all_studies(base_study: Study) -> None:
    for slight, decided in ((0.022, "supported"), (-0.022, "not supported")):  # p = 0.018
        claim = {"C2": [over_seeds("mat - a", slight)]}
        assert verdicts(base_study, claim) == [[decided]]
        others = {name: [over_seeds("b - c", 0.01)] for name in ("C0", "C1")}
        assert verdicts(base_study, claim, others)[0] == ["inconclusive"]
        assert verdicts(base_study, {**claim, **others})[0][0] == "inconclusive"
    certain = {"C2": [over_seeds("mat - a", -0.1)]}
    assert verdicts(base_study, certain, {"C0": [over_seeds("b - c", 0.1)]})[0] == ["not supported"]


def test_a_claim_that_needs_all_contrasts_has_their_largest_p_value(base_study: Study) -> None:
    """Intersection-union: no correction for their number, in favour; but against, there is."""
    slightly, fine = over_seeds("mat - a", 0.022), over_seeds("mat - b", 0.1)
    entry = _entry(base_study, "C2", "", [fine, slightly, fine])
    assert entry["contrast"] == "mat - a"  # the weakest one stands for the claim
    assert entry["p_below"] == pytest.approx(slightly.estimate.p_below, rel=1e-2)
    below = over_seeds("mat - a", -0.022)
    assert verdict_of(base_study, {"C2": [below]}) == "not supported"
    assert verdict_of(base_study, {"C2": [below, fine, fine]}) == "inconclusive"


def test_these_weights_only_also_needs_a_corrected_p_value(base_study: Study) -> None:
    below = Contrast("mat - a", Estimate(-0.03, -0.06, -0.001, 250, 0.98), 1, "query")
    far = Contrast("mat - a", Estimate(-0.3, -0.4, -0.2, 250, 1.0), 1, "query")
    others = {"C0": [Contrast("b - c", Estimate(0.3, 0.2, 0.4, 250, 1 / 2001), 1, "query")]}
    assert verdict_of(base_study, {"C2": [below]}).startswith("unfavourable")
    assert verdict_of(base_study, {"C2": [below], **others}).startswith("inconclusive, for these")
    assert verdict_of(base_study, {"C2": [far], **others}).startswith("unfavourable")


def test_effects_over_design_points_are_about_these_weights_only(base_study: Study) -> None:
    effect = Estimate(0.1, 0.05, 0.15, 54, 1 / 2001)
    found = {"C7a": [Contrast("high - low", effect, 5, "point")]}
    assert verdict_of(base_study, found) == "favourable, for these weights only"


def test_a_dial_that_failed_its_check_gives_no_verdict(base_study: Study) -> None:
    failed = replace(over_seeds("gain at shift 0 - at 1", 0.1), void="the dial failed its check")
    slight = {"C2": [over_seeds("mat - a", 0.022)]}
    [[c7, c2]] = verdicts(base_study, {"C7c": [failed, over_seeds("x", 0.1)], **slight})
    assert c7 == "no verdict (the dial failed its check)"
    assert c2 == "supported"  # what gives no verdict is no part of the family


def test_a_p_value_of_the_other_side_is_never_0_where_it_was_sampled() -> None:
    assert p_above(Estimate(-0.3, -0.4, -0.2, 250, 1.0), 2000) == pytest.approx(1 / 2001)
    assert p_above(Estimate(0.3, 0.2, 0.4, 250, 1 / 2001), 2000) == 1.0
    same = t_interval([0.0, 0.0, 0.0])  # no spread: nothing speaks against the claim
    assert p_above(same, 2000) == 1.0 and p_above(t_interval([-0.1] * 3), 2000) == 0.0


def test_a_ranking_is_never_refuted_by_a_test_of_the_other_side(base_study: Study) -> None:
    ranks = Contrast("rank correlation", Estimate(-0.5, -0.7, -0.3, 5, 1.0, "seed"), 5, "seed")
    assert verdict_of(base_study, {"C8a": [ranks]}) == "inconclusive"


def test_the_replications_claims_are_a_family_of_their_own(base_study: Study) -> None:
    slight, other = over_seeds("mat - a", 0.022), over_seeds("b - c", 0.01)  # p = 0.018
    one = [_entry(base_study, "C2", "", [slight])]
    more = [_entry(base_study, claim, "", [other]) for claim in ("C0", "C1")]
    found = by_family({"report": more, "replication": one, "demo": more})
    assert list(found) == ["report", "replication", "demo"]
    assert found["replication"][0]["verdict"] == "supported"
    assert by_family({"report": more, "report-pairs": one})["report-pairs"][0]["verdict"] == (
        "inconclusive"
    )


def test_ledgers_of_before_p_values_were_written_keep_their_verdicts() -> None:
    old = [{"id": "C2", "verdict": "supported", "estimate": 0.1}]
    assert one_family({"a": cast(list[ClaimEntry], old)}) == {"a": old}


def test_the_table_holds_every_contrast_by_both_endpoints_in_the_order_of_the_claims() -> None:
    by_rank = t_interval([0.01, 0.02, 0.03])
    found = {
        "C4": [over_seeds("mat+ - mat", 0.02)],
        "C2": [replace(over_seeds("mat - a", 0.02), part="typos", beside=by_rank),
               over_seeds("mat - b", 0.1)],
        "C5": [],
    }  # fmt: skip
    table = contrast_table(found)
    assert table["contrast"].tolist() == ["mat - a", "mat - a", "mat - b", "mat+ - mat"]
    assert table["endpoint"].tolist() == ["R@1", "MRR", "R@1", "R@1"]
    assert table["decides"].tolist() == [True, False, True, True]
    assert table["part"].tolist() == ["typos", "typos", "", ""]
    assert table["estimate"].tolist()[:2] == pytest.approx([0.02, by_rank.value])
    assert list(dict.fromkeys(table["claim"])) == [c for c in CLAIMS if found.get(c)]
    assert contrast_table({}).empty
