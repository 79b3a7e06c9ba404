from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from matlib.cli import main
from matlib.commands import evaluate as evaluate_module
from matlib.config import load_profile
from matlib.models.small import SmallModel, build_small
from matlib.study.tables import COLUMNS
from matlib.training.checkpoint import save_weights


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    profile = load_profile("smoke")
    shape = profile.model.model_dump(exclude={"kind", "name", "pretrained"})
    path = tmp_path_factory.mktemp("own") / "robust.safetensors"
    encoder = build_small(SmallModel(image_size=profile.dataset.image_size, **shape), seed=3)
    save_weights(encoder, path)
    return path


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, weights: Path) -> Path:
    folder = tmp_path_factory.mktemp("results")
    assert main(_arguments(weights, folder)) == 0
    return folder


def _arguments(weights: Path, results: Path, **changes: str) -> list[str]:
    given = {
        "--model": "small", "--checkpoint": str(weights), "--profile": "smoke", "--name": "own",
        "--dataset": "scenes", "--results": str(results), "--train-eps": "4", **changes,
    }  # fmt: skip
    return ["evaluate", *(word for pair in given.items() for word in pair)]


def test_the_row_has_the_columns_of_the_studys_table(results: Path) -> None:
    table = pd.read_csv(results / "smoke" / "extra" / "own.csv")
    assert tuple(table.columns) == COLUMNS
    assert set(table["defence"]) == {"own"} and set(table["train_eps_255"]) == {4.0}
    suite = {"clean", "pgd", "bert", "sep", "sga", "joint", "worst"}
    assert suite <= set(table["attack"])
    assert table["recall"].between(table["ci_low"] - 1e-6, table["ci_high"] + 1e-6).all()
    tr = table[table["direction"] == "TR"]
    assert set(tr["n_queries"]) == {16} and set(tr["n_gallery"]) == {32}


def test_what_was_judged_is_loaded_and_shown_beside_the_study(
    results: Path,
    weights: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("judged again")

    monkeypatch.setattr(evaluate_module, "_judge", never)
    own = results / "smoke" / "extra" / "own.csv"
    study = pd.read_csv(own).assign(defence="mat", seed="mean")
    study.to_csv(results / "smoke" / "robustness.csv", index=False)
    assert main(_arguments(weights, results)) == 0
    lines = capsys.readouterr().out.splitlines()
    header, mat, mine = (line.split() for line in lines[1:4])
    assert header[:5] == ["defence", "augmentation", "seed", "source_model", "clean"]
    assert mat[0] == "mat" and mine[0] == "own" and mat[3:] == mine[3:]


def test_attacks_made_on_a_row_of_the_study_are_marked_as_transferred(
    results: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = {"--name": "own-transfer", "--source": "base"}
    assert main(_arguments(weights, results, **changes)) == 0
    white = pd.read_csv(results / "smoke" / "extra" / "own.csv")
    moved = pd.read_csv(results / "smoke" / "extra" / "own-transfer.csv")
    assert set(white["source_model"]) == {"self"} and set(moved["source_model"]) == {"base"}
    assert not white["recall"].equals(moved["recall"])
    clean = [table[table["attack"] == "clean"]["recall"].to_list() for table in (white, moved)]
    assert clean[0] == clean[1]
    assert main(_arguments(weights, results, **{"--name": "x", "--source": "nobody"})) == 1
    assert "no row 'nobody'" in capsys.readouterr().err


def test_another_model_under_the_same_name_is_refused(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    profile = load_profile("smoke")
    shape = profile.model.model_dump(exclude={"kind", "name", "pretrained"})
    other = build_small(SmallModel(image_size=profile.dataset.image_size, **shape), seed=4)
    save_weights(other, tmp_path / "other.safetensors")
    assert main(_arguments(tmp_path / "other.safetensors", results)) == 1
    assert "is the row of another model" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"--name": "../own"}, "--name becomes a row and a file"),
        ({"--dataset": "coco"}, "is about scenes, not coco"),
        ({"--checkpoint": "nowhere.pt"}, "no checkpoint file"),
        ({"--profile": "nope"}, "no profile 'nope'"),
    ],
)
def test_what_is_wrong_is_said_before_any_work(
    weights: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, str],
    message: str,
) -> None:
    assert main(_arguments(weights, tmp_path, **changes)) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "smoke" / "extra").exists()
