"""Examples of an attack: chosen without looking at it, and counted right."""

from __future__ import annotations

import pytest
import torch

from matlib.study.made.examples import chosen_queries, false_share, shelves, substitutions
from matlib.study.study import Study

THREAT = "bert_true"


def test_queries_are_right_before_the_attack_and_of_different_images(base_study: Study) -> None:
    outcomes = base_study.evaluated("base").outcomes
    is_right = outcomes["clean", ""].hits("IR", 1)
    own = base_study.pairs("test").image_of
    n_right_images = int(own[is_right].unique().numel())
    queries = chosen_queries(base_study, "base", 0, 5)
    assert len(queries) == len(set(own[queries].tolist())) == 5
    assert is_right[queries].sum() == min(5, n_right_images)
    assert bool(is_right[queries[: min(5, n_right_images)]].all())


def test_shelves_agree_with_the_ranks_of_the_evaluation(base_study: Study) -> None:
    pairs, outcomes = base_study.pairs("test"), base_study.evaluated("base").outcomes
    found = shelves(base_study, "base", THREAT, n_queries=4, k=5)
    queries = chosen_queries(base_study, "base", 0, 4)
    for query, shelf in zip(queries, found, strict=True):
        assert shelf.caption == pairs.captions[query]
        for ranks, is_right in (
            (outcomes["clean", ""].ir_rank, shelf.is_right_before),
            (outcomes["gallery", THREAT].ir_rank, shelf.is_right_after),
        ):
            rank = int(ranks[query])
            assert is_right.index(True) == rank if rank < 5 else not any(is_right)
        images = pairs.pixels()
        top = min((images - shelf.before[0]).abs().amax((1, 2, 3)))
        assert float(top) == pytest.approx(0)  # a clean image of the gallery


def test_attacked_shelf_stays_within_the_budget(base_study: Study) -> None:
    shelf = shelves(base_study, "base", THREAT, n_queries=4, k=5)[0]
    images = base_study.pairs("test").pixels()
    eps = base_study.profile.evaluation.eps_255 / 255
    nearest = min(float((image - shelf.after[0]).abs().max()) for image in images)
    assert 0 < nearest <= eps + 1e-6


def test_substitutions_count_every_changed_caption_once(base_study: Study) -> None:
    before = base_study.pairs("test").captions
    evaluated = base_study.evaluated("base")
    after = evaluated.captions["bert", THREAT]
    table = substitutions(base_study, "base", THREAT)
    assert table["n"].sum() == sum(a != b for a, b in zip(before, after, strict=True))
    assert (table["n_broken"] <= table["n_right"]).all() and (table["n_right"] <= table["n"]).all()
    assert table["n"].is_monotonic_decreasing


def test_true_threat_never_succeeds_by_a_false_caption(base_study: Study) -> None:
    found = false_share(base_study, "base", THREAT)
    assert found is None or found.value == 0.0


def test_false_share_is_the_naive_count(base_study: Study) -> None:
    evaluated = base_study.evaluated("base")
    right = evaluated.outcomes["clean", ""].hits("IR", 1)
    broken = right & ~evaluated.outcomes["bert", "bert_free"].hits("IR", 1)
    captions = evaluated.captions["bert", "bert_free"]
    false = [
        base_study.source.is_false("test", i, captions[i])  # type: ignore[union-attr]
        for i in torch.nonzero(broken).flatten().tolist()
    ]
    found = false_share(base_study, "base", "bert_free")
    if not false:
        assert found is None
    else:
        assert found is not None
        assert found.value == pytest.approx(sum(false) / len(false))
