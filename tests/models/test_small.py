"""Every tower of the embedded world keeps the contract that attacks and training rest on."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256

import pytest
import torch

from matlib.attacks.pgd import PGD
from matlib.models.dual_encoder import frozen
from matlib.models.open_clip import OpenClipEncoder
from matlib.models.prefix_sharing import can_share
from matlib.models.small import SmallModel, build_small
from tests.toys import TINY

CONVNET = replace(TINY, image_tower="convnet", image_size=32, image_width=8, image_layers=1)
BIDIRECTIONAL = replace(TINY, text_tower="bidirectional")
CAPTIONS = ["a red circle above a small star", "a star", "", "wow ! a star"]

each_shape = pytest.mark.parametrize(
    "shape", [TINY, CONVNET, BIDIRECTIONAL], ids=["vit", "convnet", "bidirectional"]
)


def digest(encoder: OpenClipEncoder) -> str:
    found = sha256()
    for name, value in sorted(encoder.state_dict().items()):
        found.update(name.encode())
        found.update(value.contiguous().flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()[:16]


def pixels_of(shape: SmallModel) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(4, 3, shape.image_size, shape.image_size, generator=generator)


def test_the_default_towers_draw_the_weights_that_they_always_drew() -> None:
    shape = SmallModel(image_size=32, image_width=32, text_width=128)
    assert digest(build_small(shape, 3)) == "52d8fd9f62aa3cf0"


@each_shape
def test_a_caption_has_the_same_embedding_alone_and_beside_longer_ones(shape: SmallModel) -> None:
    encoder = build_small(shape, 0).double()
    together = encoder.encode_text(CAPTIONS)
    for caption, row in zip(CAPTIONS, together, strict=True):
        assert torch.allclose(encoder.encode_text([caption])[0], row, atol=1e-10)
    with torch.no_grad():  # where the causal tower shares prefixes
        assert torch.allclose(encoder.encode_text(CAPTIONS), together, atol=1e-10)


def test_a_bidirectional_tower_sees_words_after_each_word_and_shares_no_prefix() -> None:
    encoder = build_small(BIDIRECTIONAL, 0)
    assert not can_share(encoder.clip.text) and can_share(build_small(TINY, 0).clip.text)
    # an exclamation mark is a word (CLIP's id 0), not padding
    marked, plain = encoder.encode_text(["a star ! !", "a star"])
    assert not torch.allclose(marked, plain, atol=1e-3)


@each_shape
def test_an_image_has_the_same_embedding_alone_and_in_a_batch(shape: SmallModel) -> None:
    encoder, pixels = build_small(shape, 0).double(), pixels_of(shape).double()
    together = encoder.encode_image(pixels)
    assert torch.allclose(encoder.encode_image(pixels[2:3]), together[2:3], atol=1e-10)
    assert not torch.allclose(together[0], together[1], atol=1e-6)


def test_attacks_leave_batch_statistics_weights_and_modes_alone() -> None:
    encoder = build_small(CONVNET, 0).train()
    before, pixels = digest(encoder), pixels_of(CONVNET)
    with frozen(encoder):
        text = encoder.encode_text(["a star"] * 4).detach()
        moved = PGD(8.0, 2)(
            encoder, pixels, lambda image: -(image * text).sum(1),
            generator=torch.Generator().manual_seed(0),
        )  # fmt: skip
    assert not torch.equal(moved, pixels)
    assert digest(encoder) == before and encoder.training
    assert all(p.grad is None and p.requires_grad for p in encoder.parameters())
