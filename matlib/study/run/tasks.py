"""What a study is made of: one task for each model judged, and the order in which they can go.

Many runs at once: one process for each core of a CPU, or for each GPU.

The study's models are small, and two threads on one of them are hardly faster than one. So the
models of a study are trained and judged side by side, each on one thread. That also makes the
numbers independent of the number of cores: sums are taken in the same order everywhere. A GPU
serves one model at a time, and each process sees its own.
"""

from __future__ import annotations

import itertools
import os
import signal
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import joblib
import torch
from filelock import FileLock, Timeout
from joblib.externals.loky import get_reusable_executor

from matlib.memory import keep_freed_memory
from matlib.progress import speak_utf8
from matlib.study.arithmetic import ONE_THREAD
from matlib.study.context import Node, in_order
from matlib.study.made.base import base
from matlib.study.made.evaluated import evaluated
from matlib.study.made.measures import coordinates
from matlib.study.made.other_tasks import OTHER_TASKS
from matlib.study.made.protocols import EvaluationProtocol, protocols_of
from matlib.study.made.sanity import checks
from matlib.study.made.transfer import (
    Subject,
    architecture_rows,
    sources,
    transferred,
)
from matlib.study.profile.profile import Profile
from matlib.study.recipes import (
    dialled_rows_of,
    examined_rows,
    inside_rows_of,
    rows_of,
    sweep_rows_of,
    technique_rows_of,
    undefended_rows,
)
from matlib.study.study import Study

GAP_ROWS = ("base", "mat", "mat-valid", "mat+")
"""Rows whose robustness on training pairs is set beside that on held-out ones (notebook 30)."""

What = Literal[
    "base", "judged", "inside", "technique", "sweep", "dialled", "held-out", "sanity", "gap",
    "transfer", "unimodal", "coordinates", "captioning", "grounding",
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
    "captioning": ": captions",
    "grounding": ": grounding of phrases",
}


@dataclass(frozen=True)
class Task:
    """One thing that a study is about: a model judged, or the sanity battery on it.

    Attributes:
        architecture: of `profile.architectures`; "" for the study's own model.
        world: of `profile.worlds`; None for the study's own.
    """

    what: What
    name: str = "base"
    seed: int = 0
    architecture: str = ""
    world: int | None = None

    def at(self, study: Study) -> Study:
        """The study of its architecture, in its world."""
        return study.of_world(self.world).of_architecture(self.architecture)

    def __str__(self) -> str:
        model = f"{self.architecture}:" if self.architecture else ""
        model = model if self.world is None else f"world {self.world}, {model}"
        if self.what == "base":
            return f"{model}base model"
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
    def longest(self) -> int:
        """Into so many shares the rows fall apart: none has two of a kind."""
        kinds = (self.main, self.inside, self.elsewhere, self.techniques, self.sweeps, self.dialled)
        return max(map(len, kinds))

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


def tasks_of(profile: Profile, rows: Rows) -> list[Task]:
    """What is to be made for these rows; what it needs besides follows from the artefacts."""
    first = profile.seeds[0]
    examined = {*examined_rows(profile)}
    undefended = undefended_rows(profile)
    options = profile.other_tasks
    others = {"base", *options.rows} if options else set()
    elsewhere = [
        (shape, name, seed)
        for shape, name, seed in rows.elsewhere
        if options and shape in options.architectures and name in others
    ]
    shapes = dict.fromkeys(architecture for architecture, _, _ in rows.elsewhere)
    found = [
        Task("base"),
        *(Task("base", architecture=name) for name in shapes),
        # the last rows train longest (attacks on both sides, many variants): they begin
        *(Task("judged", *row) for row in reversed(rows.main)),
        *(Task("inside", *row) for row in rows.inside),
        *(Task("technique", *row) for row in rows.techniques),
        *(Task("sweep", *row) for row in rows.sweeps),
        *(Task("dialled", *row) for row in rows.dialled),
        *(Task("inside", name, seed, shape) for shape, name, seed in rows.elsewhere),
        *(Task("sanity", *row) for row in rows.main if row in examined),
        *(Task("held-out", *row) for row in rows.main if profile.evaluation.held_out),
        *(Task("gap", *row) for row in rows.main if row[0].split(".")[0] in GAP_ROWS),
        *(Task("gap", *row) for row in (*rows.techniques, ("base", 0)) if rows.techniques),
        *(Task("coordinates", name) for name in dict.fromkeys(row for row, _ in rows.of_pairs)),
        *(Task("unimodal", *row) for row in rows.main if row in undefended),
        *(Task("captioning", *row) for row in rows.main if row[0] in others),
        *(Task("grounding", *row) for row in rows.main if row[0] in others),
        *(Task("captioning", name, seed, shape) for shape, name, seed in elsewhere),
        *(Task("grounding", name, seed, shape) for shape, name, seed in elsewhere),
        *(
            Task("transfer", each.row, 0 if each.row == "base" else first, each.architecture)
            for each in rows.sources
        ),
    ]
    everywhere = [each for each in found if each.what in IN_EVERY_WORLD and not each.architecture]
    further = [replace(each, world=world) for world in profile.worlds for each in everywhere]
    return [*found, *further]


