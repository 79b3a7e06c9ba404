from __future__ import annotations

from functools import cache

import pytest
import torch
from hypothesis import given, strategies as st

from matlib.attacks.edits import Edit, apply_edit, n_changed_words
from matlib.attacks.objectives import (
    away_from_image,
    caption_contrastive,
    contrastive_of_pairs,
    kl_from,
    squared_distance_from,
)
from matlib.attacks.scoring import embed_texts, first_above
from matlib.attacks.word_substitution import WordSubstitution
from matlib.models.dual_encoder import CachedText
from matlib.models.open_clip import OpenClipEncoder
from tests.toys import generator, random_captions, random_edits, tiny_encoder


@cache
def encoder() -> OpenClipEncoder:
    return tiny_encoder()


@given(
    counts=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    n_words=st.integers(1, 2),
    seed=st.integers(0, 30),
    search=st.sampled_from(["importance", "exhaustive"]),
)
def test_edits_come_from_the_table_and_stay_within_the_budget(
    counts: list[int], n_words: int, seed: int, search: str
) -> None:
    captions, _ = random_captions(counts, seed)
    table = random_edits(captions, seed)
    attacked = WordSubstitution(n_words, search=search)(encoder(), captions, table)  # type: ignore[arg-type]
    for before, after, row in zip(captions, attacked, table, strict=True):
        changed = [
            Edit(p, new)
            for p, (old, new) in enumerate(zip(before.split(" "), after.split(" "), strict=True))
            if old != new
        ]
        assert len(changed) <= n_words and set(changed) <= set(row)


def test_budgets_that_make_no_sense_are_refused() -> None:
    for wrong in ({"n_words": -1}, {"chunk": 0}, {"max_kept": -1}):
        with pytest.raises(ValueError, match=r"must be [01] or more"):
            WordSubstitution(**wrong)  # type: ignore[arg-type]


def test_one_string_instead_of_captions_is_refused() -> None:
    with pytest.raises(ValueError, match="got one string"):
        WordSubstitution(1)(encoder(), "a", [[]])


def test_captions_that_cannot_be_attacked_are_counted() -> None:
    captions = ["red star", "circle", "a b"]
    table = [[Edit(0, "blue")], [], [Edit(1, "b")]]
    prepared = WordSubstitution(1).prepare(encoder(), captions, table)
    assert prepared.n_unattackable == 2
    assert prepared()[1:] == captions[1:]


def test_exhaustive_search_finds_the_best_single_edit() -> None:
    encoder = tiny_encoder()
    captions, own = random_captions([2, 3], 5)
    table = random_edits(captions, 5)
    image = torch.nn.functional.normalize(torch.randn(2, 16, generator=generator()), dim=1)
    score = away_from_image(image[own])
    attacked = WordSubstitution(1, search="exhaustive")(encoder, captions, table, score)
    for i, caption in enumerate(captions):
        options = [caption, *(apply_edit(caption, edit) for edit in table[i])]
        values = score(embed_texts(encoder, options), torch.full((len(options),), i))
        got = score(embed_texts(encoder, [attacked[i]]), torch.tensor([i]))
        assert float(got) == pytest.approx(float(values.max()), abs=1e-6)


def test_captions_without_candidates_come_back_unchanged() -> None:
    encoder = tiny_encoder()
    captions = ["", "circle", "word " * 500, "красный 圆"]
    assert WordSubstitution(1)(encoder, captions, [[], [], [], []]) == captions
    attacked = WordSubstitution(1)(encoder, captions, [[], [Edit(0, "star")], [], []])
    assert [attacked[0], *attacked[2:]] == [captions[0], *captions[2:]]


def test_zero_words_is_the_identity_and_never_asks_the_model() -> None:
    captions, _ = random_captions([3], 1)
    cached = CachedText(tiny_encoder())
    assert WordSubstitution(0)(cached, captions, random_edits(captions)) == captions
    assert cached.n_asked == 0


def test_model_is_left_as_it_was() -> None:
    encoder = tiny_encoder().train()
    captions, _ = random_captions([3], 1)
    WordSubstitution(1)(encoder, captions, random_edits(captions))
    assert encoder.training
    assert all(p.grad is None and p.requires_grad for p in encoder.parameters())


def test_cached_encoder_gives_the_same_attack_and_embeds_each_sentence_once() -> None:
    encoder = tiny_encoder().double()
    captions, _ = random_captions([3, 2], 4)
    table = random_edits(captions, 4)
    cached = CachedText(encoder)
    first = WordSubstitution(1)(cached, captions, table)
    assert first == WordSubstitution(1)(encoder, captions, table)
    embedded = cached.n_embedded
    assert WordSubstitution(1)(cached, captions, table) == first
    assert cached.n_embedded == embedded < cached.n_asked


