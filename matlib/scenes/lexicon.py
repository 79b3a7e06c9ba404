"""The words of the embedded world: one table from words to what they mean.

Every content word names exactly one concept. The first word of a concept is canonical; the
others are its synonyms. All are single words, so that a one-word substitution reaches them;
multiword relations ("left of", "far from") swap their content word only.
"""

from __future__ import annotations

from functools import lru_cache
from string import ascii_lowercase
from typing import NamedTuple

import numpy as np

SHAPES: dict[str, tuple[str, ...]] = {
    "circle": ("disc", "ball", "orb", "sphere"),
    "square": ("box", "brick", "cube", "tile"),
    "triangle": ("wedge", "pyramid", "trigon", "delta"),
    "diamond": ("rhombus", "lozenge", "gem", "kite"),
    "hexagon": ("honeycomb", "hex", "hexad", "sexangle"),
    "star": ("asterisk", "pentagram", "sparkle", "twinkle"),
    "cross": ("plus", "crucifix", "crosslet", "rood"),
    "ring": ("hoop", "annulus", "donut", "wreath"),
    "heart": ("valentine", "cardioid", "sweetheart", "lovemark"),
    "moon": ("crescent", "lune", "sickle", "lunette"),
    "arrow": ("pointer", "dart", "arrowhead", "cursor"),
    "bolt": ("lightning", "flash", "zigzag", "thunderbolt"),
}
COLOURS: dict[str, tuple[str, ...]] = {
    "red": ("crimson", "scarlet", "ruby", "cherry"),
    "orange": ("tangerine", "apricot", "amber", "pumpkin"),
    "yellow": ("golden", "lemon", "canary", "mustard"),
    "green": ("emerald", "jade", "olive", "verdant"),
    "cyan": ("turquoise", "aqua", "teal", "aquamarine"),
    "blue": ("azure", "navy", "cobalt", "sapphire"),
    "purple": ("violet", "mauve", "lilac", "amethyst"),
    "pink": ("rosy", "magenta", "fuchsia", "blush"),
    "white": ("ivory", "pearl", "chalky", "milky"),
    "black": ("ebony", "jet", "inky", "sable"),
}
TEXTURES: dict[str, tuple[str, ...]] = {
    "plain": ("solid", "flat", "smooth", "uniform"),
    "striped": ("banded", "lined", "barred", "streaked"),
    "dotted": ("spotted", "speckled", "dappled", "flecked"),
    "checkered": ("checked", "latticed", "gridded", "quilted"),
}
SIZES: dict[str, tuple[str, ...]] = {
    "small": ("little", "tiny", "mini", "petite"),
    "medium": ("middling", "moderate", "average", "midsize"),
    "large": ("big", "huge", "giant", "massive"),
}
RELATIONS: dict[str, tuple[str, ...]] = {
    "left": ("leftward", "lefthand", "west", "westward"),
    "right": ("rightward", "righthand", "east", "eastward"),
    "above": ("over", "atop", "upon", "overtop"),
    "below": ("under", "beneath", "underneath", "neath"),
    "near": ("beside", "alongside", "nearby", "adjoining"),
    "far": ("distant", "away", "remote", "apart"),
}
BACKGROUNDS: dict[str, tuple[str, ...]] = {
    "sand": ("beach", "desert", "dunes", "shore"),
    "grass": ("meadow", "lawn", "field", "pasture"),
    "sky": ("clouds", "heavens", "air", "firmament"),
    "stone": ("rock", "slate", "gravel", "concrete"),
    "dusk": ("sunset", "twilight", "sundown", "gloaming"),
    "night": ("midnight", "darkness", "cosmos", "starlight"),
}
LEXICON: dict[str, dict[str, tuple[str, ...]]] = {
    "shape": SHAPES,
    "colour": COLOURS,
    "texture": TEXTURES,
    "size": SIZES,
    "relation": RELATIONS,
    "background": BACKGROUNDS,
}