IN_EVERY_WORLD = ("base", *TRAINED, "held-out", "unimodal", "gap")
"""What is made in every world of a study; the rest in its own alone."""


def artefacts_of(study: Study, task: Task) -> list[Node[Any]]:
    """The artefacts that it is about; none for a pretrained base."""
    if task.what == "transfer":
        return [transferred(study, Subject(task.architecture, task.name))]
    study = task.at(study)
    if task.what == "base":
        own = base(study)
        return [] if own is None else [own]
    if task.what == "sanity":
        return [checks(study, task.name, task.seed)]
    if task.what == "coordinates":
        return [coordinates(study, study.run(task.name))]
    if task.what in OTHER_TASKS:
        return [OTHER_TASKS[task.what](study, task.name, task.seed)]
    return [evaluated(study, task.name, task.seed, how) for how in protocols(study, task)]


def protocols(study: Study, task: Task) -> list[EvaluationProtocol]:
    """How a task judges its model; empty for tasks that judge none."""
    return protocols_of(study.profile.evaluation, task.what)


def is_done(study: Study, task: Task) -> bool:
    """Whether its artefacts are there."""
    return all(study.find(node) is not None for node in artefacts_of(study, task))


def missing(study: Study, tasks: Iterable[Task]) -> dict[str, Node[Any]]:
    """What is still to be made for these tasks, by hash, inputs first.

    An input that only finished artefacts need is not missed: records and evaluations travel
    without weights.
    """
    found: dict[str, Node[Any]] = {}

    def add(node: Node[Any]) -> None:
        if node.hash not in found and study.find(node) is None:
            for each in node.inputs.values():
                add(each)
            found[node.hash] = node

    for task in tasks:
        for node in artefacts_of(study, task):
            add(node)
    return found


def missing_by_share(study: Study, n: int) -> dict[int, dict[str, Node[Any]]]:
    """What is still to be made for each of `n` shares of the study that is not finished."""
    rows = all_rows(study.profile)
    found = {i: missing(study, tasks_of(study.profile, rows.share(i, n))) for i in range(1, n + 1)}
    return {i: left for i, left in found.items() if left}


def needed_by_all(shares: Iterable[Mapping[str, Node[Any]]]) -> dict[str, Node[Any]]:
    """What every one of several shares is still to make: the base model, candidate words."""
    first, *others = shares
    return {key: first[key] for key in first if all(key in other for other in others)}


def label(node: Node[Any]) -> str:
    """An artefact in a line for the person who waits."""
    spec = node.spec
    what = f"{spec.kind} ({spec.config['gallery']})" if "gallery" in spec.config else spec.kind
    return f"{spec.name} s{spec.seed}: {what}"


MAX_WORKERS = 8
"""More would need more memory than a common machine has: about 1.5 GB each."""

Say = Callable[[str], None]


def n_workers(profile: Profile, asked: int = 0) -> int:
    """How many processes share the work: the visible GPUs, else the usable cores.

    Without a GPU a large pretrained model fills the cores alone: then it is 1.

    Args:
        asked: if positive, exactly so many.
    """
    if asked > 0:
        return asked
    if gpus := torch.cuda.device_count():
        return gpus
    return min(joblib.cpu_count(), MAX_WORKERS) if profile.model.kind == "small" else 1


def make_rows(study: Study, data: Path | None, rows: Rows, workers: int, say: Say = print) -> None:
    """Train and judge these rows; what is there already is not made again.

    Args:
        data: folder of a data set on disk, as the study was opened with.
        workers: processes, each on one thread; with 1 this process does all, on all cores.
        say: receives a line per finished task.

    Raises:
        RuntimeError: a task failed, and the message names it and the cause; or a process was
            ended from outside.
    """
    left = missing(study, tasks_of(study.profile, rows))
    n = len(left)
    if n == 0:
        return
    if workers == 1:
        for position, node in enumerate(left.values(), start=1):
            say(f"[{position}/{n}] {label(node)}")
            study.make(node)
        return
    say(f"{n} artefacts to make, {workers} at a time, one thread each")
    with TemporaryDirectory(prefix="matlib-") as slots, warnings.catch_warnings():
        # said of a worker that has grown and is started anew
        warnings.filterwarnings("ignore", "A worker stopped while some jobs")
        gpus = torch.cuda.device_count()
        pool = get_reusable_executor(
            workers, reuse=False, env=ONE_THREAD, initializer=_open,
            initargs=(study.profile, study.root.parent, data, rows, Path(slots), workers, gpus),
        )  # fmt: skip
        try:
            _run(pool, left, say)
        finally:  # an interrupted study keeps what is whole; the rest begins again
            pool.shutdown(kill_workers=True)


