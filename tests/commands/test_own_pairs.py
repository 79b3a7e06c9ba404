"""`evaluate` on a folder of one's own and `board`, as a user types them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from matlib.cli import main
from matlib.commands.board import run_board
from matlib.commands.options import EvaluateOptions
from matlib.commands.record import read_record
from matlib.commands.user_data import read_user_data, sized
from matlib.evaluation.threat import ROWS, Threat, benchmark
from matlib.files import file_hash
from matlib.models.small import save_small
from tests.commands.toy_data import COUNTS, Toy, make_toy
from tests.toys import TINY, tiny_encoder


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    return make_toy(tmp_path_factory.mktemp("toy"))


def typed(toy: Toy, out: Path | None = None, **changes: str) -> list[str]:
    given = {
        "--model": "small", "--pretrained": str(toy.weights), "--images": str(toy.images),
        "--captions": str(toy.captions), "--synonyms": str(toy.synonyms), "--eps": "8",
        "--steps": "1", **({"--out": str(out)} if out else {}), **changes,
    }  # fmt: skip
    return ["evaluate", *(word for pair in given.items() for word in pair if pair[1])]


@pytest.fixture(scope="module")
def evaluated(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("board") / "own.json"
    assert main(typed(toy, out, **{"--name": "mine"})) == 0
    return out


def test_the_file_has_the_table_of_the_library_and_what_it_depends_on(
    toy: Toy, evaluated: Path
) -> None:
    found = json.loads(evaluated.read_text(encoding="utf-8"))
    pairs = sized(read_user_data(toy.images, toy.captions), 16)
    threat = Threat(eps_255=8, n_steps=1, words=json.loads(toy.synonyms.read_text()))
    table = benchmark(tiny_encoder(), pairs, threat)
    assert [row["attack"] for row in found["rows"]] == [*ROWS, "worst"] == list(table.index)
    for row in found["rows"]:
        for name, said in row["recall"].items():
            here = table.loc[row["attack"], [name, f"{name} low", f"{name} high"]]
            assert [said["value"], said["low"], said["high"]] == here.to_list()
    assert found["model"]["weights"] == file_hash(toy.weights)
    assert found["data"]["captions"] == file_hash(toy.captions)
    assert (found["data"]["n_images"], found["data"]["n_captions"]) == (5, sum(COUNTS))
    assert found["threat"]["words"] == {"synonyms": file_hash(toy.synonyms), "k": 10}
    assert str(toy.images.parent) not in evaluated.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("said", "weights", "rest"),
    [
        ({"pretrained": "tag"}, "tag", ""),
        ({"pretrained": "own.pt", "rest": "tag"}, "own.pt", "tag"),
        ({"checkpoint": "own.pt", "pretrained": "tag"}, "own.pt", "tag"),  # as it was once said
        ({"checkpoint": "own.pt", "rest": "tag"}, "own.pt", "tag"),
        ({"checkpoint": "own.pt"}, "own.pt", ""),
    ],
)
def test_weights_are_said_as_for_attack(said: dict[str, str], weights: str, rest: str) -> None:
    found = EvaluateOptions(model="small", **said)
    assert (found.checkpoint, found.rest) == (weights, rest)


def test_weights_that_cannot_be_meant_are_refused(
    toy: Toy, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(typed(toy, **{"--pretrained": "", "--rest": "openai"})) == 2
    assert "--rest completes a file" in " ".join(capsys.readouterr().err.split())
    both = {"--checkpoint": "a.pt", "--rest": "openai"}
    assert main(typed(toy, **both)) == 2
    assert "leave --checkpoint out" in " ".join(capsys.readouterr().err.split())


def test_the_table_is_printed_without_a_file(toy: Toy, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(typed(toy)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["TR@1", "IR@1", "mean"]
    assert [line.split()[0] for line in lines[1 : len(ROWS) + 2]] == [*ROWS, "worst"]
    assert f"5 images, {sum(COUNTS)} captions; eps 8/255, 1 steps" in lines[len(ROWS) + 2]


def as_table(mark: str, header: str) -> Callable[[dict[str, list[str]]], str]:
    def text(captions: dict[str, list[str]]) -> str:
        rows = [(n, i, c) for n, own in captions.items() for i, c in enumerate(own)]
        cells = [header.split(",")] + [[n, *([str(i)] * (mark == "|")), c] for n, i, c in rows]
        return "\n".join(mark.join(row) for row in cells)

    return text


def as_karpathy(captions: dict[str, list[str]]) -> str:
    images = [
        {"filename": n, "split": "test", "imgid": i, "sentids": [],
         "sentences": [{"raw": c, "tokens": c.split(), "imgid": i, "sentid": 10 * i + j}
                       for j, c in enumerate(own)]}
        for i, (n, own) in enumerate(captions.items())
    ]  # fmt: skip
    return json.dumps({"images": images, "dataset": "toy"})


FORMS: dict[str, Callable[[dict[str, list[str]]], str]] = {
    "captions.csv": as_table(",", "image,caption"),
    "results.csv": as_table("|", "image_name,comment_number,comment"),
    "toy.token": lambda captions: "\n".join(
        f"{n}#{i}\t{c}" for n, own in captions.items() for i, c in enumerate(own)
    ),
    "dataset_toy.json": as_karpathy,
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_captions_gives_the_same_numbers(
    toy: Toy, evaluated: Path, tmp_path: Path, form: str
) -> None:
    captions = tmp_path / form
    captions.write_text(FORMS[form](json.loads(toy.captions.read_text())), encoding="utf-8")
    assert main(typed(toy, tmp_path / "out.json", **{"--captions": str(captions)})) == 0
    first, second = (json.loads(p.read_text()) for p in (evaluated, tmp_path / "out.json"))
    assert first["rows"] == second["rows"]
    assert first["data"]["identity"] == second["data"]["identity"]
    assert first["data"]["captions"] != second["data"]["captions"]


@pytest.mark.parametrize(
    ("changes", "code", "said"),
    [
        ({"--synonyms": ""}, 1, "a text attack needs one source of words"),
        ({"--masked-lm": "x"}, 2, "--synonyms: not allowed with argument --masked-lm"),
        ({"--captions": ""}, 2, "expected --images and --captions"),
        ({"--images": "", "--captions": ""}, 2, "or --profile and --name"),
        ({"--train-eps": "4"}, 2, "--train-eps: not allowed with --images and --captions"),
        ({"--images": "", "--captions": "", "--profile": "smoke", "--name": "x"}, 2,
         "--eps: not allowed with --profile and --name"),
        ({"--eps": "-1"}, 1, "1/255"),
        ({"--pretrained": "gone.pt"}, 1, "no checkpoint file at gone.pt"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_a_line(
    toy: Toy, changes: dict[str, str], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(typed(toy, **changes)) == code
    printed = capsys.readouterr().err
    assert said in " ".join(printed.split()) and "Traceback" not in printed


@pytest.fixture()
def board(toy: Toy, evaluated: Path, tmp_path: Path) -> Path:
    """Two models under one threat, and the first under another."""
    folder = tmp_path / "evaluated"
    folder.mkdir()
    shutil.copy(evaluated, folder / "own.json")
    other = tmp_path / "other"
    other.mkdir()
    save_small(tiny_encoder(1), TINY, other)
    weights = {"--pretrained": str(other / "model.safetensors"), "--name": "<b>other</b>"}
    assert main(typed(toy, folder / "other.json", **weights)) == 0
    assert main(typed(toy, folder / "weak.json", **{"--eps": "1", "--name": "mine"})) == 0
    return folder


def test_a_board_keeps_threats_apart(board: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    (board / "pairs.json").write_text("{}")
    assert main(["board", str(board)]) == 0
    printed = capsys.readouterr().out
    assert "left out, no evaluation: pairs.json" in printed
    first, second, _ = printed.split("\n\n")
    assert ("<b>other</b>" in first) != ("<b>other</b>" in second)
    assert "eps 1/255" in (second if "<b>other</b>" in first else first)
    lines = pd.read_csv(board / "board.csv")
    assert lines.groupby("table")["file"].unique().map(sorted).map(tuple).to_list() == [
        ("other.json", "own.json"), ("weak.json",),
    ]  # fmt: skip
    own = lines[lines["file"] == "own.json"].set_index("attack")
    record = read_record(board / "own.json")
    assert record is not None
    for row in record.rows:
        assert own.loc[row.attack, "mean"] == row.recall["mean"].value
    worst = lines[(lines["attack"] == "worst") & (lines["table"] == 1)]["mean"]
    assert worst.is_monotonic_decreasing


def test_its_page_stands_alone_and_escapes_names(board: Path) -> None:
    run_board(board)
    page = (board / "board.html").read_text(encoding="utf-8")
    assert page.count("<table") == 2 and "&lt;b&gt;other&lt;/b&gt;" in page
    assert "<b>other" not in page and "http" not in page and "<script" not in page
    assert "eps 8/255, 1 steps" in page and "eps 1/255" in page


def test_other_pairs_are_another_table(toy: Toy, board: Path, tmp_path: Path) -> None:
    captions = json.loads(toy.captions.read_text())
    captions.pop("i4.png")
    fewer = tmp_path / "fewer.json"
    fewer.write_text(json.dumps(captions))
    assert main(typed(toy, board / "fewer.json", **{"--captions": str(fewer)})) == 0
    run_board(board)
    assert pd.read_csv(board / "board.csv")["table"].nunique() == 3


def test_states_of_the_code_are_told(board: Path) -> None:
    assert "states of the code" not in run_board(board)
    content = json.loads((board / "own.json").read_text())
    (board / "own.json").write_text(json.dumps({**content, "code": "0" * 64}))
    assert "judged by 2 states of the code" in run_board(board)


def without(content: dict[str, Any]) -> str:
    return json.dumps({key: value for key, value in content.items() if key != "threat"})


def beyond(content: dict[str, Any]) -> str:
    content["rows"][0]["recall"]["mean"]["value"] = 1.5
    return json.dumps(content)


def outside(content: dict[str, Any]) -> str:
    content["rows"][0]["recall"]["mean"] |= {"value": 0.5, "low": 0.6, "high": 0.7}
    return json.dumps(content)


@pytest.mark.parametrize("damage", [without, beyond, outside, lambda content: "{"])
def test_a_damaged_file_is_named(
    evaluated: Path,
    tmp_path: Path,
    damage: Callable[[dict[str, Any]], str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "own.json").write_text(damage(json.loads(evaluated.read_text())))
    assert main(["board", str(tmp_path)]) == 1
    assert "own.json" in capsys.readouterr().err
    assert not (tmp_path / "board.csv").exists()


def test_a_folder_without_evaluations_says_how_to_make_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["board", str(tmp_path)]) == 1
    assert "evaluate --images" in capsys.readouterr().err
    assert main(["board", str(tmp_path / "gone")]) == 1
    assert "no folder" in capsys.readouterr().err
