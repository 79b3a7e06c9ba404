"""One-letter typos that never form another known word and can be read in one way only."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import lru_cache
from string import ascii_lowercase

import torch

from matlib.scenes.lexicon import CONCEPT_OF, VOCABULARY, decode
from matlib.scenes.scene import python_random

TYPO_RULES: tuple[str, ...] = ("substitute", "delete", "insert", "transpose")
HELD_OUT_RULE = "transpose"
"""Neither base training nor any defence has it (LEAF: a transposition is two Levenshtein edits)."""


def _raw_edits(word: str, rule: str) -> set[str]:
    n = len(word)
    if rule == "substitute":
        return {word[:i] + c + word[i + 1 :] for i in range(n) for c in ascii_lowercase}
    if rule == "delete":
        return {word[:i] + word[i + 1 :] for i in range(n)}
    if rule == "insert":
        return {word[:i] + c + word[i:] for i in range(n + 1) for c in ascii_lowercase}
    if rule == "transpose":
        return {word[:i] + word[i + 1] + word[i] + word[i + 2 :] for i in range(n - 1)}
    raise ValueError(f"typo rule {rule!r} is none of {TYPO_RULES}")


@lru_cache(maxsize=4096)
def typos_of(word: str, rule: str) -> tuple[str, ...]:
    """All admissible typos of a word by one rule, sorted; empty for words that state nothing.

    Admissible: not a word of the vocabulary, and decodable to `word` alone.
    """
    if word not in CONCEPT_OF:
        return ()
    edits = _raw_edits(word, rule) - VOCABULARY
    return tuple(sorted(edit for edit in edits if decode(edit) == word))


def typo_edits(
    caption: str,
    generator: torch.Generator | int,
    n_per_word: int,
    rules: Sequence[str] = TYPO_RULES,
) -> list[tuple[int, str]]:
    """Typos of a caption's content words, as edits (position in `split(" ")`, replacement).

    Args:
        caption: words separated by single spaces.
        generator: CPU generator or int seed.
        n_per_word: number of typos drawn for each content word (fewer where fewer exist).
        rules: kinds of typo; leave one out here to hold it out of training.
    """
    rng = python_random(generator)
    edits = []
    for position, word in enumerate(caption.split(" ")):
        pool = sorted({typo for rule in rules for typo in typos_of(word, rule)})
        for typo in rng.sample(pool, min(n_per_word, len(pool))):
            edits.append((position, typo))
    return edits


def typo_of_caption(caption: str, rng: random.Random, rules: Sequence[str] = TYPO_RULES) -> str:
    """The caption with one typo, its rule and its word drawn uniformly."""
    words = caption.split(" ")
    rule = rng.choice(list(rules))
    places = [i for i, word in enumerate(words) if typos_of(word, rule)]
    if not places:
        return caption
    place = rng.choice(places)
    words[place] = rng.choice(typos_of(words[place], rule))
    return " ".join(words)
