"""The attacks of the command line by name: one call each on a batch of images with captions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from matlib.attacks.edits import CandidateTable
from matlib.attacks.image import PGD, AttackReport, ScaleViews
from matlib.attacks.multimodal import Gallery, contrastive_attack, pgd, sep_attack, sga
from matlib.attacks.text import WordSubstitution
from matlib.models.dual_encoder import DualEncoder


@dataclass(frozen=True)
class Budgets:
    """What an attack may do: the image attack, the text attack, SGA's views."""

    image: PGD
    text: WordSubstitution
    views: ScaleViews


Attack = Callable[
    [DualEncoder, Gallery, CandidateTable, Budgets, torch.Generator, AttackReport],
    tuple[Tensor, list[str]],
]
