"""Which models of a profile exchange attacks, and what every architecture is trained as."""

from __future__ import annotations

from dataclasses import dataclass

from matlib.config.profile import Profile
from matlib.study.recipes import profile_of_architecture, rows_of

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
    """The subjects that attacks are made on: all; none where there is only one model."""
    found = subjects(profile)
    return found if len(found) > 1 else []


def architecture_rows(profile: Profile) -> list[tuple[str, str, int]]:
    """(architecture, row name, seed) of every model of the other architectures."""
    return [
        (name, *row)
        for name in profile.architectures
        for row in rows_of(profile_of_architecture(profile, name))
    ]
