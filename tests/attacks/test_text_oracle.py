"""The batched text attack against plainly written searches: equal captions."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from hypothesis import given, settings, strategies as st

from benchmarks.peers import counting, peer_both_passes, peer_text_attack
from matlib.attacks.edits import Edit, n_changed_words
from matlib.attacks.objectives import TextObjective, away_from_image, caption_contrastive, kl_from
from matlib.attacks.scoring import embed_texts
from matlib.attacks.word_substitution import WordSubstitution
from matlib.models.dual_encoder import CachedText
from matlib.models.open_clip import OpenClipEncoder
from tests.attacks.text_oracle import by_importance, exhaustively
from tests.toys import generator, random_captions, random_edits, tiny_encoder

ODD_WORDS = ["red", "круг", "円", "naïve", "don't", "x&y", "é", "12", "", "circle", "STAR"]


@cache
def encoder() -> OpenClipEncoder:
    """In float64: its rounding decides between no two sentences of these tests."""
    return tiny_encoder().double()


def directions(n: int, seed: int) -> torch.Tensor:
    rows = torch.randn(n, 16, generator=generator(seed), dtype=torch.float64)
    return torch.nn.functional.normalize(rows, dim=1)


def objective_for(kind: str, captions: list[str], own: torch.Tensor, seed: int) -> TextObjective:
    image = directions(int(own.max()) + 1, seed)
    if kind == "image":
        return away_from_image(image[own])
    if kind == "contrastive":
        mask = own[:, None] == torch.arange(len(image))
        return caption_contrastive(image, mask, 20.0)
    return kl_from(embed_texts(encoder(), captions))


counts = st.lists(st.integers(1, 7), min_size=1, max_size=3)


@settings(max_examples=40)
@given(
    counts=counts,
    n_words=st.integers(0, 3),
    seed=st.integers(0, 50),
    kind=st.sampled_from(["kl", "image", "contrastive"]),
    chunk=st.sampled_from([3, 512]),
)
def test_search_by_importance_equals_one_caption_at_a_time(
    counts: list[int], n_words: int, seed: int, kind: str, chunk: int
) -> None:
    captions, own = random_captions(counts, seed)
    table = random_edits(captions, seed)
    score = objective_for(kind, captions, own, seed)
    found = WordSubstitution(n_words, chunk=chunk)(encoder(), captions, table, score)
    assert found == by_importance(encoder(), captions, table, score, n_words)


@settings(max_examples=25)
@given(counts=counts, n_words=st.integers(1, 3), seed=st.integers(0, 50))
def test_search_by_gradient_equals_one_caption_at_a_time(
    counts: list[int], n_words: int, seed: int
) -> None:
    captions, own = random_captions(counts, seed)
    table = random_edits(captions, seed)
    score = objective_for("image", captions, own, seed)
    attack = WordSubstitution(n_words, importance="gradient", chunk=4)
    found = attack(encoder(), captions, table, score)
    assert found == by_importance(encoder(), captions, table, score, n_words, "gradient")
    assert found == attack(CachedText(encoder()), captions, table, score)


@settings(max_examples=25)
@given(
    counts=counts,
    n_words=st.integers(1, 3),
    seed=st.integers(0, 50),
    kind=st.sampled_from(["kl", "image", "contrastive"]),
)
def test_exhaustive_search_equals_one_caption_at_a_time(
    counts: list[int], n_words: int, seed: int, kind: str
) -> None:
    captions, own = random_captions(counts, seed)
    table = random_edits(captions, seed)
    score = objective_for(kind, captions, own, seed)
    found = WordSubstitution(n_words, search="exhaustive", chunk=5)(
        encoder(), captions, table, score
    )
    assert found == exhaustively(encoder(), captions, table, score, n_words)


@settings(max_examples=20)
@given(counts=counts, n_words=st.integers(1, 3), seed=st.integers(0, 50), guided=st.booleans())
def test_released_order_of_operations_gives_the_same_captions(
    counts: list[int], n_words: int, seed: int, guided: bool
) -> None:
    captions, own = random_captions(counts, seed)
    table = random_edits(captions, seed)
    score = objective_for("image", captions, own, seed) if guided else None
    found = WordSubstitution(n_words)(encoder(), captions, table, score)
    assert found == peer_text_attack(encoder(), captions, table, score, n_words)


@settings(max_examples=25)
@given(
    counts=counts,
    n_words=st.integers(1, 2),
    search=st.sampled_from(["importance", "exhaustive"]),
    max_kept=st.sampled_from([0, 7, 10_000]),
    seed=st.integers(0, 50),
)
def test_passes_of_a_prepared_attack_equal_attacks_made_from_nothing(
    counts: list[int], n_words: int, search: str, max_kept: int, seed: int
) -> None:
    captions, own = random_captions(counts, seed)
    table = random_edits(captions, seed)
    attack = WordSubstitution(n_words, search, chunk=5, max_kept=max_kept)  # type: ignore[arg-type]
    prepared = attack.prepare(encoder(), captions, table)
    for further in range(3):
        score = objective_for("image", captions, own, seed + further)
        assert prepared(score) == attack(encoder(), captions, table, score)
        assert prepared.n_kept <= max_kept
    assert prepared() == attack(encoder(), captions, table)


@settings(max_examples=30)
@given(data=st.data(), n_words=st.integers(0, 3), seed=st.integers(0, 50))
def test_long_odd_and_repeated_captions_change_at_most_n_words_into_candidates(
    data: st.DataObject, n_words: int, seed: int
) -> None:
    lengths = data.draw(st.lists(st.integers(1, 200), min_size=0, max_size=4))
    captions = [
        " ".join(data.draw(st.sampled_from(ODD_WORDS)) for _ in range(min(n, 12)))
        + " word" * max(0, n - 12)
        for n in lengths
    ]
    captions += captions[:1]
    table: list[list[Edit]] = [
        [
            Edit(p, data.draw(st.sampled_from(ODD_WORDS[:6])))
            for p in range(0, len(caption.split(" ")), 1 + len(caption) // 40)
            for _ in range(data.draw(st.integers(0, 2)))
        ]
        for caption in captions
    ]
    search = data.draw(st.sampled_from(["importance", "exhaustive"]))
    prepared = WordSubstitution(n_words, search, chunk=16).prepare(encoder(), captions, table)
    found = prepared()
    for before, after, row in zip(captions, found, table, strict=True):
        assert n_changed_words(before, after) <= n_words
        changed = zip(before.split(" "), after.split(" "), strict=True)
        assert {Edit(p, new) for p, (old, new) in enumerate(changed) if old != new} <= set(row)
    usable = [
        any(c.split(" ")[p] != w for p, w in row) for c, row in zip(captions, table, strict=True)
    ]
    assert prepared.n_unattackable == usable.count(False)
    assert all(a == b for a, b, ok in zip(captions, found, usable, strict=True) if not ok)


def test_edits_behind_the_models_context_are_no_gain_and_not_taken() -> None:
    captions = ["circle " * 40 + "red", "star " * 30 + "red"]
    table = [[Edit(40, "blue"), Edit(39, "green")], [Edit(30, "near")]]
    for model in (tiny_encoder(), encoder()):
        for search in ("importance", "exhaustive"):
            assert WordSubstitution(2, search)(model, captions, table) == captions  # type: ignore[arg-type]


def test_second_pass_embeds_nothing_it_has_seen() -> None:
    captions, own = random_captions([3, 4, 5], 3)
    table = random_edits(captions, 3)
    prepared = WordSubstitution(1, "exhaustive").prepare(encoder(), captions, table)
    score = objective_for("image", captions, own, 1)
    with counting(encoder()) as first:
        prepared(score)
    n_embedded = prepared.n_embedded
    with counting(encoder()) as second:
        prepared(objective_for("image", captions, own, 2))
    assert first.n_forwards > 0 and second.n_forwards == 0
    assert prepared.n_embedded == n_embedded


def test_batched_attack_does_less_work_than_the_released_order_at_equal_captions() -> None:
    captions, own = random_captions([5, 5, 5, 5], 7)
    table = random_edits(captions, 7)
    scores = [objective_for("image", captions, own, seed) for seed in (1, 2)]
    with counting(encoder()) as theirs:
        expected = peer_both_passes(encoder(), captions, table, scores)
    with counting(encoder()) as ours:
        prepared = WordSubstitution(1).prepare(encoder(), captions, table)
        assert [prepared(score) for score in scores] == expected
    assert 10 * ours.n_forwards < theirs.n_forwards
    assert 5 * ours.n_positions < theirs.n_positions


def test_importance_by_gradient_says_what_it_needs() -> None:
    captions, own = random_captions([2, 2], 1)
    table = random_edits(captions, 1)
    attack = WordSubstitution(1, importance="gradient")
    with pytest.raises(ValueError, match="needs an objective"):
        attack(encoder(), captions, table)
    with pytest.raises(ValueError, match="flat at every caption"):
        attack(encoder(), captions, table, kl_from(embed_texts(encoder(), captions)))

    class Strings:
        image_size = 16
        device = torch.device("cpu")
        encode_text = staticmethod(encoder().encode_text)

    with pytest.raises(ValueError, match="has no word_saliency"):
        attack(Strings(), captions, table, objective_for("image", captions, own, 1))  # type: ignore[arg-type]
