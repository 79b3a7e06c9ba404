"""What the benchmark runs on: a model's shape with random weights, captions, edits, images.

The time of a forward does not depend on the weights, so nothing has to be trained first.
"""

from __future__ import annotations

import copy
import random
from dataclasses import dataclass, replace
from itertools import islice

import torch
from torch import Tensor

from matlib.attacks.edits import Edit, Table, apply_edit, content_words
from matlib.attacks.gallery import embed_images
from matlib.attacks.objectives import TextObjective, away_from_image
from matlib.models.open_clip import OpenClipEncoder
from matlib.models.small import SmallModel, build_small_clip
from matlib.scenes.lexicon import CANONICAL_WORDS, FUNCTION_WORDS, SYNONYM_WORDS
from matlib.scenes.truth import EditChecker, class_and_concept
from matlib.scenes.world import Split, World
from matlib.study.profile.profile import load_profile

EDITS_PER_WORD = 10
"""As many as BERT-Attack asks its masked language model for."""


@dataclass(frozen=True)
class Load:
    """A model and what it is attacked on.

    Attributes:
        encoder: the attacked model, in evaluation mode.
        pixels: float (N, 3, H, W) in [0, 1].
        captions: M captions.
        own: int64 (M,), the image of each caption.
        table: per caption `EDITS_PER_WORD` edits of every content word.
    """

    encoder: OpenClipEncoder
    pixels: Tensor
    captions: list[str]
    own: Tensor
    table: Table

    def first(self, n_images: int) -> Load:
        """The first images with their captions."""
        kept = [i for i, image in enumerate(self.own.tolist()) if image < n_images]
        return replace(
            self,
            pixels=self.pixels[:n_images],
            captions=[self.captions[i] for i in kept],
            own=self.own[kept],
            table=[self.table[i] for i in kept],
        )

    def in_double(self) -> Load:
        """The same in double precision, where rounding decides no comparison."""
        encoder = copy.deepcopy(self.encoder).double()
        return replace(self, encoder=encoder, pixels=self.pixels.double())

    def guides(self) -> list[TextObjective]:
        """SGA's two text objectives: away from the clean and from a perturbed image."""
        noise = torch.Generator().manual_seed(1)
        drawn = torch.rand(self.pixels.shape, generator=noise, dtype=self.pixels.dtype)
        moved = (self.pixels + (drawn - 0.5) * 8 / 255).clamp(0, 1)
        images = [embed_images(self.encoder, each) for each in (self.pixels, moved)]
        return [away_from_image(each[self.own.to(each.device)]) for each in images]


def scenes_load(n_images: int, captions_per_image: int, shape: SmallModel | None = None) -> Load:
    """Scenes under the demo profile's model (or another shape), on the GPU if there is one."""
    shape = shape or demo_shape()
    world = World(
        0,
        image_size=shape.image_size,
        n_train=1,
        n_val=1,
        n_test=n_images,
        captions_per_image=captions_per_image,
    )
    pairs = world.test.pairs
    captions = list(pairs.captions)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    encoder = build_small_clip(shape, seed=0).to(device).eval()
    return Load(encoder, pairs.pixels(), captions, pairs.image_of, edit_table(captions))


def true_table(split: Split, n: int = EDITS_PER_WORD) -> Table:
    """Up to `n` words of the same class for every content word that keep its caption true.

    Drawn in a random order among all of them; the threat `bert_true` but for the masked LM that
    proposes the words there.
    """
    captions = list(split.pairs.captions)
    is_valid = EditChecker(split.checker, captions, split.pairs.image_of.tolist())
    classes: dict[str, list[str]] = {}
    for word in sorted(CANONICAL_WORDS | SYNONYM_WORDS):
        classes.setdefault(class_and_concept(word)[0], []).append(word)
    drawn = random.Random(0)
    table: Table = []
    for i, caption in enumerate(captions):
        own = caption.split(" ")
        row: list[Edit] = []
        for position in content_words(caption, FUNCTION_WORDS):
            same = classes.get(class_and_concept(own[position].lower())[0], [])
            edits = (Edit(position, w) for w in drawn.sample(same, len(same)) if w != own[position])
            true = (edit for edit in edits if is_valid(i, apply_edit(caption, edit)))
            row += islice(true, n)
        table.append(row)
    return table


def demo_shape() -> SmallModel:
    """The model of the demo profile."""
    profile = load_profile("demo")
    return profile.model.shape(profile.dataset.image_size)


def edit_table(captions: list[str], n: int = EDITS_PER_WORD) -> Table:
    """`n` random words of the world for every content word, none of them the word itself."""
    words = sorted(CANONICAL_WORDS | SYNONYM_WORDS)
    generator = torch.Generator().manual_seed(0)
    table: Table = []
    for caption in captions:
        own = caption.split(" ")
        row = []
        for position in content_words(caption, FUNCTION_WORDS):
            drawn = torch.randperm(len(words), generator=generator)[: n + 1].tolist()
            others = [words[i] for i in drawn if words[i] != own[position].lower()]
            row += [Edit(position, word) for word in others[:n]]
        table.append(row)
    return table
