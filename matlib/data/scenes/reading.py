"""Reading captions: from words to the facts they state."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from matlib.data.scenes.lexicon import CONCEPT_OF, Concept, decode
from matlib.data.scenes.structure import CLASS, MAX_MENTIONS, Span, classes, structure

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
