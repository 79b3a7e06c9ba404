"""What a study will cost, said before it starts: passes, hours, memory, disk, and what is left.

Seconds of a step and of an attacked image, measured where that is quick, else predicted.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from matlib.data.pairs import GIBIBYTE, image_budget
from matlib.models import opening
from matlib.models.encoder import VisionLanguageModel
from matlib.models.opening import settings_of
from matlib.models.small import build_small
from matlib.progress import note
from matlib.study.arithmetic import one_thread
from matlib.study.made.models import defended
from matlib.study.made.protocols import EvaluationProtocol, full, protocols_of, validating
from matlib.study.profile.profile import Profile
from matlib.study.profile.rows import Run, row_defence
from matlib.study.recipes import (
    defence_of,
    n_variants_of,
    profile_of_architecture,
    run_named,
    train_attack_of,
)
from matlib.study.run.probe import (
    KINDS,
    Timed,
    activation_bytes,
    captioning_seconds,
    captions_per_image,
    counting_encoder,
    grounding_seconds,
    judging,
    pass_seconds,
    sanity_rows,
    training_steps,
)
from matlib.study.run.tasks import TRAINED, Say, Task, all_rows, is_done, n_workers, tasks_of
from matlib.study.store.store import Artefact
from matlib.study.study import Study

TASK_SECONDS = 0.25
"""Of each task beside its work: hashing, writing and syncing (measured on the smoke profile)."""

SHOWN_IMAGES = 12


@dataclass
class Plan:
    """The cost of a study.

    Attributes:
        parameters: by tower.
        n_models, n_left: models to be trained and judged, and those not finished.
        training_rows, judging_rows: rows through the towers, by kind, of the whole study.
        hours, hours_left: wall hours on this device, with `n_workers` at a time.
        error: of the hours, as a share of them, from how far the probe's repetitions lie apart
            and, where steps were predicted from passes, how far that is from a measured step.
        seconds: work per kind of task, all of it, before it is shared among workers.
    """

    profile: str
    device: str
    n_workers: int
    parameters: dict[str, int]
    n_models: int
    n_left: int = 0
    training_rows: dict[str, float] = field(default_factory=dict)
    judging_rows: dict[str, float] = field(default_factory=dict)
    hours: float = 0.0
    hours_left: float = 0.0
    error: float = 0.0
    seconds: dict[str, float] = field(default_factory=dict)
    memory_gib: dict[str, float] = field(default_factory=dict)
    disk_gib: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def as_text(self) -> str:
        """Lines for a person."""
        share = round(100 * self.error)
        rows = [
            ("profile", self.profile),
            ("device", f"{self.device}, {self.n_workers} at a time"),
            ("parameters", ", ".join(f"{n} {c:,}" for n, c in self.parameters.items())),
            ("models", f"{self.n_models}, of which {self.n_left} are left"),
            ("training passes", _passes(self.training_rows)),
            ("judging passes", _passes(self.judging_rows)),
            ("time", f"{_time(self.hours)} ± {share} % (error of the probe)"),
            ("time left", f"{_time(self.hours_left)} ± {share} %"),
            *((f"  {what}", _time(s / 3600 / self.n_workers)) for what, s in self.seconds.items()),
            *((f"memory: {what}", f"{g:.2f} GiB") for what, g in self.memory_gib.items()),
            *((f"disk: {what}", f"{g:.2f} GiB") for what, g in self.disk_gib.items()),
        ]
        width = max(len(name) for name, _ in rows)
        lines = [f"{name.ljust(width)}  {value}" for name, value in rows]
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


def _passes(rows: dict[str, float]) -> str:
    towers = {"image": "images", "text": "captions"}
    parts = {tower: sum(n for k, n in rows.items() if k.startswith(tower)) for tower in towers}
    return ", ".join(f"{n:.3g} {towers[tower]}" for tower, n in parts.items())


def _time(hours: float) -> str:
    if hours < 1 / 60:
        return f"{hours * 3600:.0f} s"
    return f"{hours * 60:.1f} min" if hours < 2 else f"{hours:.1f} h"


def plan(
    profile: Profile,
    results: Path,
    data: Path | None = None,
    workers: int = 0,
    say: Say = note,
) -> Plan:
    """Probe and extrapolate; nothing is written.

    Args:
        results: folder of all results, looked into for what is finished.
        data: folder of a data set on disk; without it images are made up and nothing counts
            as finished.
        workers: runs at the same time, as of a study.
        say: receives a line before everything that takes its time.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    device_name = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    at_once = n_workers(profile, workers)
    rows = all_rows(profile)
    n_models = len(rows.main) + len(rows.inside) + len(rows.elsewhere) + len(rows.of_pairs)
    n_models *= 1 + len(profile.worlds)  # every world has the same rows
    say(
        f"{profile.name}: {n_models} models to train and judge on {device_name}, {at_once} at a "
        "time; what they cost is probed"
    )
    with one_thread(at_once > 1):
        encoder = _encoder(profile, device)
        parameters = {
            name: sum(p.numel() for p in encoder.tower(name)) for name in ("image", "text")
        }
        found = Plan(profile.name, device_name, at_once, parameters, n_models)
        costs = {name: Costs(*each, say) for name, each in _models(profile, encoder).items()}
        tasks = tasks_of(profile, rows)
        say("looking for what is finished")
        done, trained = _finished(profile, results, data, tasks, found)
        _add_hours(found, costs, tasks, done, trained)
        _add_sizes(found, profile, encoder)
    if profile.model.kind == "open_clip":
        found.notes.append(f"probed on {profile.model.name} with random weights: as fast as any")
    found.notes += list(dict.fromkeys(note for each in costs.values() for note in each.notes))
    return found


