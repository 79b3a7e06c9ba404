"""Retrieval against a naive implementation, and its rules at the edges."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, strategies as st
from torch import Tensor

from matlib.evaluation.retrieval import (
    Direction,
    Outcomes,
    chance_recall,
    conditional_attack_success,
    difference_attack_success,
    retrieve,
    worst_of,
)
from tests.toys import generator


def uneven_relevance(counts: list[int]) -> Tensor:
    """bool (N, M): `counts[i]` captions for image i, in order."""
    own = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    return torch.arange(len(counts))[:, None] == own[None, :]


def naive_ranks(score: Tensor, right: Tensor) -> list[int]:
    """Sort each row, wrong answers first among equals, and walk down to the first right one."""
    ranks = []
    for row, is_right in zip(score.tolist(), right.tolist(), strict=True):
        order = sorted(range(len(row)), key=lambda j: (-row[j], is_right[j]))
        ranks.append(next(place for place, j in enumerate(order) if is_right[j]))
    return ranks


def ranked(score: Tensor, relevant: Tensor) -> Outcomes:
    """By a score of every pair: captions are unit vectors, so the product is the score."""
    return retrieve(score, torch.eye(score.shape[1]), relevant)


@given(
    counts=st.lists(st.integers(1, 6), min_size=1, max_size=8),
    n_levels=st.integers(1, 6),
    seed=st.integers(0, 1000),
)
def test_ranks_equal_a_naive_sort_with_uneven_caption_counts_and_ties(
    counts: list[int], n_levels: int, seed: int
) -> None:
    relevant = uneven_relevance(counts)
    # few levels: many exact ties; further true pairs make the relation many-to-many
    score = torch.randint(n_levels, relevant.shape, generator=generator(seed)).float()
    relevant |= torch.rand(relevant.shape, generator=generator(seed + 1)) < 0.1
    found = ranked(score, relevant)
    assert found.tr_rank.tolist() == naive_ranks(score, relevant)
    assert found.ir_rank.tolist() == naive_ranks(score.T, relevant.T)
    assert found.tr_rank.dtype == found.ir_rank.dtype == torch.int64


def unit(n: int, d: int, seed: int) -> Tensor:
    return F.normalize(torch.randn(n, d, generator=generator(seed)), dim=1)


@pytest.mark.parametrize("chunk", [1, 3, 1000])
def test_ranks_from_embeddings_equal_ranks_from_the_full_matrix(chunk: int) -> None:
    relevant = uneven_relevance([5, 6, 1, 2, 5, 3])
    image, text = unit(6, 8, 0), unit(22, 8, 1)
    found, score = retrieve(image, text, relevant, chunk), image @ text.T
    assert found.tr_rank.tolist() == naive_ranks(score, relevant)
    assert found.ir_rank.tolist() == naive_ranks(score.T, relevant.T)


def test_copies_are_ties_however_the_product_is_blocked() -> None:
    """Rounding may differ between copies in one product; it must not break their tie."""
    image, text = unit(1, 512, 0).repeat(37, 1), unit(1, 512, 1).repeat(53, 1)
    relevant = uneven_relevance([2] * 16 + [1] * 21)
    for chunk in (1, 7, 64):
        found = retrieve(image, text, relevant, chunk)
        assert found.tr_rank.tolist() == (53 - relevant.sum(1)).tolist()
        assert found.ir_rank.tolist() == [36] * 53


def test_a_collapsed_model_scores_zero_and_not_by_position() -> None:
    found = ranked(torch.zeros(4, 4), torch.eye(4, dtype=torch.bool))
    assert [found.recall("TR", k) for k in (1, 3, 4)] == [0.0, 0.0, 1.0]


def test_an_image_is_right_if_any_of_its_captions_is_on_top() -> None:
    relevant = torch.tensor([[True, True, False], [False, False, True]])
    score = torch.tensor([[0.1, 0.9, 0.5], [0.8, 0.2, 0.3]])
    found = ranked(score, relevant)
    assert found.tr_rank.tolist() == [0, 1]
    assert found.ir_rank.tolist() == [1, 0, 1]
    assert found.hits("IR", 1).tolist() == [False, True, False]
    assert found.recall("IR", 2) == 1.0


def test_half_precision_embeddings_are_compared_in_single() -> None:
    image, text = unit(5, 8, 0), unit(5, 8, 1)
    relevant = torch.eye(5, dtype=torch.bool)
    found = retrieve(image.bfloat16(), text.bfloat16(), relevant)
    wanted = retrieve(image.bfloat16().float(), text.bfloat16().float(), relevant)
    assert torch.equal(found.tr_rank, wanted.tr_rank)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_broken_embeddings_are_refused(bad: float) -> None:
    image = unit(2, 4, 0)
    image[0, 0] = bad
    with pytest.raises(ValueError, match="the model is broken"):
        retrieve(image, unit(2, 4, 1), torch.eye(2, dtype=torch.bool))


def test_bad_relevances_are_refused() -> None:
    eye = torch.eye(2, dtype=torch.bool)
    with pytest.raises(ValueError, match="relevant must be bool"):
        ranked(torch.zeros(2, 3), eye)
    with pytest.raises(ValueError, match="relevant must be bool"):
        ranked(torch.zeros(2, 2), torch.eye(2))
    with pytest.raises(ValueError, match="needs a true caption"):
        ranked(torch.zeros(2, 2), torch.tensor([[True, True], [False, False]]))


@pytest.mark.parametrize(("direction", "k"), [("tr", 1), ("TR", 0)])
def test_an_unknown_direction_or_k_is_refused(direction: Direction, k: int) -> None:
    with pytest.raises(ValueError, match="expected 'TR' or 'IR'"):
        Outcomes(torch.zeros(1), torch.zeros(1)).hits(direction, k)


def test_worst_of_takes_the_worst_rank_of_each_query() -> None:
    one = Outcomes(torch.tensor([0, 5]), torch.tensor([1, 0, 2]))
    two = Outcomes(torch.tensor([3, 1]), torch.tensor([0, 0, 9]))
    worst = worst_of([one, two])
    assert worst.tr_rank.tolist() == [3, 5]
    assert worst.ir_rank.tolist() == [1, 0, 9]
    assert worst_of([one]).tr_rank.tolist() == [0, 5]
    with pytest.raises(ValueError, match="different queries"):
        worst_of([one, Outcomes(torch.zeros(3), torch.zeros(3))])
    with pytest.raises(ValueError, match="at least one"):
        worst_of([])


def test_the_two_attack_success_rates_differ_where_a_query_becomes_right() -> None:
    clean = torch.tensor([True, True, True, False])
    attacked = torch.tensor([True, False, False, True])
    assert conditional_attack_success(clean, attacked) == pytest.approx(2 / 3)
    assert difference_attack_success(clean, attacked) == pytest.approx(1 / 4)
    nothing_right = torch.zeros(3, dtype=torch.bool)
    assert math.isnan(conditional_attack_success(nothing_right, nothing_right))


@pytest.mark.parametrize(("direction", "k"), [("TR", 1), ("IR", 1), ("TR", 3), ("IR", 2)])
def test_chance_is_the_recall_of_a_random_ranking(direction: Direction, k: int) -> None:
    relevant = uneven_relevance([1, 2, 4, 1])
    g, n_draws = generator(3), 4000
    found = sum(
        ranked(torch.rand(relevant.shape, generator=g), relevant).recall(direction, k)
        for _ in range(n_draws)
    )
    # four standard errors of a mean of n_draws values in [0, 1]
    assert found / n_draws == pytest.approx(
        chance_recall(relevant, direction, k), abs=4 * 0.5 / n_draws**0.5
    )


def test_chance_is_one_when_the_list_is_the_gallery() -> None:
    assert chance_recall(uneven_relevance([1, 2]), "TR", 10) == 1.0
