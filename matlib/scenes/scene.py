"""Structured scenes: two or three objects on a background, and the relations among them.

Positions are image fractions, x to the right and y downwards. Objects stand in the four
quadrants, so that every relation is either plainly true or plainly false: along an axis two
objects are either aligned or half an image apart, side by side is "near" and across the
diagonal is "far". Objects never overlap. (On a 4 × 4 lattice the small model needed 300
steps to tell objects apart at all; rows `lattice` of published/calibration.csv.)

The structure of a caption (`structure`) says which words state what, by a cascade of two small
grammars. First words become one-letter classes and a scanner groups them into chunks: noun
phrases, relations, background phrases, verbs, conjunctions. Then a chunk grammar attaches
relations to noun phrases. What does not fit is not understood.
"""

from __future__ import annotations

import hashlib
import math
import random
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch

from matlib.scenes.lexicon import (
    BACKGROUNDS,
    COLOURS,
    CONCEPT_OF,
    FUNCTION_WORD_CLASSES,
    LEXICON,
    RELATIONS,
    SHAPES,
    SIZES,
    TEXTURES,
    decode,
)

LATTICE = (0.25, 0.75)  # 16 and 48 px of 64: one object per quadrant
RADII: dict[str, float] = {"small": 7.5 / 64, "medium": 9.75 / 64, "large": 13 / 64}
MIN_GAP = 1.5 / 64  # between the circles around two objects
MIN_OFFSET = 0.15  # "left of" and "above" need at least this; the lattice offers 0 or 0.5
NEAR_DISTANCE = 0.53  # side by side is 0.5
FAR_DISTANCE = 0.55  # across the diagonal is 0.71
ATTRIBUTES = ("shape", "colour", "texture", "size")
RELATION_NAMES = tuple(RELATIONS)
MAX_OBJECTS = 3


@dataclass(frozen=True)
class SceneObject:
    """One object: canonical words of the lexicon, and its centre (image fractions)."""

    shape: str
    colour: str
    texture: str
    size: str
    x: float
    y: float

    @property
    def radius(self) -> float:
        """Half of its extent, as a fraction of the image's side."""
        return RADII[self.size]


@dataclass(frozen=True)
class Scene:
    """Two or three objects and a background (canonical words of the lexicon)."""

    objects: tuple[SceneObject, ...]
    background: str

    def __post_init__(self) -> None:
        if not 1 <= len(self.objects) <= MAX_OBJECTS:
            raise ValueError(f"a scene has 1 to {MAX_OBJECTS} objects, got {len(self.objects)}")
        if self.background not in BACKGROUNDS:
            raise ValueError(f"background {self.background!r} is none of {sorted(BACKGROUNDS)}")
        for thing in self.objects:
            for kind in ATTRIBUTES:
                if getattr(thing, kind) not in LEXICON[kind]:
                    raise ValueError(
                        f"{kind} {getattr(thing, kind)!r} is none of {sorted(LEXICON[kind])}"
                    )

    @property
    def content(self) -> tuple[object, ...]:
        """What the scene shows apart from positions; no two sampled scenes share it."""
        described = sorted(tuple(getattr(o, kind) for kind in ATTRIBUTES) for o in self.objects)
        return (self.background, *described)

    @property
    def key(self) -> str:
        """A stable identifier of 12 hexadecimal digits."""
        return hashlib.sha256(repr(self).encode()).hexdigest()[:12]


def holds(relation: str, first: SceneObject, second: SceneObject) -> bool:
    """True if `first` stands in `relation` (e.g. `left`: left of) to `second`."""
    dx, dy = second.x - first.x, second.y - first.y
    if relation in ("left", "right"):
        return (dx if relation == "left" else -dx) >= MIN_OFFSET
    if relation in ("above", "below"):
        return (dy if relation == "above" else -dy) >= MIN_OFFSET
    distance = math.hypot(dx, dy)
    if relation == "near":
        return distance <= NEAR_DISTANCE
    if relation == "far":
        return distance >= FAR_DISTANCE
    raise ValueError(f"relation {relation!r} is none of {RELATION_NAMES}")


