from __future__ import annotations

import re
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, strategies as st

from matlib.attacks.attackable import english_stop_words
from matlib.attacks.edits import (
    Edit,
    apply_edit,
    by_position,
    content_words,
    free_edits,
    from_masked_lm,
    from_synonyms,
    from_table,
    keep_similar,
    normalise_caption,
)
from tests.toys import random_captions, random_edits, tiny_encoder


class Parrot:
    """Offers the same words everywhere, the first `k` of them."""

    def candidates(self, captions: Sequence[str], k: int) -> list[list[list[str]]]:
        words = ["the", "dog", "cat", "of", "bird"][:k]
        return [[words for _ in caption.split(" ")] for caption in captions]


def test_masked_lm_table_leaves_out_stop_words_on_both_sides() -> None:
    [row, empty] = from_masked_lm(["the red fox", "of the"], Parrot(), k=3)
    assert row == [Edit(1, "dog"), Edit(1, "cat"), Edit(2, "dog"), Edit(2, "cat")]
    assert empty == []
    [all_words] = from_masked_lm(["the fox"], Parrot(), k=2, stop_words=())
    assert all_words == [Edit(0, "the"), Edit(0, "dog"), Edit(1, "the"), Edit(1, "dog")]


def test_stop_words_are_function_words() -> None:
    assert {"the", "of", "a", "is"} <= english_stop_words()
    assert not {"dog", "red"} & english_stop_words()


def test_synonym_table_finds_words_in_any_case_and_counts_to_k() -> None:
    synonyms = {"red": ["crimson", "scarlet"], "the": ["this"]}
    assert from_synonyms(["The Red fox 7"], synonyms) == [[Edit(1, "crimson"), Edit(1, "scarlet")]]
    assert from_synonyms(["red"], synonyms, k=1) == [[Edit(0, "crimson")]]
    assert from_synonyms(["red", ""], {}) == [[], []]


def test_synonyms_of_several_words_would_shift_positions_and_are_refused() -> None:
    with pytest.raises(ValueError, match="one word"):
        from_synonyms(["red"], {"red": ["dark red"]})


def test_given_table_is_checked_against_its_captions() -> None:
    assert from_table(["a b"], [[(1, "c")]]) == [[Edit(1, "c")]]
    with pytest.raises(ValueError, match="lies outside"):
        from_table(["a b"], [[(2, "c")]])
    with pytest.raises(ValueError, match="2 lists for 1 captions"):
        from_table(["a b"], [[], []])


def test_free_edits_count_k_after_stop_words() -> None:
    words = [[["the", "dog", "cat", "cow"]]]
    assert free_edits(["fox"], words, {"the"}, 2) == [[Edit(0, "dog"), Edit(0, "cat")]]


def test_content_words_are_letters_of_any_script() -> None:
    assert content_words("красный круг , 7 the", {"the"}) == [0, 1]


def test_repeated_edits_and_edits_that_change_nothing_are_left_out() -> None:
    row = [Edit(1, "b"), Edit(0, "x"), Edit(1, "c"), Edit(0, "x"), Edit(0, "y")]
    assert by_position("a b", row) == {0: ["x", "y"], 1: ["c"]}


@pytest.mark.parametrize(
    ("raw", "normal"),
    [
        ("A dog, running!", "a dog running"),
        ("half-eaten and/or  whole", "half eaten and or whole"),
        ("<person> waves (twice).", "person waves twice"),
        (' "quoted" #1 ~ * : ; ? ', "quoted 1"),
        ("", ""),
    ],
)
def test_captions_are_normalised_as_the_released_code_does(raw: str, normal: str) -> None:
    assert normalise_caption(raw) == normal


@given(st.text(max_size=300), st.integers(1, 40))
def test_normalising_is_idempotent_and_cuts_words(text: str, n_words: int) -> None:
    once = normalise_caption(text, n_words)
    assert normalise_caption(once, n_words) == once
    assert len(once.split(" ")) <= n_words
    assert not re.search(r"[,.'!?\"()*#:;~/-]", once)


def test_similarity_filter_keeps_exactly_the_near_edits() -> None:
    encoder = tiny_encoder()
    captions, _ = random_captions([4, 3], 2)
    table = random_edits(captions, 2)

    def similarity(i: int, edit: Edit) -> float:
        with torch.no_grad():
            a, b = (
                encoder.encode_text([text])[0]
                for text in (captions[i], apply_edit(captions[i], edit))
            )
        return float(a @ b)

    values = sorted(similarity(i, edit) for i, row in enumerate(table) for edit in row)
    limit = (values[len(values) // 2] + values[len(values) // 2 - 1]) / 2
    kept = keep_similar(captions, table, encoder, limit, chunk=3)
    expected = [[e for e in row if similarity(i, e) >= limit] for i, row in enumerate(table)]
    assert kept == expected and any(kept) and kept != [list(row) for row in table]
    assert keep_similar(captions, table, encoder, -1.0) == [list(row) for row in table]


def test_similarity_filter_takes_empty_tables_and_refuses_other_units() -> None:
    encoder = tiny_encoder()
    assert keep_similar(["a", "b"], [[], []], encoder, 0.9) == [[], []]
    with pytest.raises(ValueError, match=r"cosine similarity in \[-1, 1\]; got 95"):
        keep_similar(["a"], [[]], encoder, 95)
