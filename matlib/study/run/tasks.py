"""What a study is made of: one task for each model judged, and the order in which they can go.

Many runs at once on a CPU: one process with one thread for each core.

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

from matlib.data.pairs import BUDGET_VARIABLE, GIBIBYTE, image_budget
from matlib.progress import speak_utf8
from matlib.study.made.judgings import Judging, judgings_of
from matlib.study.made.measures import coordinates, coordinates_spec
from matlib.study.made.sanity import checks, sanity_spec
from matlib.study.made.transfer import (
    Subject,
    architecture_rows,
    sources,
    transfer_spec,
    transferred,
)
from matlib.study.profile.profile import Profile
from matlib.study.publish.notebooks import environment
from matlib.study.recipes import (
    attacks_anything,
    dialled_rows_of,
    inside_rows_of,
    rows_of,
    run_named,
    sweep_rows_of,
    technique_rows_of,
    undefended_rows,
)
from matlib.study.store.store import ArtefactSpec
from matlib.study.study import Study

GAP_ROWS = ("base", "mat", "mat-valid", "mat+")
"""Rows whose robustness on training pairs is set beside that on held-out ones (notebook 30)."""

What = Literal[
    "base", "words", "judged", "inside", "technique", "sweep", "dialled", "held-out", "sanity",
    "gap", "transfer", "unimodal", "coordinates",
]  # fmt: skip

TRAINED = ("judged", "inside", "technique", "sweep", "dialled")
"""Tasks that train a model before they judge it."""

MORE = {
    "sanity": ": sanity",
    "gap": ": training and held-out pairs",
    "held-out": ": edits of held-out kinds",
    "unimodal": ": one side attacked",
    "transfer": ": its attacks on other models",
    "coordinates": ": its pairs measured",
}


@dataclass(frozen=True)
class Task:
    """One thing to be made: a model judged, the sanity battery on it, or what all need first.

    Attributes:
        architecture: of `profile.architectures`; "" for the study's own model.
    """

    what: What
    name: str = "base"
    seed: int = 0
    architecture: str = ""

    def __str__(self) -> str:
        model = f"{self.architecture}:" if self.architecture else ""
        if self.what in ("base", "words"):
            return model + {"base": "base model", "words": "candidate words"}[self.what]
        return f"{model}{self.name} s{self.seed}{MORE.get(self.what, '')}"


@dataclass(frozen=True)
class Rows:
    """Models that are to be made and judged.

    Attributes:
        main: (row name, seed), judged by everything.
        inside: (row name, seed) of variations of one defence, judged in short.
        elsewhere: (architecture, row name, seed) of further architectures, judged in short.
        techniques, sweeps, dialled: (row name, seed) of the studies of pairs.
        sources: models whose attacks are shown to others; all models of the first seed are
            needed for them.
    """

    main: Sequence[tuple[str, int]] = ()
    inside: Sequence[tuple[str, int]] = ()
    elsewhere: Sequence[tuple[str, str, int]] = ()
    techniques: Sequence[tuple[str, int]] = ()
    sweeps: Sequence[tuple[str, int]] = ()
    dialled: Sequence[tuple[str, int]] = ()
    sources: Sequence[Subject] = ()

    @property
    def of_pairs(self) -> list[tuple[str, int]]:
        """Rows of the studies of pairs."""
        return [*self.techniques, *self.sweeps, *self.dialled]

    def share(self, i: int, n: int) -> Rows:
        """Every n-th row, counted from i = 1.

        Sources stay with whoever makes everything: one of them needs models of all shares.
        """
        mine = slice(i - 1, None, n)
        return Rows(
            main=self.main[mine],
            inside=self.inside[mine],
            elsewhere=self.elsewhere[mine],
            techniques=self.techniques[mine],
            sweeps=self.sweeps[mine],
            dialled=self.dialled[mine],
            sources=self.sources if n == 1 else (),
        )


def all_rows(profile: Profile) -> Rows:
    """Every model of a study."""
    return Rows(
        rows_of(profile),
        inside_rows_of(profile),
        architecture_rows(profile),
        technique_rows_of(profile),
        sweep_rows_of(profile),
        dialled_rows_of(profile),
        sources(profile),
    )


def stages(profile: Profile, rows: Rows) -> list[list[Task]]:
    """What is to be made for these rows: tasks of one stage need only those before it."""
    first = profile.seeds[0]
    examined = [
        row
        for row in rows.main
        if row[0] != "base" and attacks_anything(run_named(profile, row[0]))
    ]
    undefended = undefended_rows(profile)
    shapes = dict.fromkeys(architecture for architecture, _, _ in rows.elsewhere)
    return [
        [Task("base"), Task("words"), *(Task("base", architecture=name) for name in shapes)],
        # the last rows train longest (attacks on both sides, many variants): they begin
        [Task("judged", *row) for row in reversed(rows.main)]
        + [Task("inside", *row) for row in rows.inside]
        + [Task("technique", *row) for row in rows.techniques]
        + [Task("sweep", *row) for row in rows.sweeps]
        + [Task("dialled", *row) for row in rows.dialled]
        + [Task("inside", name, seed, shape) for shape, name, seed in rows.elsewhere],
        [Task("sanity", *row) for row in examined]
        + [Task("held-out", *row) for row in rows.main if profile.evaluation.held_out]
        + [Task("gap", *row) for row in rows.main if row[0].split(".")[0] in GAP_ROWS]
        + [Task("gap", *row) for row in (*rows.techniques, *[("base", 0)][: len(rows.techniques)])]
        + [Task("coordinates", name, 0) for name in dict.fromkeys(row for row, _ in rows.of_pairs)]
        + [Task("unimodal", *row) for row in rows.main if row in undefended]
        + [
            Task("transfer", each.row, 0 if each.row == "base" else first, each.architecture)
            for each in rows.sources
        ],
    ]


def specs_of(study: Study, task: Task) -> list[ArtefactSpec]:
    """The artefacts that it is about; what they need besides is made on the way."""
    if task.what == "transfer":
        return [transfer_spec(study, Subject(task.architecture, task.name))]
    study = study.of_architecture(task.architecture)
    how = study.main_judging("test")
    if task.what == "base":
        base = study.specs.base()
        return [] if base is None else [base]
    if task.what == "words":
        return [study.specs.tables(how.gallery, how.threats)]
    if task.what == "sanity":
        return [sanity_spec(study, task.name, task.seed)]
    if task.what == "coordinates":
        return [coordinates_spec(study, study.specs.run(task.name))]
    return [study.specs.judged(task.name, task.seed, each) for each in judgings(study, task)]


def judgings(study: Study, task: Task) -> list[Judging]:
    """How a task judges its model; empty for tasks that judge none."""
    return judgings_of(study.profile.evaluation, task.what)


def is_done(study: Study, task: Task) -> bool:
    """Whether its artefacts are there."""
    return all(study.store.find(spec) is not None for spec in specs_of(study, task))


def do(study: Study, task: Task) -> None:
    """Make it, with all that it needs."""
    if task.what == "transfer":
        transferred(study, Subject(task.architecture, task.name))
        return
    study = study.of_architecture(task.architecture)
    if task.what == "base":
        study.model("base")
    elif task.what == "words":
        for how in (
            study.main_judging("test"), study.inside_judging(), study.held_out_judging()
        ):  # fmt: skip
            if how.threats:
                study.tables(how.gallery, how.threats)
        study.models.prepare_words()
        if any(run.augmentation == "captioned" for run in study.profile.every_run):
            study.models.generators.captioner()
    elif task.what == "sanity":
        checks(study, task.name, task.seed)
    elif task.what == "coordinates":
        coordinates(study, study.specs.run(task.name))
    else:
        for how in judgings(study, task):
            study.judged(task.name, task.seed, how)


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
