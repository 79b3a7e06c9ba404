"""Dropping, swapping and mismatching captions."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given, strategies as st

from matlib.augmentations.text import derangement, drop_and_swap, mismatched
from tests.augmentations.pairs import CAPTIONS, toy_pairs
from tests.toys import generator

WORDS = st.text(alphabet="abcé漢字'", min_size=1, max_size=4)


@given(
    words=st.lists(WORDS, min_size=1, max_size=12),
    drop=st.integers(0, 10).map(lambda i: i / 10),
    swap=st.integers(0, 10).map(lambda i: i / 10),
)
def test_variants_hold_only_words_of_the_caption_and_are_never_empty(
    words: list[str], drop: float, swap: float
) -> None:
    pairs = toy_pairs([" ".join(words)])
    found = drop_and_swap(pairs, 3, generator(), drop_rate=drop, swap_rate=swap)
    assert len(found.captions[0]) == 4
    for variant in found.captions[0]:
        kept = Counter(variant.split())
        assert kept.total() >= 1
        assert kept <= Counter(words)
        if drop == 0:
            assert kept == Counter(words)


def test_the_original_comes_first_and_images_stay() -> None:
    pairs = toy_pairs()
    found = drop_and_swap(pairs, 2, generator())
    assert tuple(c[0] for c in found.captions) == CAPTIONS
    assert torch.equal(found.images[:, 0], pairs.images.load(range(len(pairs))))
    assert found.images.shape[1] == 1


def test_zero_rates_are_the_identity() -> None:
    found = drop_and_swap(toy_pairs(), 2, generator(), drop_rate=0, swap_rate=0)
    assert found.captions == tuple((c, c, c) for c in CAPTIONS)


def test_dropping_every_word_leaves_one_and_one_word_is_left_alone() -> None:
    found = drop_and_swap(toy_pairs(["a b c", "dog", "", " dog "]), 5, generator(), drop_rate=1)
    assert all(variant in ("a", "b", "c") for variant in found.captions[0][1:])
    assert [set(c) for c in found.captions[1:]] == [{"dog"}, {""}, {" dog "}]


def test_the_share_of_dropped_words_is_the_rate() -> None:
    found = drop_and_swap(toy_pairs(["w " * 100]), 100, generator(), drop_rate=0.3, swap_rate=0)
    n_left = sum(len(variant.split()) for variant in found.captions[0][1:])
    assert n_left / 10_000 == pytest.approx(0.7, abs=4 * (0.3 * 0.7 / 10_000) ** 0.5)


def test_one_swap_exchanges_two_words() -> None:
    words = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"]
    found = drop_and_swap(toy_pairs([" ".join(words)]), 20, generator(), drop_rate=0, swap_rate=0.1)
    for variant in found.captions[0][1:]:
        assert sum(a != b for a, b in zip(variant.split(), words, strict=True)) == 2


@pytest.mark.parametrize("technique", [drop_and_swap, mismatched])
def test_the_same_generator_gives_the_same_captions(technique) -> None:  # type: ignore[no-untyped-def]
    first = technique(toy_pairs(), 3, generator(1)).captions
    assert technique(toy_pairs(), 3, generator(1)).captions == first
    assert technique(toy_pairs(), 3, generator(2)).captions != first


@given(n=st.integers(2, 30), seed=st.integers(0, 99))
def test_a_derangement_is_a_permutation_without_fixed_point(n: int, seed: int) -> None:
    order = derangement(n, generator(seed))
    assert sorted(order.tolist()) == list(range(n))
    assert all(i != j for i, j in enumerate(order.tolist()))


def test_derangements_are_uniform() -> None:
    """Four items have nine derangements."""
    g = generator(0)
    counts = Counter(tuple(derangement(4, g).tolist()) for _ in range(1800))
    assert len(counts) == 9
    assert all(count == pytest.approx(200, abs=60) for count in counts.values())


def test_mismatched_captions_belong_to_other_images() -> None:
    found = mismatched(toy_pairs(), 4, generator())
    for own, *others in found.captions:
        assert len(others) == 4
        assert own not in others
        assert set(others) <= set(CAPTIONS)
    assert Counter(c for captions in found.captions for c in captions[1:]) == Counter(
        dict.fromkeys(CAPTIONS, 4)
    )


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="drop_rate is a share"):
        drop_and_swap(toy_pairs(), 1, generator(), drop_rate=1.5)
    with pytest.raises(ValueError, match="n_variants"):
        drop_and_swap(toy_pairs(), -1, generator())
    with pytest.raises(ValueError, match="one caption per image"):
        mismatched(toy_pairs(CAPTIONS[:4], per_image=2), 1, generator())
    with pytest.raises(ValueError, match="at least two"):
        mismatched(toy_pairs(CAPTIONS[:1]), 1, generator())