def python_random(generator: torch.Generator | int) -> random.Random:
    """A `random.Random` drawn from a torch generator (or an int seed): fast scalar draws."""
    if isinstance(generator, int):
        return random.Random(generator)
    return random.Random(int(torch.randint(2**62, (1,), generator=generator)))


def _place(sizes: Sequence[str], rng: random.Random) -> list[tuple[float, float]]:
    while True:
        spots = [(rng.choice(LATTICE), rng.choice(LATTICE)) for _ in sizes]
        if all(
            math.dist(spots[i], spots[j]) >= RADII[sizes[i]] + RADII[sizes[j]] + MIN_GAP
            for i in range(len(sizes))
            for j in range(i)
        ):
            return spots


def _sample_scene(rng: random.Random, n_objects: int) -> Scene:
    looks: dict[tuple[str, str], None] = {}  # a set's order would differ between processes
    while len(looks) < n_objects:  # no two objects share both shape and colour
        looks[rng.choice(_SHAPES), rng.choice(_COLOURS)] = None
    sizes = [rng.choice(_SIZES) for _ in range(n_objects)]
    objects = tuple(
        SceneObject(shape, colour, rng.choice(_TEXTURES), size, x, y)
        for (shape, colour), size, (x, y) in zip(looks, sizes, _place(sizes, rng), strict=True)
    )
    return Scene(objects, rng.choice(_BACKGROUNDS))


_SHAPES, _COLOURS, _TEXTURES = list(SHAPES), list(COLOURS), list(TEXTURES)
_SIZES, _BACKGROUNDS = list(SIZES), list(BACKGROUNDS)


def sample_scenes(
    n: int,
    seed: torch.Generator | int,
    *,
    three_rate: float = 0.35,
    exclude: Collection[tuple[object, ...]] = (),
) -> list[Scene]:
    """`n` scenes with pairwise different content.

    Args:
        n: number of scenes.
        seed: int seed or CPU generator; same seed, same scenes.
        three_rate: probability in [0, 1] that a scene has three objects instead of two.
        exclude: contents (`Scene.content`) that may not occur, e.g. those of other splits.
    """
    if n < 0 or not 0.0 <= three_rate <= 1.0:
        raise ValueError(f"expected n >= 0 and three_rate in [0, 1]; got {n}, {three_rate}")
    rng = python_random(seed)
    taken = set(exclude)
    scenes: list[Scene] = []
    while len(scenes) < n:
        scene = _sample_scene(rng, 3 if rng.random() < three_rate else 2)
        if scene.content not in taken:
            taken.add(scene.content)
            scenes.append(scene)
    return scenes


def corrupt_scene(scene: Scene, p: float, generator: torch.Generator | int) -> Scene:
    """The scene with each attribute replaced by a wrong one with probability `p`.

    Shape, colour and texture of every object, the background, and the positions (all at once;
    sizes and positions are redrawn together, so that objects still do not overlap).
    """
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"p is a probability in [0, 1]; got {p}")
    rng = python_random(generator)

    def changed(kind: str, value: str) -> str:
        if rng.random() >= p:
            return value
        return rng.choice([other for other in LEXICON[kind] if other != value])

    objects = [
        replace(
            o,
            shape=changed("shape", o.shape),
            colour=changed("colour", o.colour),
            texture=changed("texture", o.texture),
        )
        for o in scene.objects
    ]
    if rng.random() < p:
        sizes = [rng.choice([s for s in SIZES if s != o.size]) for o in objects]
        spots = _place(sizes, rng)
        objects = [
            replace(o, size=s, x=x, y=y) for o, s, (x, y) in zip(objects, sizes, spots, strict=True)
        ]
    return Scene(tuple(objects), changed("background", scene.background))


