"""The claim that rests on the sanity battery is computed from its checks."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from matlib.evaluation.sanity_checks import CHECKS, verdicts
from matlib.evaluation.sanity_subject import Check
from matlib.study.made.sanity import N_CHECKS, battery, masked_gradients_entry, n_boot_for
from matlib.study.publish.report import claim_rows, read_claims
from matlib.study.study import Study

PASSED = Check(
    name="more_steps", asserts="more steps do not help", numbers={"one": 10.0},
    estimate_points=-1.0, lower_points=-3.0, p_value=1.0, p_smallest=1e-4, exact=False,
    n_images=100, p_adjusted=1.0, verdict="passed",
)  # fmt: skip
SUSPICIOUS = replace(
    PASSED, name="apgd", estimate_points=9.0, lower_points=5.0, p_value=1e-4, verdict="violated"
)


def test_one_violated_check_refutes_and_is_named() -> None:
    found = {"mat": [PASSED, SUSPICIOUS], "tecoa": [PASSED]}
    entry = masked_gradients_entry(found, 1, "somewhere")
    assert entry["verdict"] == "unfavourable, for these weights only"
    assert "1 of 3" in entry["contrast"] and "apgd of mat" in entry["contrast"]
    assert entry["estimate"] == 0.09 and entry["ci_low"] == 0.05 and entry["ci_high"] is None
    assert masked_gradients_entry(found, 5, "")["verdict"] == "not supported"
    (row,) = claim_rows([entry])
    assert row["estimate"] == "+9.0 [≥ 5.0]"


def test_that_no_check_is_violated_supports_nothing() -> None:
    found = {"mat": [PASSED]}
    few, many = (masked_gradients_entry(found, n, "")["verdict"] for n in (1, 5))
    assert few == "no violation found, for these weights only"
    assert many == "no violation found"


@pytest.mark.parametrize("verdict", ["supported", "favourable, for these weights only"])
def test_a_ledger_of_before_is_read_in_the_words_of_now(tmp_path: Path, verdict: str) -> None:
    old = {**masked_gradients_entry({"mat": [PASSED]}, 5, ""), "verdict": verdict}
    others = [{**old, "id": "C2"}, {**old, "verdict": "not supported"}]
    (tmp_path / "claims.json").write_text(json.dumps([old, *others]))
    told = [claim["verdict"] for claim in read_claims(tmp_path / "claims.json")]
    assert told[0].startswith("no violation found") and told[1:] == [verdict, "not supported"]


def test_a_study_without_defences_has_nothing_to_examine(base_study: Study) -> None:
    assert battery(base_study) == {}


@pytest.mark.parametrize("n_models", [1, 7, 80, 400])
def test_with_any_number_of_models_one_check_can_be_violated(n_models: int) -> None:
    """Holm over 800 checks once put the smallest p-value of 20 000 samples beyond 0.05."""
    smallest = 2 / (n_boot_for(n_models) + 1)  # of a check with two rules
    each = [replace(PASSED, p_value=1.0, p_smallest=smallest)] * (N_CHECKS - 1)
    found = {f"model {index}": list(each) for index in range(n_models)}
    found["model 0"][0] = replace(SUSPICIOUS, p_value=smallest, p_smallest=smallest)
    judged = verdicts(found)
    assert judged["model 0"][0].verdict == "violated"
    assert n_boot_for(7) == 20_000  # what a small study has computed is kept
    assert n_boot_for(80) == n_boot_for(85)  # one more row of five seeds leaves the others' alone
    assert len(CHECKS) == N_CHECKS
