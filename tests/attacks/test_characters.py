from __future__ import annotations

import random
from functools import cache

import pytest
import torch
from hypothesis import given, settings, strategies as st

from matlib.attacks.characters import PRINTABLE, CharacterEdits, n_dictionary_words
from matlib.attacks.edits import one_letter_edits
from matlib.attacks.objectives import TextObjective, away_from_image, squared_distance_from
from matlib.attacks.scoring import embed_texts
from matlib.models.open_clip import OpenClipEncoder
from tests.attacks.character_oracle import character_edits
from tests.toys import generator, random_captions, tiny_encoder


def distance(a: str, b: str) -> int:
    """Levenshtein distance with adjacent transpositions, written out."""
    rows = [
        [max(i, j) if min(i, j) == 0 else 0 for j in range(len(b) + 1)] for i in range(len(a) + 1)
    ]
    for i in range(1, len(a) + 1):
        for j in range(1, len(b) + 1):
            rows[i][j] = min(
                rows[i - 1][j] + 1,
                rows[i][j - 1] + 1,
                rows[i - 1][j - 1] + (a[i - 1] != b[j - 1]),
            )
            if i > 1 and j > 1 and a[i - 1] == b[j - 2] and a[i - 2] == b[j - 1]:
                rows[i][j] = min(rows[i][j], rows[i - 2][j - 2] + 1)
    return rows[-1][-1]


@given(
    word=st.text(alphabet="abcdefgxyzéß圆", min_size=0, max_size=8),
    n=st.integers(0, 5),
    seed=st.integers(0, 99),
)
def test_edits_are_one_letter_away_distinct_and_never_known_words(
    word: str, n: int, seed: int
) -> None:
    vocabulary = {"ab", "abc", "cab", word}
    edits = one_letter_edits(word, n, vocabulary, random.Random(seed))
    assert len(edits) == len(set(edits)) <= n
    assert all(distance(word, edit) == 1 for edit in edits)
    assert not vocabulary & set(edits)
    assert edits == one_letter_edits(word, n, vocabulary, random.Random(seed))


def test_one_letter_words_have_no_typos() -> None:
    assert one_letter_edits("a", 3, set(), random.Random(0)) == []


@cache
def encoder() -> OpenClipEncoder:
    return tiny_encoder().double()


def away(n: int, seed: int) -> TextObjective:
    rows = torch.randn(n, 16, generator=generator(seed), dtype=torch.float64)
    return away_from_image(torch.nn.functional.normalize(rows, dim=1))


DICTIONARY = frozenset(
    {"red", "blue", "green", "small", "large", "circle", "star", "square", "cross", "a", "at"}
)


@settings(max_examples=40)
@given(
    counts=st.lists(st.integers(1, 3), min_size=1, max_size=3),
    seed=st.integers(0, 50),
    n_edits=st.integers(1, 2),
    constrained=st.booleans(),
    keeps_best=st.booleans(),
    guided=st.booleans(),
)
def test_two_stage_search_equals_one_sentence_at_a_time(
    counts: list[int],
    seed: int,
    n_edits: int,
    constrained: bool,
    keeps_best: bool,
    guided: bool,
) -> None:
    captions, _ = random_captions(counts, seed)
    captions[0] = ["", "x", "a  b", "Éa 圆"][seed % 4]
    options = {
        "n_edits": n_edits,
        "n_slots": 6,
        "n_symbols": 8,
        "symbols": PRINTABLE,
        "dictionary": DICTIONARY if constrained else None,
        "keeps_best": keeps_best,
    }
    clean = embed_texts(encoder(), captions)
    score = away(len(captions), seed) if guided else squared_distance_from(clean)
    found = CharacterEdits(**options, chunk=7)(  # type: ignore[arg-type]
        encoder(), captions, score if guided else None, generator=generator(seed)
    )
    assert found == character_edits(encoder(), captions, score, generator(seed), **options)  # type: ignore[arg-type]


@given(
    captions=st.lists(st.text(alphabet="ab Z圆é", max_size=12), max_size=4),
    n_edits=st.integers(0, 3),
    seed=st.integers(0, 50),
)
def test_edits_stay_within_the_levenshtein_budget(
    captions: list[str], n_edits: int, seed: int
) -> None:
    attack = CharacterEdits(n_edits, n_slots=5, n_symbols=5)
    found = attack(encoder(), captions, generator=generator(seed))
    assert all(distance(a, b) <= n_edits for a, b in zip(captions, found, strict=True))
    assert found == attack(encoder(), captions, generator=generator(seed))


def test_dictionary_constraint_never_leaves_as_many_words() -> None:
    captions = ["a red star at a small square", "circle", "large blue cross"]
    attack = CharacterEdits(dictionary=DICTIONARY)
    found = attack(encoder(), captions, generator=generator(1))
    for before, after in zip(captions, found, strict=True):
        assert after != before
        assert n_dictionary_words(after, DICTIONARY) < n_dictionary_words(before, DICTIONARY)
    # without a word to destroy nothing is valid
    assert attack(encoder(), ["xyz"], generator=generator(1)) == ["xyz"]


def test_the_objective_never_falls_while_the_best_is_kept() -> None:
    captions, _ = random_captions([4, 4], 5)
    score = away(len(captions), 5)
    rows = torch.arange(len(captions))
    before = score(embed_texts(encoder(), captions), rows)
    found = CharacterEdits(2, n_slots=3, n_symbols=3)(
        encoder(), captions, score, generator=generator(2)
    )
    assert (score(embed_texts(encoder(), found), rows) >= before - 1e-12).all()


def test_captions_after_a_caption_do_not_change_its_edits() -> None:
    captions, _ = random_captions([6], 3)
    attack = CharacterEdits(n_slots=5, n_symbols=5)
    both = attack(encoder(), captions, generator=generator(4))
    assert attack(encoder(), captions[:2], generator=generator(4)) == both[:2]


def test_words_of_a_text_are_counted_in_any_case() -> None:
    words = {"red", "a", "circle"}
    assert n_dictionary_words("A red, red (RED!) circle's", words) == 3  # each counts once
    assert n_dictionary_words("A red-Red redd 3red, circle", words) == 2  # a hyphen parts nothing


def test_symbols_of_several_characters_are_refused() -> None:
    with pytest.raises(ValueError, match="one character or none"):
        CharacterEdits(symbols=("ab",))
    with pytest.raises(ValueError, match="must be 1 or more"):
        CharacterEdits(n_slots=0)
    with pytest.raises(ValueError, match="got one string"):
        CharacterEdits()(encoder(), "abc", generator=generator())
