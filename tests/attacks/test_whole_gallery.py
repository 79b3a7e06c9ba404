"""The gallery attacker: its budget, its monotony, and its words against all combinations."""

from __future__ import annotations

from functools import cache
from itertools import product

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor

from matlib.attacks.attacked_gallery import Attacked
from matlib.attacks.edits import CandidateTable, Edit, n_changed_words
from matlib.attacks.gallery import Gallery, embed_images, prepared
from matlib.attacks.gallery_images import JointAscent, _Halving
from matlib.attacks.gallery_words import WordChoices, WordDescent, exact, soft
from matlib.attacks.margins import Aim, margins
from matlib.attacks.scoring import embed_texts
from matlib.attacks.whole_gallery import (
    GalleryBudget,
    aimed_at_rest,
    gallery_attack,
    nested,
    words_attack,
)
from matlib.attacks.word_substitution import WordSubstitution
from matlib.evaluation.retrieval import Outcomes, retrieve
from matlib.models.open_clip import OpenClipEncoder
from tests.toys import generator, random_edits, tiny_encoder, toy_gallery

counts = st.lists(st.integers(1, 3), min_size=2, max_size=5)
seeds = st.integers(0, 10_000)
ONE = WordSubstitution(1)


@cache
def encoder() -> OpenClipEncoder:
    return tiny_encoder()


def case(counts: list[int], seed: int) -> tuple[Gallery, CandidateTable]:
    """A gallery with some further true pairs, and edits."""
    plain = toy_gallery(counts, seed)
    more = torch.rand(plain.relevant.shape, generator=generator(seed)) < 0.1
    relevant = plain.relevant | more
    gallery = Gallery(plain.pixels, plain.captions, relevant, plain.own, chunk=2)
    return gallery, random_edits(list(gallery.captions), seed)


def judged(gallery: Gallery, found: Attacked) -> Outcomes:
    image = embed_images(encoder(), found.pixels)
    return retrieve(image, embed_texts(encoder(), found.captions), gallery.relevant)


def recall(gallery: Gallery, found: Attacked) -> float:
    outcomes = judged(gallery, found)
    return outcomes.recall("TR", 1) + outcomes.recall("IR", 1)


def clean(gallery: Gallery) -> Attacked:
    return Attacked(gallery.pixels, list(gallery.captions))


@settings(max_examples=8)
@given(counts=counts, seed=seeds, n_words=st.integers(0, 3), eps=st.sampled_from([0.0, 4.0]))
def test_the_budget_holds(counts: list[int], seed: int, n_words: int, eps: float) -> None:
    gallery, table = case(counts, seed)
    found = gallery_attack(
        encoder(), gallery, table, JointAscent(eps, 2), WordSubstitution(n_words),
        generator=generator(), n_rounds=1,
    )  # fmt: skip
    assert float((found.pixels - gallery.pixels).abs().max()) <= eps / 255 + 1e-6
    assert float(found.pixels.min()) >= 0 and float(found.pixels.max()) <= 1
    for before, after, row in zip(gallery.captions, found.captions, table, strict=True):
        assert n_changed_words(before, after) <= n_words
        for position, (a, b) in enumerate(zip(before.split(), after.split(), strict=True)):
            assert a == b or Edit(position, b) in row
    assert recall(gallery, found) <= recall(gallery, clean(gallery))


@settings(max_examples=8)
@given(counts=counts, seed=seeds, n_words=st.integers(1, 2))
def test_more_edits_and_a_larger_eps_never_leave_more(
    counts: list[int], seed: int, n_words: int
) -> None:
    gallery, table = case(counts, seed)
    subset = [row[::2] for row in table]
    budgets = [
        GalleryBudget(subset, JointAscent(1.0, 2), ONE),
        GalleryBudget(table, JointAscent(1.0, 2), ONE),
        GalleryBudget(table, JointAscent(4.0, 2), WordSubstitution(n_words)),
    ]
    found = nested(encoder(), gallery, budgets, generator=generator(seed), n_rounds=1)
    left = [recall(gallery, each) for each in (clean(gallery), *found)]
    assert left == sorted(left, reverse=True)