def _add_hours(
    found: Plan,
    costs: dict[str, Costs],
    tasks: list[Task],
    done: set[Task],
    trained: set[Task],
) -> None:
    total = left = wrong = 0.0
    for task in tasks:
        own = costs[task.architecture]
        spent = _training(found, own, task)
        if task in trained:
            left -= sum(timed.seconds * n for _, timed, n in spent)
        spent += [*_judging(found, own, task), ("storing", Timed(TASK_SECONDS, 0.0), 1.0)]
        for what, timed, n in spent:
            seconds = timed.seconds * n
            found.seconds[what] = found.seconds.get(what, 0.0) + seconds
            total, wrong = total + seconds, wrong + seconds * timed.spread
            left += 0.0 if task in done else seconds
    found.hours, found.hours_left = (x / 3600 / found.n_workers for x in (total, max(left, 0.0)))
    found.error = wrong / total if total else 0.0
    found.n_left = sum(t.what in TRAINED and t not in done for t in tasks)
    found.notes.append(
        "not in the hours: the masked language model, candidate words, notebooks and the report"
    )


Spent = list[tuple[str, Timed, float]]
"""What for, seconds of one, how many."""


def _training(found: Plan, costs: Costs, task: Task) -> Spent:
    """The steps of the model that a task makes, and its measurements on validation pairs."""
    profile = costs.profile
    is_own = task.what in TRAINED and task.name != "base"
    if not is_own and not (task.what == "base" and profile.base):
        return []
    run = run_named(profile, task.name) if is_own else Run(defence="clean")
    phase = profile.finetune if is_own else profile.base
    assert phase is not None
    step, rows = costs.step(run, phase.batch_size)
    _add(found.training_rows, rows, phase.n_steps * phase.batch_size)
    spent = [("training", step, float(phase.n_steps))]
    if is_own and phase.validate_every:
        image, rows = costs.judge(validating(profile.evaluation))
        n = profile.dataset.n_val * (phase.n_steps // phase.validate_every)
        _add(found.judging_rows, rows, n)
        spent.append(("validation", image, float(n)))
    return spent


def _judging(found: Plan, costs: Costs, task: Task) -> Spent:
    """The images that a task judges, by what for."""
    profile, spent = costs.profile, Spent()
    data, e = profile.dataset, profile.evaluation
    if task.what in ("captioning", "grounding"):
        step, image = costs.other_task(task.what)
        options = profile.other_tasks
        n_steps = options.captioner_steps if options and task.what == "captioning" else 0
        return [(task.what, step, float(n_steps)), (task.what, image, float(data.n_test))]
    if task.what == "sanity":
        image, rows = costs.sanity()
        n = min(profile.analysis_images, data.n_test)
        _add(found.judging_rows, rows, n)
        return [("sanity", image, float(n))]
    for how in protocols_of(e, task.what):
        image, rows = costs.judge(how)
        n = min(data.n_test, data.n_train) if task.what == "gap" else data.n_test
        _add(found.judging_rows, rows, n)
        spent.append(({"judged": "judging"}.get(task.what, task.what), image, float(n)))
    return spent


def _add(rows: dict[str, float], more: dict[str, float], n: float) -> None:
    for kind, count in more.items():
        rows[kind] = rows.get(kind, 0.0) + n * count


def _finished(
    profile: Profile, results: Path, data: Path | None, tasks: list[Task], found: Plan
) -> tuple[set[Task], set[Task]]:
    """Tasks that are done, and those not done whose model is trained already."""
    if profile.dataset.name != "scenes" and data is None:
        found.notes.append("no data folder: images were made up, and nothing counts as finished")
        return set(), set()
    if not (results / profile.name).is_dir():
        return set(), set()
    study = Study(profile, results, data)
    done = {task for task in tasks if is_done(study, task)}
    trained = {
        task
        for task in tasks
        if task not in done and task.what in TRAINED and task.name != "base"
        and _weights(task.at(study), task)
    }  # fmt: skip
    return done, trained


def _weights(study: Study, task: Task) -> Artefact | None:
    return study.find(defended(study, study.run(task.name), task.seed))


def _add_sizes(found: Plan, profile: Profile, encoder: VisionLanguageModel) -> None:
    data, phase = profile.dataset, profile.finetune or profile.base
    weights = 4 * sum(found.parameters.values())
    pixels = 3 * data.image_size**2
    image_sets = {1, *(n_variants_of(profile, run) for run in profile.every_run
                       if run.modality in ("image", "both"))}  # fmt: skip
    images = max(data.n_train * max(image_sets), data.n_base)
    copies = 4 + any(row_defence(run.defence).needs_reference for run in profile.every_run)
    batch = phase.batch_size / phase.micro_batches if phase else 32
    half = 0.5 if phase and phase.mixed_precision != "no" else 1.0
    model = copies * weights + batch * half * activation_bytes(encoder, 2)
    if encoder.device.type == "cuda":  # what the probe needed at its batch may be more
        model = max(model, float(torch.cuda.max_memory_allocated()))
    host = min(images * pixels, image_budget()) + 4 * 4 * data.n_test * pixels
    is_gpu = encoder.device.type == "cuda"
    found.memory_gib = {
        "RAM": ((host + (0 if is_gpu else model)) * found.n_workers) / GIBIBYTE,
        "of which training images": min(images * pixels, image_budget()) / GIBIBYTE,
        "GPU" if is_gpu else "model and activations": model / GIBIBYTE,
    }
    n_attacks = 2 + 6 * len(profile.evaluation.threats)
    n_queries = data.n_test * (1 + captions_per_image(profile))
    shown = n_attacks * SHOWN_IMAGES * pixels * 4
    records = found.n_models * (shown + n_attacks * n_queries * 80)
    n_saved = found.n_models - (profile.base is None)
    found.disk_gib = {
        "weights": n_saved * weights / GIBIBYTE,
        "checkpoints while training": found.n_workers * 2 * 3 * weights / GIBIBYTE,
        "records": records / GIBIBYTE,
    }


def _models(
    profile: Profile, encoder: VisionLanguageModel
) -> dict[str, tuple[Profile, VisionLanguageModel]]:
    """The study's own model under "" and every further architecture, each with its profile."""
    found = {"": (profile, encoder)}
    for name in profile.architectures:
        own = profile_of_architecture(profile, name)
        found[name] = (own, _encoder(own, encoder.device.type))
    return found


def _encoder(profile: Profile, device: str) -> VisionLanguageModel:
    """The architecture with random weights: a pass takes as long with any."""
    model = profile.model
    if model.kind == "open_clip":
        settings = settings_of(model.name, model.pretrained or None, model.rest)
        return opening.open_named(model.name, None, device, settings=settings)
    return build_small(model.shape(profile.dataset.image_size), 0).to(device)


STEP_SECONDS, JUDGE_SECONDS = 30.0, 40.0
"""What steps, and attacks, may take in a probe, all together; the rest is predicted from passes."""

UNMEASURED = 0.5
"""Spread of steps where not even one could be tried."""

LARGE_BATCH_SECONDS = 0.25
"""A training pass of two pairs that takes longer is probed with two pairs."""


class Costs:
    """Seconds of a step of each row and of an image of each judging.

    Args:
        say: receives what is timed, before it is.
    """

    def __init__(self, profile: Profile, encoder: VisionLanguageModel, say: Say) -> None:
        self._say = say
        self.profile, self.encoder, self.notes = profile, encoder, list[str]()
        self.counting = counting_encoder()
        phase = profile.finetune or profile.base
        self.precision = "no" if phase is None else phase.mixed_precision
        n_parameters = sum(p.numel() for p in encoder.parameters())
        say(f"timing passes of a model of {n_parameters:,} parameters")
        first = pass_seconds(encoder, 2, 1)
        slow = 2 * (first["image_train"].seconds + first["text_train"].seconds)
        self.is_large = slow > LARGE_BATCH_SECONDS
        wanted = phase.batch_size if phase else 32
        self.batch = 2 if self.is_large else min(wanted, 64)
        self.judge_passes = first if self.is_large else pass_seconds(encoder, self.batch, 5)
        self.passes = self._in_precision(self.judge_passes)
        self._steps: dict[tuple[object, ...], tuple[Timed, dict[str, float]]] = {}
        self._evaluated: dict[EvaluationProtocol, tuple[Timed, dict[str, float]]] = {}
        self._sanity: tuple[Timed, dict[str, float]] | None = None
        self._others: dict[str, tuple[Timed, Timed]] = {}
        self._ratio: Timed | None = None
        self._left = {"steps": STEP_SECONDS, "attacks": JUDGE_SECONDS}

    def _in_precision(self, single: dict[str, Timed]) -> dict[str, Timed]:
        """Passes of the training's precision; of a large model from one kind of them."""
        if self.precision == "no":
            return single
        kinds = ("text_train",) if self.is_large else KINDS
        half = pass_seconds(
            self.encoder, self.batch, 2 if self.is_large else 5, self.precision, kinds=kinds
        )
        if not self.is_large:
            return half
        ratio = half["text_train"].seconds / single["text_train"].seconds
        self.notes.append(
            f"passes in {self.precision} were taken as {ratio:.2f} times those in single "
            "precision, as those of the captions are"
        )
        return {kind: Timed(each.seconds * ratio, each.spread) for kind, each in single.items()}

    def _may_take(self, what: str, seconds: float) -> bool:
        """Whether so long a probe is still allowed; then it counts."""
        allowed = seconds <= self._left[what]
        self._left[what] -= seconds * allowed
        return allowed

    def step(self, run: Run, batch: int) -> tuple[Timed, dict[str, float]]:
        """Seconds of one optimiser step of a row, and rows per pair by kind."""
        how, attack = defence_of(run), train_attack_of(self.profile, run)
        words = None if how.text == "random" else how.text  # drawn at random they cost no pass
        versions = (run.mixed_pairs, run.clean_pairs)
        family = (
            how.image, words, how.kind, how.towers, attack.threats if words else (),
            attack.pgd_steps, versions, batch,
        )  # fmt: skip
        if family not in self._steps:
            self._steps[family] = self._probe(run, batch)
        return self._steps[family]

    def _probe(self, run: Run, batch: int) -> tuple[Timed, dict[str, float]]:
        _, rows = training_steps(self.counting, self.profile, run, min(batch, 8), 1)
        expected = batch * _seconds(rows, self.passes)
        if not self.is_large and self._may_take("steps", 4 * expected):
            self._say(f"timing steps of {run.defence} with {batch} pairs")
            timed, _ = training_steps(self.encoder, self.profile, run, batch, 3)
            return timed, rows
        ratio = self.ratio(run, rows)
        spread = _spread(rows, self.passes) + abs(ratio.seconds - 1) / 2 + ratio.spread
        return Timed(expected * ratio.seconds, spread), rows

    def ratio(self, run: Run, rows: dict[str, float]) -> Timed:
        """A measured small step over its passes, from the first row that asks."""
        expected = self.batch * _seconds(rows, self.passes)
        if self._ratio is None and not self._may_take("steps", 2 * expected):
            self._ratio = Timed(1.0, UNMEASURED)
            self.notes.append("steps take too long here to be tried: predicted from their passes")
        if self._ratio is None:
            self._say(f"timing a step of {run.defence} with {self.batch} pairs")
            timed, _ = training_steps(self.encoder, self.profile, run, self.batch, 1)
            self._ratio = Timed(timed.seconds / expected, 0.0)
            self.notes.append(
                f"a step of {self.batch} pairs of {run.defence} was measured; the others follow "
                f"from the passes that they make (measured over predicted: "
                f"{self._ratio.seconds:.2f})"
            )
        return self._ratio

    def judge(self, how: EvaluationProtocol) -> tuple[Timed, dict[str, float]]:
        """Seconds of one image with its captions under a judging, and its rows by kind."""
        how = replace(how, gallery="test")  # which images they are costs nothing
        if how not in self._evaluated:
            self._evaluated[how] = self._judge(how)
        return self._evaluated[how]

    def _judge(self, how: EvaluationProtocol) -> tuple[Timed, dict[str, float]]:
        _, rows = judging(self.counting, self.profile, how, 4)
        expected = _seconds(rows, self.judge_passes)
        n = min(16, self.profile.dataset.n_test)
        if self._may_take("attacks", 2 * n * expected):
            attacks = ", ".join(attack for attack in how.attacks if attack != "clean")
            self._say(f"timing {attacks or 'no attack'} on {n} images")
            times = [judging(self.encoder, self.profile, how, n)[0] / n for _ in range(2)]
            return Timed.of(times), rows
        self.notes.append("attacks take too long here to be tried: predicted from their passes")
        return Timed(expected, _spread(rows, self.judge_passes)), rows

    def sanity(self) -> tuple[Timed, dict[str, float]]:
        """The same of the sanity battery: its passes, at the rate that the suite makes its own."""
        if self._sanity is None:
            judged, own = self.judge(full(self.profile.evaluation, "test"))
            self._say("counting the passes of the sanity battery")
            rows = sanity_rows(self.counting, self.profile, SANITY_IMAGES)
            rate = judged.seconds / _seconds(own, self.judge_passes)
            seconds = rate * _seconds(rows, self.judge_passes)
            self._sanity = Timed(seconds, judged.spread), rows
        return self._sanity

    def other_task(self, what: str) -> tuple[Timed, Timed]:
        """Seconds of a step of the writer's training (0 for grounding), and of one image."""
        if what not in self._others:
            n = min(4, self.profile.dataset.n_test)
            self._say(f"timing {what} on {n} images")
            if what == "captioning":
                found = [captioning_seconds(self.encoder, self.profile, n) for _ in range(2)]
                step, image = found[1][0], Timed.of([seconds for _, seconds in found])
            else:
                step = Timed(0.0, 0.0)
                image = Timed.of(
                    [grounding_seconds(self.encoder, self.profile, n) for _ in range(2)]
                )
            self._others[what] = step, image
        return self._others[what]


SANITY_IMAGES = 8
"""Enough for a count: some checks do not grow with the images."""


def _seconds(rows: dict[str, float], passes: dict[str, Timed]) -> float:
    return sum(rows[kind] * passes[kind].seconds for kind in KINDS)


def _spread(rows: dict[str, float], passes: dict[str, Timed]) -> float:
    total = _seconds(rows, passes)
    parts = (rows[kind] * passes[kind].seconds * passes[kind].spread for kind in KINDS)
    return sum(parts) / total if total else 0.0
