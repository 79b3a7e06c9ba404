"""What a text attack may do to a caption: tables of allowed edits.

A table is made from a masked LM, a synonym list or a given table, and may be thinned by how much a
sentence changes; one-letter edits are the typo threat on captions whose lexicon is not known.
What a mark touches is a word all the same: see `matlib.attacks.attackable` for what of a token
is attacked and what stays.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Collection, Mapping, Sequence, Set
from string import ascii_lowercase
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from matlib.attacks.attackable import (
    RELEASED,
    Piece,
    apart,
    english_stop_words,
    in_place,
    marks,
    pieces,
    tokens,
)
from matlib.models.dual_encoder import frozen


class Edit(NamedTuple):
    """Token `position` of `caption.split(" ")` replaced by `replacement`, marks included."""

    position: int
    replacement: str


CandidateTable = Sequence[Sequence[Edit]]
"""The allowed edits of each caption, in the order of preference."""

MASK = "[UNK]"
"""What a word is replaced by to measure its importance: `[UNK]`, not `[MASK]`, as in
BERT-Attack's code; CLIP's tokenizer reads it as the literal string."""

_NON_JOINER, _JOINER = "\u200c", "\u200d"  # cannot be seen, but belong to words of some scripts


def apply_edit(caption: str, edit: Edit) -> str:
    """The caption with one token replaced."""
    words = caption.split(" ")
    words[edit.position] = edit.replacement
    return " ".join(words)


def n_changed_words(before: str, after: str) -> int:
    """Number of word positions that differ; captions of different length differ in all."""
    a, b = before.split(" "), after.split(" ")
    if len(a) != len(b):
        return max(len(a), len(b))
    return sum(x != y for x, y in zip(a, b, strict=True))


def by_position(caption: str, row: Sequence[Edit]) -> dict[int, list[str]]:
    """Replacements per position, positions ascending, the row's order kept within each.

    Repeated edits and edits that change nothing are left out: the unchanged caption competes
    in every search anyway, and of equal rows the first would win.
    """
    words = caption.split(" ")
    grouped: dict[int, dict[str, None]] = {}
    for position, replacement in row:
        if replacement != words[position]:
            grouped.setdefault(position, {})[replacement] = None
    return {position: list(grouped[position]) for position in sorted(grouped)}


def n_attackable_words(caption: str, row: Sequence[Edit]) -> int:
    """Positions of a caption that some edit changes."""
    return len(by_position(caption, row))


def masked_token(token: str, replacements: Sequence[str]) -> str:
    """A token with its words masked; marks that all its replacements keep stay where they are."""
    before, after = marks(token)
    if all(new.startswith(before) and new.endswith(after) for new in replacements):
        return before + MASK + after
    return MASK


def check_replacement(word: Any, where: str, token: str = "") -> None:
    """Refuse what is not one word: positions would shift, or files could not hold it.

    Args:
        where: what it is, for the message.
        token: the caption's own token in its place; characters that it holds may stay.

    Raises:
        ValueError: not a string, empty, or with white space or characters that cannot be seen.
    """
    if not isinstance(word, str):
        raise ValueError(f"{where}: expected a word as a string; got {word!r:.60}")
    if word.isprintable() and word and " " not in word:
        return
    kept = {*token, _NON_JOINER, _JOINER}
    seen = "".join(c for c in word if c.isprintable() or c not in kept)
    if not seen or " " in seen or not seen.isprintable():
        raise ValueError(
            f"{where}: a replacement must be one word, so that positions stay: not empty, no "
            f"spaces, tabs, line breaks or other characters that cannot be seen; got {word!r:.60}"
        )


def check_table(captions: Sequence[str], candidates: CandidateTable) -> None:
    """Refuse a table that does not fit its captions.

    Raises:
        ValueError: not one list of edits per caption, an edit outside its caption, or a
            replacement that is not one word.
    """
    if isinstance(captions, str):
        raise ValueError("expected a list of captions; got one string")
    if len(captions) != len(candidates):
        raise ValueError(
            f"expected one list of edits per caption; got {len(candidates)} lists "
            f"for {len(captions)} captions"
        )
    for i, (caption, row) in enumerate(zip(captions, candidates, strict=True)):
        tokens = caption.split(" ")
        n = len(tokens)
        for position, replacement in row:
            if isinstance(position, bool) or not isinstance(position, int):
                raise ValueError(f"caption {i}: expected a position, a number; got {position!r}")
            if not 0 <= position < n:
                raise ValueError(
                    f"caption {i} has {n} words; {Edit(position, replacement)} lies outside it"
                )
            check_replacement(replacement, f"caption {i}, position {position}", tokens[position])


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


class EncodesSentences(Protocol):
    """Anything that embeds sentences; a `DualEncoder` is one."""

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """B strings -> float (B, D)."""
        ...


def keep_similar(
    captions: Sequence[str],
    candidates: CandidateTable,
    encoder: EncodesSentences,
    minimum: float,
    chunk: int = 512,
) -> Table:
    """The edits that leave the sentence's embedding within a cosine of `minimum`.

    The constraint of TextFooler and VLAttack (universal sentence encoder, 0.95 there). It is
    part of the threat, so its encoder should not be the attacked model: a limit on how far
    that one may be moved would limit the attack itself. Memory: `chunk` embeddings and one
    number per edit.

    Args:
        encoder: embeds sentences; rows need not have norm 1.
        minimum: cosine similarity in [-1, 1]; -1 keeps everything.

    Raises:
        ValueError: a table that does not fit, or a minimum outside [-1, 1].
    """
    check_table(captions, candidates)
    if not -1.0 <= minimum <= 1.0:
        raise ValueError(f"expected a cosine similarity in [-1, 1]; got {minimum}")
    rows = [(i, edit) for i, row in enumerate(candidates) for edit in row]
    kept: Table = [[] for _ in captions]
    for at in range(0, len(rows), chunk):
        part = rows[at : at + chunk]
        own = sorted({i for i, _ in part})
        index = {i: n for n, i in enumerate(own)}
        with torch.no_grad(), frozen(encoder):  # type: ignore[arg-type]  # only its modes count
            clean = encoder.encode_text([captions[i] for i in own])
            edited = encoder.encode_text([apply_edit(captions[i], edit) for i, edit in part])
        similarity = F.cosine_similarity(edited, clean[[index[i] for i, _ in part]], dim=1)
        for (i, edit), is_near in zip(part, (similarity >= minimum).tolist(), strict=True):
            if is_near:
                kept[i].append(edit)
    return kept


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
