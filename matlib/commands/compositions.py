"""The attacks of the command line by name: one call each on a batch of images with captions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from matlib.attacks.edits import CandidateTable
from matlib.attacks.image import PGD, AttackReport, ScaleViews, Views
from matlib.attacks.multimodal import Gallery, contrastive_attack, pgd, sep_attack, sga
from matlib.attacks.objectives import ImageObjective
from matlib.attacks.text import WordSubstitution
from matlib.models.dual_encoder import DualEncoder


@dataclass(frozen=True)
class CountingPGD(PGD):
    """PGD that counts vanished gradients whoever calls it.

    Attributes:
        counted: where.
    """

    counted: AttackReport = field(default_factory=AttackReport)

    def __call__(
        self,
        encoder: DualEncoder,
        pixels: Tensor,
        objective: ImageObjective,
        *,
        generator: torch.Generator,
        views: Views | None = None,
        report: AttackReport | None = None,
    ) -> Tensor:
        return super().__call__(
            encoder, pixels, objective,
            generator=generator, views=views, report=self.counted if report is None else report,
        )  # fmt: skip


@dataclass(frozen=True)
class Task:
    """What one call attacks, with what.

    Attributes:
        encoder: the attacked model.
        gallery: images with all their captions; contrastive attacks take their negatives here.
        table: allowed edits of the captions.
        image, text, views: budgets.
        generator: of the image attack's draws.
    """

    encoder: DualEncoder
    gallery: Gallery
    table: CandidateTable
    image: PGD
    text: WordSubstitution
    views: ScaleViews
    generator: torch.Generator


Moved = tuple[Tensor, list[str]]


def _pgd(task: Task) -> Moved:
    moved = pgd(task.encoder, task.gallery, task.image, generator=task.generator)
    return moved, list(task.gallery.captions)


def _bert(task: Task) -> Moved:
    return task.gallery.pixels, task.text(task.encoder, task.gallery.captions, task.table)


def _sep(task: Task) -> Moved:
    return sep_attack(
        task.encoder, task.gallery, task.table, task.image, task.text, generator=task.generator
    )


def _sga(task: Task) -> Moved:
    return sga(
        task.encoder,
        task.gallery,
        task.table,
        task.image,
        task.text,
        generator=task.generator,
        views=task.views,
    )


def _joint(task: Task) -> Moved:
    return contrastive_attack(
        task.encoder, task.gallery, task.table, task.image, task.text, generator=task.generator
    )


@dataclass(frozen=True)
class Named:
    """An attack and which of the two it changes."""

    run: Callable[[Task], Moved]
    moves_images: bool = True
    edits_text: bool = True


ATTACKS: dict[str, Named] = {
    "pgd": Named(_pgd, edits_text=False),
    "bert": Named(_bert, moves_images=False),
    "sep": Named(_sep),
    "sga": Named(_sga),
    "joint": Named(_joint),
}


def named(attack: str) -> Named:
    """The attack of that name.

    Raises:
        ValueError: there is none.
    """
    if attack not in ATTACKS:
        raise ValueError(f"unknown attack {attack!r}; known: {', '.join(ATTACKS)}")
    return ATTACKS[attack]
