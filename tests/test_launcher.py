"""Several processes: a study's share in an array, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from matlib.cli import main
from matlib.data.pairs import image_budget, n_readers
from matlib.launcher import GROUP_VARIABLES, KUBERNETES, SLURM, share_of_array
from matlib.study.run import pipeline


def slurm(index: object, count: object = 4, first: object = 1, **more: str) -> dict[str, str]:
    return dict(zip(SLURM, map(str, (index, count, first)), strict=True)) | more


def kubernetes(index: object, count: object = 3) -> dict[str, str]:
    return dict(zip(KUBERNETES, map(str, (index, count)), strict=True))


@pytest.mark.parametrize(
    ("variables", "share"),
    [
        ({}, None),
        (dict.fromkeys((*SLURM, *KUBERNETES), " "), None),
        ({"SLURM_JOB_ID": "7", "SLURM_PROCID": "0"}, None),
        (slurm(1), (1, 4)),
        (slurm(4), (4, 4)),
        (slurm(0, 2, 0, SLURM_ARRAY_TASK_STEP="1"), (1, 2)),
        (slurm(5, 4, 1, SLURM_ARRAY_TASK_STEP="2"), (3, 4)),
        (slurm(7, 1, 7), (1, 1)),
        (kubernetes(0), (1, 3)),
        (kubernetes(2), (3, 3)),
    ],
)
def test_a_place_in_an_array_is_a_share(
    variables: dict[str, str], share: tuple[int, int] | None
) -> None:
    assert share_of_array(variables) == share


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({SLURM[0]: "1"}, "SLURM_ARRAY_TASK_COUNT and SLURM_ARRAY_TASK_MIN is not"),
        ({SLURM[1]: "4", SLURM[2]: "1"}, "SLURM_ARRAY_TASK_ID is not"),
        ({KUBERNETES[0]: "1"}, "JOB_COMPLETION_INDEX is set but JOB_COMPLETIONS is not"),
        (slurm(9), "SLURM_ARRAY_TASK_ID=9, SLURM_ARRAY_TASK_COUNT=4"),
        (slurm(2, 4, 1, SLURM_ARRAY_TASK_STEP="2"), "numbers follow one another"),
        (slurm(2, 4, 1, SLURM_ARRAY_TASK_STEP="0"), "give --shard i/n"),
        (slurm(0), "give --shard i/n"),
        (kubernetes(3), "JOB_COMPLETION_INDEX=3, JOB_COMPLETIONS=3"),
        (kubernetes("first"), "give --shard i/n"),
    ],
)
def test_half_an_array_or_no_place_in_it_is_refused(
    variables: dict[str, str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        share_of_array(variables)


def test_a_study_in_an_array_makes_its_share_unless_told_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told: list[object] = []
    monkeypatch.setattr(pipeline, "run_shard", lambda *a, **k: told.append(a[4]))
    for name, value in slurm(3).items():
        monkeypatch.setenv(name, value)
    command = ["study", "--profile", "smoke", "--results", str(tmp_path)]
    assert main(command) == 0 and main([*command, "--shard", "1/2"]) == 0
    assert told == [(3, 4), (1, 2)]
    monkeypatch.delenv(SLURM[1])
    assert main(command) == 1
    assert "SLURM_ARRAY_TASK_COUNT is not" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["study", "--profile", "smoke"], ["report"]])
def test_torchrun_is_refused_and_shards_are_named(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(command) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "torchrun started 2" in line and "--shard i/n" in line
    for wrong in ("two", "0"):
        monkeypatch.setenv("WORLD_SIZE", wrong)
        assert main(command) == 1
        assert f"1 or more; got '{wrong}': unset it" in capsys.readouterr().err


def test_empty_variables_say_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in (*GROUP_VARIABLES, "LOCAL_WORLD_SIZE"):
        monkeypatch.setenv(name, "")
    assert main(["study", "--profile", "nope"]) == 1
    assert "no profile 'nope'" in capsys.readouterr().err
    assert n_readers() >= 1 and image_budget() > 0
    assert "WORLD_SIZE" not in os.environ  # accelerate would read it as a number
