"""One-character edits found in two stages (LEAF, "Robustness in Both Domains"), batched."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass

import torch

from matlib.attacks.budgets import check_count
from matlib.attacks.objectives import TextObjective
from matlib.attacks.slots import (
    PRINTABLE,
    SlotSearch,
    as_clip_reads,
    blocks,
    first_best,
    n_slots,
    probed,
    put,
)
from matlib.models.dual_encoder import DualEncoder

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
