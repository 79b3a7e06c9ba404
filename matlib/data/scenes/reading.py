"""Reading captions: from words to the facts they state.

A cascade of two small grammars. First words become one-letter classes and a scanner groups
them into chunks: noun phrases, relations, background phrases, verbs, conjunctions. Then a
chunk grammar attaches relations to noun phrases. What does not fit is not understood.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from matlib.data.scenes.lexicon import CONCEPT_OF, FUNCTION_WORD_CLASSES, Concept, decode

_KIND_CLASS = {"shape": "N", "colour": "c", "texture": "x", "size": "z", "background": "B"}
_RELATION_CLASS = {"left": "L", "right": "L", "far": "F"}  # all others are prepositions: "R"


def _class_of(word: str) -> str:
    concept = CONCEPT_OF[word]
    if concept.kind == "relation":
        return _RELATION_CLASS.get(concept.value, "R")
    return _KIND_CLASS[concept.kind]


_CLASS = {word: _class_of(word) for word in CONCEPT_OF} | {
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
# Without a full parse: adjectives without a noun and bare backgrounds count as well.
_FRAGMENTS = re.compile(r"(?P<n>[zcx]+[NM]?|[NM])|(?P<r>[LFR])|(?P<g>B)")

# A sentence is segments joined by conjunctions, background phrases taken out beforehand.
_SEGMENT = re.compile(r"n(?:[vq]?r[nI])?(?:qrn)*|rn[vi]?n")
_CONTINUATION = re.compile(r"v?rn")  # "… and above a ring", of the subject before
MAX_MENTIONS = 3


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


def _classes(words: list[str]) -> tuple[list[str | None], str]:
    decoded = [decode(word) for word in words]
    return decoded, "".join("?" if word is None else _CLASS[word] for word in decoded)


def _concepts(words: list[str | None], start: int, end: int) -> list[Concept]:
    return [CONCEPT_OF[w] for w in words[start:end] if w is not None and w in CONCEPT_OF]


def _scan(letters: str) -> list[tuple[str, int, int]] | None:
    """Chunks (kind, start, end) that cover all letters, or None."""
    chunks: list[tuple[str, int, int]] = []
    position = 0
    while position < len(letters):
        match = _SCANNER.match(letters, position)
        if match is None or match.lastgroup is None:
            return None
        chunks.append((_CHUNKS[int(match.lastgroup[1:])][0], match.start(), match.end()))
        position = match.end()
    return chunks


class _Builder:
    """Collects mentions and relations while the chunk string is walked."""

    def __init__(self) -> None:
        self.mentions: list[tuple[Concept, ...]] = []
        self.relations: list[tuple[int, str, int]] = []
        self.subject = 0

    def mention(self, concepts: list[Concept]) -> int:
        self.mentions.append(tuple(concepts))
        return len(self.mentions) - 1

    def segment(self, tokens: str, values: list[list[Concept]]) -> None:
        """One part of the sentence between conjunctions; its first noun is its subject."""
        inverted = tokens[0] == "r" and tokens.count("n") == 2
        waiting: int | None = None
        relation: str | None = None
        for token, concepts in zip(tokens, values, strict=True):
            if token == "r":
                relation = concepts[0].value
            elif token == "I" and relation is not None:
                self.relations.append((len(self.mentions) - 1, relation, 0))
            elif token == "n" and inverted and waiting is None:
                waiting = self.mention(concepts)  # "above a ring is a star"
            elif token == "n":
                before = self.subject if tokens[0] != "n" else len(self.mentions) - 1
                here = self.mention(concepts)
                if waiting is not None and relation is not None:
                    self.relations.append((here, relation, waiting))
                elif relation is not None:
                    self.relations.append((before, relation, here))
                if waiting is not None or (relation is None and tokens[0] == "n"):
                    self.subject = here
                relation = None


@lru_cache(maxsize=200_000)
def read(caption: str) -> Reading | None:
    """The facts of a caption, or None where it is not understood.

    Not understood: an unknown word (other than a one-letter typo of exactly one known word),
    a sentence outside the grammar, more than three mentioned objects.
    """
    words, letters = _classes(caption.lower().split())
    chunks = None if "?" in letters else _scan(letters)
    if chunks is None:
        return None
    facts = [(kind, _concepts(words, start, end)) for kind, start, end in chunks]
    backgrounds = tuple(concepts[0].value for kind, concepts in facts if kind == "g")
    rest = [fact for fact in facts if fact[0] != "g"]
    opening = len(rest) - len("".join(k for k, _ in rest).removeprefix("i").removeprefix("v"))
    builder = _Builder()
    start = opening
    for position, segment in enumerate("".join(k for k, _ in rest[opening:]).split("&")):
        values = [concepts for _, concepts in rest[start : start + len(segment)]]
        start += len(segment) + 1
        continues = position > 0 and _CONTINUATION.fullmatch(segment) is not None
        if not continues and _SEGMENT.fullmatch(segment) is None:
            return None
        builder.segment(segment, values)
    if len(builder.mentions) > MAX_MENTIONS or any(i == j for i, _, j in builder.relations):
        return None
    return Reading(tuple(builder.mentions), tuple(builder.relations), backgrounds)


@lru_cache(maxsize=65_536)
def read_leniently(caption: str) -> Reading:
    """What can be made of any text: `read`, else the recognisable fragments in their order.

    A relation counts where noun phrases stand on both sides of it. For shuffled or shortened
    captions, whose truth is a matter of degree. At most three mentions are kept.
    """
    strict = read(caption)
    if strict is not None:
        return strict
    words, _ = _classes(caption.lower().split())
    known = [w for w in words if w is not None and (w in CONCEPT_OF or _CLASS[w] == "M")]
    letters = "".join(_CLASS[w] for w in known)
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
