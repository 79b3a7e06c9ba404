"""The whole chain of artefacts at a toy size: made once, found again, resumed after a kill."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch

from matlib.attacks.edits import apply_edit
from matlib.evaluation.suite import ATTACKS, default_rows
from matlib.study.made.evaluated import evaluated
from matlib.study.made.models import defended
from matlib.study.made.protocols import EvaluationProtocol
from matlib.study.profile.profile import Profile, load_profile
from matlib.study.recipes import row_name
from matlib.study.store.shared_json import read_shared
from matlib.study.study import Study
from matlib.study.tables.ledger import ledger
from matlib.study.tables.results import ROBUSTNESS_COLUMNS, robustness_table, write_results
from tests.study.smoke_parts import NO_PAIRS


def toy_profile() -> Profile:
    smoke = load_profile("smoke")
    runs = tuple(run for run in smoke.runs if run.defence in ("clean", "mat", "mat+"))
    alone = {"runs": runs, "architectures": {}, "transfer_rows": (), **NO_PAIRS}
    evaluation = smoke.evaluation.model_copy(update={"held_out": ()})
    return smoke.model_copy(update={**alone, "evaluation": evaluation, "name": "toy"})


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return Study(toy_profile(), tmp_path_factory.mktemp("results"))


def test_table_has_every_row_once_and_worst_is_never_above_its_parts(study: Study) -> None:
    table = robustness_table(study)
    assert list(table.columns) == list(ROBUSTNESS_COLUMNS)
    models = {(d, a) for d, a in zip(table["defence"], table["augmentation"], strict=True)}
    assert models == {
        ("base", "none"),
        ("clean", "none"),
        ("mat", "none"),
        ("mat+", "captions+renderings"),
    }
    n_apart = sum(a == "clean" or not ATTACKS[a].of_fusion for a in default_rows())
    n_rows = 2 + (n_apart - 2 + 1) * 3  # clean and pgd; per threat the rest and worst
    assert len(table) == 4 * n_rows * 2 * 3  # models x attacks x directions x k
    assert table["recall"].between(0, 1).all()
    assert (table["ci_low"] <= table["recall"]).all() and (
        table["recall"] <= table["ci_high"]
    ).all()
    one = table[(table["defence"] == "mat") & (table["direction"] == "IR") & (table["k"] == 5)]
    for threat in ("bert_true", "typo", "bert_free"):
        part = one[one["text_threat"].isin([threat, ""])].set_index("attack")["recall"]
        assert part["worst"] <= part.drop("worst").min() + 1e-12


def test_finished_work_is_found_again_and_not_made_twice(study: Study) -> None:
    robustness_table(study)
    before = {path: path.stat().st_mtime_ns for path in study.store.runs.rglob("*.*")}
    again = Study(study.profile, study.root.parent)
    pd.testing.assert_frame_equal(robustness_table(again), robustness_table(study))
    after = {path: path.stat().st_mtime_ns for path in study.store.runs.rglob("*.*")}
    assert {p: t for p, t in after.items() if p in before} == before


def test_an_evaluation_is_found_without_the_model_that_it_judged(study: Study) -> None:
    study.evaluated("mat")
    node = defended(study, study.run("mat"), 0)
    folder, aside = study.store.runs / node.spec.folder, study.root / "aside"
    folder.rename(aside)
    try:
        assert Study(study.profile, study.root.parent).evaluated("mat").outcomes
        assert not folder.exists()
    finally:
        aside.rename(folder)


def test_ledger_decides_what_it_can_and_marks_the_rest(study: Study) -> None:
    claims = {entry["id"]: entry for entry in ledger(study)}
    assert claims["C4"]["contrast"] == "mat+.captions+renderings - mat"
    assert claims["C2"]["verdict"] == "not yet tested"  # its rivals are not in this profile
    assert claims["C6"]["verdict"] == "not yet tested" and claims["C6"]["estimate"] is None
    decided = [c for c in claims.values() if c["verdict"] != "not yet tested"]
    assert {c["id"] for c in decided} == {"C0", "C1", "C3", "C4", "C9"}
    for entry in decided:
        high = entry["ci_high"]
        assert entry["ci_low"] <= entry["estimate"] <= high
        assert entry["verdict"] != "supported"  # one seed never supports a claim


def test_results_are_written_and_say_what_made_them(study: Study) -> None:
    files = write_results(study)
    assert {path.name for path in files.values()} == {
        "robustness.csv",
        "endpoints.csv",
        "transfer.csv",
        "contrasts.csv",
        "claims.json",
        "provenance.json",
    }
    text = files["provenance.json"].read_text()
    assert str(study.root) not in text and "judged" in {
        a["kind"] for a in read_shared(files["provenance.json"])["artefacts"]
    }


def test_true_edits_keep_the_caption_true_and_free_edits_need_not(study: Study) -> None:
    tables = study.tables("test", ("bert_true", "typo", "bert_free"))
    pairs, checker = study.pairs("test"), study.source.world.test.checker  # type: ignore[union-attr]
    false = 0
    for i, caption in enumerate(pairs.captions):
        own = int(pairs.image_of[i])
        for edit in tables["bert_true"][i]:
            assert checker.described(apply_edit(caption, edit)) <= checker.described(caption)
            assert own in checker.described(apply_edit(caption, edit))
        false += sum(
            own not in checker.described(apply_edit(caption, edit))
            for edit in tables["bert_free"][i]
        )
    assert false > 0


def test_equal_galleries_have_one_caption_per_image_and_the_same_size(study: Study) -> None:
    train, test = study.pairs("train-1"), study.pairs("test-1")
    assert len(train) == len(test) == train.n_captions == test.n_captions


def test_unknown_row_names_the_known_ones(study: Study) -> None:
    with pytest.raises(ValueError, match="no row 'tecoa'; it has: base, clean, mat, mat"):
        study.evaluated("tecoa")


KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from tests.study.test_runs import toy_profile
from matlib.study.study import Study
study = Study(toy_profile(), Path(sys.argv[1]))
for name, seed in study.rows():
    study.evaluated(name, seed)
"""


@pytest.mark.parametrize("artefacts_before_kill", [1, 4])
def test_killed_and_started_again_ends_with_the_same_numbers(
    study: Study, tmp_path: Path, artefacts_before_kill: int
) -> None:
    root = Path(__file__).resolve().parents[2]
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path), str(root)], stdout=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 300
        while process.poll() is None and time.monotonic() < deadline:
            done = list((tmp_path / "toy" / "runs").glob("[a-z]*/provenance.json"))
            if len(done) >= artefacts_before_kill:
                break
    finally:
        process.kill()
        process.wait()
    resumed = Study(toy_profile(), tmp_path)
    for name in ("base", "mat"):
        found, expected = resumed.evaluated(name), study.evaluated(name)
        assert found.captions == expected.captions
        for key, outcomes in expected.outcomes.items():
            assert torch.equal(found.outcomes[key].tr_rank, outcomes.tr_rank)
            assert torch.equal(found.outcomes[key].ir_rank, outcomes.ir_rank)


def test_row_names_are_unique_in_every_profile() -> None:
    for profile in ("smoke", "demo", "demo-full", "flickr8k", "flickr30k", "coco"):
        names = [row_name(run) for run in load_profile(profile).runs]
        assert len(set(names)) == len(names)


def test_judging_another_budget_is_another_artefact(study: Study) -> None:
    main = study.main_protocol("test")
    other = EvaluationProtocol("test", main.threats, main.eps_255 + 1)
    assert evaluated(study, "base", 0, main).hash != evaluated(study, "base", 0, other).hash
