"""Diversity against values known by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from matlib.analysis.diversity import (
    compressed_share,
    distinct_n,
    mean_pairwise_distance,
    measure_distinct_n,
    measure_diversity,
    n_distinct,
    n_distinct_images,
    per_set,
    vendi_score,
)
from tests.toys import generator


@pytest.mark.parametrize("n", [1, 2, 5, 40])
def test_copies_count_as_one_and_orthogonal_rows_as_n(n: int) -> None:
    assert vendi_score(torch.ones(n, 7)) == pytest.approx(1)
    assert vendi_score(torch.eye(n)) == pytest.approx(n)


def test_two_groups_of_copies_count_as_two() -> None:
    assert vendi_score(torch.eye(2).repeat_interleave(3, 0)) == pytest.approx(2)
    uneven = torch.eye(2)[[0, 0, 0, 1]]
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert vendi_score(uneven) == pytest.approx(math.exp(entropy))


@pytest.mark.parametrize(("n", "d"), [(4, 9), (9, 4), (5, 5)])
def test_both_ways_to_the_eigenvalues_agree(n: int, d: int) -> None:
    rows = torch.nn.functional.normalize(
        torch.randn(n, d, generator=generator(n), dtype=torch.float64), dim=1
    )
    values = np.linalg.eigvalsh((rows @ rows.T).numpy() / n)
    values = values[values > 1e-12]
    assert vendi_score(rows) == pytest.approx(float(np.exp(-(values * np.log(values)).sum())))
    assert vendi_score(3 * rows) == pytest.approx(vendi_score(rows))  # cosine ignores length


def test_pairwise_distance_equals_a_double_loop() -> None:
    rows = torch.randn(6, 4, generator=generator(0))
    pairs = [(i, j) for i in range(6) for j in range(i)]
    wanted = sum(1 - float(torch.cosine_similarity(rows[i], rows[j], 0)) for i, j in pairs)
    assert mean_pairwise_distance(rows) == pytest.approx(wanted / len(pairs), abs=1e-6)


def test_pairwise_distance_at_its_extremes() -> None:
    assert mean_pairwise_distance(torch.ones(1, 3)) == 0
    assert mean_pairwise_distance(torch.ones(4, 3)) == pytest.approx(0)
    assert mean_pairwise_distance(torch.eye(3)) == pytest.approx(1)
    assert mean_pairwise_distance(np.array([[1.0, 0.0], [-1.0, 0.0]])) == pytest.approx(2)


def test_distinct_n_by_hand() -> None:
    captions = ["A red dog", "a red cat runs"]
    assert distinct_n(captions, 1) == 5 / 7  # a, red, dog, cat, runs of 7 words
    assert distinct_n(captions, 2) == 4 / 5  # "a red" twice
    assert distinct_n(captions, 4) == 1.0
    assert distinct_n(["dog", "cat"], 2) == 0.0
    with pytest.raises(ValueError, match="at least one word"):
        distinct_n(captions, 0)


def test_sets_are_averaged_with_an_interval_over_sets() -> None:
    sets = [torch.eye(3), torch.ones(3, 3), torch.eye(2)]
    found = measure_diversity(sets)
    assert found.vendi.value == pytest.approx((3 + 1 + 2) / 3)
    assert found.pairwise_distance.value == pytest.approx(2 / 3)
    assert found.mean_set_size == pytest.approx(8 / 3)
    assert found.vendi.n == 3
    assert found.vendi.low < found.vendi.value < found.vendi.high
    assert measure_distinct_n([["a a"], ["a b"]], 1).value == pytest.approx(0.75)
    with pytest.raises(ValueError, match="at least one set"):
        measure_diversity([])


def test_repetition_compresses_and_is_not_distinct() -> None:
    same = ["a red star above a blue cross on grass"] * 4
    other = [
        "a red star above a blue cross on grass",
        "on stone two green hearts",
        "near water there is a small orange kite",
        "purple moon left of yellow ring",
    ]
    assert compressed_share(same) < 0.5 * compressed_share(other)
    assert (
        n_distinct(same) == 1
        and n_distinct([*other, "A  red star above a blue cross on grass"]) == 4
    )
    with pytest.raises(ValueError, match="nothing to compress"):
        compressed_share([""])


def test_images_are_counted_byte_for_byte() -> None:
    image = torch.zeros(3, 4, 4, dtype=torch.uint8)
    other = image.clone()
    other[0, 0, 0] = 1
    assert n_distinct_images(torch.stack([image, other, image])) == 2


def test_every_measure_of_a_set_is_that_of_the_set_alone() -> None:
    captions = [("a red star", "a blue star"), ("one", "two", "three")]
    embeddings = [torch.eye(4)[:2], torch.ones(3, 4)]
    table = per_set(captions, embeddings)
    assert table["vendi"].tolist() == pytest.approx([2, 1])
    assert table["distance"].tolist() == pytest.approx([1, 0])
    assert table["n_distinct"].tolist() == [2, 3]
    assert table["distinct_1"].tolist() == pytest.approx([4 / 6, 1])
    assert table["distinct_2"][1] == 0  # one word has no word pair
    assert table["compressed"][0] == compressed_share(captions[0])
    with pytest.raises(ValueError, match="one embedding per caption"):
        per_set(captions, embeddings[:1])
