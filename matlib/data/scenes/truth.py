"""Truth of captions: does a caption describe a scene, and how much of it does.

`describes` and `aligned_fraction` are plain loops over the ways in which the mentioned
objects can be objects of the scene. `SceneIndex` answers for many scenes at once: each
possible fact is an integer with one bit per (scene, assignment), and a caption is an AND.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from itertools import permutations

import numpy as np
import torch
from torch import Tensor

from matlib.data.scenes.lexicon import LEXICON, Concept
from matlib.data.scenes.reading import Fact, Reading, read, read_leniently
from matlib.data.scenes.scene import (
    ATTRIBUTES,
    MAX_OBJECTS,
    RELATION_NAMES,
    Scene,
    SceneObject,
    holds,
    scene_arrays,
)

_ASSIGNMENTS = tuple(permutations(range(MAX_OBJECTS)))  # object of mention 0, 1, 2
_BITS_PER_SCENE = 8  # six assignments, padded so that a scene is one byte


def _n_true(reading: Reading, objects: Sequence[SceneObject], background: str) -> int:
    attributes = sum(
        getattr(thing, concept.kind) == concept.value
        for thing, concepts in zip(objects, reading.mentions, strict=True)
        for concept in concepts
    )
    relations = sum(holds(r, objects[i], objects[j]) for i, r, j in reading.relations)
    return attributes + relations + sum(stated == background for stated in reading.backgrounds)


def _best(reading: Reading, scene: Scene) -> int:
    """Most facts that hold under one assignment; mentions beyond the objects state nothing."""
    n = len(reading.mentions)
    return max(
        (_n_true(reading, chosen, scene.background) for chosen in permutations(scene.objects, n)),
        default=0,
    )


def describes(caption: str, scene: Scene) -> bool:
    """True if the caption is understood and every fact it states holds.

    Mentioned objects are distinct objects of the scene. Synonyms are understood, and so is a
    one-letter typo of exactly one known word; any other unknown word, or a sentence outside
    the grammar, makes it False.
    """
    reading = read(caption)
    if reading is None or len(reading.mentions) > len(scene.objects):
        return False
    return _best(reading, scene) == reading.n_facts


def aligned_fraction(caption: str, scene: Scene) -> float:
    """Share in [0, 1] of the stated facts that hold under the best assignment of objects.

    Text outside the grammar is read leniently (recognisable fragments); 0.0 if it states
    nothing. A third mention in a scene of two objects counts as facts that do not hold.
    """
    reading = read_leniently(caption)
    if reading.n_facts == 0:
        return 0.0
    n = len(scene.objects)
    if len(reading.mentions) <= n:
        return _best(reading, scene) / reading.n_facts
    kept = range(len(reading.mentions))
    return (
        max(_best(_restrict(reading, chosen), scene) for chosen in permutations(kept, n))
        / reading.n_facts
    )


def _restrict(reading: Reading, chosen: Sequence[int]) -> Reading:
    new = {old: k for k, old in enumerate(chosen)}
    return Reading(
        tuple(reading.mentions[old] for old in chosen),
        tuple((new[i], r, new[j]) for i, r, j in reading.relations if i in new and j in new),
        reading.backgrounds,
    )


class SceneIndex:
    """Which of S scenes a reading is true of, fast. Scene s owns byte s of every mask."""

    def __init__(self, scenes: Sequence[Scene]) -> None:
        if not scenes:
            raise ValueError("an index needs at least one scene")
        self.n_scenes = len(scenes)
        arrays = scene_arrays(scenes)
        order = np.array(_ASSIGNMENTS)  # (6, 3)
        self._exists = [self._pack(arrays.present[:, order[:, k]]) for k in range(MAX_OBJECTS)]
        self._attribute: dict[tuple[int, Concept], int] = {}
        for c, kind in enumerate(ATTRIBUTES):
            for v, value in enumerate(LEXICON[kind]):
                equal = arrays.attributes[:, :, c] == v  # (S, 3)
                for k in range(MAX_OBJECTS):
                    self._attribute[k, Concept(kind, value)] = self._pack(equal[:, order[:, k]])
        self._relation = {
            (i, name, j): self._pack(arrays.relations[:, order[:, i], order[:, j], r])
            for r, name in enumerate(RELATION_NAMES)
            for i, j in permutations(range(MAX_OBJECTS), 2)
        }
        self._background = {
            value: self._pack(np.repeat((arrays.backgrounds == v)[:, None], len(order), 1))
            for v, value in enumerate(LEXICON["background"])
        }

    def _pack(self, truth: np.ndarray) -> int:
        """bool (S, 6) -> integer of S bytes."""
        padded = np.zeros((self.n_scenes, _BITS_PER_SCENE), dtype=bool)
        padded[:, : truth.shape[1]] = truth
        return int.from_bytes(np.packbits(padded, axis=1).tobytes(), "little")

    def mask(self, reading: Reading | None) -> int:
        """Integer whose byte s is non-zero where the reading is true of scene s."""
        if reading is None:
            return 0
        mask = -1
        for k, concepts in enumerate(reading.mentions):
            mask &= self._exists[k]
            for concept in concepts:
                mask &= self._attribute[k, concept]
        for fact in reading.relations:
            mask &= self._relation[fact]
        for value in reading.backgrounds:
            mask &= self._background[value]
        return mask

    def fact(self, fact: Fact, concept: Concept) -> int:
        """Mask of one fact stated by a word for `concept`."""
        kind, i, j = fact
        if kind == "attribute":
            return self._attribute[i, concept]
        if kind == "relation":
            return self._relation[i, concept.value, j]
        return self._background[concept.value]

    def mentions(self, n: int) -> int:
        """Mask of the scenes with at least `n` objects, under assignments of objects to them."""
        mask = -1
        for k in range(n):
            mask &= self._exists[k]
        return mask

    def matches(self, caption: str) -> np.ndarray:
        """bool (S,): the scenes that the caption describes."""
        data = self.mask(read(caption)).to_bytes(self.n_scenes, "little")
        return np.frombuffer(data, dtype=np.uint8) != 0


def relevance(scenes: Sequence[Scene], captions: Sequence[str]) -> Tensor:
    """bool (N, M): caption m describes scene n. Equal to `describes` on every pair."""
    index = SceneIndex(scenes)
    columns = [index.matches(caption) for caption in captions]
    if not columns:
        return torch.zeros(len(scenes), 0, dtype=torch.bool)
    return torch.from_numpy(np.stack(columns, axis=1))


def ceiling(relevant: Tensor, image_of: Tensor) -> tuple[float, float]:
    """TR@1 and IR@1 in [0, 1] of a perfect model that must find the very pair.

    A perfect model ranks all true pairs equally and breaks ties at random; only a caption's
    own image (and an image's own captions) count. relevant: bool (N, M); image_of: int64 (M,).
    """
    n_images, n_captions = relevant.shape
    own = torch.zeros(n_images, n_captions, dtype=torch.bool)
    own[image_of, torch.arange(n_captions)] = True
    hits = (own & relevant).double()
    text = (hits.sum(1) / relevant.sum(1).clamp(min=1)).mean()
    image = (hits.sum(0) / relevant.sum(0).clamp(min=1)).mean()
    return float(text), float(image)


class TruthChecker:
    """Validity of caption edits in a gallery of scenes (the threat `bert_true`)."""

    def __init__(self, scenes: Sequence[Scene]) -> None:
        self.index = SceneIndex(scenes)

    def described(self, caption: str) -> set[int]:
        """Indices of the scenes that the caption describes."""
        return set(np.flatnonzero(self.index.matches(caption)).tolist())

    def is_valid_edit(
        self, edited_caption: str, image_index: int, already_relevant: set[int] | None = None
    ) -> bool:
        """True if the edited caption describes its own scene and no further one.

        Args:
            edited_caption: the caption after the edit.
            image_index: index of the scene the caption was written for.
            already_relevant: scenes that the unedited caption describes; these do not count
                as further ones. Only the own scene by default.
        """
        mask = self.index.mask(read(edited_caption))
        return self.is_true_only_of(mask, image_index, already_relevant or set())

    @staticmethod
    def is_true_only_of(mask: int, image_index: int, already_relevant: Set[int]) -> bool:
        """True of its own scene, and of no scene beyond `already_relevant`."""
        if not (mask >> (8 * image_index)) & 0xFF:
            return False
        for allowed in {*already_relevant, image_index}:
            mask &= ~(0xFF << (8 * allowed))
        return mask == 0
