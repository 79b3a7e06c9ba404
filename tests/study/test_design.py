"""The design of the report is what profiles and code do, and the history covers every world."""

from __future__ import annotations

import hashlib
import re
import subprocess
from typing import Any, get_args

import pytest

from matlib.data.strict import read_yaml
from matlib.evaluation.crossed import SCORES
from matlib.evaluation.statistics import MIN_SEEDS_FOR_CLAIM
from matlib.models.small import Family
from matlib.study.profile.profile import Profile, load_profile, profile_names
from matlib.study.publish.design import (
    DESIGNS,
    design_markdown,
    design_of,
    history_markdown,
)
from matlib.study.store.provenance import PACKAGE_ROOT
from matlib.study.tables.contrasts import MIN_ARCHITECTURES, RIVALS, THREAT_PARTS
from matlib.study.tables.findings import EXPLORING, REPLICATIONS
from matlib.study.tables.ledger import CLAIM_ALPHA, CLAIMS

PUBLISHED = PACKAGE_ROOT / "published"
DESIGN, AGAIN, OF_PAIRS = (design_of(PUBLISHED, name) for name in DESIGNS)
REPORT: dict[str, Profile] = {name: load_profile(name) for name in DESIGN["profiles"]}


@pytest.mark.parametrize("name", REPORT)
def test_profiles_of_the_report_have_its_worlds_seeds_and_budgets(name: str) -> None:
    profile, e = REPORT[name], REPORT[name].evaluation
    worlds = [profile.dataset.world_seed, *profile.worlds]
    assert worlds == DESIGN["worlds"]["report"][: len(worlds)]
    assert profile.dataset.held_out_words == "half"
    assert list(profile.seeds) == list(profile.seeds_of_techniques)
    assert list(profile.seeds) == DESIGN["training_seeds"][name]
    budget = (e.eps_255, e.unimodal_eps_255, e.n_words)
    assert budget == tuple(DESIGN["budgets"][key] for key in
                           ("eps_255", "unimodal_eps_255", "n_words"))  # fmt: skip
    assert e.primary_threat == next(iter(DESIGN["threats"].values()))["text_threat"]
    assert profile.train_attack.eps_255 == e.eps_255


def test_the_report_has_several_worlds_every_rival_every_threat_and_every_size() -> None:
    report, of_pairs = REPORT["report"], REPORT["report-pairs"]
    assert len({report.dataset.world_seed, *report.worlds}) >= 3
    stages = [{run.row for run in REPORT[name].runs} for name in ("report", "report-rivals")]
    assert {*RIVALS} <= stages[0] | stages[1] and {"mat", "mat-valid"} <= stages[0] & stages[1]
    named = [each["text_threat"] for each in DESIGN["threats"].values()]
    assert list(report.evaluation.threats) == named
    sizes = {run.n_train or of_pairs.dataset.n_train for run in of_pairs.techniques}
    assert sizes == {300, 500, 1000, 2000}
    models = REPORT["report-models"]
    assert len(models.architectures) + 1 >= MIN_ARCHITECTURES
    families = {models.model.family, *(each.family for each in models.architectures.values())}
    assert families == {*get_args(Family)}
    assert set(models.transfer_rows) == {run.row for run in models.runs}


def test_code_decides_as_the_design_says() -> None:
    for part in THREAT_PARTS[: len(DESIGN["threats"])]:
        own: dict[str, Any] = DESIGN["threats"][part.name]
        assert (part.threats[0], part.mat) == (own["text_threat"], own["mat"])
    assert set(SCORES) == set(DESIGN["endpoints"]) - {"decides"}
    assert f"one-sided {CLAIM_ALPHA}" in " ".join(DESIGN["multiplicity"].split())
    families = {claim[:2] if claim.startswith("C7") else claim for claim in CLAIMS}
    assert set(DESIGN["claims"]) == families - {"C4b", "C4c", "C8b"}


def test_no_world_of_the_report_was_used_before() -> None:
    report, calibration = (set(DESIGN["worlds"][key]) for key in ("report", "calibration"))
    again, of_pairs = (
        set(each["worlds"][name])
        for each, name in zip((AGAIN, OF_PAIRS), REPLICATIONS, strict=True)
    )
    frozen = (*REPORT, *REPLICATIONS, *EXPLORING)
    others = {load_profile(name).dataset.world_seed
              for name in profile_names() if name not in frozen}  # fmt: skip
    used = [calibration, report, again, of_pairs]
    assert sum(map(len, used)) == len(set.union(*used)) and others <= calibration
    assert {load_profile(name).dataset.world_seed for name in EXPLORING} <= again
    history = read_yaml(PUBLISHED / "history.yaml")
    assert {world for each in history for world in each["worlds"]} == set.union(*used)


