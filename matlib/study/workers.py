"""Many runs at once on a CPU: one process with one thread for each core.

The study's models are small, and two threads on one of them are hardly faster than one. So the
models of a study are trained and judged side by side, each on one thread. That also makes the
numbers independent of the number of cores: sums are taken in the same order everywhere.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from matlib.config import Profile
from matlib.data.memory import BUDGET_VARIABLE, GIBIBYTE, image_budget
from matlib.study.artefacts import ArtefactSpec
from matlib.study.environment import environment
from matlib.study.judgings import Judging, judgings_of
from matlib.study.recipes import attacks_anything
from matlib.study.runs import Study
from matlib.study.sanity import checks, sanity_spec
from matlib.study.specs import Specs

MAX_WORKERS = 8
"""More would need more memory than a common machine has: about 1.5 GB each."""

GAP_ROWS = ("base", "mat", "mat-valid", "mat+")
"""Rows whose robustness on training pairs is set beside that on held-out ones (notebook 30)."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Task:
    """One thing to be made: a model judged, the sanity battery on it, or what all need first."""

    what: Literal["base", "words", "judged", "inside", "held-out", "sanity", "gap"]
    name: str = "base"
    seed: int = 0

    def __str__(self) -> str:
        if self.what in ("base", "words"):
            return {"base": "base model", "words": "candidate words"}[self.what]
        more = {
            "sanity": ": sanity",
            "gap": ": training and held-out pairs",
            "held-out": ": edits of held-out kinds",
        }
        return f"{self.name} s{self.seed}{more.get(self.what, '')}"


def stages(
    study: Study, rows: Sequence[tuple[str, int]], inside: Sequence[tuple[str, int]] = ()
) -> list[list[Task]]:
    """What is to be made for these rows: tasks of one stage need only those before it.

    Args:
        inside: rows of `study.inside_rows()`.
    """
    return stages_of(study.specs, rows, inside)


def stages_of(
    specs: Specs, rows: Sequence[tuple[str, int]], inside: Sequence[tuple[str, int]] = ()
) -> list[list[Task]]:
    """The same of a study whose data are not at hand."""
    examined = [
        (name, seed) for name, seed in rows if name != "base" and attacks_anything(specs.run(name))
    ]
    return [
        [Task("base"), Task("words")],
        # the last rows train longest (attacks on both sides, many variants): they begin
        [Task("judged", *row) for row in reversed(rows)] + [Task("inside", *row) for row in inside],
        [Task("sanity", *row) for row in examined]
        + [Task("held-out", *row) for row in rows if specs.profile.evaluation.held_out]
        + [Task("gap", *row) for row in rows if row[0].split(".")[0] in GAP_ROWS],
    ]


def specs_of(study: Study, task: Task) -> list[ArtefactSpec]:
    """The artefacts that it is about; what they need besides is made on the way."""
    how = study.main_judging("test")
    if task.what == "base":
        base = study.specs.base()
        return [] if base is None else [base]
    if task.what == "words":
        return [study.specs.tables(how.gallery, how.threats)]
    if task.what == "sanity":
        return [sanity_spec(study, task.name, task.seed)]
    return [study.specs.judged(task.name, task.seed, each) for each in judgings(study, task)]


def judgings(study: Study, task: Task) -> list[Judging]:
    """How a task judges its model; empty for tasks that judge none."""
    return judgings_of(study.profile.evaluation, task.what)


def is_done(study: Study, task: Task) -> bool:
    """Whether its artefacts are there."""
    return all(study.store.find(spec) is not None for spec in specs_of(study, task))


def do(study: Study, task: Task) -> None:
    """Make it, with all that it needs."""
    if task.what == "base":
        study.model("base")
    elif task.what == "words":
        for how in (
            study.main_judging("test"), study.inside_judging(), study.held_out_judging()
        ):  # fmt: skip
            if how.threats:
                study.tables(how.gallery, how.threats)
        study.models.prepare_words()
    elif task.what == "sanity":
        checks(study, task.name, task.seed)
    for how in judgings(study, task):
        study.judged(task.name, task.seed, how)


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


def make_rows(
    study: Study,
    data: Path | None,
    rows: Sequence[tuple[str, int]],
    workers: int,
    say: Say = print,
    inside: Sequence[tuple[str, int]] = (),
) -> None:
    """Train and judge these rows; what is there already is not made again.

    Args:
        data: folder of a data set on disk, as the study was opened with.
        workers: processes, each on one thread; with 1 this process does all, on all cores.
        say: receives a line per finished task.
        inside: rows of `study.inside_rows()` to be judged in short.

    Raises:
        RuntimeError: a task failed; the message names it and the cause.
    """
    open_stages = [
        [task for task in stage if not is_done(study, task)]
        for stage in stages(study, rows, inside)
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
    torch.set_num_threads(1)
    _STUDY.append(Study(profile, results, data))


def _do(task: Task) -> float:
    began = time.monotonic()
    try:
        do(_STUDY[0], task)
    except Exception as error:  # some errors cannot be sent between processes: their text can
        raise RuntimeError(f"{type(error).__name__}: {error}") from None
    return time.monotonic() - began
