"""Validity of many one-word edits of the same captions (the threat `bert_true`), fast.

A language model proposes hundreds of edits per caption and nearly all swap a word for one of
its class. Such an edit leaves the sentence's structure alone, so all facts but one stay as they
are: their masks are combined once per word, not once per edit.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from matlib.data.scenes.lexicon import CONCEPT_OF
from matlib.data.scenes.reading import Parse, class_and_concept, parse
from matlib.data.scenes.truth import TruthChecker

_classified = lru_cache(maxsize=65_536)(class_and_concept)


class EditChecker:
    """(caption index, edited caption) -> whether the edit is valid.

    Agrees with `TruthChecker.is_valid_edit` on every edit, of one word or of any other kind.

    Args:
        checker: of the gallery of scenes.
        captions: true captions of scenes of the gallery.
        own: index of the scene of each caption.
    """

    def __init__(self, checker: TruthChecker, captions: Sequence[str], own: Sequence[int]) -> None:
        self._checker, self._captions, self._own = checker, captions, own
        self._already = [checker.described(caption) for caption in captions]
        self._rest: dict[tuple[int, int], int] = {}
        self._parsed: dict[int, Parse | None] = {}

    def __call__(self, i: int, edited: str) -> bool:
        own, already = self._own[i], self._already[i]
        mask = self._mask_of_swap(i, edited)
        if mask is None:
            return self._checker.is_valid_edit(edited, own, already)
        return self._checker.is_true_only_of(mask, own, already)

    def _mask_of_swap(self, i: int, edited: str) -> int | None:
        """Mask of an edit that swaps one word for another of its class, else None."""
        before, after = self._captions[i].split(), edited.split()
        differ = [
            at for at, pair in enumerate(zip(before, after, strict=False)) if len({*pair}) > 1
        ]
        parsed = self._parse(i)
        if parsed is None or len(before) != len(after) or len(differ) != 1:
            return None
        at = differ[0]
        letter, concept = _classified(after[at])
        if letter == "?":
            return 0  # an unknown word: the caption is not understood
        if letter != parsed.letters[at]:
            return None
        facts = [fact for position, fact in parsed.facts if position == at]
        if len(facts) == 1 and concept is not None:
            return self._others(i, at) & self._checker.index.fact(facts[0], concept)
        if not facts and concept is None and parsed.words[at] not in CONCEPT_OF:
            return self._others(i, -1)  # neither word states anything
        return None  # a concept that states nothing where it stands: left to the full parse

    def _parse(self, i: int) -> Parse | None:
        if i not in self._parsed:
            self._parsed[i] = parse(self._captions[i])
        return self._parsed[i]

    def _others(self, i: int, at: int) -> int:
        """Mask of all facts of caption i but the one stated at word `at`."""
        if (i, at) not in self._rest:
            parsed = self._parse(i)
            assert parsed is not None
            mask = self._checker.index.mentions(parsed.n_mentions)
            for position, fact in parsed.facts:
                if position != at:
                    mask &= self._checker.index.fact(fact, CONCEPT_OF[parsed.words[position]])
            self._rest[i, at] = mask
        return self._rest[i, at]