@dataclass(frozen=True)
class SceneArrays:
    """S scenes as arrays; objects are padded to three, missing ones are -1 / False.

    Attributes:
        attributes: int64 (S, 3, 4), index of each attribute's value, order `ATTRIBUTES`.
        backgrounds: int64 (S,), index of the background.
        positions: float64 (S, 3, 2), centres (x, y).
        present: bool (S, 3).
        relations: bool (S, 3, 3, 6), [s, i, j, r]: object i stands in relation r to object j.
    """

    attributes: np.ndarray
    backgrounds: np.ndarray
    positions: np.ndarray
    present: np.ndarray
    relations: np.ndarray


VALUE_INDEX: dict[str, dict[str, int]] = {
    kind: {value: i for i, value in enumerate(values)} for kind, values in LEXICON.items()
}


def scene_arrays(scenes: Sequence[Scene]) -> SceneArrays:
    """The scenes as arrays, for vectorised rendering and truth checks."""
    n = len(scenes)
    attributes = np.full((n, MAX_OBJECTS, len(ATTRIBUTES)), -1, dtype=np.int64)
    positions = np.zeros((n, MAX_OBJECTS, 2))
    for s, scene in enumerate(scenes):
        for i, thing in enumerate(scene.objects):
            attributes[s, i] = [VALUE_INDEX[k][getattr(thing, k)] for k in ATTRIBUTES]
            positions[s, i] = thing.x, thing.y
    present = attributes[:, :, 0] >= 0
    backgrounds = np.array([VALUE_INDEX["background"][s.background] for s in scenes], np.int64)
    offset = positions[:, None, :, :] - positions[:, :, None, :]  # [s, i, j] = j - i
    dx, dy, distance = offset[..., 0], offset[..., 1], np.hypot(offset[..., 0], offset[..., 1])
    tests = {
        "left": dx >= MIN_OFFSET,
        "right": -dx >= MIN_OFFSET,
        "above": dy >= MIN_OFFSET,
        "below": -dy >= MIN_OFFSET,
        "near": distance <= NEAR_DISTANCE,
        "far": distance >= FAR_DISTANCE,
    }
    relations = np.stack([tests[name] for name in RELATION_NAMES], axis=-1)
    both = present[:, :, None] & present[:, None, :] & ~np.eye(MAX_OBJECTS, dtype=bool)
    return SceneArrays(attributes, backgrounds, positions, present, relations & both[..., None])


_KIND_CLASS = {"shape": "N", "colour": "c", "texture": "x", "size": "z", "background": "B"}
_RELATION_CLASS = {"left": "L", "right": "L", "far": "F"}  # all others are prepositions: "R"


def _class_of(word: str) -> str:
    concept = CONCEPT_OF[word]
    if concept.kind == "relation":
        return _RELATION_CLASS.get(concept.value, "R")
    return _KIND_CLASS[concept.kind]


CLASS = {word: _class_of(word) for word in CONCEPT_OF} | {
    word: letter for letter, words in FUNCTION_WORD_CLASSES.items() for word in words
}

_CHUNKS = (
    ("g", r"D?Bi[og&]"),  # a stone scene with/of/showing
    ("g", r"DKvD?B&?"),  # the background is sand (and)
    ("g", r"&D?BkI?"),  # with sand behind (them)
    ("g", r"&?v?pD?B"),  # (and) (lies) on the sand
    ("i", r"D?i[og&]"),  # a picture of
    ("i", r"(?:ev|us|Dv)"),  # there is, we see, this is
    ("r", r"[tp]?D?Lo"),  # left of, to the left of
    ("r", r"Ff"),  # far from
    ("r", r"R"),  # above
    ("n", r"D?[zcx]*[NM]"),  # a small red star
    ("I", r"I"),
    ("q", r"qv?"),  # that is
    ("&", r"&"),
    ("v", r"v"),
)
_SCANNER = re.compile("|".join(f"(?P<_{i}>{p})" for i, (_, p) in enumerate(_CHUNKS)))

