from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from matlib.attacks.objectives import away_from_image, caption_contrastive, kl_from
from matlib.attacks.text import (
    MASK,
    Edit,
    WordSubstitution,
    apply_edit,
    embed_texts,
    n_changed_words,
)
from matlib.models.cached import CachedText
from matlib.models.open_clip import OpenClipEncoder
from tests.toys import generator, random_captions, random_edits, tiny_encoder


def naive_importance(
    encoder: OpenClipEncoder, captions: list[str], table: list[list[Edit]], n_words: int, score
) -> list[str]:  # type: ignore[no-untyped-def]
    """One caption, one word and one candidate at a time."""
    out = []
    for i, caption in enumerate(captions):
        kl = kl_from(embed_texts(encoder, [caption]))
        positions = sorted({edit.position for edit in table[i]})
        weights = {}
        for position in positions:
            masked = embed_texts(encoder, [apply_edit(caption, Edit(position, MASK))])
            weights[position] = float(kl(masked, torch.zeros(1, dtype=torch.long)))
        current, changed = caption, 0
        for position in sorted(positions, key=lambda p: -weights[p]):
            if changed == n_words:
                break
            best, best_value = current, None
            for text in [
                current,
                *(apply_edit(current, e) for e in table[i] if e.position == position),
            ]:
                value = float(score(embed_texts(encoder, [text]), torch.tensor([i])))
                if best_value is None or value > best_value:
                    best, best_value = text, value
            changed += best != current
            current = best
        out.append(current)
    return out


@given(
    counts=st.lists(st.integers(1, 7), min_size=1, max_size=4),
    n_words=st.integers(0, 3),
    seed=st.integers(0, 50),
    guided=st.booleans(),
    chunk=st.sampled_from([3, 512]),
)
def test_batched_search_equals_one_caption_at_a_time(
    counts: list[int], n_words: int, seed: int, guided: bool, chunk: int
) -> None:
    encoder = tiny_encoder().double()
    captions, own = random_captions(counts, seed)
    table = random_edits(captions, seed)
    image = torch.nn.functional.normalize(
        torch.randn(len(counts), 16, generator=generator(seed), dtype=torch.float64), dim=1
    )
    score = away_from_image(image[own]) if guided else kl_from(embed_texts(encoder, captions))
    attack = WordSubstitution(n_words, chunk=chunk)
    assert attack(encoder, captions, table, score) == naive_importance(
        encoder, captions, table, n_words, score
    )


@given(
    counts=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    n_words=st.integers(1, 2),
    seed=st.integers(0, 30),
    search=st.sampled_from(["importance", "exhaustive"]),
)
def test_edits_come_from_the_table_and_stay_within_the_budget(
    counts: list[int], n_words: int, seed: int, search: str
) -> None:
    encoder = tiny_encoder()
    captions, _ = random_captions(counts, seed)
    table = random_edits(captions, seed)
    attacked = WordSubstitution(n_words, search=search)(encoder, captions, table)  # type: ignore[arg-type]
    for before, after, row in zip(captions, attacked, table, strict=True):
        changed = [
            Edit(p, new)
            for p, (old, new) in enumerate(zip(before.split(" "), after.split(" "), strict=True))
            if old != new
        ]
        assert len(changed) <= n_words and set(changed) <= set(row)


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


def test_changed_words_are_counted_by_position() -> None:
    assert n_changed_words("a red star", "a blue star") == 1
    assert n_changed_words("a red star", "a red star") == 0
    assert n_changed_words("a red star", "red star") == 3
