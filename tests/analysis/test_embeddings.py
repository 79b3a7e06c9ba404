"""Embedding one-to-many sets."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from matlib.analysis.embeddings import embed_variants, float_rows, unit_rows
from matlib.augmentations.images import randaugment
from matlib.augmentations.variants import combine, with_captions
from matlib.data.pairs import OneToMany
from tests.augmentations.pairs import toy_pairs
from tests.toys import generator, tiny_encoder

EXTRA = (("red star",), (), ("a", "b"), ("blue cross",), ())


def one_to_many() -> OneToMany:
    pairs = toy_pairs()
    return combine(with_captions(pairs, EXTRA), randaugment(pairs, 2, generator()))


@pytest.mark.parametrize("batch_size", [2, 256])
def test_every_variant_is_embedded_in_its_place(batch_size: int) -> None:
    encoder, sets = tiny_encoder(), one_to_many()
    found = embed_variants(encoder, sets, batch_size=batch_size)
    assert [len(c) for c in found.captions] == [2, 1, 3, 2, 1]
    assert found.images.shape == (5, 3, 16)
    with torch.no_grad():
        text = encoder.encode_text(sets.captions[2])
        image = encoder.encode_image(sets.images[3].float() / 255)
    torch.testing.assert_close(found.captions[2], text)
    torch.testing.assert_close(found.images[3], image)
    assert not found.images.requires_grad


def test_added_variants_know_their_original() -> None:
    found = embed_variants(tiny_encoder(), one_to_many())
    captions, of_captions = found.added_captions()
    images, of_images = found.added_images()
    assert of_captions.tolist() == [0, 2, 2, 3]
    assert of_images.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert (found.n_added_captions, found.n_added_images) == (4, 10) == (len(captions), len(images))
    assert torch.equal(captions[1:3], found.captions[2][1:])
    assert torch.equal(images[2:4], found.images[1, 1:])


def test_rows_come_from_numpy_and_torch_and_have_norm_one() -> None:
    rows = unit_rows(np.array([[3.0, 4.0], [0.0, 2.0]], dtype=np.float32))
    assert rows.tolist() == [[pytest.approx(0.6), pytest.approx(0.8)], [0.0, 1.0]]
    assert unit_rows(torch.ones(1, 4, requires_grad=True)).dtype == torch.float64


def test_broken_rows_are_refused() -> None:
    for bad in (torch.zeros(3), torch.zeros(0, 3)):
        with pytest.raises(ValueError, match="expected embeddings"):
            float_rows(bad)
    with pytest.raises(ValueError, match="NaN or infinity"):
        float_rows(torch.full((1, 2), float("nan")))
    with pytest.raises(ValueError, match="no direction"):
        unit_rows(torch.zeros(1, 2))
