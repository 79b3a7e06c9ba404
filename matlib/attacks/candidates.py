"""Candidate tables: what may replace what, from a masked LM, a synonym list or a given table."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from typing import Protocol

from matlib.attacks.edits import Edit, check_table

Table = list[list[Edit]]

_DELETED = re.compile(r"[,.'!?\"()*#:;~]")
_SPACES = re.compile(r"\s+")


class WordPredictor(Protocol):
    """A masked language model, asked for words that may replace words."""

    def candidates(self, captions: Sequence[str], k: int) -> list[list[list[str]]]:
        """`out[caption][word]`: up to `k` words for word `word` of `caption.split(" ")`."""
        ...


@cache
def english_stop_words() -> frozenset[str]:
    """scikit-learn's English stop words (318; BERT-Attack's own list has 266).

    Loaded on first use: scikit-learn is slow to import and only real captions need its list.
    """
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    return frozenset(ENGLISH_STOP_WORDS)


def content_words(caption: str, stop_words: Collection[str]) -> list[int]:
    """Positions in `caption.split(" ")` that are words and not stop words."""
    return [
        i
        for i, word in enumerate(caption.split(" "))
        if word.isalpha() and word.lower() not in stop_words
    ]


def free_edits(
    captions: Sequence[str],
    words: Sequence[Sequence[Sequence[str]]],
    stop_words: Collection[str],
    k: int,
) -> Table:
    """The first `k` suggested words at every content word.

    Stop words are neither replaced nor used as replacements (BERT-Attack).

    Args:
        words: `words[caption][position]`, suggestions in the order of preference.
    """
    table = []
    for caption, per_word in zip(captions, words, strict=True):
        row = [
            Edit(position, word)
            for position in content_words(caption, stop_words)
            for word in [w for w in per_word[position] if w not in stop_words][:k]
        ]
        table.append(row)
    return table


def from_masked_lm(
    captions: Sequence[str],
    masked_lm: WordPredictor,
    k: int = 10,
    stop_words: Collection[str] | None = None,
) -> Table:
    """Edits into the `k` likeliest words of a masked LM, stop words among them dropped.

    Args:
        stop_words: lower-case words neither attacked nor used; `english_stop_words()` by default.
    """
    stop = english_stop_words() if stop_words is None else stop_words
    return free_edits(captions, masked_lm.candidates(captions, k), stop, k)


def from_synonyms(
    captions: Sequence[str],
    synonyms: Mapping[str, Sequence[str]],
    stop_words: Collection[str] | None = None,
    k: int | None = None,
) -> Table:
    """Edits into listed words, for instance counter-fitted neighbours (as HQA-Attack uses).

    Args:
        synonyms: lower-case word -> words that may replace it, best first; no spaces in them.
        stop_words: lower-case words neither attacked nor used; `english_stop_words()` by default.
        k: replacements per word; all by default.

    Raises:
        ValueError: a replacement of several words or of none.
    """
    bad = [new for words in synonyms.values() for new in words if not new or " " in new]
    if bad:
        raise ValueError(f"a synonym must be one word, so that positions stay; got {bad[0]!r}")
    stop = english_stop_words() if stop_words is None else stop_words
    words = [[synonyms.get(word.lower(), ()) for word in c.split(" ")] for c in captions]
    most = max(map(len, synonyms.values()), default=0)
    return free_edits(captions, words, stop, most if k is None else k)


def from_table(captions: Sequence[str], rows: Sequence[Sequence[tuple[int, str]]]) -> Table:
    """Edits given as (position, replacement), for instance read from JSON.

    Raises:
        ValueError: not one row per caption, or an edit outside its caption.
    """
    table = [[Edit(position, word) for position, word in row] for row in rows]
    check_table(captions, table)
    return table


def normalise_caption(caption: str, n_words: int = 30) -> str:
    """A caption as the released code of ALBEF, Co-Attack and SGA feeds it to its models.

    Lower case; the marks , . ' ! ? " ( ) * # : ; ~ deleted; hyphens and slashes to spaces;
    `<person>` to `person`; runs of white space to one space; the first `n_words` words.
    Off by default everywhere: CLIP's tokenizer needs none of it, and recalls with and without
    differ (ViT-B/16, COCO, IR@5: 58.16 against 58.37). On captions with marks glued to words
    ("a dog.") it also makes those words attackable.
    """
    text = _DELETED.sub("", caption.lower()).replace("-", " ").replace("/", " ")
    text = _SPACES.sub(" ", text.replace("<person>", "person")).strip()
    return " ".join(text.split(" ")[:n_words])
