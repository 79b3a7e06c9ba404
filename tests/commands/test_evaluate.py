from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest

from matlib.cli import main
from matlib.commands import evaluate as evaluate_module
from matlib.evaluation.robustness import Evaluation
from matlib.models.small import build_small
from matlib.study.profile.profile import load_profile
from matlib.study.tables.results import ROBUSTNESS_COLUMNS
from matlib.training.checkpoint import save_weights


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    profile = load_profile("smoke")
    path = tmp_path_factory.mktemp("own") / "robust.safetensors"
    encoder = build_small(profile.model.shape(profile.dataset.image_size), seed=3)
    save_weights(encoder, path)
    return path


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, weights: Path) -> Path:
    folder = tmp_path_factory.mktemp("results")
    assert main(_arguments(weights, folder)) == 0
    return folder


def _arguments(weights: Path, results: Path, **changes: str) -> list[str]:
    given = {
        "--model": "small", "--pretrained": str(weights), "--profile": "smoke", "--name": "own",
        "--dataset": "scenes", "--results": str(results), "--train-eps": "4", **changes,
    }  # fmt: skip
    return ["evaluate", *(word for pair in given.items() for word in pair)]


def test_the_row_has_the_columns_of_the_studys_table(results: Path) -> None:
    table = pd.read_csv(results / "smoke" / "extra" / "own.csv")
    assert tuple(table.columns) == ROBUSTNESS_COLUMNS
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


