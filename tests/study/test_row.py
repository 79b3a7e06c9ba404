"""One row of a study by one command; and a published one made anew."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from matlib.cli import main
from matlib.evaluation.statistics import primary_endpoint
from matlib.study.profile.profile import load_profile
from matlib.study.profile.rows import Run
from matlib.study.run.records import accept_records
from matlib.study.run.row import hashes_of_row, make_row, tasks_of_row
from matlib.study.store.provenance import PACKAGE_ROOT
from matlib.study.store.shared_json import read_shared
from matlib.study.study import Study
from tests.study.smoke_parts import NO_PAIRS

ALONE = {"transfer_rows": (), "architectures": {}, **NO_PAIRS}


def test_a_row_is_made_by_one_command_with_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    smoke = load_profile("smoke")
    runs = (Run(defence="clean"), Run(defence="mat"))
    e = smoke.evaluation.model_copy(update={"threats": ("bert_true",), "held_out": ()})
    one = smoke.model_copy(update={"name": "one", "runs": runs, "evaluation": e, **ALONE})
    path = tmp_path / "one.yaml"
    path.write_text(yaml.safe_dump(one.model_dump(mode="json")))
    command = ["row", "--study", str(path), "--row", "clean", "--results", str(tmp_path)]
    assert main([*command, "--seed", "0"]) == 0
    said = capsys.readouterr().out
    study = Study(one, tmp_path)
    outcomes = study.evaluated("clean", 0).outcomes
    for attack in ("pgd", "gallery", "worst"):
        key = (attack, "" if attack == "pgd" else "bert_true")
        assert f"{100 * primary_endpoint(outcomes[key]):.1f} [" in said
    made = sorted(each.name.split("-")[1] for each in (study.root / "runs").glob("model-*"))
    assert made == ["base", "clean"]  # and no other row
    for wrong, words in (
        (["--row", "mat2"], "has no row 'mat2'; it has: base, clean, mat"),
        (["--seed", "3"], "has the training seeds 0 in the worlds 7; got seed 3"),
    ):
        assert main([*command, *wrong]) == 1
        assert words in capsys.readouterr().err


def small_profile(folder: Path, processes: int) -> Path:
    """The smoke profile's clean and mat rows, trained by so many processes."""
    smoke = load_profile("smoke")
    assert smoke.base is not None and smoke.finetune is not None
    e = smoke.evaluation.model_copy(update={"threats": ("bert_true",), "held_out": ()})
    base, finetune = (
        phase.model_copy(update={"processes": processes}) for phase in (smoke.base, smoke.finetune)
    )
    changed = {"name": "one", "runs": (Run(defence="mat"),), "evaluation": e, "base": base}
    one = smoke.model_copy(update={**changed, "finetune": finetune, **ALONE})
    path = folder / f"split-{processes}.yaml"
    path.write_text(yaml.safe_dump(one.model_dump(mode="json")))
    return path


def test_a_model_is_trained_by_as_many_processes_as_its_profile_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["row", "--row", "base", "--results", str(tmp_path), "--study"]
    assert main([*command, str(small_profile(tmp_path, 2))]) == 1
    said = capsys.readouterr().err
    assert "base is trained by 2 processes" in said and "torchrun --nproc-per-node 2" in said
    one, two = (Study(load_profile(str(small_profile(tmp_path, n))), tmp_path) for n in (1, 2))
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="by 1 processes, as its profile says; here is 2"):
        one.model("base")
    assert hashes_of_row(one, "mat", 0) != hashes_of_row(
        two, "mat", 0
    )  # numbers differ by rounding


@pytest.mark.full
def test_processes_of_torchrun_train_a_row_that_the_first_makes_and_a_study_reads(
    tmp_path: Path,
) -> None:
    path = small_profile(tmp_path, 2)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += ["-m", "matlib", "row", "--study", str(path), "--row", "mat"]
    ended = subprocess.run(
        [*command, "--results", str(tmp_path)], env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("recall left in %") == 1  # the first process alone tells
    study = Study(load_profile(str(path)), tmp_path)
    made = [each["name"] for each in study.store.records() if each["kind"] == "model"]
    assert made == ["base", "mat"]  # each once
    assert not [*study.root.glob(".joined-*")] and not [*(study.root / "training").glob("*/*")]
    alone = Study(load_profile(str(small_profile(tmp_path, 1))), tmp_path / "alone")
    losses = [each.history("base")["loss"] for each in (study, alone) if each.model("base")]
    assert losses[0].tolist() == pytest.approx(losses[1].tolist(), abs=1e-4)
    study.model("mat")  # read by one process
    make_row(study, "mat", 0)


def test_a_row_in_a_further_world_is_another_one(tmp_path: Path) -> None:
    smoke = load_profile("smoke").model_copy(update={"worlds": (8,), **ALONE})
    study = Study(smoke, tmp_path)
    [here], [there] = (tasks_of_row(study, "mat", 0, world) for world in (None, 8))
    assert here.world is None and there.world == 8
    with pytest.raises(ValueError, match="in the worlds 7, 8; got seed 0 in world 9"):
        tasks_of_row(study, "mat", 0, 9)


@pytest.mark.full
def test_a_published_row_is_the_same_when_it_is_made_anew_from_nothing(tmp_path: Path) -> None:
    """Ranks query by query, with none of the published weights or tables at hand."""
    folder = PACKAGE_ROOT / "published" / "report"
    study = Study(load_profile("report"), tmp_path / "anew")
    published = {each["hash"] for each in read_shared(folder / "provenance.json")["artefacts"]}
    if not published >= {*hashes_of_row(study, "mat", 0)}:
        pytest.skip("the published records were made by other code than is here")
    recorded = Study(study.profile, tmp_path / "recorded", source=study.source)
    accept_records(recorded, folder, whole=True)
    make_row(study, "mat", 0)
    how = study.main_protocol("test")
    own, theirs = (each.outcomes("mat", 0, how) for each in (study, recorded))
    assert own.keys() == theirs.keys()
    for key, found in own.items():
        assert found.tr_rank.equal(theirs[key].tr_rank), key
        assert found.ir_rank.equal(theirs[key].ir_rank), key
