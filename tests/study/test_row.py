"""One row of a study by one command; and a published one made anew."""

from __future__ import annotations

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
    folder = PACKAGE_ROOT / "published" / "demo-full"
    study = Study(load_profile("demo-full"), tmp_path / "anew")
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