# Part of speech (one letter, used by the parser) of every word that states no fact by itself.
FUNCTION_WORD_CLASSES: dict[str, tuple[str, ...]] = {
    "D": ("a", "an", "the", "one", "some", "this"),
    "M": ("shape", "object", "figure", "thing", "item"),
    "o": ("of",),
    "t": ("to",),
    "f": ("from",),
    "p": ("on", "in", "against", "at"),
    "k": ("behind",),
    "I": ("it", "them", "both"),
    "K": ("background", "backdrop"),
    "v": ("is", "are", "sits", "lies", "stands", "rests", "appears", "was", "sit", "lie"),
    "&": ("and", "with", "has", "having"),
    "q": ("that", "which"),
    "e": ("there", "here"),
    "u": ("we", "you"),
    "s": ("see", "spot", "notice"),
    "i": ("picture", "photo", "image", "drawing", "scene", "view"),
    "g": ("showing", "shows"),
}
FUNCTION_WORDS: frozenset[str] = frozenset(
    word for words in FUNCTION_WORD_CLASSES.values() for word in words
)


class Concept(NamedTuple):
    """What a content word means: `kind` is a key of `LEXICON`, `value` its canonical word."""

    kind: str
    value: str


def _concepts() -> dict[str, Concept]:
    table: dict[str, Concept] = {}
    for kind, concepts in LEXICON.items():
        for canonical, synonyms in concepts.items():
            for word in (canonical, *synonyms):
                if word in table or word in FUNCTION_WORDS:
                    raise ValueError(f"the word {word!r} has two meanings in the lexicon")
                table[word] = Concept(kind, canonical)
    return table


CONCEPT_OF: dict[str, Concept] = _concepts()
CANONICAL_WORDS: frozenset[str] = frozenset(concept.value for concept in CONCEPT_OF.values())
SYNONYM_WORDS: frozenset[str] = frozenset(CONCEPT_OF) - CANONICAL_WORDS
VOCABULARY: frozenset[str] = frozenset(CONCEPT_OF) | FUNCTION_WORDS
HELD_OUT_WORDS: frozenset[str] = frozenset(word for family in SIZES.values() for word in family)
"""The synonyms of sizes, which no defence trains on: nearly every caption has a word that they
can replace. Base training has seen them, as rarely as all synonyms."""


def half_of_synonyms(seed: int) -> frozenset[str]:
    """A random half of the synonyms of every concept, for those who attack and do not train.

    Args:
        seed: of the draw; the same seed, the same words.
    """
    rng = np.random.default_rng((seed, 0x70C4B))
    half: set[str] = set()
    for concepts in LEXICON.values():
        for synonyms in concepts.values():
            half.update(rng.permutation(np.array(synonyms))[: len(synonyms) // 2].tolist())
    return frozenset(half)


def synonyms_of(word: str) -> tuple[str, ...]:
    """The other words of the same concept (canonical first); empty for other words."""
    concept = CONCEPT_OF.get(word)
    if concept is None:
        return ()
    family = (concept.value, *LEXICON[concept.kind][concept.value])
    return tuple(other for other in family if other != word)


def single_letter_edits(word: str) -> set[str]:
    """All strings one substitution, deletion, insertion or adjacent transposition away."""
    splits = [(word[:i], word[i:]) for i in range(len(word) + 1)]
    edits = {a + b[1:] for a, b in splits if b}
    edits |= {a + b[1] + b[0] + b[2:] for a, b in splits if len(b) > 1}
    edits |= {a + c + b[1:] for a, b in splits if b for c in ascii_lowercase}
    edits |= {a + c + b for a, b in splits for c in ascii_lowercase}
    return edits - {word}


@lru_cache(maxsize=1)
def _readings_of_typos() -> dict[str, str | None]:
    """Every string one letter away from a known word -> that word, or None if there are two."""
    table: dict[str, str | None] = {}
    for word in sorted(VOCABULARY):
        for edit in single_letter_edits(word):
            table[edit] = None if edit in table else word
    return table


def decode(word: str) -> str | None:
    """The word of the vocabulary that is meant: itself, or the only one a letter away."""
    if word in VOCABULARY:
        return word
    return _readings_of_typos().get(word) if len(word) >= 2 else None
