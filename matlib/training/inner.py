"""The attack inside training: its budgets, and what each of its steps ascends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import torch
from torch import Tensor

from matlib.attacks.balls import ImageGenerators
from matlib.attacks.budgets import check_count
from matlib.attacks.characters import CharacterEdits
from matlib.attacks.edits import Edit
from matlib.attacks.image import PGD
from matlib.attacks.image_objectives import (
    ImageObjective,
    contrastive,
    squared_distance,
    symmetric_contrastive,
)
from matlib.attacks.objectives import TextObjective, caption_contrastive, squared_distance_from
from matlib.attacks.slots import blocks
from matlib.attacks.text import WordSubstitution
from matlib.models.dual_encoder import DualEncoder
from matlib.training.processes import ONE_PROCESS, Processes
from matlib.training.reference import Unnormalised

Candidates = Mapping[str, Sequence[Edit]]
"""The allowed edits of each training caption, by the caption itself."""

ImageStep = Literal["symmetric", "image_to_text", "reference_distance"]
"""What PGD ascends: CLIP's loss, its image-to-text half, or the squared distance, before
normalisation, to the reference's embedding of the clean image (FARE)."""

TextStep = Literal["contrastive", "unimodal", "characters", "random"]
"""How a caption is changed. By words: ascending the cross-entropy against the images of the
batch, or KL from its own clean embedding (BERT-Attack), or at random. By characters: the squared
distance, before normalisation, to the reference's embedding of the clean caption (LEAF)."""

AttackOrder = Literal["text_then_image", "image_then_text", "independent"]


class Steps(Protocol):
    """The part of a defence that says how its inputs are attacked; None: not at all."""

    @property
    def image(self) -> ImageStep | None: ...

    @property
    def text(self) -> TextStep | None: ...

    @property
    def order(self) -> AttackOrder: ...


class PairwiseCharacterEdits(CharacterEdits):
    """`CharacterEdits` that also takes one generator per caption."""

    def __call__(
        self,
        encoder: DualEncoder,
        captions: Sequence[str],
        objective: TextObjective | None = None,
        *,
        generator: ImageGenerators,
    ) -> list[str]:
        """Captions at Levenshtein distance at most `n_edits`."""
        if isinstance(generator, torch.Generator):
            return super().__call__(encoder, captions, objective, generator=generator)
        edited = list(captions)
        most = max(self.n_slots, self.n_symbols)
        for search in blocks(
            encoder, captions, objective, per_caption=most, chunk=self.chunk, fold=self.fold
        ):
            for _ in range(self.n_edits):
                self._edit(search, [generator[i] for i in search.rows])
            for i, text in zip(search.rows, search.current, strict=True):
                edited[i] = text
        return edited


@dataclass(frozen=True)
class InnerAttack:
    """The budgets of the attack inside training; which of them is used is up to the defence.

    Attributes:
        image: budget of the image step. FARE's code has momentum 0.9 and 10 steps of 1/255,
            TeCoA's README 2 steps of 1/255; here every defence gets the same (source: ours).
        text: budget and search of the word step; random substitutions use its `n_words`.
        max_edits: of a caption's allowed edits, how many are tried at each visit, drawn afresh;
            all of them if None. Scoring all 20 edits of each caption was two thirds of a MAT
            step (0.20 of 0.32 s, before prefixes were shared). Source: ours.
        characters: budget and search of the character step: one edit, rho = 50 slots and 50
            symbols (source: LEAF). Its option `--constrain` is a `dictionary`. The unchanged
            caption competes (`keeps_best`, ours): from another model's embedding the best of
            LEAF's second stage may be nearer than where it began.
    """

    image: PGD
    text: WordSubstitution
    max_edits: int | None = None
    characters: PairwiseCharacterEdits = field(default_factory=PairwiseCharacterEdits)

    def __post_init__(self) -> None:
        if self.max_edits is not None:
            check_count("max_edits", self.max_edits, 1)


def image_objective(
    how: Steps,
    encoder: DualEncoder,
    text_features: Tensor | None,
    reference_features: Tensor | None = None,
    processes: Processes = ONE_PROCESS,
    relevant: Tensor | None = None,
) -> ImageObjective:
    """What the image step ascends, in the embeddings of `measured(how.image, encoder)`.

    Args:
        text_features: (B, D) unit embeddings of this process's captions, caption i that of
            image i; with `relevant`, (M, D) of any captions. Not used by distances.
        reference_features: (B, D) of the clean images, not normalised; used by distances.
        relevant: bool (B, M) for a judge whose images have several captions: then the ascent
            is the image-to-text half against all of them. By default a caption per image.

    Raises:
        ValueError: no image step, or its features are missing.
    """
    if how.image == "reference_distance":
        return squared_distance(_given(reference_features, "reference_features"))
    if how.image not in ("symmetric", "image_to_text"):
        raise ValueError(f"this defence has no image step; got {how.image!r}")
    own = _given(text_features, "text_features")
    scale = encoder.logit_scale.detach()
    if relevant is not None:
        return contrastive(own, relevant, scale)
    text, rows = processes.gather_fixed(own).detach(), _own_rows(processes, len(own))
    if how.image == "image_to_text":
        return contrastive(text, _diagonal(text)[rows], scale)
    gather = None if processes.count == 1 else processes.gather_fixed
    return symmetric_contrastive(text, scale, gather=gather, own=rows)


def text_objective(
    how: Steps,
    encoder: DualEncoder,
    image_features: Tensor | None,
    reference_features: Tensor | None = None,
    processes: Processes = ONE_PROCESS,
    relevant: Tensor | None = None,
) -> TextObjective | None:
    """What the text step ascends, in the embeddings of `measured(how.text, encoder)`.

    Args:
        image_features: (B, D) unit embeddings of this process's images, image i that of
            caption i; with `relevant`, (N, D) of any images. Used by `contrastive` only.
        reference_features: (B, D) of the clean captions, not normalised; used by `characters`.
        relevant: bool (B, N), True where image n is an answer to caption i.

    Returns:
        the objective; None where the search's default is meant (KL from the clean caption).

    Raises:
        ValueError: a step that ascends nothing, or its features are missing.
    """
    if how.text == "unimodal":
        return None
    if how.text == "characters":
        return squared_distance_from(_given(reference_features, "reference_features"))
    if how.text != "contrastive":
        raise ValueError(f"this defence has no text step that ascends; got {how.text!r}")
    own = _given(image_features, "image_features")
    scale = encoder.logit_scale.detach()
    if relevant is not None:
        return caption_contrastive(own, relevant, scale)
    image, rows = processes.gather_fixed(own).detach(), _own_rows(processes, len(own))
    return caption_contrastive(image, _diagonal(image)[rows], scale)


def measured(step: ImageStep | TextStep | None, encoder: DualEncoder) -> DualEncoder:
    """The encoder in whose embeddings a step is measured: before normalisation for distances."""
    if step in ("reference_distance", "characters"):
        return Unnormalised(encoder)
    return encoder


def _given(features: Tensor | None, name: str) -> Tensor:
    if features is None:
        raise ValueError(f"this step needs {name}; got None")
    return features


def _own_rows(processes: Processes, n: int) -> slice:
    return slice(processes.rank * n, (processes.rank + 1) * n)


def _diagonal(features: Tensor) -> Tensor:
    """bool (G, G), True where the index is the same."""
    return torch.eye(len(features), dtype=torch.bool, device=features.device)
