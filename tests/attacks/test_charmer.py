from __future__ import annotations

from functools import cache

import pytest
import torch
from hypothesis import given, settings, strategies as st

from benchmarks.peers import counting
from matlib.attacks.characters import PRINTABLE, Charmer, as_clip_reads, n_slots, probed, put
from matlib.attacks.objectives import TextObjective, away_from_image, squared_distance_from
from matlib.attacks.scoring import embed_texts
from matlib.models.open_clip import OpenClipEncoder
from tests.attacks.character_oracle import charmer
from tests.toys import generator, random_captions, tiny_encoder

SYMBOLS = ("a", "A", "e", "t", " ", "7", "é", "")


@cache
def encoder() -> OpenClipEncoder:
    return tiny_encoder().double()


def away(n: int, seed: int) -> TextObjective:
    rows = torch.randn(n, 16, generator=generator(seed), dtype=torch.float64)
    return away_from_image(torch.nn.functional.normalize(rows, dim=1))


@settings(max_examples=15)
@given(
    counts=st.lists(st.integers(1, 3), min_size=1, max_size=2),
    seed=st.integers(0, 50),
    n_edits=st.integers(0, 2),
    n_kept=st.integers(1, 4),
    guided=st.booleans(),
)
def test_batched_search_equals_one_sentence_at_a_time(
    counts: list[int], seed: int, n_edits: int, n_kept: int, guided: bool
) -> None:
    captions, _ = random_captions(counts, seed)
    captions = [["", "x", "a  b", "Éa 圆"][seed % 4], *(caption[:12] for caption in captions)]
    clean = embed_texts(encoder(), captions)
    score = away(len(captions), seed) if guided else squared_distance_from(clean)
    attack = Charmer(n_edits, n_kept, SYMBOLS, chunk=9)
    found = attack(encoder(), captions, score if guided else None, generator=generator())
    assert found == charmer(
        encoder(), captions, score, n_edits=n_edits, n_slots=n_kept, symbols=SYMBOLS
    )


def test_with_all_slots_it_finds_the_best_single_edit() -> None:
    caption, score = "red", away(1, 4)
    every = [(slot, symbol) for slot in range(n_slots(caption)) for symbol in SYMBOLS]
    texts = [put(caption, *edit) for edit in every]
    values = score(embed_texts(encoder(), texts), torch.zeros(len(every), dtype=torch.long))
    best = int(values.argmax())
    # the released loop over chunks ends one candidate short: the last one has to be found too
    last = every[best][1]
    for symbols in (SYMBOLS, (*(s for s in SYMBOLS if s != last), last)):
        [found] = Charmer(1, 100, symbols)(encoder(), [caption], score)
        assert as_clip_reads(found) == as_clip_reads(texts[best])


def test_slots_are_the_gaps_and_the_characters() -> None:
    assert [put("ab", slot, "x") for slot in range(n_slots("ab"))] == [
        "xab", "xb", "axb", "ax", "abx"
    ]  # fmt: skip
    assert [put("ab", slot, "") for slot in range(5)] == ["ab", "b", "ab", "a", "ab"]
    assert probed("a b", 3) == "ab" and probed("a b", 1) == "  b" and probed("a b", 2) == "a  b"
    assert len(PRINTABLE) == len(set(PRINTABLE)) == 96


def test_sentences_that_read_alike_are_embedded_once() -> None:
    with counting(encoder()) as count:
        Charmer(1, 3, ("a", "A", "b", "B"))(encoder(), ["xyz"])
        folded = count.n_positions
    with counting(encoder()) as count:
        Charmer(1, 3, ("a", "A", "b", "B"), fold=str)(encoder(), ["xyz"])
    assert folded < count.n_positions


def test_budgets_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="must be 1 or more"):
        Charmer(n_slots=0)
    with pytest.raises(ValueError, match="one character or none"):
        Charmer(symbols=())
