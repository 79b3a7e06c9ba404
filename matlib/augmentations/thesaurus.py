"""Synonyms of English words from WordNet, for EDA on real captions."""

from __future__ import annotations

import hashlib
from functools import cache, lru_cache

from matlib.augmentations.pretrained import MissingExtraError, optional


@lru_cache(maxsize=65_536)
def synonyms_in_wordnet(word: str) -> tuple[str, ...]:
    """Single words that share a sense with a word, in alphabetical order (as EDA's code does).

    Raises:
        MissingExtraError: nltk is not installed.
        FileNotFoundError: nltk has no WordNet here.
    """
    wordnet = optional("nltk.corpus", "EDA on real captions").wordnet
    try:
        senses = wordnet.synsets(word.lower())
    except LookupError as error:
        raise FileNotFoundError(
            "EDA replaces words by synonyms of WordNet, which is not here: "
            "python -m nltk.downloader wordnet"
        ) from error
    found = {lemma.name().lower() for sense in senses for lemma in sense.lemmas()}
    return tuple(sorted(w for w in found if w.isalpha() and w != word.lower()))


@cache
def wordnet_identity() -> str:
    """sha256 of WordNet's files as nltk finds them here; empty where it finds none."""
    try:
        wordnet = optional("nltk.corpus", "EDA on real captions").wordnet
        names = sorted(wordnet.fileids())
    except (MissingExtraError, LookupError):
        return ""
    whole = hashlib.sha256()
    for name in names:
        with wordnet.abspath(name).open(encoding=None) as file:
            whole.update(f"{name} {hashlib.sha256(file.read()).hexdigest()}\n".encode())
    return whole.hexdigest()
