from __future__ import annotations

import pytest
import torch

from matlib.attacks.image import PGD
from matlib.attacks.text import Edit, WordSubstitution, n_changed_words
from matlib.training.objectives import (
    DEFENCES,
    InnerAttack,
    contrastive_loss,
    defence,
)
from tests.toys import generator, random_pixels, tiny_encoder

CAPTIONS = ["red circle", "blue star", "small green cross"]
CANDIDATES = {c: [Edit(0, "large"), Edit(1, "square")] for c in CAPTIONS}
INNER = InnerAttack(PGD(8.0, 2), WordSubstitution(1))


@pytest.mark.parametrize("name", list(DEFENCES))
def test_inner_attack_touches_what_the_defence_names_and_nothing_else(name: str) -> None:
    how, encoder, pixels = defence(name), tiny_encoder().train(), random_pixels(3)
    moved, edited = INNER(encoder, pixels, CAPTIONS, CANDIDATES, how, generator())
    assert bool((moved != pixels).any()) == how.attacks_image
    assert float((moved - pixels).abs().max()) <= 8 / 255 + 1e-6
    assert (edited != CAPTIONS) == how.attacks_text
    assert max(map(n_changed_words, CAPTIONS, edited)) <= 1
    assert encoder.training and all(p.grad is None for p in encoder.parameters())


@pytest.mark.parametrize("name", ["image-at", "text-at", "tecoa", "mat"])
def test_inner_attack_raises_the_loss_that_training_descends(name: str) -> None:
    how, encoder, pixels = defence(name), tiny_encoder(), random_pixels(3)

    def loss(images: torch.Tensor, texts: list[str]) -> float:
        with torch.no_grad():
            image, text = encoder.encode_image(images), encoder.encode_text(texts)
            return float(contrastive_loss(image, text, encoder.logit_scale, how))

    inner = InnerAttack(PGD(16.0, 10), WordSubstitution(1, search="exhaustive"))
    attacked = inner(encoder, pixels, CAPTIONS, CANDIDATES, how, generator())
    assert loss(*attacked) > loss(pixels, CAPTIONS) + 1e-3


def test_captions_without_candidates_stay() -> None:
    _, edited = INNER(
        tiny_encoder(), random_pixels(3), CAPTIONS, {}, defence("text-at"), generator()
    )
    assert edited == CAPTIONS


def test_contrastive_loss_equals_cross_entropy_written_out() -> None:
    image, text = (
        torch.randn(4, 8, generator=generator()),
        torch.randn(4, 8, generator=generator(1)),
    )
    probabilities = (2.0 * image @ text.T).softmax(1)
    to_text = -probabilities.diagonal().log().mean()
    to_image = -(2.0 * text @ image.T).softmax(1).diagonal().log().mean()
    scale = torch.tensor(2.0)
    tecoa, mat = defence("tecoa"), defence("mat")
    assert torch.allclose(contrastive_loss(image, text, scale, tecoa), to_text)
    assert torch.allclose(contrastive_loss(image, text, scale, mat), (to_text + to_image) / 2)


def test_unknown_defence_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"unknown defence 'mta'.*mat\+"):
        defence("mta")
