"""What a study is made of: one task for each model judged, and the order in which they can go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from matlib.config.profile import Profile
from matlib.study.artefacts import ArtefactSpec
from matlib.study.coordinates import coordinates, coordinates_spec
from matlib.study.judgings import Judging, judgings_of
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
from matlib.study.runs import Study
from matlib.study.sanity import checks, sanity_spec
from matlib.study.subjects import Subject, architecture_rows, sources
from matlib.study.transfer import transfer_spec, transferred

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