@settings(max_examples=8)
@given(counts=counts, seed=seeds)
def test_more_rounds_and_restarts_never_leave_more(counts: list[int], seed: int) -> None:
    gallery, table = case(counts, seed)

    def left(n_rounds: int, n_restarts: int) -> float:
        found = gallery_attack(
            encoder(), gallery, table, JointAscent(4.0, 2), ONE,
            generator=generator(seed), n_rounds=n_rounds, n_restarts=n_restarts,
        )  # fmt: skip
        return recall(gallery, found)

    by_rounds = [left(n, 1) for n in (0, 1, 2)]
    by_restarts = [left(1, n) for n in (1, 2)]
    assert by_rounds == sorted(by_rounds, reverse=True)
    assert by_restarts == sorted(by_restarts, reverse=True)


@settings(max_examples=8)
@given(counts=counts, seed=seeds)
def test_more_words_more_edits_and_restarts_of_words_alone_never_leave_more(
    counts: list[int], seed: int
) -> None:
    gallery, table = case(counts, seed)

    def attacked(table: CandidateTable, n_restarts: int, start: list[str] | None) -> list[str]:
        return words_attack(
            encoder(), gallery, table, ONE, generator=generator(seed), n_restarts=n_restarts,
            start=start,
        )  # fmt: skip

    some = attacked([row[::2] for row in table], 1, None)
    every = attacked(table, 1, some)
    left = [
        recall(gallery, Attacked(gallery.pixels, captions))
        for captions in (list(gallery.captions), some, every)
    ]
    assert left == sorted(left, reverse=True)
    by_restarts = [
        recall(gallery, Attacked(gallery.pixels, attacked(table, n, None))) for n in (1, 2, 4)
    ]
    assert by_restarts == sorted(by_restarts, reverse=True)


def least(gallery: Gallery, table: CandidateTable) -> tuple[float, int]:
    """The least recall over all combinations of words, and how many there are."""
    choices = WordChoices(prepared(encoder(), gallery, table, ONE))
    image = embed_images(encoder(), gallery.pixels)
    rows = [range(a, b) for a, b in zip(choices.start, choices.start[1:], strict=False)]
    found, n = 9.0, 0
    for combination in product(*rows):
        features = choices.features[list(combination)]
        outcomes = retrieve(image, features, gallery.relevant)
        found, n = min(found, outcomes.recall("TR", 1) + outcomes.recall("IR", 1)), n + 1
    return found, n


def test_words_equal_the_best_combination_nearly_always_and_never_beat_it() -> None:
    """The oracle tries every combination: up to 3 ** 5 of them, in 40 random galleries."""
    n_equal, n_cases, n_useful = 0, 40, 0
    for seed in range(n_cases):
        sizes = [[1, 2, 2], [2, 1, 1, 1], [3, 2]][seed % 3]
        gallery, table = case(sizes, seed)
        table = [row[:2] for row in table]
        best, n = least(gallery, table)
        captions = words_attack(
            encoder(), gallery, table, ONE, generator=generator(seed), n_restarts=4
        )
        left = recall(gallery, Attacked(gallery.pixels, captions))
        assert left >= best - 1e-9
        n_equal += left <= best + 1e-9
        n_useful += n > 1 and best < recall(gallery, clean(gallery))
    assert n_equal >= 0.95 * n_cases
    assert n_useful >= n_cases // 3


@settings(max_examples=8)
@given(counts=counts, seed=seeds)
def test_bookkeeping_equals_margins_made_from_nothing(counts: list[int], seed: int) -> None:
    gallery, table = case(counts, seed)
    choices = WordChoices(prepared(encoder(), gallery, table, ONE))
    image = embed_images(encoder(), gallery.pixels)
    descent = WordDescent(choices, image, gallery.relevant, Aim.at(gallery.relevant))
    order = torch.randperm(len(gallery.captions), generator=generator(seed))
    for worth in (soft(0.01), exact(0.001)):
        before = _worth(worth, descent)
        n_changed = descent.sweep(worth, order)
        plain = margins(image @ choices.features[descent.choice].T, gallery.relevant)
        torch.testing.assert_close(descent.margins(), plain, atol=1e-6, rtol=0)
        assert (_worth(worth, descent) > before) == (n_changed > 0)


