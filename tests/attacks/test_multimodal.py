from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings, strategies as st

from matlib.attacks.ascent import AttackReport
from matlib.attacks.diversified import DiversifiedPGD, dra, draw_mixes
from matlib.attacks.edits import n_attackable_words, n_changed_words
from matlib.attacks.gallery import Gallery, embed_images, searching
from matlib.attacks.multimodal import (
    co_attack,
    contrastive_attack,
    feature_pgd,
    pgd_attack,
    sep_attack,
    sga,
)
from matlib.attacks.noise import noise_of
from matlib.attacks.objectives import caption_contrastive
from matlib.attacks.pgd import PGD
from matlib.attacks.scoring import embed_texts
from matlib.attacks.word_substitution import WordSubstitution
from matlib.models.dual_encoder import CachedText
from tests.toys import generator, random_edits, random_pixels, tiny_encoder, toy_gallery

COMPOSED = [sep_attack, co_attack, sga, dra, contrastive_attack]


@pytest.mark.parametrize("attack", COMPOSED)
@settings(max_examples=15)
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
    assert torch.equal(pixels, pgd_attack(encoder, gallery, image, generator=generator(3)))
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


def test_contrastive_attack_edits_captions_last_against_the_moved_images() -> None:
    encoder, gallery = tiny_encoder(), toy_gallery([4] * 8)
    table = random_edits(list(gallery.captions), per_word=8)
    text = WordSubstitution(1)
    pixels, captions = contrastive_attack(
        encoder, gallery, table, PGD(64.0, 5), text, generator=generator()
    )

    def against(images: torch.Tensor) -> list[str]:
        features = embed_images(encoder, images)
        score = caption_contrastive(features, gallery.relevant.T, encoder.logit_scale.detach())
        return WordSubstitution(1, search="exhaustive")(encoder, gallery.captions, table, score)

    assert captions == against(pixels) != against(gallery.pixels)


def test_co_attack_leaves_out_a_step_that_repeats_the_first() -> None:
    encoder, gallery = tiny_encoder(), toy_gallery([2, 1, 3])
    table, text = random_edits(list(gallery.captions)), WordSubstitution(1)
    _, captions = co_attack(encoder, gallery, table, PGD(4.0, 1), text, generator=generator())
    assert captions == text(encoder, gallery.captions, table)


def test_co_attack_on_one_caption_per_image_is_the_same_in_both_conventions() -> None:
    encoder, gallery = tiny_encoder(), toy_gallery([1, 1, 1])
    table = random_edits(list(gallery.captions))
    target = encoder, gallery, table, PGD(4.0, 3), WordSubstitution(1)
    joint, last = (
        co_attack(*target, generator=generator(), captions=captions)  # type: ignore[arg-type]
        for captions in ("joint", "per_caption_last")
    )
    assert torch.equal(joint[0], last[0]) and joint[1] == last[1]


def test_feature_pgd_never_looks_at_captions() -> None:
    encoder, gallery = tiny_encoder(), toy_gallery([2, 1])
    other = Gallery(gallery.pixels, ["x", "y", "z"], gallery.relevant, gallery.own, gallery.chunk)
    moved = [feature_pgd(encoder, g, PGD(4.0, 2), generator=generator()) for g in (gallery, other)]
    assert torch.equal(*moved) and not torch.equal(moved[0], gallery.pixels)


def test_mixes_are_whole_percents_that_sum_to_one() -> None:
    images = random_pixels(2).double()
    for mix in draw_mixes(200, noise_of(generator(), images), images).flatten(0, 1).tolist():
        percent = [100 * part for part in mix]
        assert sum(percent) == pytest.approx(100) and min(percent) >= 0
        assert percent == pytest.approx([round(part) for part in percent])


def test_dra_refuses_what_it_would_ignore() -> None:
    for image in (PGD(4.0, momentum=0.9), PGD(4.0, n_restarts=2)):
        with pytest.raises(ValueError, match="one run without momentum"):
            DiversifiedPGD(image)
    with pytest.raises(ValueError, match="n_mixes"):
        DiversifiedPGD(PGD(4.0), 0)


@pytest.mark.parametrize("attack", COMPOSED)
def test_images_are_counted_in_the_report(attack) -> None:  # type: ignore[no-untyped-def]
    encoder, gallery, report = tiny_encoder(), toy_gallery([2, 1, 3, 1, 1]), AttackReport()
    table = random_edits(list(gallery.captions))
    with torch.no_grad():
        encoder.clip.visual.conv1.weight.zero_()  # type: ignore[union-attr,operator]
    pixels, _ = attack(
        encoder, gallery, table, PGD(4.0, 2, start="none"), WordSubstitution(1),
        generator=generator(), report=report,
    )  # fmt: skip
    assert torch.equal(pixels, gallery.pixels)
    assert report.n_images == report.n_images_vanished == 5 and report.n_gradients == 10
    words = sum(map(n_attackable_words, gallery.captions, table))
    assert (report.n_captions, report.n_attackable_words) == (8, words)
    assert f"{words / 8:.2f} attackable words per caption" in str(report)


def test_text_attack_prepared_for_other_captions_is_refused() -> None:
    encoder, gallery = tiny_encoder(), toy_gallery([2])
    other = WordSubstitution(1).prepare(encoder, ["red star"], [[]])
    with pytest.raises(ValueError, match="other captions"):
        sga(encoder, gallery, [[], []], PGD(1.0), other, generator=generator())


def test_another_search_ends_with_its_block_also_after_an_error() -> None:
    prepared = WordSubstitution(1).prepare(tiny_encoder(), ["red star"], [[]])
    with pytest.raises(RuntimeError), searching(prepared, "exhaustive"):
        assert prepared.attack.search == "exhaustive"
        raise RuntimeError
    assert prepared.attack.search == "importance"


def test_gallery_that_does_not_fit_together_is_refused() -> None:
    pixels = random_pixels(2)
    with pytest.raises(ValueError, match="2 images and 1 captions"):
        Gallery(pixels, ["a"], torch.ones(2, 2, dtype=torch.bool), torch.zeros(1, dtype=torch.long))
    with pytest.raises(ValueError, match="got 0 and 0"):
        Gallery(pixels[:0], [], torch.ones(0, 0, dtype=torch.bool), torch.zeros(0).long())
    with pytest.raises(ValueError, match="at least one caption"):
        relevant = torch.tensor([[True], [False]])
        Gallery(pixels, ["a"], relevant, torch.zeros(1, dtype=torch.long))