def test_the_replication_has_the_reports_settings_in_worlds_of_its_own() -> None:
    assert tuple(AGAIN["profiles"]) == REPLICATIONS[:1]
    profile, report, of_pairs = (
        load_profile(name) for name in ("replication", "report", "report-pairs")
    )
    assert [profile.dataset.world_seed, *profile.worlds] == AGAIN["worlds"]["replication"]
    assert len(profile.worlds) + 1 >= MIN_SEEDS_FOR_CLAIM
    assert list(profile.seeds) == AGAIN["training_seeds"]["replication"]
    asked = {"threats": (AGAIN["threat"].split("(")[1].split(")")[0],)}
    asked["slow_under"] = asked["threats"]
    assert profile.evaluation == report.evaluation.model_copy(update=asked)
    for part in ("model", "masked_lm", "base", "finetune", "train_attack", "candidates"):
        assert getattr(profile, part) == getattr(report, part), part
    assert profile.dataset.model_copy(update={"world_seed": 11}) == report.dataset
    known = {run.row: run for run in report.runs}
    assert all(known[run.row] == run for run in profile.runs)
    known = {run.row: run for run in of_pairs.techniques}
    for run in profile.techniques:  # what a row leaves to `finetune` is given here and there
        wanted = known[run.row]
        rates = [each.lr or default.lr for each, default in
                 ((run, profile.finetune), (wanted, of_pairs.finetune))]  # fmt: skip
        threats = [each.threats or default.threats for each, default in
                   ((run, profile.train_attack), (wanted, of_pairs.train_attack))]  # fmt: skip
        assert len({*rates}) == len({*threats}) == 1
        free = {"lr": None, "threats": None}
        assert run.model_copy(update=free) == wanted.model_copy(update=free)
    assert {*AGAIN["claims"]} == {*AGAIN["expected"]} == {"C0", "C1", "C2", "C3", "C4"}


def test_the_replication_on_pairs_has_the_settings_of_the_dials_in_worlds_of_its_own() -> None:
    assert tuple(OF_PAIRS["profiles"]) == REPLICATIONS[1:]
    profile, dials, of_pairs = (
        load_profile(name) for name in ("replication-pairs", "report-dials", "report-pairs")
    )
    worlds = [profile.dataset.world_seed, *profile.worlds]
    assert worlds == OF_PAIRS["worlds"]["replication-pairs"]
    assert len(worlds) >= MIN_SEEDS_FOR_CLAIM
    assert list(profile.seeds) == OF_PAIRS["training_seeds"]["replication-pairs"]
    free = {"world_seed": 0}
    assert profile.dataset.model_copy(update=free) == dials.dataset.model_copy(update=free)
    for part in ("model", "masked_lm", "base", "finetune", "train_attack", "candidates",
                 "evaluation", "n_variants", "reference"):  # fmt: skip
        assert getattr(profile, part) == getattr(dials, part), part
    known = {run.row: run for run in (*of_pairs.techniques, *dials.techniques)}
    for run in profile.techniques:  # at another Vendi score: see `amended`
        wanted = known[run.row.replace(".v1.25", ".v1.35")]
        assert run.model_copy(update={"vendi": wanted.vendi}) == wanted
    own, theirs = profile.intervention, dials.intervention
    assert own and theirs and (own.design, theirs.design) == ("latin", "factorial")
    assert own.runs() == theirs.runs() and len(own.trained()) == 18
    assert {"C5", "C6", "C7"} < {*OF_PAIRS["claims"]}


def test_it_is_shown_with_the_hash_of_the_file_and_its_status() -> None:
    text = design_markdown(PUBLISHED)
    again = design_markdown(PUBLISHED, DESIGNS[1])
    assert hashlib.sha256((PUBLISHED / "replication.yaml").read_bytes()).hexdigest() in again
    assert hashlib.sha256((PUBLISHED / "design.yaml").read_bytes()).hexdigest() in text
    assert ("draft" in text.splitlines()[0]) == (DESIGN["status"] == "draft")
    assert "- claims:\n  - C0: MAT - base, by threat\n" in text
    table = history_markdown(PUBLISHED)
    assert "| 1 | published first" in table and table.count("\n") >= 6


def test_commits_that_the_history_names_exist() -> None:
    named = set(re.findall(r"\b[0-9a-f]{7}\b", (PUBLISHED / "history.yaml").read_text()))
    git = ["git", "-C", str(PACKAGE_ROOT)]
    whole = subprocess.run([*git, "rev-parse", "--is-shallow-repository"], capture_output=True,
                           text=True, check=False)  # fmt: skip
    if whole.stdout.strip() != "false":
        pytest.skip("no git checkout with its history")
    for commit in named:
        subprocess.run([*git, "cat-file", "-e", f"{commit}^{{commit}}"], check=True)
    assert len(named) >= 4
