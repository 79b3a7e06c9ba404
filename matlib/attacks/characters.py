"""Character edits, batched: LEAF's search in two stages, and Charmer's over all symbols.

A sentence S has 2|S| + 1 slots: slot 2i is the gap before character i, slot 2i + 1 is
character i. A symbol put into a gap is an insertion, into a character a substitution, and the
empty symbol deletes: the sentences at Levenshtein distance one (Charmer, Abad Rocamora et al.
2024, arXiv 2405.04346; LEAF, "Robustness in Both Domains", 2025).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass

import torch
from torch import Tensor

from matlib.attacks.budgets import check_count
from matlib.attacks.objectives import TextObjective, squared_distance_from
from matlib.attacks.scoring import embed_texts, is_better, score_texts
from matlib.models.dual_encoder import DualEncoder

DELETE = ""
TEST = " "

PRINTABLE: tuple[str, ...] = (*(chr(code) for code in range(32, 127)), DELETE)
"""LEAF's 96 symbols: printable ASCII and the deletion."""

_CHUNKS_PER_BLOCK = 32


def n_slots(text: str) -> int:
    return 2 * len(text) + 1


def put(text: str, slot: int, symbol: str) -> str:
    """The sentence with a symbol in a slot, at Levenshtein distance at most one."""
    at, is_character = divmod(slot, 2)
    return text[:at] + symbol + text[at + is_character :]


def probed(text: str, slot: int) -> str:
    """The sentence that tells how much a slot matters: a space in it.

    Where a space is already, putting one there tests nothing; it is deleted instead (as
    Charmer's code does).
    """
    at, is_character = divmod(slot, 2)
    return put(text, slot, DELETE if is_character and text[at] == TEST else TEST)


def as_clip_reads(text: str) -> str:
    """Lower case, runs of white space as one: what CLIP's tokenizer cannot tell apart is equal."""
    return " ".join(text.lower().split())


class SlotSearch:
    """A block of captions under search: each as it is now, and its value.

    Attributes:
        rows: the captions' places in the whole list, for the objective.
        current: the captions as they are now.
        value: the objective's value of each.
    """

    def __init__(
        self,
        encoder: DualEncoder,
        rows: Sequence[int],
        captions: Sequence[str],
        clean: Tensor,
        score: TextObjective,
        chunk: int,
        fold: Callable[[str], str],
    ) -> None:
        self.encoder, self.rows, self.current = encoder, list(rows), list(captions)
        self.score, self.chunk, self.fold = score, chunk, fold
        owner = torch.tensor(self.rows, device=clean.device)
        values = score(clean[owner], owner)
        self.dtype = values.dtype
        self.value: list[float] = values.tolist()

    def values(self, candidates: Sequence[Sequence[str]]) -> list[list[float]]:
        """Values of each caption's candidates; those that read alike are embedded once."""
        texts: list[str] = []
        owner: list[int] = []
        lengths: list[int] = []
        places: list[dict[str, int]] = []  # per caption: reading -> place among `texts`
        readings = [[self.fold(text) for text in own] for own in candidates]
        for n, (own, folded) in enumerate(zip(candidates, readings, strict=True)):
            place = {self.fold(self.current[n]): -1}
            for text, reading in zip(own, folded, strict=True):
                if reading not in place:
                    place[reading] = len(texts)
                    texts.append(text)
                    owner.append(self.rows[n])
                    lengths.append(len(self.current[n]))
            places.append(place)
        found = score_texts(self.encoder, texts, owner, lengths, self.score, self.chunk).tolist()
        return [
            [found[place[r]] if place[r] >= 0 else self.value[n] for r in folded]
            for n, (folded, place) in enumerate(zip(readings, places, strict=True))
        ]

    def move(self, n: int, text: str, value: float, *, always: bool = False) -> None:
        """Caption `n` becomes `text` if that beats it as it is (or `always`)."""
        if always or is_better(value, self.value[n], self.dtype):
            self.current[n], self.value[n] = text, value


def first_best(values: Sequence[float], dtype: torch.dtype) -> int:
    """Index of the highest value, the first of those that are equal but for rounding."""
    best = max(values)
    return next(i for i, value in enumerate(values) if not is_better(best, value, dtype))