# A sentence is segments joined by conjunctions, background phrases taken out beforehand.
_SEGMENT = re.compile(r"n(?:[vq]?r[nI])?(?:qrn)*|rn[vi]?n")
_CONTINUATION = re.compile(r"v?rn")  # "… and above a ring", of the subject before
MAX_MENTIONS = 3


def classes(words: list[str]) -> tuple[list[str | None], str]:
    decoded = [decode(word) for word in words]
    return decoded, "".join("?" if word is None else CLASS[word] for word in decoded)


Span = tuple[int, int]
"""Words start to end (excluded) of a caption."""


def _scan(letters: str) -> list[tuple[str, Span]] | None:
    """Chunks (kind, words) that cover all letters, or None."""
    chunks: list[tuple[str, Span]] = []
    position = 0
    while position < len(letters):
        match = _SCANNER.match(letters, position)
        if match is None or match.lastgroup is None:
            return None
        chunks.append((_CHUNKS[int(match.lastgroup[1:])][0], match.span()))
        position = match.end()
    return chunks


class _Builder:
    """Collects mentions and relations while the chunk string is walked."""

    def __init__(self) -> None:
        self.mentions: list[Span] = []
        self.relations: list[tuple[int, Span, int]] = []
        self.subject = 0

    def mention(self, span: Span) -> int:
        self.mentions.append(span)
        return len(self.mentions) - 1

    def segment(self, tokens: str, spans: list[Span]) -> None:
        """One part of the sentence between conjunctions; its first noun is its subject."""
        inverted = tokens[0] == "r" and tokens.count("n") == 2
        waiting: int | None = None
        relation: Span | None = None
        for token, span in zip(tokens, spans, strict=True):
            if token == "r":
                relation = span
            elif token == "I" and relation is not None:
                self.relations.append((len(self.mentions) - 1, relation, 0))
            elif token == "n" and inverted and waiting is None:
                waiting = self.mention(span)  # "above a ring is a star"
            elif token == "n":
                before = self.subject if tokens[0] != "n" else len(self.mentions) - 1
                here = self.mention(span)
                if waiting is not None and relation is not None:
                    self.relations.append((here, relation, waiting))
                elif relation is not None:
                    self.relations.append((before, relation, here))
                if waiting is not None or (relation is None and tokens[0] == "n"):
                    self.subject = here
                relation = None


@dataclass(frozen=True)
class Structure:
    """Where a sentence states what, whatever the words: `Reading` with spans for concepts."""

    mentions: tuple[Span, ...]
    relations: tuple[tuple[int, Span, int], ...]
    backgrounds: tuple[Span, ...]


@lru_cache(maxsize=65_536)
def structure(letters: str) -> Structure | None:
    """The structure of a sentence of these word classes, or None outside the grammar.

    Kept apart from the words because thousands of captions share one structure: an edit that
    swaps a word for one of its class needs no new parse.
    """
    chunks = None if "?" in letters else _scan(letters)
    if chunks is None:
        return None
    rest = [chunk for chunk in chunks if chunk[0] != "g"]
    opening = len(rest) - len("".join(k for k, _ in rest).removeprefix("i").removeprefix("v"))
    builder = _Builder()
    start = opening
    for position, segment in enumerate("".join(k for k, _ in rest[opening:]).split("&")):
        spans = [span for _, span in rest[start : start + len(segment)]]
        start += len(segment) + 1
        continues = position > 0 and _CONTINUATION.fullmatch(segment) is not None
        if not continues and _SEGMENT.fullmatch(segment) is None:
            return None
        builder.segment(segment, spans)
    if len(builder.mentions) > MAX_MENTIONS or any(i == j for i, _, j in builder.relations):
        return None
    backgrounds = tuple(span for kind, span in chunks if kind == "g")
    return Structure(tuple(builder.mentions), tuple(builder.relations), backgrounds)
