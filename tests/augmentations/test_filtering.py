"""Filters keep what they say, never lose an original, and say when they keep nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from matlib.analysis.diversity import vendi_score
from matlib.augmentations.filtering import keep_aligned, keep_diverse, thin_to_vendi
from matlib.data.pairs import OneToMany
from tests.toys import generator


@dataclass(frozen=True)
class Rows:
    captions: tuple[Tensor, ...]
    images: Tensor


def sets(n: int = 6, n_captions: int = 4, n_images: int = 3) -> tuple[OneToMany, Rows]:
    pixels = torch.randint(256, (n, n_images, 3, 4, 4), generator=generator(), dtype=torch.uint8)
    captions = tuple(tuple(f"{i} {j}" for j in range(n_captions)) for i in range(n))
    draw = F.normalize(torch.randn(n, n_captions + n_images, 8, generator=generator(2)), dim=-1)
    rows = Rows(tuple(draw[:, :n_captions]), draw[:, n_captions:])
    return OneToMany("toy", captions, pixels), rows


def test_kept_pairs_are_those_above_the_threshold() -> None:
    variants, rows = sets()
    found = keep_aligned(variants, rows, 0.2)
    for i, own in enumerate(variants.captions):
        similar = (rows.captions[i] @ rows.images[i, 0]).tolist()
        wanted = [c for c, s in zip(own[1:], similar[1:], strict=True) if s >= 0.2]
        assert found.captions[i] == (own[0], *wanted)
        of_images = (rows.images[i] @ rows.captions[i][0]).tolist()
        for r in range(1, 3):
            kept = r if of_images[r] >= 0.2 else 0  # the original stands in
            assert torch.equal(found.all_images()[i, r], variants.all_images()[i, kept])


def test_a_threshold_that_keeps_nothing_is_refused_with_what_there_is() -> None:
    variants, rows = sets()
    with pytest.raises(ValueError, match=r"similarity of 0.999 or more \(median .* keep_aligned"):
        keep_aligned(variants, rows, 0.999)
    assert keep_aligned(variants, rows, -1).captions == variants.captions


def test_the_most_diverse_are_chosen_one_after_the_other_from_the_original() -> None:
    variants, rows = sets()
    found = keep_diverse(variants, rows, 2)
    for i, own in enumerate(found.captions):
        first = (1 - rows.captions[i][1:] @ rows.captions[i][0]).argmax().item() + 1
        assert own[:2] == (f"{i} 0", f"{i} {int(first)}") and len(own) == 3
    assert found.images.shape[1] == 3 and keep_diverse(variants, rows, 9).images.shape[1] == 3
    with pytest.raises(ValueError, match="at least one added variant"):
        keep_diverse(variants, rows, 0)


@pytest.mark.parametrize("target", [1.0, 1.6, 2.4])
def test_thinning_reaches_the_score_and_keeps_the_number_of_captions(target: float) -> None:
    variants, rows = sets(n=40)
    found = thin_to_vendi(variants, rows, target, generator(), vendi_score)
    index = [[variants.captions[i].index(c) for c in own] for i, own in enumerate(found.captions)]
    scores = [vendi_score(rows.captions[i][own[1:]]) for i, own in enumerate(index)]
    assert sum(scores) / len(scores) == pytest.approx(target, rel=0.02)
    assert all(len(own) == 4 and own[0] == f"{i} 0" for i, own in enumerate(found.captions))


def test_captions_far_from_the_original_but_alike_are_not_diverse() -> None:
    variants, rows = sets(n=40)
    alike = torch.eye(rows.captions[0].shape[1])[[0, 1, 1, 1]]
    far = replace(rows, captions=(alike,) * 40)
    with pytest.raises(ValueError, match=r"score 1\.000 cannot be thinned"):
        thin_to_vendi(variants, far, 1.3, generator(), vendi_score)


def test_a_set_that_lost_all_its_captions_stays_as_it_is() -> None:
    variants, rows = sets(n=40)
    few = replace(variants, captions=(variants.captions[0][:1], *variants.captions[1:]))
    embedded = replace(rows, captions=(rows.captions[0][:1], *rows.captions[1:]))
    found = thin_to_vendi(few, embedded, 1.2, generator(), vendi_score)
    assert found.captions[0] == few.captions[0] and len(found.captions[1]) == 4


def test_sets_that_are_too_alike_are_not_thinned() -> None:
    variants, rows = sets()
    with pytest.raises(ValueError, match="cannot be thinned to 9"):
        thin_to_vendi(variants, rows, 9, generator(), vendi_score)
