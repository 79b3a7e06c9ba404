"""Multimodal attacks against plainly written ones: equal captions, equal pixels."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings, strategies as st

from matlib.attacks.ascent import ScaleViews
from matlib.attacks.diversified import dra
from matlib.attacks.gallery import Gallery
from matlib.attacks.multimodal import co_attack, contrastive_attack, sep_attack, sga
from matlib.attacks.pgd import PGD
from matlib.attacks.word_substitution import WordSubstitution
from matlib.models.open_clip import OpenClipEncoder
from tests.attacks.multimodal_oracle import SCALE, Plain
from tests.toys import generator, random_edits, tiny_encoder, toy_gallery

SCALES = (0.5, 1.5)

ATTACKS: dict[str, tuple[Any, dict[str, Any], Any]] = {
    "sep": (sep_attack, {}, Plain.sep),
    "co": (co_attack, {}, lambda plain: plain.co(only_last=False)),
    "co, last caption": (
        co_attack,
        {"captions": "per_caption_last"},
        lambda plain: plain.co(only_last=True),
    ),
    "sga": (sga, {"views": ScaleViews(SCALES)}, Plain.sga),
    "sga, released views": (sga, {"views": ScaleViews(SCALES, released=True)}, Plain.sga),
    "dra": (dra, {"views": ScaleViews(SCALES), "n_mixes": 3}, lambda plain: plain.dra(3)),
    "dra, guided by the previous image": (
        dra,
        {"views": ScaleViews(SCALES), "n_mixes": 1, "weights": (0.0, 0.0, 1.0)},
        lambda plain: plain.dra(1, (0.0, 0.0, 1.0)),
    ),
    "contrastive": (contrastive_attack, {}, Plain.contrastive),
}


@cache
def model(dtype: torch.dtype) -> OpenClipEncoder:
    encoder = copy.deepcopy(tiny_encoder()).to(dtype)
    with torch.no_grad():
        encoder.clip.logit_scale.fill_(torch.tensor(SCALE, dtype=torch.float64).log())
    return encoder


def gallery_of(counts: list[int], chunk: int, dtype: torch.dtype, seed: int) -> Gallery:
    """Uneven caption counts; some captions are true of a second image too."""
    toy = toy_gallery(counts, seed)
    extra = torch.rand(toy.relevant.shape, generator=generator(seed)) < 0.1
    return Gallery(toy.pixels.to(dtype), toy.captions, toy.relevant | extra, toy.own, chunk)


@pytest.mark.parametrize("name", ATTACKS)
@settings(max_examples=25)
@given(
    counts=st.lists(st.integers(1, 7), min_size=1, max_size=3),
    chunk=st.sampled_from([2, 128]),
    dtype=st.sampled_from([torch.float64, torch.float64, torch.float32]),
    eps=st.sampled_from([0.0, 1.5, 64.0]),
    n_words=st.integers(0, 2),
    start=st.sampled_from(["uniform", "positive"]),
    seed=st.integers(0, 20),
)
def test_equals_the_plain_attack(
    name: str,
    counts: list[int],
    chunk: int,
    dtype: torch.dtype,
    eps: float,
    n_words: int,
    start: Any,
    seed: int,
) -> None:
    attack, options, plainly = ATTACKS[name]
    encoder, gallery = model(dtype), gallery_of(counts, chunk, dtype, seed)
    table, image = random_edits(list(gallery.captions), seed), PGD(eps, 3, start=start)
    text = WordSubstitution(n_words, chunk=5)
    pixels, captions = attack(
        encoder, gallery, table, image, text, generator=generator(seed), **options
    )
    released = "released" in name
    plain = Plain(encoder, gallery, table, image, n_words, SCALES, generator(seed), released)
    expected, expected_captions = plainly(plain)
    assert captions == expected_captions
    off = (pixels - torch.stack(expected)).abs() > 1e-6
    # In float32 the sign of a gradient near zero hangs on the order of a sum.
    assert float(off.double().mean()) <= (0 if dtype == torch.float64 else 0.01)
    if eps == 0:
        assert torch.equal(pixels, gallery.pixels)
    if n_words == 0:
        assert captions == list(gallery.captions)


@pytest.mark.parametrize("name", ATTACKS)
def test_a_shared_prepared_attack_finds_the_same(name: str) -> None:
    attack, options, _ = ATTACKS[name]
    encoder, gallery = model(torch.float64), gallery_of([3, 1, 5], 2, torch.float64, 1)
    table, image, text = random_edits(list(gallery.captions), 1), PGD(4.0, 2), WordSubstitution(1)
    target = encoder, gallery, table, image
    alone = attack(*target, text, generator=generator(), **options)
    shared = text.prepare(encoder, gallery.captions, table)
    for other in (sga, contrastive_attack):  # leave embeddings of both kinds of search behind
        other(*target, shared, generator=generator(5))
    again = attack(*target, shared, generator=generator(), **options)
    assert torch.equal(alone[0], again[0]) and alone[1] == again[1]
    assert shared.attack == text  # the exhaustive search was for the contrastive attack only