def _worth(worth, descent: WordDescent) -> float:  # type: ignore[no-untyped-def]
    tr, ir = descent.margins()
    return float((descent.aim.tr * worth(tr)).sum() + (descent.aim.ir * worth(ir)).sum())


def test_a_caption_becomes_a_distractor_of_other_images() -> None:
    """Only the gallery attacker gives a word for another image's sake."""
    image = torch.eye(3)
    features = torch.nn.functional.normalize(
        torch.tensor([[1.0, 0.0, 0.3], [0.8, 1.0, 0.0], [0.0, 0.9, 0.3], [0.0, 0.1, 1.0]]), dim=1
    )
    choices = WordChoices.__new__(WordChoices)
    choices.features, choices.start = features, [0, 2, 3, 4]
    relevant = torch.eye(3, dtype=torch.bool)
    descent = WordDescent(choices, image, relevant, Aim.at(relevant))
    assert descent.failing() == 0
    descent.sweep(exact(0.01), torch.arange(3))
    assert descent.choice.tolist() == [1, 2, 3]  # caption 0 now fails itself
    assert descent.failing() == pytest.approx(1 / 6)


@settings(max_examples=5)
@given(counts=counts, seed=seeds, target=st.sampled_from(["both", "tr", "ir"]))
def test_one_more_gallery_keeps_the_budget_and_rests_where_nothing_is_left(
    counts: list[int],
    seed: int,
    target: str,
) -> None:
    gallery, table = case(counts, seed)
    given = encoder(), gallery, table, JointAscent(2.0, 2), ONE
    first = gallery_attack(*given, generator=generator(), n_rounds=1)
    more = aimed_at_rest(*given, earlier=[first], generator=generator(), target=target)  # type: ignore[arg-type]
    assert float((more.pixels - gallery.pixels).abs().max()) <= 2 / 255 + 1e-6
    left = judged(gallery, first)
    if not (left.hits("TR", 1).any() or left.hits("IR", 1).any()):
        assert more.captions == first.captions  # nothing to aim at: nothing is better


def test_one_more_gallery_needs_an_earlier_one() -> None:
    gallery, table = case([1, 1], 0)
    with pytest.raises(ValueError, match="made before"):
        aimed_at_rest(
            encoder(), gallery, table, JointAscent(2.0, 1), ONE, earlier=[], generator=generator(),
            target="tr",
        )  # fmt: skip


def test_each_target_leaves_least_of_its_own_direction() -> None:
    gallery, table = case([2, 1, 2, 2, 1], 5)

    def left(target: str) -> tuple[float, float]:
        captions = words_attack(
            encoder(),
            gallery,
            table,
            ONE,
            generator=generator(),
            target=target,  # type: ignore[arg-type]
        )
        outcomes = judged(gallery, Attacked(gallery.pixels, captions))
        return outcomes.recall("TR", 1), outcomes.recall("IR", 1)

    assert left("tr")[0] <= left("ir")[0] and left("ir")[1] <= left("tr")[1]


def test_pairwise_words_lower_each_captions_own_query_in_a_clean_gallery() -> None:
    gallery, table = case([2, 1, 3], 1)
    captions = words_attack(
        encoder(), gallery, table, ONE, generator=generator(), attacker="pairwise", target="ir"
    )
    before, after = (
        judged(gallery, clean(gallery)),
        judged(gallery, Attacked(gallery.pixels, captions)),
    )
    assert after.recall("IR", 1) <= before.recall("IR", 1)


@pytest.mark.parametrize(
    "pixels, words, message",
    [(1.0, None, "outside the budget"), (0.0, "circle circle", "allowed edits")],
)
def test_a_start_beyond_the_budget_is_refused(
    pixels: float, words: str | None, message: str
) -> None:
    gallery, table = case([1, 1], 0)
    moved: Tensor = (gallery.pixels + pixels * 9 / 255).clamp(0, 1)
    captions = list(gallery.captions) if words is None else [words] * 2
    with pytest.raises(ValueError, match=message):
        gallery_attack(
            encoder(), gallery, table, JointAscent(4.0, 1), ONE, generator=generator(),
            start=Attacked(moved, captions),
        )  # fmt: skip