def test_cached_encoder_keeps_no_more_than_it_may() -> None:
    encoder = tiny_encoder().double()
    captions, _ = random_captions([3, 4], 4)
    cached, free = CachedText(encoder, chunk=3, max_kept=5), CachedText(encoder)
    for part in (captions[:3], captions[:4], captions, captions[2:], captions[:1]):
        assert torch.allclose(cached.encode_text(part), encoder.encode_text(part), atol=1e-12)
        free.encode_text(part)
    assert free.n_embedded == len(set(captions)) < cached.n_embedded < cached.n_asked


def test_table_of_another_length_or_outside_the_caption_is_refused() -> None:
    encoder = tiny_encoder()
    with pytest.raises(ValueError, match="1 lists for 2 captions"):
        WordSubstitution(1)(encoder, ["a", "b"], [[]])
    with pytest.raises(ValueError, match="caption 0 has 1 words"):
        WordSubstitution(1)(encoder, ["a"], [[Edit(1, "b")]])


def test_kl_is_zero_for_the_clean_caption_and_positive_otherwise() -> None:
    clean = torch.nn.functional.normalize(torch.randn(3, 8, generator=generator()), dim=1)
    score = kl_from(clean)
    assert torch.allclose(score(clean, torch.arange(3)), torch.zeros(3), atol=1e-6)
    assert (score(clean.flip(0), torch.arange(3))[[0, 2]] > 0).all()
    p, q = clean[0].softmax(0), clean[1].softmax(0)
    assert float(score(clean[1:2], torch.tensor([0]))) == pytest.approx(
        float((p * (p / q).log()).sum()), abs=1e-6
    )


def test_squared_distance_ranks_as_the_cosine_does() -> None:
    clean = torch.nn.functional.normalize(torch.randn(3, 8, generator=generator()), dim=1)
    text = torch.nn.functional.normalize(torch.randn(5, 8, generator=generator(1)), dim=1)
    own = torch.tensor([0, 1, 1, 2, 2])
    value = squared_distance_from(clean)(text, own)
    assert torch.allclose(value, 2 - 2 * (text * clean[own]).sum(1), atol=1e-6)
    assert torch.equal(squared_distance_from(clean)(clean, torch.arange(3)), torch.zeros(3))


def test_caption_contrastive_is_cross_entropy_over_images() -> None:
    image, text = (
        torch.randn(4, 8, generator=generator()),
        torch.randn(2, 8, generator=generator(1)),
    )
    mask = torch.zeros(2, 4, dtype=torch.bool)
    mask[0, 2] = mask[1, 0] = True
    expected = torch.nn.functional.cross_entropy(
        text @ image.T, torch.tensor([2, 0]), reduction="none"
    )
    margin = caption_contrastive(image, mask, 1.0)(text, torch.arange(2))
    assert torch.allclose(torch.nn.functional.softplus(margin), expected, atol=1e-6)


@pytest.mark.parametrize("first", [0, 3])
def test_contrastive_of_pairs_is_the_one_of_a_diagonal_to_the_bit(first: int) -> None:
    image = torch.nn.functional.normalize(torch.randn(6, 8, generator=generator()), dim=1)
    of_mask = caption_contrastive(image, torch.eye(6, dtype=torch.bool)[first : first + 3], 50.0)
    own = torch.tensor([0, 1, 1, 2, 2])
    found = []
    for score in (contrastive_of_pairs(image, 50.0, first), of_mask):
        text = torch.randn(5, 8, generator=generator(1)).requires_grad_(True)
        value = score(text, own)
        found.append((value, *torch.autograd.grad(value.sum(), text)))
    assert torch.equal(found[0][0], found[1][0])
    torch.testing.assert_close(found[0][1], found[1][1])
    with pytest.raises(ValueError, match="at least 2 images to tell apart; got 1"):
        contrastive_of_pairs(image[:1], 50.0)


def test_the_first_of_the_highest_values_above_the_bar_is_found() -> None:
    inf = torch.inf
    values = torch.tensor([1.0, 3.0, 3.0, 2.0, 2.0, -inf, inf], dtype=torch.float64)
    group = torch.tensor([0, 0, 0, 1, 2, 4, 5])
    bar = torch.tensor([2.0, 2.0, 2.0 - 1e-15, 0.0, -9.0, 9.0], dtype=torch.float64)
    found = first_above(values, torch.arange(7), group, bar, torch.arange(7, 13))
    assert found.tolist() == [1, 8, 4, 10, 11, 6]  # an equal value is not above


def test_changed_words_are_counted_by_position() -> None:
    assert n_changed_words("a red star", "a blue star") == 1
    assert n_changed_words("a red star", "a red star") == 0
    assert n_changed_words("a red star", "red star") == 3
