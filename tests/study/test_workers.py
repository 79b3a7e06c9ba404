"""Runs side by side: the same numbers as one after the other, and plain failures."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from joblib.externals.loky import get_reusable_executor

from matlib.study.context import Node
from matlib.study.profile.profile import load_profile
from matlib.study.run import tasks as workers
from matlib.study.run.tasks import (
    all_rows,
    label,
    make_rows,
    missing,
    n_workers,
    tasks_of,
    worker_environment,
)
from matlib.study.study import Study
from tests.study.smoke_parts import NO_PAIRS


def _study(folder: Path) -> Study:
    smoke = load_profile("smoke")
    runs = tuple(run for run in smoke.runs if run.defence == "mat")
    alone = {"architectures": {}, "transfer_rows": (), **NO_PAIRS, "inside": smoke.inside}
    return Study(smoke.model_copy(update={"runs": runs, "name": "two", **alone}), folder)


def test_two_at_a_time_give_the_numbers_of_one_after_the_other(tmp_path: Path) -> None:
    said: list[str] = []
    together, alone = _study(tmp_path / "together"), _study(tmp_path / "alone")
    n = len(missing(together, tasks_of(together.profile, all_rows(together.profile))))
    make_rows(together, None, all_rows(together.profile), 2, said.append)
    assert said[0] == f"{n} artefacts to make, 2 at a time, one thread each"
    assert f"[{n}/{n}]" in said[-1] and any("mat s0: sanity" in line for line in said)
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        make_rows(alone, None, all_rows(alone.profile), 1, said.append)
    finally:
        torch.set_num_threads(n_threads)
    folders = [{p.name for p in study.store.runs.glob("[a-z]*")} for study in (together, alone)]
    assert folders[0] == folders[1]
    for name in ("base", "mat"):
        for key, outcomes in alone.evaluated(name).outcomes.items():
            assert torch.equal(together.evaluated(name).outcomes[key].tr_rank, outcomes.tr_rank)
            assert torch.equal(together.evaluated(name).outcomes[key].ir_rank, outcomes.ir_rank)
    said.clear()
    make_rows(together, None, all_rows(together.profile), 2, said.append)
    assert said == []  # all is there


@pytest.mark.parametrize("fails", ["mat s0: model", "base s0: model", ""])
def test_a_failed_run_is_named_with_its_cause_and_stops_what_needs_it_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    study, tried = _study(tmp_path), set[str]()

    def make(node: Node[Any]) -> None:
        tried.add(node.hash)
        if label(node).startswith(fails):  # all of them, where it is ""
            raise KeyError("the cause")

    monkeypatch.setattr(study, "make", make)
    left = missing(study, tasks_of(study.profile, all_rows(study.profile)))
    monkeypatch.setattr(workers, "_STUDY", [study])
    monkeypatch.setattr(workers, "_NODES", left)
    said: list[str] = []
    with (
        ThreadPoolExecutor(1) as pool,
        pytest.raises(RuntimeError, match=f"{fails}.* failed: KeyError: 'the cause'") as told,
    ):
        workers._run(pool, left, said.append)
    waiting = {key for key, node in left.items() if _needs(node, fails)}
    n_failed = sum("failed" in line for line in said)
    if fails:
        assert tried == left.keys() - waiting and n_failed == 1
    else:  # one more may have begun before the others were taken back
        assert n_failed == len(tried) <= workers.MOST_FAILURES + 1
    assert f"{len(left) - len(tried)} of {len(left)} were not begun" in str(told.value)


def _needs(node: Node[Any], name: str) -> bool:
    """Whether a node needs one whose label begins so."""
    each = node.inputs.values()
    return any(label(one).startswith(name) or _needs(one, name) for one in each)


def test_the_end_of_a_worker_is_told(tmp_path: Path) -> None:
    left = missing(study := _study(tmp_path), tasks_of(study.profile, all_rows(study.profile)))
    pool = get_reusable_executor(1, reuse=False, initializer=os._exit, initargs=(1,))
    with pytest.raises(RuntimeError, match=r"a worker ended(.|\n)*what is finished is kept"):
        workers._run(pool, left, print)


@pytest.mark.full
@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
def test_an_interrupt_ends_the_workers(tmp_path: Path) -> None:
    command = [
        sys.executable, "-m", "matlib", "study", "--profile", "smoke", "--shard", "1/1",
        "--workers", "2", "--results", str(tmp_path),
    ]  # fmt: skip
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding="utf-8"
    ) as study:
        assert study.stdout is not None
        assert any("[2/" in line for line in study.stdout)
        study.send_signal(signal.SIGINT)
        told, _ = study.communicate(timeout=60)  # until the last that can write has ended
    assert study.returncode == 130 and told.endswith("the same command goes on where it was\n")


@pytest.mark.parametrize(
    ("gpus", "visible", "seen"),
    [
        (0, "", [None, None, None]),
        (1, "", ["0", "0", "0"]),
        (2, "", ["0", "1", "0"]),
        (2, "5, 7", ["5", "7", "5"]),
        (2, "GPU-a,MIG-b", ["GPU-a", "MIG-b", "GPU-a"]),
    ],
)
def test_each_worker_sees_its_own_gpu(gpus: int, visible: str, seen: list[str | None]) -> None:
    variables = {"CUDA_VISIBLE_DEVICES": visible} if visible else {}
    told = [worker_environment(slot, 3, gpus, variables) for slot in range(3)]
    assert [each.get("CUDA_VISIBLE_DEVICES") for each in told] == seen
    assert all(each["LOCAL_WORLD_SIZE"] == "3" for each in told)


def test_an_undefended_model_is_not_examined_for_masked_gradients(tmp_path: Path) -> None:
    study = Study(load_profile("smoke"), tmp_path)
    tasks = tasks_of(study.profile, all_rows(study.profile))
    examined = {task.name for task in tasks if task.what == "sanity"}
    assert "clean" not in examined and "base" not in examined and "mat" in examined
    chosen = study.profile.model_copy(update={"battery_rows": ("mat",)})
    tasks = tasks_of(chosen, all_rows(chosen))
    assert {task.name for task in tasks if task.what == "sanity"} == {"mat"}


def test_large_pretrained_models_have_the_machine_for_themselves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert n_workers(load_profile("flickr30k")) == 1
    assert n_workers(load_profile("flickr30k"), asked=2) == 2
    assert n_workers(load_profile("demo")) >= 1
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert n_workers(load_profile("flickr30k")) == n_workers(load_profile("demo")) == 4
    assert n_workers(load_profile("demo"), asked=1) == 1
