"""One embedded world: everything that follows from a seed.

Base scenes (broad, for pre-training) and the train, val and test splits (for fine-tuning and
evaluation) never share the same objects on the same background. The scenes are kept, so that
further true captions and renderings of any of them can be drawn on demand.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from matlib.data.karpathy import write_karpathy
from matlib.data.pairs import ImageTensor, ImageTextPairs
from matlib.scenes.grammar import Dials, with_articles, write_captions
from matlib.scenes.lexicon import CONCEPT_OF, SYNONYM_WORDS
from matlib.scenes.renderer import Style, render, render_with_boxes
from matlib.scenes.scene import Scene, python_random, sample_scenes
from matlib.scenes.truth import TruthChecker, relevance
from matlib.scenes.typos import HELD_OUT_RULE, TYPO_RULES

BASE_DIALS = Dials(
    synonym_rate=0.005,
    typo_rate=0.015,
    typo_rules=tuple(rule for rule in TYPO_RULES if rule != HELD_OUT_RULE),
)
CANONICAL_DIALS = Dials()
MASKED_LM_DIALS = Dials(synonym_rate=0.8)  # uniform over the canonical word and four synonyms
MIN_SYNONYM_COUNT = 3


@dataclass(frozen=True)
class Split:
    """One split with the scenes behind it: `scenes[i]` is what image i of `pairs` shows.

    Attributes:
        boxes: float32 (N, 3, 4), where the objects of each scene lie (`render_with_boxes`).
    """

    scenes: tuple[Scene, ...]
    pairs: ImageTextPairs
    boxes: Tensor

    @cached_property
    def checker(self) -> TruthChecker:
        """Validity of caption edits in this split's gallery."""
        return TruthChecker(self.scenes)


class World:
    """The embedded world of one seed.

    Args:
        seed: int; same seed (and sizes), same world.
        image_size: side of the images in pixels.
        n_train, n_val, n_test: scenes per split.
        captions_per_image: captions per image in val and test; train is 1:1.
        style: nuisance of all renderings.
        base_dials: how pre-training captions vary (rare synonyms, some typos).
        dials: how all other captions vary (canonical words, no typos).
        three_rate: share of scenes with three objects instead of two.
    """

    def __init__(
        self,
        seed: int,
        *,
        image_size: int = 64,
        n_train: int = 300,
        n_val: int = 250,
        n_test: int = 300,
        captions_per_image: int = 5,
        style: Style | None = None,
        base_dials: Dials = BASE_DIALS,
        dials: Dials = CANONICAL_DIALS,
        three_rate: float = 0.35,
    ) -> None:
        if min(n_train, n_val, n_test, captions_per_image) < 1:
            raise ValueError("every split needs at least one scene and one caption per image")
        self.seed, self.image_size, self.style = seed, image_size, style or Style()
        self.base_dials, self.dials, self.three_rate = base_dials, dials, three_rate
        self._captions = {"train": 1, "val": captions_per_image, "test": captions_per_image}
        self._sizes = {"train": n_train, "val": n_val, "test": n_test}
        # Evaluation comes first: its scenes stay the same when the training set grows.
        self._scenes: dict[str, list[Scene]] = {}
        for name in ("test", "val", "train"):
            self._scenes[name] = sample_scenes(
                self._sizes[name],
                self.generator(f"{name} scenes"),
                three_rate=three_rate,
                exclude=self._contents(),
            )

    def _contents(self) -> set[tuple[object, ...]]:
        return {scene.content for scenes in self._scenes.values() for scene in scenes}

    def generator(self, purpose: str) -> torch.Generator:
        """A CPU generator of its own for each purpose, so that no draw disturbs another."""
        digest = hashlib.sha256(f"{self.seed}/{purpose}".encode()).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))

    @cached_property
    def train(self) -> Split:
        """Fine-tuning set: one canonical caption and one rendering per scene."""
        return self._split("train")

    @cached_property
    def val(self) -> Split:
        return self._split("val")

    @cached_property
    def test(self) -> Split:
        return self._split("test")

    def split(self, name: str) -> Split:
        """`train`, `val` or `test` by name."""
        if name not in self._sizes:
            raise ValueError(f"split {name!r} is none of {tuple(self._sizes)}")
        chosen: Split = getattr(self, name)
        return chosen

    def _split(self, name: str) -> Split:
        scenes = self._scenes[name]
        n_captions = self._captions[name]
        written = write_captions(
            scenes, self.generator(f"{name} captions"), n_captions, dials=self.dials
        )
        generator = self.generator(f"{name} images")
        images, boxes = render_with_boxes(scenes, generator, size=self.image_size, style=self.style)
        pairs = _pairs(name, scenes, images, written, [scene.key for scene in scenes])
        return Split(tuple(scenes), pairs, boxes)

    def base_pairs(
        self, n_scenes: int, captions: int = 5, renderings: int = 1, *, relevant: bool = False
    ) -> ImageTextPairs:
        """Broad pre-training pairs: `renderings` images of each scene, `captions` of each image.

        Canonical words mostly; synonyms are rare, but each occurs at least
        `MIN_SYNONYM_COUNT` times where the corpus has its concept that often; a few typos.
        `relevant` is left out by default (it would be large).
        """
        scenes = sample_scenes(
            n_scenes,
            self.generator("base scenes"),
            three_rate=self.three_rate,
            exclude=self._contents(),
        )
        shown = [scene for scene in scenes for _ in range(renderings)]
        written = write_captions(
            shown, self.generator("base captions"), captions, dials=self.base_dials
        )
        if self.base_dials.synonym_rate > 0:
            written = _with_every_synonym(written, python_random(self.generator("synonyms")))
        generator = self.generator("base images")
        images = render(shown, generator, size=self.image_size, style=self.style)
        ids = [f"{scene.key}-{r}" for scene in scenes for r in range(renderings)]
        return _pairs("base", shown, images, written, ids, with_relevant=relevant)

    def masked_lm_corpus(self, n_captions: int) -> list[str]:
        """Captions of scenes of their own, every word of a concept equally likely, no typos."""
        scenes = sample_scenes(
            n_captions,
            self.generator("masked-LM scenes"),
            three_rate=self.three_rate,
            exclude=self._contents(),
        )
        written = write_captions(
            scenes, self.generator("masked-LM captions"), 1, dials=MASKED_LM_DIALS
        )
        return [captions[0] for captions in written]

    def more_captions(
        self,
        image_indices: Sequence[int],
        n: int,
        generator: torch.Generator,
        *,
        split: str = "train",
        dials: Dials | None = None,
    ) -> list[tuple[str, ...]]:
        """`n` further true captions for each of the given images of a split."""
        scenes = [self._scenes[split][i] for i in image_indices]
        return write_captions(scenes, generator, n, dials=dials or self.dials)

    def more_renderings(
        self,
        image_indices: Sequence[int],
        n: int,
        generator: torch.Generator,
        *,
        split: str = "train",
        style: Style | None = None,
    ) -> Tensor:
        """uint8 (len(image_indices), n, 3, H, W): further true renderings of those images."""
        scenes = [self._scenes[split][i] for i in image_indices for _ in range(n)]
        images = render(scenes, generator, size=self.image_size, style=style or self.style)
        return images.view(len(image_indices), n, *images.shape[1:])

    def export(self, folder: Path) -> Path:
        """Write train, val and test as a Karpathy-format folder, readable by any other tool."""
        splits = {name: self.split(name).pairs for name in ("train", "val", "test")}
        write_karpathy(folder, "scenes", splits)
        return folder


