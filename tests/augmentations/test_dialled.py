"""Set levels: each dial moves what it is to move and leaves the others alone."""

from __future__ import annotations

import pytest
import torch

from matlib.augmentations.dialled import dialect, dialled_captions, dialled_images, scenes_told
from matlib.data.pairs import ImageTextPairs, OneToMany
from matlib.scenes.grammar import Dials
from matlib.scenes.lexicon import CANONICAL_WORDS
from matlib.scenes.renderer import PLAIN_STYLE
from matlib.scenes.scene import Scene
from matlib.scenes.truth import aligned_fraction, describes
from matlib.scenes.world import World
from tests.toys import generator

WORLD = World(3, image_size=32, n_train=40, n_val=2, n_test=2, style=PLAIN_STYLE)
PAIRS: ImageTextPairs = WORLD.train.pairs
SCENES: tuple[Scene, ...] = WORLD.train.scenes


def captions(a: float, d: float, s: float, n: int = 4) -> OneToMany:
    return dialled_captions(
        PAIRS, SCENES, n, generator(1), alignment=a, diversity=d, shift=s, dials=Dials()
    )


def images(a: float, d: float, s: float, n: int = 3) -> OneToMany:
    return dialled_images(
        PAIRS, SCENES, n, generator(1), alignment=a, diversity=d, shift=s, style=WORLD.style
    )


def truth(found: OneToMany) -> float:
    shares = [aligned_fraction(c, SCENES[i]) for i, own in enumerate(found.captions)
              for c in own[1:]]  # fmt: skip
    return sum(shares) / len(shares)


@pytest.mark.parametrize("shift", [0.0, 0.5, 1.0])
def test_aligned_captions_are_true_whatever_the_dialect(shift: float) -> None:
    found = captions(1, 1, shift)
    assert all(describes(c, SCENES[i]) for i, own in enumerate(found.captions) for c in own)


def test_alignment_falls_with_its_dial_only() -> None:
    levels = [truth(captions(a, 1, 0)) for a in (1.0, 0.5, 0.0)]
    assert levels[0] == 1.0 > levels[1] > levels[2] > 0.3
    assert truth(captions(0, 0, 1)) == pytest.approx(truth(captions(0, 1, 0)), abs=0.05)


@pytest.mark.parametrize("alignment", [0.0, 1.0])
def test_diversity_sets_the_number_of_different_variants(alignment: float) -> None:
    n_different = [
        sum(len(set(own[1:])) for own in captions(alignment, d, 0).captions) / len(PAIRS)
        for d in (0.0, 0.5, 1.0)
    ]
    assert n_different[0] == 1 and n_different[1] == pytest.approx(2.5, abs=0.3)
    assert n_different[2] > 3.8
    assert all(len(own) == 5 for own in captions(alignment, 0.3, 0).captions)  # repeats are fixed


def test_a_dialect_has_one_word_for_each_and_grows_with_its_share() -> None:
    words = sorted(CANONICAL_WORDS)
    shares = [sum(dialect(w, s) != w for w in words) / len(words) for s in (0, 0.25, 0.5, 1)]
    assert shares[0] == 0 and shares[3] == 1
    assert shares[1] == pytest.approx(0.25, abs=0.03) and shares[2] == pytest.approx(0.5, abs=0.03)
    assert len({dialect(w) for w in words}) == len(words)
    spoken = {w for own in captions(1, 1, 1).captions for c in own[1:] for w in c.split()}
    assert not spoken & CANONICAL_WORDS


def test_images_show_the_scene_that_is_told_and_repeat_by_the_dial() -> None:
    true, wrong = images(1, 0, 0).all_images(), images(0, 0, 0).all_images()
    assert torch.equal(true[:, 1], true[:, 3])  # diversity 0: one image, repeated
    assert torch.equal(true[:, 1], true[:, 0])  # plain style: the renderer adds no nuisance
    told = scenes_told(SCENES, 0.0, generator(1))
    same = [torch.equal(a, b) for a, b in zip(wrong[:, 1], true[:, 1], strict=True)]
    assert same == [a == b for a, b in zip(told, SCENES, strict=True)] and sum(same) < 5


def test_the_palette_shifts_images_and_not_captions() -> None:
    plain, shifted = images(1, 0, 0).all_images(), images(1, 0, 1).all_images()
    moved = (plain[:, 1].float() - shifted[:, 1].float()).abs().mean()
    half = (plain[:, 1].float() - images(1, 0, 0.5).all_images()[:, 1].float()).abs().mean()
    assert moved > half > 1
    assert torch.equal(plain[:, 0], shifted[:, 0])


def test_levels_outside_their_range_are_refused() -> None:
    with pytest.raises(ValueError, match=r"diversity is a level in \[0, 1\]; got 2"):
        captions(1, 2, 0)
    with pytest.raises(ValueError, match="40 images show as many scenes; got 1"):
        dialled_images(PAIRS, SCENES[:1], 1, generator(), alignment=1, diversity=1, shift=0,
                       style=WORLD.style)  # fmt: skip
