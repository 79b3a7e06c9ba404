"""Measures of one technique: interval of MMD, and sentences that several originals share."""

from __future__ import annotations

from dataclasses import replace

import torch

from matlib.analysis.embeddings import HeldOutEmbeddings, embed_test
from matlib.analysis.shift.mmd import mmd2_interval as interval, mmd2_unbiased
from matlib.analysis.technique import MEASURE_COLUMNS, measure_technique
from matlib.augmentations.text import mismatched
from matlib.data.pairs import ImageTensor, ImageTextPairs, OneToMany
from tests.toys import WORDS, generator, tiny_encoder


def toy_pairs(n: int, seed: int = 0, shift: int = 0) -> ImageTextPairs:
    images = torch.randint(0, 256, (n, 3, 16, 16), generator=generator(seed), dtype=torch.uint8)
    words = [f"{WORDS[(i + shift) % 12]} {WORDS[(3 * i) % 12]} {i + shift}" for i in range(n)]
    ids = tuple(map(str, range(n)))
    return ImageTextPairs("toy", "train", ImageTensor(images), tuple(words), torch.arange(n), ids)


def test_interval_of_mmd_is_the_jackknife_done_by_leaving_out_rows() -> None:
    x = torch.randn(7, 3, generator=generator(1), dtype=torch.double)
    y = torch.randn(5, 3, generator=generator(2), dtype=torch.double) + 1
    found = interval(x, y, 1.5, z=1.0)
    assert abs(found.value - mmd2_unbiased(x, y, 1.5)) < 1e-12
    keep_x = [mmd2_unbiased(x[torch.arange(7) != i], y, 1.5) for i in range(7)]
    keep_y = [mmd2_unbiased(x, y[torch.arange(5) != j], 1.5) for j in range(5)]
    variance = sum(
        (len(left) - 1) / len(left) * sum((v - sum(left) / len(left)) ** 2 for v in left)
        for left in (keep_x, keep_y)
    )
    assert abs(found.high - found.value - variance**0.5) < 1e-9


def test_a_clear_shift_is_seen_and_none_is_not() -> None:
    pairs, encoder = toy_pairs(24), tiny_encoder()
    variants = OneToMany.from_pairs(pairs)
    here = embed_test(encoder, toy_pairs(24, seed=1, shift=24))
    far = HeldOutEmbeddings(-here.image, -here.text)
    for test, is_shifted in ((here, False), (far, True)):
        table = measure_technique(encoder, variants, test, truth=None, n_boot=100)
        mmd = table[(table["measure"] == "mmd2") & (table["modality"] == "image")]
        assert (mmd["p_value"].item() < 0.05) == is_shifted
    assert list(table.columns) == list(MEASURE_COLUMNS)


def test_sentences_shared_by_originals_are_not_learnt_by_heart() -> None:
    """Mismatched captions are those of the originals: no classifier can tell them from those."""
    pairs, encoder = toy_pairs(30), tiny_encoder()
    other = embed_test(encoder, toy_pairs(30, seed=1, shift=30))
    accuracy = {}
    for name, variants in (
        ("none", OneToMany.from_pairs(pairs)),
        ("mismatched", mismatched(pairs, 3, generator())),
    ):
        variants = replace(variants, technique=name)
        table = measure_technique(encoder, variants, other, truth=None, n_boot=100)
        part = table[(table["measure"] == "accuracy") & (table["modality"] == "text")]
        accuracy[name] = part.iloc[0]
    assert accuracy["mismatched"]["n"] == accuracy["none"]["n"]  # each sentence once
    assert abs(accuracy["mismatched"]["value"] - accuracy["none"]["value"]) < 0.2
