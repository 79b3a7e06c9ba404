"""The claim that rests on the sanity battery is computed from its checks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from matlib.evaluation.sanity_subject import Check
from matlib.study.made.sanity import battery, masked_gradients_entry
from matlib.study.publish.report import claim_rows, read_claims
from matlib.study.study import Study


def check(
    estimate: float, low: float = -9.0, high: float = 9.0, name: str = "apgd", exact: bool = False
) -> Check:
    """Of one seed, in points."""
    return Check(name, "", {}, {"weak - strong": [estimate, low, high]}, exact, 100)


def verdict_of(*rows: list[list[Check]]) -> str:
    by_row = {f"row {i}": seeds for i, seeds in enumerate(rows)}
    return str(masked_gradients_entry(by_row, "")["verdict"])


def seeds(*estimates: float) -> list[list[Check]]:
    return [[check(estimate)] for estimate in estimates]


SMALL, LARGE = (-0.2, 0.1, 0.0, 0.2, -0.1), (5.9, 6.1, 6.0, 6.2, 5.8)
WIDE = (-4.0, 6.0, 1.0, -5.0, 7.0)


def test_support_needs_every_upper_bound_of_every_row_below_two_points() -> None:
    assert verdict_of(seeds(*SMALL)) == "supported"
    assert verdict_of(seeds(*SMALL), seeds(*SMALL)) == "supported"
    assert verdict_of(seeds(*SMALL), seeds(*WIDE)) == "inconclusive"
    near = (1.7, 2.1, 1.8, 2.0, 1.9)  # below 2 in the mean, not surely
    assert verdict_of(seeds(*near)) == "inconclusive"


def test_that_nothing_is_significant_supports_nothing() -> None:
    """Wide intervals around a small gain: no test rejects, and nothing is shown."""
    assert verdict_of(seeds(*WIDE)) == "inconclusive"


def test_one_gain_surely_above_two_points_refutes_however_many_checks_there_are() -> None:
    slightly = (2.3, 2.9, 2.5, 2.8, 2.6)  # p is 0.003: Holm over 300 checks would let it pass
    many = [seeds(*SMALL)] * 300
    assert verdict_of(*many, seeds(*slightly)) == "not supported"
    assert verdict_of(seeds(*LARGE)) == "not supported"


def test_a_query_that_changes_its_rank_without_a_budget_refutes() -> None:
    good = [[check(0.0), check(0.0, 0.0, 0.0, "zero_budget", exact=True)] for _ in range(5)]
    bad = [[check(0.0), check(0.1, 0.1, 0.1, "zero_budget", exact=True)]]
    assert verdict_of(good) == "supported"
    assert verdict_of([*good[:4], *bad]) == "not supported"


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [
        (-1.0, 1.9, "favourable"), (-1.0, 2.1, "inconclusive"), (2.1, 8.0, "unfavourable"),
    ],
)  # fmt: skip
def test_one_seed_speaks_of_its_weights_by_the_interval_over_images(
    low: float, high: float, word: str
) -> None:
    assert verdict_of([[check(1.0, low, high)]]) == f"{word}, for these weights only"


def test_three_seeds_decide_nothing_about_a_method() -> None:
    assert verdict_of(seeds(*SMALL[:3])) == verdict_of(seeds(*LARGE[:3])) == "inconclusive"


def test_the_entry_names_what_is_above_and_shows_both_bounds() -> None:
    entry = masked_gradients_entry({"mat": seeds(*LARGE), "tecoa": seeds(*SMALL)}, "somewhere")
    assert "1 of 2 gains surely below 2 points, 1 surely above: apgd of mat" in entry["contrast"]
    assert entry["estimate"] == 0.06 and entry["n_seeds"] == 5 and entry["unit"] == "seed"
    assert entry["ci_low"] < 0.06 < entry["ci_high"] < 0.07
    (row,) = claim_rows([entry])
    assert row["estimate"] == "+6.0 [5.9, 6.2]"


@pytest.mark.parametrize("verdict", ["supported", "favourable, for these weights only"])
def test_a_ledger_of_before_is_read_in_the_words_of_now(tmp_path: Path, verdict: str) -> None:
    """A claim of equivalence has an upper bound; one of before had none."""
    now = {**masked_gradients_entry({"mat": seeds(*SMALL)}, ""), "verdict": verdict}
    others = [{**now, "ci_high": None}, {**now, "id": "C2"}, {**now, "verdict": "not supported"}]
    (tmp_path / "claims.json").write_text(json.dumps([now, *others]))
    told = [claim["verdict"] for claim in read_claims(tmp_path / "claims.json")]
    assert told[1].startswith("no violation found")
    assert [told[0], *told[2:]] == [verdict, verdict, "not supported"]


def test_a_study_without_defences_has_nothing_to_examine(base_study: Study) -> None:
    assert battery(base_study) == {}
