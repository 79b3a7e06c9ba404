"""Candidate tables: what may replace what, from a masked LM, a synonym list or a given table.

What a mark touches is a word all the same: see `matlib.attacks.marks` for what of a token is
attacked and what stays.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol

from matlib.attacks.edits import Edit, check_replacement, check_table
from matlib.attacks.marks import Piece, apart, in_place, marks, pieces, tokens
from matlib.attacks.stop_words import RELEASED, english_stop_words

Table = list[list[Edit]]

Cut = Callable[[str], Sequence[Piece]]
"""How a caption falls into words: `pieces`, or `tokens` as in the released code."""

_DELETED = re.compile(r"[,.'!?\"()*#:;~]")
_SPACES = re.compile(r"\s+")


class WordPredictor(Protocol):
    """A masked language model, asked for words that may replace words."""

    @property
    def candidates(self) -> Callable[..., list[list[list[str]]]]:
        """(captions, k) -> up to `k` words for every word of every `caption.split(" ")`."""
        ...


def content_pieces(caption: str, stop_words: Collection[str], cut: Cut = pieces) -> list[Piece]:
    """The words of a caption that are not stop words, each with the marks around it."""
    return [
        piece for piece in cut(caption) if piece.is_word and piece.text.lower() not in stop_words
    ]


def content_words(caption: str, stop_words: Collection[str]) -> list[int]:
    """Positions in `caption.split(" ")` that hold a word which is no stop word."""
    return sorted({piece.position for piece in content_pieces(caption, stop_words)})


def suggested(
    captions: Sequence[str], masked_lm: WordPredictor, k: int, *, released: bool = False
) -> list[list[list[str]]]:
    """A masked LM's words for every piece of every caption, as `free_edits` takes them.

    Args:
        released: asked as in the field's code (see `MaskedLM.candidates`), for whole tokens.
    """
    if released:
        return masked_lm.candidates(
            captions, k, alignment="as_released", multi_token="as_released", k_counts="predicted"
        )
    return masked_lm.candidates([apart(caption) for caption in captions], k)


def free_edits(
    captions: Sequence[str],
    words: Sequence[Sequence[Sequence[str]]],
    stop_words: Collection[str],
    k: int,
    cut: Cut = pieces,
) -> Table:
    """The first `k` suggested words at every content word, its marks kept.

    Stop words are neither replaced nor used as replacements (BERT-Attack).

    Args:
        words: `words[caption][i]`, suggestions for piece `i` of `cut(caption)` (on captions
            without marks its position) in the order of preference.
    """
    table = []
    for caption, per_piece in zip(captions, words, strict=True):
        row = []
        for piece, found in zip(cut(caption), per_piece, strict=True):
            if piece.is_word and piece.text.lower() not in stop_words:
                kept = [word for word in found if word.lower() not in stop_words][:k]
                row += [Edit(piece.position, piece.replaced(word)) for word in kept]
        table.append(row)
    return table


def from_masked_lm(
    captions: Sequence[str],
    masked_lm: WordPredictor,
    k: int = 10,
    stop_words: Collection[str] | None = None,
    *,
    released: bool = False,
) -> Table:
    """Edits into the `k` likeliest words of a masked LM, stop words among them dropped.

    Args:
        stop_words: lower-case words neither attacked nor used; `english_stop_words()` by
            default, with `released` the field's list.
        released: as in the field's code, for captions after `normalise_caption`: candidates
            one token beside the word, and every token a word but those of its list of 292.
    """
    default = RELEASED if released else english_stop_words()
    stop, cut = default if stop_words is None else stop_words, tokens if released else pieces
    return free_edits(captions, suggested(captions, masked_lm, k, released=released), stop, k, cut)


def from_synonyms(
    captions: Sequence[str],
    synonyms: Mapping[str, Sequence[str]],
    stop_words: Collection[str] | None = None,
    k: int | None = None,
) -> Table:
    """Edits into listed words, for instance counter-fitted neighbours (as HQA-Attack uses).

    Args:
        synonyms: word -> words that may replace it, best first; no spaces in them. Capitals of
            the keys do not count. A key may be a compound ("well-dressed"), replaced as a whole.
        stop_words: lower-case words not attacked; `english_stop_words()` by default. What is
            listed may be used, whatever it is.
        k: replacements per word; all by default.

    Raises:
        ValueError: something else than a list of words, or a key that no word can match.
    """
    listed = checked_synonyms(synonyms)
    stop = english_stop_words() if stop_words is None else stop_words
    return [
        [
            Edit(piece.position, piece.replaced(word))
            for piece in content_pieces(caption, stop)
            for word in listed.get(piece.text.lower(), [])[:k]
            if word.lower() != piece.text.lower()
        ]
        + _of_compounds(caption, listed, stop, k)
        for caption in captions
    ]


def checked_synonyms(synonyms: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """The same with lower-case keys.

    Raises:
        ValueError: the key, what was found there and what is expected.
    """
    listed: dict[str, list[str]] = {}
    for key, words in synonyms.items():
        if isinstance(words, str) or not isinstance(words, Sequence):
            raise ValueError(f"synonyms of {key!r}: expected a list of words; got {words!r:.60}")
        for word in words:
            check_replacement(word, f"synonyms of {key!r}")
        name = key.lower() if isinstance(key, str) else ""
        if not name or any(c.isspace() for c in name) or any(marks(name)):
            raise ValueError(
                f"synonyms of {key!r}: no word of a caption can match this key; it must be one "
                "word, without white space and without marks around it"
            )
        if name in listed:
            raise ValueError(f"synonyms of {name!r} are given twice, by capitals alone apart")
        listed[name] = list(words)
    return listed


def _of_compounds(
    caption: str, listed: Mapping[str, list[str]], stop: Collection[str], k: int | None
) -> list[Edit]:
    """Edits of tokens of several words ("well-dressed") as a whole."""
    row = []
    for position, token in enumerate(caption.split(" ")):
        before, after = marks(token)
        core = token[len(before) : len(token) - len(after)].lower()
        if not core.isalpha() and core not in stop:
            row += [Edit(position, before + word + after) for word in listed.get(core, [])[:k]]
    return row


def from_table(
    captions: Sequence[str], rows: Sequence[Sequence[tuple[int, str]]], *, whole: bool = False
) -> Table:
    """Edits given as (position, replacement), for instance read from JSON.

    Args:
        whole: replacements are of whole tokens, as in a table that was made and stored. By
            default the marks around a word stay unless the replacement brings its own: both
            "go" and "go." replace "chess." by "go.".

    Raises:
        ValueError: not one row per caption, an edit outside its caption, or a replacement that
            is not one word.
    """
    table = [[Edit(position, word) for position, word in row] for row in rows]
    check_table(captions, table)
    if whole:
        return table
    split = [caption.split(" ") for caption in captions]
    return [
        [Edit(at, in_place(words[at], word)) for at, word in row]
        for words, row in zip(split, table, strict=True)
    ]


def normalise_caption(caption: str, n_words: int = 30) -> str:
    """A caption as the released code of ALBEF, Co-Attack and SGA feeds it to its models.

    Lower case; the marks , . ' ! ? " ( ) * # : ; ~ deleted; hyphens and slashes to spaces;
    `<person>` to `person`; runs of white space to one space; the first `n_words` words.
    Off by default everywhere: CLIP's tokenizer needs none of it, and recalls with and without
    differ (ViT-B/16, COCO, IR@5: 58.16 against 58.37).
    """
    text = _DELETED.sub("", caption.lower()).replace("-", " ").replace("/", " ")
    text = _SPACES.sub(" ", text.replace("<person>", "person")).strip()
    return " ".join(text.split(" ")[:n_words])
