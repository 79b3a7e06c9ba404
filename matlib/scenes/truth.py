"""Truth of captions: does a caption describe a scene, and how much of it does.

`describes` and `aligned_fraction` are plain loops over the ways in which the mentioned
objects can be objects of the scene. `SceneIndex` answers for many scenes at once: each
possible fact is an integer with one bit per (scene, assignment), and a caption is an AND.
`read` goes from words to the facts they state.

Many one-word edits of the same captions (the threat `bert_true`) are checked fast (`EditChecker`).
A language model proposes hundreds of edits per caption and nearly all swap a word for one of
its class. Such an edit leaves the sentence's structure alone, so all facts but one stay as they
are: their masks are combined once per word, not once per edit.
"""

from __future__ import annotations

import re
from collections.abc import Sequence, Set
from dataclasses import dataclass
from functools import lru_cache
from itertools import permutations

import numpy as np
import torch
from torch import Tensor

from matlib.scenes.lexicon import CONCEPT_OF, LEXICON, Concept, decode
from matlib.scenes.scene import (
    ATTRIBUTES,
    CLASS,
    MAX_MENTIONS,
    MAX_OBJECTS,
    RELATION_NAMES,
    Scene,
    SceneObject,
    Span,
    classes,
    holds,
    scene_arrays,
    structure,
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


# Without a full parse: adjectives without a noun and bare backgrounds count as well.
_FRAGMENTS = re.compile(r"(?P<n>[zcx]+[NM]?|[NM])|(?P<r>[LFR])|(?P<g>B)")


@dataclass(frozen=True)
class Reading:
    """The facts of a caption.

    Attributes:
        mentions: per mentioned object its stated attributes (may be empty: "a shape").
        relations: (i, relation, j): mention i stands in the relation to mention j.
        backgrounds: stated backgrounds (a sound caption states at most one).
    """

    mentions: tuple[tuple[Concept, ...], ...]
    relations: tuple[tuple[int, str, int], ...]
    backgrounds: tuple[str, ...]

    @property
    def n_facts(self) -> int:
        """Number of stated facts: attributes, relations and backgrounds."""
        return sum(map(len, self.mentions)) + len(self.relations) + len(self.backgrounds)


Fact = tuple[str, int, int]
"""What a word states: (`attribute`, mention, -1), (`relation`, i, j) or (`background`, -1, -1)."""


@dataclass(frozen=True)
class Parse:
    """A caption with the words that state its facts.

    Attributes:
        words: the words as they are understood.
        letters: their classes.
        n_mentions: mentioned objects.
        facts: (position of the stating word, the fact).
    """

    words: tuple[str, ...]
    letters: str
    n_mentions: int
    facts: tuple[tuple[int, Fact], ...]


def parse(caption: str) -> Parse | None:
    """The caption's words and facts, or None where it is not understood (see `read`)."""
    decoded, letters = classes(caption.lower().split())
    found = structure(letters)
    words = tuple(word for word in decoded if word is not None)
    if found is None:
        return None

    def stating(span: Span) -> list[int]:
        return [at for at in range(*span) if words[at] in CONCEPT_OF]

    facts: list[tuple[int, Fact]] = [
        (at, ("attribute", k, -1)) for k, span in enumerate(found.mentions) for at in stating(span)
    ]
    facts += [(stating(span)[0], ("relation", i, j)) for i, span, j in found.relations]
    facts += [(stating(span)[0], ("background", -1, -1)) for span in found.backgrounds]
    return Parse(words, letters, len(found.mentions), tuple(facts))


@lru_cache(maxsize=200_000)
def read(caption: str) -> Reading | None:
    """The facts of a caption, or None where it is not understood.

    Not understood: an unknown word (other than a one-letter typo of exactly one known word),
    a sentence outside the grammar, more than three mentioned objects.
    """
    found = parse(caption)
    if found is None:
        return None
    mentions: list[list[Concept]] = [[] for _ in range(found.n_mentions)]
    relations, backgrounds = [], []
    for at, (kind, i, j) in found.facts:
        concept = CONCEPT_OF[found.words[at]]
        if kind == "attribute":
            mentions[i].append(concept)
        elif kind == "relation":
            relations.append((i, concept.value, j))
        else:
            backgrounds.append(concept.value)
    return Reading(tuple(map(tuple, mentions)), tuple(relations), tuple(backgrounds))


def class_and_concept(word: str) -> tuple[str, Concept | None]:
    """Class letter of a word (`?` if it is not understood) and the concept that it names."""
    known = decode(word.lower())
    return ("?", None) if known is None else (CLASS[known], CONCEPT_OF.get(known))


@lru_cache(maxsize=65_536)
def read_leniently(caption: str) -> Reading:
    """What can be made of any text: `read`, else the recognisable fragments in their order.

    A relation counts where noun phrases stand on both sides of it. For shuffled or shortened
    captions, whose truth is a matter of degree. At most three mentions are kept.
    """
    strict = read(caption)
    if strict is not None:
        return strict
    words, _ = classes(caption.lower().split())
    known = [w for w in words if w is not None and (w in CONCEPT_OF or CLASS[w] == "M")]
    letters = "".join(CLASS[w] for w in known)
    mentions: list[tuple[Concept, ...]] = []
    relations: list[tuple[int, str, int]] = []
    backgrounds: list[str] = []
    pending: str | None = None
    for match in _FRAGMENTS.finditer(letters):
        concepts = [CONCEPT_OF[w] for w in known[match.start() : match.end()] if w in CONCEPT_OF]
        if match.lastgroup == "g":
            backgrounds.append(concepts[0].value)
        elif match.lastgroup == "r":
            pending = concepts[0].value if mentions else None
        elif len(mentions) < MAX_MENTIONS:
            mentions.append(tuple(concepts))
            if pending is not None:
                relations.append((len(mentions) - 2, pending, len(mentions) - 1))
                pending = None
    return Reading(tuple(mentions), tuple(relations), tuple(backgrounds))


_classified = lru_cache(maxsize=65_536)(class_and_concept)


class EditChecker:
    """(caption index, edited caption) -> whether the edit is valid.

    Agrees with `TruthChecker.is_valid_edit` on every edit, of one word or of any other kind.

    Args:
        checker: of the gallery of scenes.
        captions: true captions of scenes of the gallery.
        own: index of the scene of each caption.
    """

    def __init__(self, checker: TruthChecker, captions: Sequence[str], own: Sequence[int]) -> None:
        self._checker, self._captions, self._own = checker, captions, own
        self._already = [checker.described(caption) for caption in captions]
        self._rest: dict[tuple[int, int], int] = {}
        self._parsed: dict[int, Parse | None] = {}

    def __call__(self, i: int, edited: str) -> bool:
        own, already = self._own[i], self._already[i]
        mask = self._mask_of_swap(i, edited)
        if mask is None:
            return self._checker.is_valid_edit(edited, own, already)
        return self._checker.is_true_only_of(mask, own, already)

    def _mask_of_swap(self, i: int, edited: str) -> int | None:
        """Mask of an edit that swaps one word for another of its class, else None."""
        before, after = self._captions[i].split(), edited.split()
        differ = [
            at for at, pair in enumerate(zip(before, after, strict=False)) if len({*pair}) > 1
        ]
        parsed = self._parse(i)
        if parsed is None or len(before) != len(after) or len(differ) != 1:
            return None
        at = differ[0]
        letter, concept = _classified(after[at])
        if letter == "?":
            return 0  # an unknown word: the caption is not understood
        if letter != parsed.letters[at]:
            return None
        facts = [fact for position, fact in parsed.facts if position == at]
        if len(facts) == 1 and concept is not None:
            return self._others(i, at) & self._checker.index.fact(facts[0], concept)
        if not facts and concept is None and parsed.words[at] not in CONCEPT_OF:
            return self._others(i, -1)  # neither word states anything
        return None  # a concept that states nothing where it stands: left to the full parse

    def _parse(self, i: int) -> Parse | None:
        if i not in self._parsed:
            self._parsed[i] = parse(self._captions[i])
        return self._parsed[i]

    def _others(self, i: int, at: int) -> int:
        """Mask of all facts of caption i but the one stated at word `at`."""
        if (i, at) not in self._rest:
            parsed = self._parse(i)
            assert parsed is not None
            mask = self._checker.index.mentions(parsed.n_mentions)
            for position, fact in parsed.facts:
                if position != at:
                    mask &= self._checker.index.fact(fact, CONCEPT_OF[parsed.words[position]])
            self._rest[i, at] = mask
        return self._rest[i, at]
