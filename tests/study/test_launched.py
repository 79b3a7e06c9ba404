from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from matlib.cli import main
from matlib.data.pairs import image_budget, n_readers
from matlib.study.run import pipeline as module
from matlib.study.run.pipeline import Launched, launched, run_launched, stand_alone


def torchruns(rank: int = 1, count: int = 4, local: int = 1) -> dict[str, str]:
    return {
        "RANK": str(rank), "WORLD_SIZE": str(count), "LOCAL_RANK": str(local),
        "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "here", "MASTER_PORT": "1", "HOME": "/",
    }  # fmt: skip


def test_one_process_stands_alone_and_several_know_their_number() -> None:
    assert launched({}) is None and launched({"WORLD_SIZE": "1", "RANK": "0"}) is None
    assert launched(torchruns(3, 4, 1)) == Launched(3, 4, 1)
    with pytest.raises(ValueError, match="WORLD_SIZE is 2 but 'RANK' is not set"):
        launched({"WORLD_SIZE": "2"})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE is the number of processes, 1 or more; got 'two'"),
        ({"WORLD_SIZE": "0"}, "got '0': unset it"),
        ({"RANK": "first"}, "RANK and LOCAL_RANK are numbers"),
        ({"RANK": "4"}, "expected below WORLD_SIZE 4"),
        ({"LOCAL_RANK": "-1"}, "start with torchrun"),
    ],
)
def test_variables_that_say_something_else_are_refused(
    changes: dict[str, str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        launched({**torchruns(), **changes})


def test_empty_variables_say_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert launched({"WORLD_SIZE": "", "RANK": " "}) is None
    for name in torchruns():
        monkeypatch.setenv(name, "")
    assert main(["study", "--profile", "nope"]) == 1
    assert "no profile 'nope'" in capsys.readouterr().err
    assert n_readers() >= 1 and image_budget() > 0
    assert "WORLD_SIZE" not in os.environ  # accelerate would read it as a number


@pytest.mark.parametrize(("visible", "own"), [("", "1"), ("5,7", "7"), ("GPU-a", "GPU-a")])
def test_a_process_alone_sees_one_gpu_and_no_group(visible: str, own: str) -> None:
    variables = {**torchruns(), **({"CUDA_VISIBLE_DEVICES": visible} if visible else {})}
    stand_alone(Launched(1, 4, 1), variables)
    assert variables == {"LOCAL_WORLD_SIZE": "2", "HOME": "/", "CUDA_VISIBLE_DEVICES": own}


def test_every_row_is_made_by_one_process_and_the_first_waits_then_reports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[str, object]] = []
    looks = iter([False] * 5 + [True] * 100)
    monkeypatch.setattr(module, "stand_alone", lambda me: told.append(("alone", me.rank)))
    monkeypatch.setattr(module, "run_shard", lambda *a, **k: told.append(("shard", a[4])))
    monkeypatch.setattr(module, "is_done", lambda *_: next(looks))
    monkeypatch.setattr(module.time, "sleep", lambda _: told.append(("waits", 1)))
    monkeypatch.setattr(module, "run_study", lambda *a, **k: told.append(("report", a[0])))
    run_launched(Launched(1, 2, 1), "smoke", tmp_path)
    run_launched(Launched(0, 2, 0), "smoke", tmp_path)
    assert told == [
        ("alone", 1), ("shard", (2, 2)), ("alone", 0), ("shard", (1, 2)), ("waits", 1),
        ("report", "smoke"),
    ]  # fmt: skip


def test_the_command_line_starts_a_study_under_torchrun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[object, ...]] = []
    for name, value in torchruns(1, 2, 1).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(
        module, "run_shard", lambda *a, **k: told.append((a[0], a[4], k["workers"]))
    )
    for more in ([], ["--publish"], ["--workers", "3"]):
        monkeypatch.setenv("WORLD_SIZE", "2")
        monkeypatch.setenv("RANK", "1")
        monkeypatch.setenv("LOCAL_RANK", "1")
        assert main(["study", "--profile", "smoke", "--results", str(tmp_path), *more]) == 0
    assert told == [("smoke", (2, 2), 1), ("smoke", (2, 2), 1), ("smoke", (2, 2), 3)]


def test_only_a_study_runs_under_torchrun(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in torchruns(0, 2, 0).items():
        monkeypatch.setenv(name, value)
    assert main(["report"]) == 1
    assert "only `study` makes use" in capsys.readouterr().err
    assert main(["study", "--shard", "1/2"]) == 1
    assert "leave --shard away" in capsys.readouterr().err


@pytest.mark.full
def test_two_processes_of_torchrun_make_the_smoke_study(tmp_path: Path) -> None:
    """As README says it; a minute or more."""
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2",
        "-m", "matlib", "study", "--profile", "smoke", "--results", str(tmp_path),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads((tmp_path / "smoke" / "claims.json").read_text(encoding="utf-8"))