def _pairs(
    split: str,
    scenes: Sequence[Scene],
    images: Tensor,
    written: Sequence[tuple[str, ...]],
    ids: Sequence[str],
    *,
    with_relevant: bool = True,
) -> ImageTextPairs:
    captions = tuple(caption for own in written for caption in own)
    counts = torch.tensor([len(own) for own in written])
    return ImageTextPairs(
        name="scenes",
        split=split,
        images=ImageTensor(images),
        captions=captions,
        image_of=torch.repeat_interleave(torch.arange(len(written)), counts),
        image_ids=tuple(ids),
        relevant=relevance(scenes, captions) if with_relevant else None,
    )


def _with_every_synonym(
    written: Sequence[tuple[str, ...]], rng: random.Random
) -> list[tuple[str, ...]]:
    """Put synonyms that are still too rare into random captions that name their concept."""
    captions = [list(own) for own in written]
    counts = Counter(word for own in captions for caption in own for word in caption.split(" "))
    rare = [word for word in sorted(SYNONYM_WORDS) if counts[word] < MIN_SYNONYM_COUNT]
    if not rare:
        return list(written)
    places: dict[str, list[tuple[int, int]]] = {CONCEPT_OF[word].value: [] for word in rare}
    for i, own in enumerate(captions):
        for j, caption in enumerate(own):
            for word in places.keys() & set(caption.split(" ")):
                places[word].append((i, j))
    for word in rare:
        canonical = CONCEPT_OF[word].value
        missing = min(MIN_SYNONYM_COUNT - counts[word], len(places[canonical]))
        for i, j in rng.sample(places[canonical], missing):
            words = captions[i][j].split(" ")
            if canonical in words:
                words[words.index(canonical)] = word
                captions[i][j] = " ".join(with_articles(words))
    return [tuple(own) for own in captions]
