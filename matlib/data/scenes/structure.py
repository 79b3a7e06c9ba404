"""The structure of a caption: word classes, chunks, and which words state what.

A cascade of two small grammars. First words become one-letter classes and a scanner groups
them into chunks: noun phrases, relations, background phrases, verbs, conjunctions. Then a
chunk grammar attaches relations to noun phrases. What does not fit is not understood.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from matlib.data.scenes.lexicon import CONCEPT_OF, FUNCTION_WORD_CLASSES, decode

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
