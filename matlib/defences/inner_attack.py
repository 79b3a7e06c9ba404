"""The attack inside training: its budgets, and the steps of a defence in their order.

Randomness is keyed by what it is for (step, pair): no state to save, none shared between pairs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from matlib.attacks.balls import MIN_EPS_255
from matlib.attacks.budgets import check_count
from matlib.attacks.characters import CharacterEdits, blocks
from matlib.attacks.edits import Edit, apply_edit
from matlib.attacks.noise import Noise
from matlib.attacks.objectives import (
    ImageObjective,
    TextObjective,
    caption_contrastive,
    contrastive,
    contrastive_of_pairs,
    squared_distance,
    squared_distance_from,
    symmetric_contrastive,
)
from matlib.attacks.pgd import PGD
from matlib.attacks.scoring import embed_texts
from matlib.attacks.word_substitution import WordSubstitution
from matlib.defences.batch import Batch
from matlib.defences.processes import ONE_PROCESS, Processes
from matlib.defences.reference import Unnormalised, reference_image, reference_text
from matlib.models.dual_encoder import DualEncoder, frozen

Candidates = Mapping[str, Sequence[Edit]]
"""The allowed edits of each training caption, by the caption itself."""

ImageStep = Literal[
    "symmetric", "caption_set", "image_to_text", "reference_distance", "away_from_all"
]
"""What PGD ascends: CLIP's loss; the same against the mean of all captions of each image, the
attacked one in place of its clean self (SAFT's set-level attack, arXiv 2602.12461); its
image-to-text half; the squared distance, before normalisation, to the reference's embedding of
the clean image (FARE); or, between unit embeddings, the distance to that and to the captions
(MAVA)."""

TextStep = Literal["contrastive", "unimodal", "reference_words", "characters", "random"]
"""How a caption is changed. By words: ascending the cross-entropy against the images of the
batch, or KL from its own clean embedding (BERT-Attack), or at random; or the squared distance,
before normalisation, to the reference's embedding of the clean caption. By characters: the same
distance (LEAF)."""

OF_FAMILIES = ("caption_set", "away_from_all")
"""Image steps against all captions of an image."""

BY_WORDS = ("contrastive", "unimodal", "reference_words", "random")
"""Text steps that take word edits from a table."""

BY_DISTANCE = ("reference_words", "characters")
"""Text steps that ascend the distance to the reference."""

AttackOrder = Literal["text_then_image", "image_then_text", "independent"]


class AttackedInputs(Protocol):
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
        generator: torch.Generator | Sequence[torch.Generator],
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
        ramp: share of the steps over which the image budget grows from 0 to `image`'s, in a
            straight line; 0: whole from the first step on. Source: ours; from the whole budget
            a network with batch normalisation may not leave chance.
    """

    image: PGD
    text: WordSubstitution
    max_edits: int | None = None
    characters: PairwiseCharacterEdits = field(default_factory=PairwiseCharacterEdits)
    ramp: float = 0.0

    def __post_init__(self) -> None:
        if self.max_edits is not None:
            check_count("max_edits", self.max_edits, 1)
        if not 0 <= self.ramp <= 1:
            raise ValueError(f"ramp is a share of the steps in [0, 1]; got {self.ramp}")

    def at(self, done: float) -> InnerAttack:
        """The attack of a step of training; its budget is never below `MIN_EPS_255`.

        Args:
            done: share of the steps that this one completes, in (0, 1].
        """
        if done >= self.ramp or not self.image.eps_255:
            return self
        smallest = min(1.0, MIN_EPS_255 / self.image.eps_255)
        grown, step = max(done / self.ramp, smallest), self.image.step_255
        image = replace(
            self.image, eps_255=grown * self.image.eps_255,
            step_255=None if step is None else grown * step,
        )  # fmt: skip
        return replace(self, image=image)


def image_objective(
    how: AttackedInputs,
    encoder: DualEncoder,
    text_features: Tensor | None,
    reference_features: Tensor | None = None,
    processes: Processes = ONE_PROCESS,
    relevant: Tensor | None = None,
    n_captions: Tensor | None = None,
) -> ImageObjective:
    """What the image step ascends, in the embeddings of `measured(how.image, encoder)`.

    Args:
        text_features: (B, D) unit embeddings of this process's captions, caption i that of
            image i; with `relevant`, (M, D) of any captions. Not used by distances.
        reference_features: (B, D) of the clean images, not normalised; used by distances.
        relevant: bool (B, M) for a judge whose images have several captions: then the ascent
            is the image-to-text half against all of them. By default a caption per image.
        n_captions: (B,), of how many captions `text_features` is the mean (`away_from_all`).

    Raises:
        ValueError: no image step, or its features are missing.
    """
    if how.image == "reference_distance":
        return squared_distance(_given(reference_features, "reference_features"))
    if how.image is None:
        raise ValueError("this defence has no image step")
    own = _given(text_features, "text_features")
    if how.image == "away_from_all":
        clean = _given(reference_features, "reference_features")
        return away_from_all(clean, own, torch.ones(len(own)) if n_captions is None else n_captions)
    scale = encoder.logit_scale.detach()
    if relevant is not None:
        return contrastive(own, relevant, scale)
    text, rows = processes.gather_fixed(own).detach(), _own_rows(processes, len(own))
    if how.image == "image_to_text":
        return contrastive(text, _diagonal(text)[rows], scale)
    gather = None if processes.count == 1 else processes.gather_fixed
    return symmetric_contrastive(text, scale, gather=gather, own=rows)


def away_from_all(clean: Tensor, text: Tensor, n: Tensor) -> ImageObjective:
    """MAVA's inner loss: |v' - v|^2 + mean_c |v' - t_c|^2 - sum_c <v', t_c>, unit vectors.

    Of unit vectors |v' - t|^2 is 2 - 2 <v', t>, so the mean of the captions is all it needs. (The
    released code has one copy of the image per caption, which ascend the same in the mean.)

    Args:
        clean: (B, D) unit embeddings v of the clean images by the reference.
        text: (B, D), of each image the mean unit embedding of its captions.
        n: (B,), how many they are.
    """
    weight = 2 + n.to(text)

    def score(image: Tensor) -> Tensor:
        return (image - clean).square().sum(1) + 2 - weight * (image * text).sum(1)

    return score


def family_features(
    encoder: DualEncoder, batch: Batch, captions: Sequence[str]
) -> tuple[Tensor, Tensor]:
    """(B, D): of each image the mean unit embedding of its captions; and (B,) how many they are.

    Args:
        captions: B captions as they are now; each stands in place of its clean self.
    """
    families = batch.families or tuple((caption,) for caption in batch.captions)
    texts, sizes = [], []
    for family, clean, now in zip(families, batch.captions, captions, strict=True):
        others = list(family)
        others.remove(clean)
        texts += [now, *others]
        sizes.append(len(family))
    features = embed_texts(encoder, texts)
    parts = features.split(sizes)
    return torch.stack([part.mean(0) for part in parts]), torch.tensor(sizes).to(features)


def text_objective(
    how: AttackedInputs,
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
        reference_features: (B, D) of the clean captions, not normalised; used by `BY_DISTANCE`.
        relevant: bool (B, N), True where image n is an answer to caption i.

    Returns:
        the objective; None where the search's default is meant (KL from the clean caption).

    Raises:
        ValueError: a step that ascends nothing, or its features are missing.
    """
    if how.text == "unimodal":
        return None
    if how.text in BY_DISTANCE:
        return squared_distance_from(_given(reference_features, "reference_features"))
    if how.text != "contrastive":
        raise ValueError(f"this defence has no text step that ascends; got {how.text!r}")
    own = _given(image_features, "image_features")
    scale = encoder.logit_scale.detach()
    if relevant is not None:
        return caption_contrastive(own, relevant, scale)
    image = processes.gather_fixed(own).detach()  # (G, D)
    return contrastive_of_pairs(image, scale, _own_rows(processes, len(own)).start)


def as_measured(step: ImageStep | TextStep | None, encoder: DualEncoder) -> DualEncoder:
    """The encoder in whose embeddings a step is measured: before normalisation for distances."""
    if step == "reference_distance" or step in BY_DISTANCE:
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


def key(*parts: int | str) -> int:
    """A 63-bit seed from the given parts; other parts give an unrelated one."""
    text = "/".join(map(str, parts)).encode()
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "big") >> 1


def sample_generators(seed: int, step: int, index: Tensor) -> list[torch.Generator]:
    """One CPU generator per pair of a step.

    Seeded by the run, the step and the pair's row in the training set, so that a pair's noise
    depends neither on its neighbours nor on how the batch is split over processes.

    Args:
        index: int64 (B,).
    """
    return [torch.Generator().manual_seed(key(seed, "pair", step, row)) for row in index.tolist()]


def seed_layers(seed: int, step: int, rank: int, device: torch.device) -> None:
    """Seed the global generators that layers with dropout draw from, before a step's update.

    Dropout offers no generator of its own. Seeded anew at each step, a resumed run draws what
    the uninterrupted one drew. Call it inside `torch.random.fork_rng`.
    """
    own = key(seed, "layers", step, rank)
    torch.random.default_generator.manual_seed(own)
    if device.type == "cuda":
        torch.cuda.manual_seed(own)


def attack_pairs(
    how: AttackedInputs,
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
        generators: one CPU generator per pair, which its text draws from; its image's noise
            comes from a stream with the same seed.
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
            captions, _ = run.text(drawn, pixels)
        else:
            captions, embedded = run.text(drawn, batch.pixels)
            is_first = how.order == "text_then_image"
            pixels = run.image(captions, embedded) if is_first else run.image(batch.captions)
    return replace(batch, pixels=pixels, captions=captions)


@dataclass(frozen=True)
class _Run:
    """The steps of one batch; the encoder is frozen."""

    how: AttackedInputs
    encoder: DualEncoder
    batch: Batch
    inner: InnerAttack
    generators: Sequence[torch.Generator]
    reference: DualEncoder | None
    processes: Processes

    def draw(self, candidates: Candidates) -> list[Sequence[Edit]]:
        """Per caption the word edits of this visit."""
        if self.how.text not in BY_WORDS:
            return []
        rows = [candidates.get(caption, ()) for caption in self.batch.captions]
        pairs = zip(self.batch.captions, rows, self.generators, strict=True)
        if self.how.text == "random":
            n_words = self.inner.text.n_words
            return [random_word_edits(caption, row, n_words, g) for caption, row, g in pairs]
        return [_subset(row, self.inner.max_edits, g) for _, row, g in pairs]

    def text(
        self, drawn: list[Sequence[Edit]], pixels: Tensor
    ) -> tuple[Sequence[str], Tensor | None]:
        """The attacked captions, and their unit embeddings where the attack has them."""
        how, captions = self.how, list(self.batch.captions)
        if how.text is None:
            return captions, None
        if how.text == "random":
            return [_apply(c, edits) for c, edits in zip(captions, drawn, strict=True)], None
        encoder = as_measured(how.text, self.encoder)
        if how.text in BY_DISTANCE:
            target = reference_text(self.reference, captions)
            score = text_objective(how, self.encoder, None, target)
            if how.text == "reference_words":
                return self.inner.text(encoder, captions, drawn, score), None
            own = self.generators
            return self.inner.characters(encoder, captions, score, generator=own), None
        image = None
        if how.text == "contrastive":
            with torch.no_grad():
                image = self.encoder.encode_image(pixels)
        score = text_objective(how, self.encoder, image, processes=self.processes)
        return self.inner.text.with_embeddings(encoder, captions, drawn, score)

    def image(self, captions: Sequence[str], embedded: Tensor | None = None) -> Tensor:
        """Args: embedded, (B, D) unit embeddings of the captions, where they are known."""
        how, pixels = self.how, self.batch.pixels
        if how.image is None:
            return pixels
        text = target = n = None
        if how.image == "reference_distance":
            target = reference_image(self.reference, pixels)
        elif how.image in OF_FAMILIES:
            text, n = family_features(self.encoder, self.batch, captions)
            if how.image == "away_from_all":
                target = F.normalize(reference_image(self.reference, pixels), dim=1)
            else:
                text = F.normalize(text, dim=1)
        else:
            text = embed_texts(self.encoder, captions) if embedded is None else embedded
        score = image_objective(how, self.encoder, text, target, self.processes, n_captions=n)
        encoder = as_measured(how.image, self.encoder)
        noise = Noise.like(self.generators)
        # they were bytes: nothing need be read to know that they lie in [0, 1]
        return self.inner.image(encoder, pixels, score, generator=noise, in_range=True)


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
