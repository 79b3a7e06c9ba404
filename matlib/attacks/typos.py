"""One-letter edits of words: the typo threat on captions whose lexicon is not known."""

from __future__ import annotations

import random
from collections.abc import Sequence, Set
from string import ascii_lowercase

RULES = ("substitute", "delete", "insert", "transpose")


def one_letter_edits(
    word: str,
    n: int,
    vocabulary: Set[str],
    rng: random.Random,
    rules: Sequence[str] = RULES,
) -> list[str]:
    """Up to `n` different words at one substitution, deletion, insertion or transposition.

    Words of the vocabulary are never formed, so an edit stays a typo and does not become
    another statement. One-letter words have no typos. Letters outside a-z are kept but
    never inserted.

    Args:
        word: a word without spaces.
        n: most edits wanted.
        vocabulary: lower-case words that must not be formed.
        rng: source of the draws; the same state gives the same edits.
        rules: kinds of typo; leave one out to hold it out of training.
    """
    if len(word) < 2:
        return []
    found: dict[str, None] = {}
    for _ in range(8 * n):
        if len(found) == n:
            break
        edit = _one_edit(word, rng, rules)
        if edit != word and edit and edit.lower() not in vocabulary:
            found[edit] = None
    return list(found)


def _one_edit(word: str, rng: random.Random, rules: Sequence[str]) -> str:
    at, letter = rng.randrange(len(word)), rng.choice(ascii_lowercase)
    kind = rng.choice(rules)
    if kind == "substitute":
        return word[:at] + letter + word[at + 1 :]
    if kind == "delete":
        return word[:at] + word[at + 1 :]
    if kind == "insert":
        return word[:at] + letter + word[at:]
    at = min(at, len(word) - 2)
    return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
