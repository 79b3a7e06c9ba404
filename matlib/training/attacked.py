"""The inputs of one batch, attacked: the steps of a defence in their order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from matlib.attacks.edits import Edit, apply_edit
from matlib.attacks.scoring import embed_texts
from matlib.models.dual_encoder import DualEncoder, frozen
from matlib.training.batch import Batch
from matlib.training.inner import (
    Candidates,
    InnerAttack,
    Steps,
    image_objective,
    measured,
    text_objective,
)
from matlib.training.processes import ONE_PROCESS, Processes
from matlib.training.reference import reference_image, reference_text


def attack_pairs(
    how: Steps,
    encoder: DualEncoder,
    batch: Batch,
    inner: InnerAttack,
    candidates: Candidates,
    generators: Sequence[torch.Generator],
    reference: DualEncoder | None = None,
    processes: Processes = ONE_PROCESS,
) -> Batch:
    """Adversarial versions of what `how` attacks; the rest comes back as it was.

    Made against the encoder in evaluation mode with frozen weights: its `.grad`, modes and
    flags stay untouched.

    Args:
        candidates: allowed edits by caption; captions that are missing stay unchanged.
        generators: one CPU generator per pair. A pair draws first for its text, then for the
            start of its image, whatever the order of the attacks: words are drawn beforehand.
        reference: the model before fine-tuning, where distances to it are ascended.

    Raises:
        ValueError: not one generator per pair; no reference where one is needed.
    """
    if len(generators) != len(batch.captions):
        raise ValueError(
            "expected one generator per pair; "
            f"got {len(generators)} for {len(batch.captions)} pairs"
        )
    with frozen(encoder):
        run = _Run(how, encoder, batch, inner, generators, reference, processes)
        drawn = run.draw(candidates)
        if how.order == "image_then_text":
            pixels = run.image(batch.captions)
            captions = run.text(drawn, pixels)
        else:
            captions = run.text(drawn, batch.pixels)
            pixels = run.image(captions if how.order == "text_then_image" else batch.captions)
    return replace(batch, pixels=pixels, captions=captions)


@dataclass(frozen=True)
class _Run:
    """The steps of one batch; the encoder is frozen."""

    how: Steps
    encoder: DualEncoder
    batch: Batch
    inner: InnerAttack
    generators: Sequence[torch.Generator]
    reference: DualEncoder | None
    processes: Processes

    def draw(self, candidates: Candidates) -> list[Sequence[Edit]]:
        """Per caption the word edits of this visit."""
        if self.how.text not in ("contrastive", "unimodal", "random"):
            return []
        rows = [candidates.get(caption, ()) for caption in self.batch.captions]
        pairs = zip(self.batch.captions, rows, self.generators, strict=True)
        if self.how.text == "random":
            n_words = self.inner.text.n_words
            return [random_word_edits(caption, row, n_words, g) for caption, row, g in pairs]
        return [_subset(row, self.inner.max_edits, g) for _, row, g in pairs]

    def text(self, drawn: list[Sequence[Edit]], pixels: Tensor) -> list[str]:
        how, captions = self.how, list(self.batch.captions)
        if how.text is None:
            return captions
        if how.text == "random":
            return [_apply(c, edits) for c, edits in zip(captions, drawn, strict=True)]
        encoder = measured(how.text, self.encoder)
        if how.text == "characters":
            target = reference_text(self.reference, captions)
            score = text_objective(how, self.encoder, None, target)
            return self.inner.characters(encoder, captions, score, generator=self.generators)
        image = None
        if how.text == "contrastive":
            with torch.no_grad():
                image = self.encoder.encode_image(pixels)
        score = text_objective(how, self.encoder, image, processes=self.processes)
        return self.inner.text(encoder, captions, drawn, score)

    def image(self, captions: list[str]) -> Tensor:
        how, pixels = self.how, self.batch.pixels
        if how.image is None:
            return pixels
        text = target = None
        if how.image == "reference_distance":
            target = reference_image(self.reference, pixels)
        else:
            text = embed_texts(self.encoder, captions)
        score = image_objective(how, self.encoder, text, target, self.processes)
        encoder = measured(how.image, self.encoder)
        return self.inner.image(encoder, pixels, score, generator=self.generators)


def random_word_edits(
    caption: str, row: Sequence[Edit], n_words: int, generator: torch.Generator
) -> list[Edit]:
    """Allowed edits of up to `n_words` words of a caption: uniform, each word at most once.

    Edits that change nothing are left out, so that a caption with an edit is always changed.
    """
    words = caption.split(" ")
    chosen: dict[int, Edit] = {}
    for i in torch.randperm(len(row), generator=generator).tolist():
        position, replacement = row[i]
        if len(chosen) < n_words and replacement != words[position]:
            chosen.setdefault(position, row[i])
    return list(chosen.values())


def _apply(caption: str, edits: Sequence[Edit]) -> str:
    for edit in edits:
        caption = apply_edit(caption, edit)
    return caption


def _subset(row: Sequence[Edit], most: int | None, generator: torch.Generator) -> Sequence[Edit]:
    if most is None or len(row) <= most:
        return row
    return [row[i] for i in torch.randperm(len(row), generator=generator)[:most].tolist()]
