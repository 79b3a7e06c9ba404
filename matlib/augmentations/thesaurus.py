"""Synonyms of English words from WordNet, for EDA on real captions."""

from __future__ import annotations

from functools import lru_cache

from matlib.augmentations.pretrained import optional


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