def test_unknown_words_of_the_call_are_refused() -> None:
    gallery, table = case([1, 1], 0)
    with pytest.raises(ValueError, match="attacker must be"):
        words_attack(encoder(), gallery, table, ONE, generator=generator(), attacker="all")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="target must be"):
        words_attack(encoder(), gallery, table, ONE, generator=generator(), target="x")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="n_steps >= 0"):
        JointAscent(2.0, -1)


def test_no_number_depends_on_the_images_of_a_forward() -> None:
    gallery, table = case([2, 1, 2, 1], 2)
    model, exactly = tiny_encoder().double(), gallery.pixels.double()
    found = [
        gallery_attack(
            model,
            Gallery(exactly, gallery.captions, gallery.relevant, gallery.own, chunk),
            table, JointAscent(4.0, 3), ONE, generator=generator(), n_rounds=1,
        )
        for chunk in (1, 3, 4)
    ]  # fmt: skip
    for other in found[1:]:
        assert torch.equal(found[0].pixels, other.pixels) and found[0].captions == other.captions


def test_the_images_ascend_both_directions() -> None:
    """Words stay: images alone lower the recall of images and of captions as queries."""
    gallery, table = case([2, 2, 1, 2], 4)
    found = gallery_attack(
        encoder(), gallery, [[] for _ in table], JointAscent(16.0, 10), ONE,
        generator=generator(), n_rounds=1,
    )  # fmt: skip
    before, after = judged(gallery, clean(gallery)), judged(gallery, found)
    assert found.captions == list(gallery.captions)
    assert after.recall("TR", 1) < before.recall("TR", 1)
    assert after.recall("IR", 1) < before.recall("IR", 1)


@settings(max_examples=6)
@given(counts=counts, seed=seeds, n_steps=st.integers(0, 9))
def test_apgds_schedule_keeps_the_budget_and_leaves_no_more_than_its_start(
    counts: list[int], seed: int, n_steps: int
) -> None:
    gallery, _ = case(counts, seed)
    how = JointAscent(4.0, n_steps, schedule="apgd")
    text = embed_texts(encoder(), gallery.captions)
    aim = Aim.at(gallery.relevant)
    start = how.start(gallery.pixels, generator(seed))
    found = how(encoder(), gallery, start, text, aim)
    assert float((found - gallery.pixels).abs().max()) <= 4 / 255 + 1e-6
    left = [recall(gallery, Attacked(each, list(gallery.captions))) for each in (start, found)]
    assert left[1] <= left[0] + 1e-9


def test_apgds_step_is_halved_where_progress_stalls() -> None:
    """Of 10 steps the paper's checkpoints are 3, 5, 6, 7, ...; scores by hand."""
    size, best, halved = _Halving(10), (0.0, -9.0), []
    #         start rises rises rises | falls falls | rises | rises
    scores = [0.0, 1.0, 2.0, 3.0, 1.0, 0.5, 4.0, 5.0]
    for step, score in enumerate(scores):
        best = max(best, (0.0, score))
        if size.stalls(step, (0.0, score), best):
            halved.append(step)
    assert halved == [5] and size.at(7) == 1.0
    with pytest.raises(ValueError, match="schedule must be"):
        JointAscent(2.0, 1, schedule="linear")  # type: ignore[arg-type]


def test_apgds_schedule_goes_back_to_the_best_point_with_a_smaller_step() -> None:
    gallery, _ = case([2, 1, 2], 3)
    text, aim = embed_texts(encoder(), gallery.captions), Aim.at(gallery.relevant)
    found = [
        JointAscent(16.0, 12, schedule=schedule)(  # type: ignore[arg-type]
            encoder(), gallery, gallery.pixels, text, aim
        )
        for schedule in ("cosine", "apgd")
    ]
    assert not torch.equal(*found)
    left = [recall(gallery, Attacked(each, list(gallery.captions))) for each in found]
    assert max(left) < recall(gallery, clean(gallery))