@pytest.mark.parametrize("name", ["robust.safetensors", "fare_eps_4"])
def test_another_model_under_the_same_name_is_refused(
    results: Path,
    tmp_path: Path,
    name: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Weights are known by their content, in a file without an ending too."""
    profile = load_profile("smoke")
    other = build_small(profile.model.shape(profile.dataset.image_size), seed=4)
    save_weights(other, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert main(_arguments(Path(name), results)) == 1
    said = capsys.readouterr().err
    assert "is the row of another model" in said and "choose another --name" in said


def test_another_source_under_the_same_name_is_refused(
    results: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(_arguments(weights, results, **{"--source": "base"})) == 1
    assert "source: self there, base now" in capsys.readouterr().err
    assert main(_arguments(weights, results, **{"--name": "OWN"})) == 1
    assert "its name is own" in capsys.readouterr().err


def test_a_row_of_the_studys_last_table_is_refused_too(
    results: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A row that has left the profile stays in the table until the study runs again."""
    study = pd.read_csv(results / "smoke" / "extra" / "own.csv").assign(defence="gone")
    study.to_csv(results / "smoke" / "robustness.csv", index=False, float_format="%.6f")
    assert main(_arguments(weights, results, **{"--name": "gone"})) == 1
    assert "the study has 'gone' itself" in capsys.readouterr().err


def test_a_limited_evaluation_is_a_row_of_its_own_and_never_beside_whole_ones(
    results: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    extra = results / "smoke" / "extra"
    whole = (extra / "own.csv").read_bytes()
    study = pd.read_csv(extra / "own.csv").assign(defence="mat")
    study.to_csv(results / "smoke" / "robustness.csv", index=False, float_format="%.6f")
    assert main(_arguments(weights, results, **{"--limit": "4"})) == 0
    said = capsys.readouterr().out
    assert "own.limit-4" in said and "partial: at most 4 test images" in said
    assert "mat" not in said.split() and "1 rows of the study are left out" in said
    assert (extra / "own.csv").read_bytes() == whole
    limited = pd.read_csv(extra / "own.limit-4.csv")
    assert set(limited["defence"]) == {"own.limit-4"}
    assert set(limited[limited["direction"] == "TR"]["n_queries"]) == {4}
    assert main(_arguments(weights, results, **{"--limit": "16"})) == 0  # all there are
    assert not (extra / "own.limit-16.csv").exists()


def test_damage_is_mended_from_the_store_or_judged_again(
    results: Path,
    weights: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = results / "smoke" / "extra" / "own.csv"
    kept = next((results / "smoke" / "runs").glob("extra-own-s0-*"))
    sound, evaluated = own.read_bytes(), pd.read_csv(kept / "table.csv", keep_default_na=False)
    (results / "smoke" / "robustness.csv").unlink(missing_ok=True)
    n_evaluated = []

    def judge(*_: object) -> Evaluation:
        n_evaluated.append(1)
        return Evaluation()

    monkeypatch.setattr(evaluate_module, "_judge", judge)
    monkeypatch.setattr(evaluate_module, "_table", lambda *_: evaluated)
    for content in (sound[: len(sound) // 2], b"", sound.replace(b"0.0", b"0.9", 1), None):
        own.unlink()
        if content is not None:
            own.write_bytes(content)
        assert main(_arguments(weights, results)) == 0
        assert own.read_bytes() == sound and not n_evaluated
    for name in ("table.csv", "provenance.json"):
        for content in ((kept / name).read_bytes()[:300], b"", b"[]", None):
            (kept / name).unlink()
            if content is not None:
                (kept / name).write_bytes(content)
            capsys.readouterr()
            assert main(_arguments(weights, results)) == 0
            assert "it is made again" in capsys.readouterr().out
            assert own.read_bytes() == sound and n_evaluated.pop()


def test_a_row_without_a_budget_of_training_is_shown(
    results: Path,
    weights: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    evaluated = pd.read_csv(results / "smoke" / "extra" / "own.csv", keep_default_na=False)
    evaluated = evaluated.assign(defence="bare", train_eps_255=float("nan"))
    monkeypatch.setattr(evaluate_module, "_judge", lambda *_: Evaluation())
    monkeypatch.setattr(evaluate_module, "_table", lambda *_: evaluated)
    given = _arguments(weights, results, **{"--name": "bare"})
    at = given.index("--train-eps")
    assert main([*given[:at], *given[at + 2 :]]) == 0
    assert "bare" in capsys.readouterr().out.split()


@pytest.mark.parametrize("damaged", ["cut", "emptied", "other columns", "half of its rows"])
def test_a_damaged_table_of_the_study_is_not_shown(
    results: Path, weights: Path, damaged: str, capsys: pytest.CaptureFixture[str]
) -> None:
    study = pd.read_csv(results / "smoke" / "extra" / "own.csv").assign(defence="mat")
    worst = study["attack"] == "worst"
    if damaged == "half of its rows":
        study = study[~worst]
    text = study.to_csv(index=False, float_format="%.6f")
    text = {"cut": text[:-70], "emptied": "", "other columns": text[9:]}.get(damaged, text)
    (results / "smoke" / "robustness.csv").write_text(text, encoding="utf-8")
    assert main(_arguments(weights, results)) == 0
    said = capsys.readouterr().out
    assert "mat" not in said.split() and "own" in said.split()
    assert ("run the study" in said) != ("1 rows of the study are left out" in said)


def test_names_stay_text(
    results: Path,
    weights: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """`NA` and `007` are what pandas would read as nothing and as a number."""
    evaluated = pd.read_csv(results / "smoke" / "extra" / "own.csv", keep_default_na=False)
    monkeypatch.setattr(evaluate_module, "_judge", lambda *_: Evaluation())
    monkeypatch.setattr(
        evaluate_module, "_table", lambda _o, _s, name, _f: evaluated.assign(defence=name)
    )
    for name in ("NA", "007", "1e3"):
        assert main(_arguments(weights, results, **{"--name": name})) == 0
        assert name in capsys.readouterr().out.split()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"--name": "../own"}, "--name becomes a row and a file"),
        ({"--name": "x" * 101}, "at most 100 letters"),
        ({"--name": "own.limit-4"}, "for rows on fewer images"),
        *(
            ({"--name": name}, "the study has .* itself.* choose another --name")
            for name in ("base", "MAT", "mat+.captions+renderings", "independent", "other", "mean")
        ),
        ({"--train-eps": "nan"}, "--train-eps is a budget"),
        ({"--train-eps": "-1"}, "--train-eps is a budget"),
        ({"--dataset": "coco"}, "is about scenes, not coco"),
        ({"--pretrained": "nowhere.pt"}, "no checkpoint file"),
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
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "smoke" / "extra").exists()