def blocks(
    encoder: DualEncoder,
    captions: Sequence[str],
    objective: TextObjective | None,
    *,
    per_caption: int,
    chunk: int,
    fold: Callable[[str], str],
) -> Iterator[SlotSearch]:
    """The captions in blocks, short ones first; a block makes some 32 chunks of sentences.

    So memory is bounded by the chunk (embeddings) and by 32 chunks of strings, not by the
    number of captions, but for one clean embedding each.

    Args:
        objective: squared distance from the clean embedding by default.
        per_caption: sentences one step makes of a caption.
    """
    if isinstance(captions, str):
        raise ValueError("expected a list of captions; got one string")
    if not captions:
        return
    clean = embed_texts(encoder, captions, chunk)
    score = objective or squared_distance_from(clean)
    order = sorted(range(len(captions)), key=lambda i: len(captions[i]))
    size = max(1, _CHUNKS_PER_BLOCK * chunk // per_caption)
    for at in range(0, len(order), size):
        rows = order[at : at + size]
        yield SlotSearch(encoder, rows, [captions[i] for i in rows], clean, score, chunk, fold)


_TOKEN = re.compile(r"[^\s?!\"#$%&()\[\]{}<>@;:,]+")
_CLITIC = re.compile(r"(n't|'(?:s|m|d|ll|re|ve))$")


def n_dictionary_words(text: str, dictionary: Set[str]) -> int:
    """How many different tokens of the text are words of a lower-case dictionary.

    A token is what nltk's `word_tokenize` makes (LEAF's rule), without its models: marks and
    apostrophes with their letters are cut off, hyphens and digits inside are not. "a dog, a dog"
    has two.
    """
    found: set[str] = set()
    for token in _TOKEN.findall(text.lower()):
        stripped = token.strip("'`.’…")
        found.update(_CLITIC.sub(r" \1", stripped).split())
    return sum(word in dictionary for word in found)


@dataclass(frozen=True)
class CharacterEdits:
    """At most `n_edits` Levenshtein edits, each by a search in two stages.

    1. Of a caption's 2|S| + 1 slots a random sample is probed with a space; the slot with the
       highest objective is kept.
    2. A random sample of the symbols is put into that slot; the best sentence is taken.

    Attributes:
        n_edits: edits, one after the other, each on the result of the one before.
        n_slots, n_symbols: sizes of the two samples (LEAF's rho: 50 and 50).
        symbols: what may be put into a slot; LEAF's 96.
        dictionary: lower-case words; if given, a sentence is valid, in both stages, only if it
            has strictly fewer of them than before the edit, so that an edit never turns one
            word into another (LEAF's `--constrain`). Made once: LEAF's code rebuilds the set
            at every call.
        keeps_best: the caption as it is, and with the space of stage 1, compete with the
            sentences of stage 2. False as in LEAF, which takes the best of stage 2 even where
            it is no gain; that can happen under a guided objective, and under LEAF's own when
            it is measured from another model's embedding.
        fold: sentences equal after it are embedded once; the default knows what CLIP's
            tokenizer discards. Pass `str` for a model that sees case and spaces.
        chunk: rows per text-encoder forward; bounds memory.
    """

    n_edits: int = 1
    n_slots: int = 50
    n_symbols: int = 50
    symbols: tuple[str, ...] = PRINTABLE
    dictionary: Set[str] | None = None
    keeps_best: bool = True
    fold: Callable[[str], str] = as_clip_reads
    chunk: int = 512

    def __post_init__(self) -> None:
        check_count("n_edits", self.n_edits)
        for name in ("n_slots", "n_symbols", "chunk"):
            check_count(name, getattr(self, name), 1)
        check_symbols(self.symbols)

    def __call__(
        self,
        encoder: DualEncoder,
        captions: Sequence[str],
        objective: TextObjective | None = None,
        *,
        generator: torch.Generator,
    ) -> list[str]:
        """Captions at Levenshtein distance at most `n_edits`.

        Args:
            encoder: the attacked model, untouched afterwards.
            captions: M captions; an empty one can only be inserted into.
            objective: score to ascend; squared distance from the clean embedding by default.
            generator: on the CPU; gives every caption a seed of its own, so a caption's edits do
                not depend on the captions after it.
        """
        attacked = list(captions)
        if self.n_edits == 0:
            return attacked
        seeds = torch.randint(2**62, (len(captions),), generator=generator).tolist()
        per_caption = max(self.n_slots, self.n_symbols)
        for search in blocks(
            encoder, captions, objective, per_caption=per_caption, chunk=self.chunk, fold=self.fold
        ):
            draws = [torch.Generator().manual_seed(seeds[i]) for i in search.rows]
            for _ in range(self.n_edits):
                self._edit(search, draws)
            for i, text in zip(search.rows, search.current, strict=True):
                attacked[i] = text
        return attacked

    def _edit(self, search: SlotSearch, draws: Sequence[torch.Generator]) -> None:
        """One edit of every caption of a block."""
        before = search.current
        is_valid = [self._validity(text) for text in before]
        slots = [
            [s for s in _sample(n_slots(text), self.n_slots, g) if ok(probed(text, s))]
            for text, ok, g in zip(before, is_valid, draws, strict=True)
        ]
        tests = [[probed(t, s) for s in own] for t, own in zip(before, slots, strict=True)]
        values = search.values(tests)
        best = [first_best(own, search.dtype) if own else -1 for own in values]
        options = []
        for n, (text, g) in enumerate(zip(before, draws, strict=True)):
            picks = _sample(len(self.symbols), self.n_symbols, g)
            filled = [put(text, slots[n][best[n]], self.symbols[i]) for i in picks if best[n] >= 0]
            options.append([t for t in filled if t != text and is_valid[n](t)])
        found = search.values(options)
        if self.keeps_best:
            for n, at in enumerate(best):
                if at >= 0:
                    options[n].insert(0, tests[n][at])
                    found[n].insert(0, values[n][at])
        for n, own in enumerate(found):
            if own:
                at = first_best(own, search.dtype)
                search.move(n, options[n][at], own[at], always=not self.keeps_best)

    def _validity(self, before: str) -> Callable[[str], bool]:
        if self.dictionary is None:
            return lambda _: True
        words = self.dictionary
        n_before = n_dictionary_words(before, words)
        return lambda after: n_dictionary_words(after, words) < n_before


def check_symbols(symbols: Sequence[str]) -> None:
    """Refuse symbols that are more than one Levenshtein edit.

    Raises:
        ValueError: no symbols, or one of several characters.
    """
    bad = [symbol for symbol in symbols if len(symbol) > 1]
    if bad or not symbols:
        raise ValueError(f"expected symbols of one character or none; got {bad[:1] or 'none'}")


def _sample(n: int, most: int, generator: torch.Generator) -> list[int]:
    """Up to `most` of the numbers below n, in random order, none twice."""
    picked: list[int] = torch.randperm(n, generator=generator)[:most].tolist()
    return picked


@dataclass(frozen=True)
class Charmer:
    """At most `n_edits` Levenshtein edits, each the best of all symbols at the best slots.

    Every slot is probed with a space (with the deletion where a space is), the `n_slots` slots
    with the highest objective are kept, and all symbols are tried there: stronger than
    `CharacterEdits` and some 20 times as many sentences. Every candidate is scored; the code
    released with LEAF stops its loop over chunks one candidate short and never sees the last.

    Attributes:
        n_edits: edits, one after the other (Charmer's k). The released code stops at success;
            here success is not known before retrieval, and all edits are used.
        n_slots: slots kept (Charmer's n; LEAF evaluates with 20).
        symbols: what may be put into a slot.
        fold: sentences equal after it are embedded once; see `CharacterEdits`.
        chunk: rows per text-encoder forward; bounds memory.
    """

    n_edits: int = 1
    n_slots: int = 20
    symbols: tuple[str, ...] = PRINTABLE
    fold: Callable[[str], str] = as_clip_reads
    chunk: int = 512

    def __post_init__(self) -> None:
        check_count("n_edits", self.n_edits)
        check_count("n_slots", self.n_slots, 1)
        check_count("chunk", self.chunk, 1)
        check_symbols(self.symbols)

    def __call__(
        self,
        encoder: DualEncoder,
        captions: Sequence[str],
        objective: TextObjective | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> list[str]:
        """Captions at Levenshtein distance at most `n_edits`.

        Args:
            encoder: the attacked model, untouched afterwards.
            captions: M captions.
            objective: score to ascend; squared distance from the clean embedding by default.
            generator: not drawn from, the search is exhaustive; here so that the character
                attacks are called alike.
        """
        attacked = list(captions)
        if self.n_edits == 0:
            return attacked
        per_caption = self.n_slots * len(self.symbols)
        for search in blocks(
            encoder, captions, objective, per_caption=per_caption, chunk=self.chunk, fold=self.fold
        ):
            for _ in range(self.n_edits):
                self._edit(search)
            for i, text in zip(search.rows, search.current, strict=True):
                attacked[i] = text
        return attacked

    def _edit(self, search: SlotSearch) -> None:
        """One edit of every caption of a block."""
        tests = [[probed(text, slot) for slot in range(n_slots(text))] for text in search.current]
        options = []
        for text, values in zip(search.current, search.values(tests), strict=True):
            # sorted() is stable: of equal slots the first ones are kept
            slots = sorted(range(len(values)), key=lambda s, v=values: -v[s])[: self.n_slots]  # type: ignore[misc]
            options.append([put(text, slot, symbol) for slot in slots for symbol in self.symbols])
        for n, values in enumerate(search.values(options)):
            at = first_best(values, search.dtype)
            search.move(n, options[n][at], values[at])
