from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from matlib.attacks.image import PGD
from matlib.attacks.multimodal import (
    Gallery,
    contrastive_attack,
    embed_images,
    pgd,
    sep_attack,
    sga,
)
from matlib.attacks.text import WordSubstitution, embed_texts, n_changed_words
from matlib.models.cached import CachedText
from tests.toys import generator, random_edits, random_pixels, tiny_encoder, toy_gallery

COMPOSED = [sep_attack, sga, contrastive_attack]


@pytest.mark.parametrize("attack", COMPOSED)
@given(counts=st.lists(st.integers(1, 7), min_size=1, max_size=6), seed=st.integers(0, 20))
def test_budgets_hold_for_any_number_of_captions(attack, counts: list[int], seed: int) -> None:  # type: ignore[no-untyped-def]
    encoder, gallery = tiny_encoder(), toy_gallery(counts, seed)
    table = random_edits(list(gallery.captions), seed)
    pixels, captions = attack(
        encoder, gallery, table, PGD(4.0, 2), WordSubstitution(1), generator=generator()
    )
    assert float((pixels - gallery.pixels).abs().max()) <= 4 / 255 + 1e-6
    assert float(pixels.min()) >= 0 and float(pixels.max()) <= 1
    assert len(captions) == len(gallery.captions)
    assert max(map(n_changed_words, gallery.captions, captions)) <= 1


@pytest.mark.parametrize("attack", COMPOSED)
def test_zero_budget_is_the_identity(attack) -> None:  # type: ignore[no-untyped-def]
    encoder, gallery = tiny_encoder(), toy_gallery([2, 1, 3])
    table = random_edits(list(gallery.captions))
    pixels, captions = attack(
        encoder, gallery, table, PGD(0.0), WordSubstitution(0), generator=generator()
    )
    assert torch.equal(pixels, gallery.pixels) and captions == list(gallery.captions)


@pytest.mark.parametrize("attack", COMPOSED)
def test_same_generator_same_result_with_or_without_cache(attack) -> None:  # type: ignore[no-untyped-def]
    encoder, gallery = tiny_encoder().double(), toy_gallery([2, 1, 3])
    gallery = Gallery(gallery.pixels.double(), gallery.captions, gallery.relevant, gallery.own, 2)
    table = random_edits(list(gallery.captions))
    plain, again, cached = (
        attack(model, gallery, table, PGD(4.0, 2), WordSubstitution(1), generator=generator())
        for model in (encoder, encoder, CachedText(encoder))
    )
    assert torch.equal(plain[0], again[0]) and plain[1] == again[1]
    assert torch.equal(plain[0], cached[0]) and plain[1] == cached[1]


def test_sep_attack_is_its_two_halves() -> None:
    encoder, gallery = tiny_encoder(), toy_gallery([2, 2])
    table = random_edits(list(gallery.captions))
    image, text = PGD(4.0, 2), WordSubstitution(1)
    pixels, captions = sep_attack(encoder, gallery, table, image, text, generator=generator(3))
    assert torch.equal(pixels, pgd(encoder, gallery, image, generator=generator(3)))
    assert captions == text(encoder, gallery.captions, table)


def test_sga_moves_images_and_captions_apart() -> None:
    encoder, gallery = tiny_encoder(), toy_gallery([2, 1, 3])
    table = random_edits(list(gallery.captions))
    pixels, captions = sga(
        encoder, gallery, table, PGD(8.0, 5), WordSubstitution(1), generator=generator()
    )

    def own_similarity(images: torch.Tensor, texts: list[str]) -> float:
        scores = embed_images(encoder, images) @ embed_texts(encoder, texts).T
        return float(scores[gallery.own, torch.arange(len(texts))].mean())

    assert own_similarity(pixels, captions) < own_similarity(gallery.pixels, list(gallery.captions))


def test_sga_second_text_step_embeds_few_new_sentences() -> None:
    encoder, gallery = tiny_encoder(), toy_gallery([3, 3, 3])
    table = random_edits(list(gallery.captions))
    cached = CachedText(encoder)
    WordSubstitution(1)(cached, gallery.captions, table)
    alone = cached.n_embedded
    sga(cached, gallery, table, PGD(2.0, 1), WordSubstitution(1), generator=generator())
    # guided by the image, a few captions go on to further words; nothing is embedded twice
    assert cached.n_embedded - alone < alone / 2


def test_gallery_that_does_not_fit_together_is_refused() -> None:
    pixels = random_pixels(2)
    with pytest.raises(ValueError, match="2 images and 1 captions"):
        Gallery(pixels, ["a"], torch.ones(2, 2, dtype=torch.bool), torch.zeros(1, dtype=torch.long))
    with pytest.raises(ValueError, match="at least one caption"):
        relevant = torch.tensor([[True], [False]])
        Gallery(pixels, ["a"], relevant, torch.zeros(1, dtype=torch.long))
