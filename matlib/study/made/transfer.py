"""Adversarial pairs that travel: made on one model of the study, shown to the others.

Which models of a profile exchange attacks, and what every architecture is trained as.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matlib.evaluation.retrieval import Outcomes
from matlib.evaluation.robustness import transfer_from
from matlib.evaluation.suite import Key
from matlib.models.encoder import VisionLanguageModel
from matlib.progress import Progress
from matlib.study.context import Context, Node
from matlib.study.identity.makers import makes
from matlib.study.made import protocols
from matlib.study.made.candidates import tables
from matlib.study.made.evaluated import RANKS, load_ranks, save_ranks
from matlib.study.made.models import model, open_model
from matlib.study.made.protocols import make_suite, moves_of, protocol_config
from matlib.study.profile.profile import Profile
from matlib.study.recipes import profile_of_architecture, rows_of
from matlib.study.store.store import Artefact

SEPARATOR = "/"


@makes("transfer")
def transferred(study: Context, source: Subject) -> Node[dict[str, dict[Key, Outcomes]]]:
    """What the attacks made on one model do to every subject, itself included.

    Returns:
        per subject (`str`) and (attack, threat) the rank of every query.
    """
    how = protocols.between_models(study.identified.evaluation)
    words = tables(study, how.gallery, how.threats)

    def make(folder: Path) -> None:
        targets = {str(each): _model(study, each) for each in subjects(study.profile)}
        suite, edits = make_suite(study.profile.evaluation, how), study.get(words)
        n = len(suite.rows(how.threats))
        with Progress(f"transfer from {source}", n) as progress:
            found = transfer_from(
                targets[str(source)], targets, study.pairs(how.gallery), edits, suite, seed=0,
                on_attack=lambda attack: progress.advance(1, attack),
            )  # fmt: skip
        ranks = {
            SEPARATOR.join((target, *key)): outcomes
            for target, each in found.items()
            for key, outcomes in each.items()
        }
        save_ranks(ranks, folder / RANKS)

    names = {str(each): each for each in subjects(study.profile)}
    shapes = {
        name: study.of_architecture(each.architecture).identified.model.model_dump()
        for name, each in names.items()
    }
    inputs: dict[str, Node[Any] | None] = {
        name: _model_node(study, each) for name, each in names.items()
    }
    config = {**protocol_config(study.identified.evaluation, how), "models": shapes}
    return study.node(
        "transfer", source.artefact, study.profile.seeds[0], config,
        {**inputs, "tables": words}, make, _outcomes_in, chosen=moves_of(how),
    )  # fmt: skip


def _outcomes_in(artefact: Artefact) -> dict[str, dict[Key, Outcomes]]:
    found: dict[str, dict[Key, Outcomes]] = {}
    for name, outcomes in load_ranks(artefact.file(RANKS)).items():
        target, attack, threat = name.split(SEPARATOR)
        found.setdefault(target, {})[attack, threat] = outcomes
    return found


def _model_node(study: Context, subject: Subject) -> Node[VisionLanguageModel] | None:
    own = study.of_architecture(subject.architecture)
    return model(own, subject.row, 0 if subject.row == "base" else study.profile.seeds[0])


def _model(study: Context, subject: Subject) -> VisionLanguageModel:
    own = study.of_architecture(subject.architecture)
    return open_model(own, subject.row, 0 if subject.row == "base" else study.profile.seeds[0])


MAX_ROWS = 9
"""A study without `transfer_rows` and with more rows than this compares base models only."""


@dataclass(frozen=True, order=True)
class Subject:
    """One model of the first seed.

    Attributes:
        architecture: of `profile.architectures`; "" for the study's own model.
        row: `base`, or a row of the study.
    """

    architecture: str
    row: str = "base"

    def __str__(self) -> str:
        return f"{self.architecture}:{self.row}" if self.architecture else self.row

    @property
    def artefact(self) -> str:
        """As part of a folder's name."""
        return str(self).replace(":", "-")


def subjects(profile: Profile) -> list[Subject]:
    """Whose attacks are made and who is judged by them: base models, then defended ones.

    The base of every architecture, and of the study's own model the rows in
    `transfer_rows` (without these all rows, where they are few).
    """
    named = [run.row for run in profile.runs]
    rows = [row for row in named if row in profile.transfer_rows]
    if not profile.transfer_rows and len(named) <= MAX_ROWS:
        rows = named
    bases = [Subject(name) for name in ("", *profile.architectures)]
    return [*bases, *(Subject("", row) for row in rows)]


def sources(profile: Profile) -> list[Subject]:
    """The subjects that attacks are made on: all; none where a profile wants no transfer, or where
    there is only one model."""
    found = subjects(profile) if profile.transfer == "all" else []
    return found if len(found) > 1 else []


def architecture_rows(profile: Profile) -> list[tuple[str, str, int]]:
    """(architecture, row name, seed) of every model of the other architectures."""
    return [
        (name, *row)
        for name in profile.architectures
        for row in rows_of(profile_of_architecture(profile, name))
    ]
