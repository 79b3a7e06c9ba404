"""Character searches written plainly: one caption and one sentence at a time."""

from __future__ import annotations

from collections.abc import Sequence, Set

import torch

from matlib.attacks.characters import n_dictionary_words
from matlib.attacks.objectives import TextObjective
from matlib.attacks.scoring import is_better
from matlib.models.open_clip import OpenClipEncoder
from tests.attacks.text_oracle import value_of


def one_edit(text: str, slot: int, symbol: str) -> str:
    characters = list(text)
    if slot % 2 == 1:
        characters[slot // 2] = symbol
    else:
        characters.insert(slot // 2, symbol)
    return "".join(characters)


def sentence_of_slot(text: str, slot: int) -> str:
    is_space = slot % 2 == 1 and text[slot // 2] == " "
    return one_edit(text, slot, "" if is_space else " ")


def character_edits(
    encoder: OpenClipEncoder,
    captions: Sequence[str],
    score: TextObjective,
    generator: torch.Generator,
    *,
    n_edits: int,
    n_slots: int,
    n_symbols: int,
    symbols: Sequence[str],
    dictionary: Set[str] | None,
    keeps_best: bool,
) -> list[str]:
    out = []
    seeds = torch.randint(2**62, (len(captions),), generator=generator)
    for i, caption in enumerate(captions):
        own = torch.Generator().manual_seed(int(seeds[i]))
        current = caption

        def valid(text: str, before: str) -> bool:
            return dictionary is None or n_dictionary_words(text, dictionary) < n_dictionary_words(
                before, dictionary
            )

        for _ in range(n_edits):
            slots = torch.randperm(2 * len(current) + 1, generator=own)[:n_slots].tolist()
            best_slot, best_test, best_value = -1, "", 0.0
            for slot in slots:
                text = sentence_of_slot(current, slot)
                if valid(text, current):
                    value = value_of(encoder, text, i, score)
                    if best_slot < 0 or is_better(value, best_value, torch.float64):
                        best_slot, best_test, best_value = slot, text, value
            picks = torch.randperm(len(symbols), generator=own)[:n_symbols].tolist()
            if best_slot < 0:
                continue
            found, found_value = "", float("-inf")
            if keeps_best:
                found, found_value = current, value_of(encoder, current, i, score)
                if is_better(best_value, found_value, torch.float64):
                    found, found_value = best_test, best_value
            for pick in picks:
                text = one_edit(current, best_slot, symbols[pick])
                if text != current and valid(text, current):
                    value = value_of(encoder, text, i, score)
                    if found_value == float("-inf") or is_better(value, found_value, torch.float64):
                        found, found_value = text, value
            current = found or current
        out.append(current)
    return out


def charmer(
    encoder: OpenClipEncoder,
    captions: Sequence[str],
    score: TextObjective,
    *,
    n_edits: int,
    n_slots: int,
    symbols: Sequence[str],
) -> list[str]:
    out = []
    for i, caption in enumerate(captions):
        current = caption
        for _ in range(n_edits):
            values = [
                value_of(encoder, sentence_of_slot(current, slot), i, score)
                for slot in range(2 * len(current) + 1)
            ]
            slots = sorted(range(len(values)), key=lambda slot: -values[slot])[:n_slots]
            best, best_value = current, value_of(encoder, current, i, score)
            for slot in slots:
                for symbol in symbols:
                    text = one_edit(current, slot, symbol)
                    value = value_of(encoder, text, i, score)
                    if is_better(value, best_value, torch.float64):
                        best, best_value = text, value
            current = best
        out.append(current)
    return out