MOST_FAILURES = 3
"""After so many nothing more is begun: the cause is likely one that all have."""


def _run(pool: Executor, left: dict[str, Node[Any]], say: Say) -> None:
    """Each as soon as what it is made from is there; what needs one that failed is not begun."""
    n, n_done, began = len(left), 0, time.monotonic()
    failures: list[RuntimeError] = []
    needs = {key: {each.hash for each in node.inputs.values()} & left.keys()
             for key, node in left.items()}  # fmt: skip
    running: dict[Future[float], str] = {}
    while True:
        if len(failures) < MOST_FAILURES:
            for key in [key for key, inputs in needs.items() if not inputs]:
                running[pool.submit(_make, key)] = key
                del needs[key]
        else:
            running = {each: key for each, key in running.items() if not each.cancel()}
        if not running:
            break
        done, _ = wait(running, return_when=FIRST_COMPLETED)
        for future in done:
            key = running.pop(future)
            name = label(left[key])
            try:
                seconds = _told(future, name)
            except RuntimeError as error:
                if isinstance(error.__cause__, BrokenExecutor):
                    raise
                failures.append(error)
                say(f"  {error}")
                continue
            for inputs in needs.values():
                inputs.discard(key)
            n_done += 1
            elapsed = (time.monotonic() - began) / 60
            say(f"  [{n_done}/{n}] {name}: {seconds:.0f} s ({elapsed:.1f} min so far)")
    if failures:
        raise RuntimeError(
            f"{failures[0]}\n{len(failures)} failed, {n - n_done - len(failures)} of {n} were not "
            "begun; mend the cause and run the same command again: what is finished is kept"
        ) from failures[0]


def _told(future: Future[float], name: str) -> float:
    try:
        return future.result()
    except BrokenExecutor as error:
        raise RuntimeError(
            "a worker ended in the midst of its work; where memory is short, give fewer "
            f"--workers. Run the same command again: what is finished is kept\n{error}"
        ) from error
    except Exception as error:
        raise RuntimeError(f"{name} failed: {error}") from error


_STUDY: list[Study] = []  # of a worker: opened once, so that the world is made once
_NODES: dict[str, Node[Any]] = {}  # of a worker: all that may be asked of it
_SLOT: list[FileLock] = []  # of a worker: held while it lives


def _open(
    profile: Profile,
    results: Path,
    data: Path | None,
    rows: Rows,
    slots: Path,
    workers: int,
    gpus: int,
) -> None:
    """Begin a worker; CUDA is not yet touched, so it sees the GPU that it is told here."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that waits ends the workers
    speak_utf8()
    keep_freed_memory()
    torch.set_num_threads(1)
    os.environ.update(worker_environment(_take_slot(slots, workers), workers, gpus))
    study = Study(profile, results, data)
    _STUDY.append(study)
    wanted = (each for task in tasks_of(profile, rows) for each in artefacts_of(study, task))
    _NODES.update({node.hash: node for node in in_order(wanted)})


def _take_slot(slots: Path, workers: int) -> int:
    """A number below `workers` that no other living worker has."""
    for slot in itertools.cycle(range(workers)):
        lock = FileLock(slots / str(slot))
        with suppress(Timeout):
            lock.acquire(timeout=0.1)
            break
    _SLOT.append(lock)
    return slot


def worker_environment(
    slot: int, workers: int, gpus: int, variables: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """What one of several workers is told: its share of memory and of readers, and its GPU.

    Args:
        slot: the worker's number, from 0.
        workers: how many there are on this machine; with more than GPUs, some share one.
        gpus: how many the process sees that starts them; 0 on a CPU.
    """
    told = {"MATLIB_PROGRESS": "off", "LOCAL_WORLD_SIZE": str(workers)}
    if gpus:
        visible = variables.get("CUDA_VISIBLE_DEVICES", "")
        names = visible.split(",") if visible else [str(gpu) for gpu in range(gpus)]
        told["CUDA_VISIBLE_DEVICES"] = names[slot % gpus].strip()
    return told


def _make(key: str) -> float:
    began = time.monotonic()
    try:
        _STUDY[0].make(_NODES[key])
    except Exception as error:  # some errors cannot be sent between processes: their text can
        raise RuntimeError(f"{type(error).__name__}: {error}") from None
    return time.monotonic() - began
