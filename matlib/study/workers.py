"""Many runs at once on a CPU: one process with one thread for each core.

The study's models are small, and two threads on one of them are hardly faster than one. So the
models of a study are trained and judged side by side, each on one thread. That also makes the
numbers independent of the number of cores: sums are taken in the same order everywhere.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future, ProcessPoolExecutor, as_completed
from pathlib import Path

import torch

from matlib.config.profile import Profile
from matlib.data.memory import BUDGET_VARIABLE, GIBIBYTE, image_budget
from matlib.progress import speak_utf8
from matlib.study.environment import environment
from matlib.study.runs import Study
from matlib.study.tasks import Rows, Task, do, is_done, stages

MAX_WORKERS = 8
"""More would need more memory than a common machine has: about 1.5 GB each."""

Say = Callable[[str], None]


def n_workers(profile: Profile, asked: int = 0) -> int:
    """How many processes share the work: the usable cores, and 1 where that would not help.

    A GPU serves one process at a time, and a large pretrained model fills the cores alone.

    Args:
        asked: if positive, exactly so many.
    """
    if asked > 0:
        return asked
    if torch.cuda.is_available() or profile.model.kind != "small":
        return 1
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(usable or 1, MAX_WORKERS)


def make_rows(study: Study, data: Path | None, rows: Rows, workers: int, say: Say = print) -> None:
    """Train and judge these rows; what is there already is not made again.

    Args:
        data: folder of a data set on disk, as the study was opened with.
        workers: processes, each on one thread; with 1 this process does all, on all cores.
        say: receives a line per finished task.

    Raises:
        RuntimeError: a task failed; the message names it and the cause.
    """
    open_stages = [
        [task for task in stage if not is_done(study, task)]
        for stage in stages(study.profile, rows)
    ]
    n = sum(map(len, open_stages))
    if n == 0:
        return
    if workers == 1:
        for position, task in enumerate((t for stage in open_stages for t in stage), start=1):
            say(f"[{position}/{n}] {task}")
            do(study, task)
        return
    say(f"{n} runs, {workers} at a time, one thread each")
    held = str(image_budget() / GIBIBYTE / workers)
    with environment(
        OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", MATLIB_PROGRESS="off", **{BUDGET_VARIABLE: held}
    ):
        pool = ProcessPoolExecutor(
            workers,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_open,
            initargs=(study.profile, study.root.parent, data),
        )
        try:
            _run(pool, open_stages, say)
        finally:  # an interrupted study keeps what is whole; the rest begins again
            pool.shutdown(cancel_futures=True)


def _run(pool: Executor, open_stages: list[list[Task]], say: Say) -> None:
    n, n_done, began = sum(map(len, open_stages)), 0, time.monotonic()
    for stage in open_stages:
        waiting: dict[Future[float], Task] = {pool.submit(_do, task): task for task in stage}
        for future in as_completed(waiting):
            task = waiting[future]
            if (error := future.exception()) is not None:
                raise RuntimeError(
                    f"{task} failed: {error}\nmend the cause and run the same command again: "
                    "what is finished is kept"
                ) from error
            n_done += 1
            elapsed = (time.monotonic() - began) / 60
            say(f"  [{n_done}/{n}] {task}: {future.result():.0f} s ({elapsed:.1f} min so far)")


_STUDY: list[Study] = []  # of a worker: opened once, so that the world is made once


def _open(profile: Profile, results: Path, data: Path | None) -> None:
    speak_utf8()
    torch.set_num_threads(1)
    _STUDY.append(Study(profile, results, data))


def _do(task: Task) -> float:
    began = time.monotonic()
    try:
        do(_STUDY[0], task)
    except Exception as error:  # some errors cannot be sent between processes: their text can
        raise RuntimeError(f"{type(error).__name__}: {error}") from None
    return time.monotonic() - began
