"""No attack takes a budget that helps the model, or that is no number."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import resize

from matlib.attacks.apgd import APGD
from matlib.attacks.ascent import ScaleViews
from matlib.attacks.balls import to_8bit
from matlib.attacks.characters import CharacterEdits, Charmer, n_dictionary_words
from matlib.attacks.diversified import DiversifiedPGD, dra
from matlib.attacks.multimodal import co_attack
from matlib.attacks.noise import noise_of
from matlib.attacks.pgd import PGD
from matlib.attacks.word_substitution import WordSubstitution
from matlib.defences.inner_attack import InnerAttack
from tests.toys import generator, random_pixels, tiny_encoder, toy_gallery

NO_NUMBER = (math.nan, math.inf, -math.inf, "2", None, True)
NEVER = (-1, -0.5, *NO_NUMBER)


def both(attack: Any, **how: Any) -> None:
    encoder, gallery = tiny_encoder(), toy_gallery([1, 1])
    table: list[list[Any]] = [[], []]
    attack(encoder, gallery, table, PGD(4.0, 1), WordSubstitution(1), generator=generator(), **how)


@pytest.mark.parametrize("value", [0, -2, *(v for v in NO_NUMBER if v is not None)])
def test_a_step_is_above_zero(value: Any) -> None:
    with pytest.raises(ValueError, match="step_255 must be above 0"):
        PGD(4.0, 2, value)


@pytest.mark.parametrize("value", [-1.0, -0.1, math.nan, math.inf])
@pytest.mark.parametrize(
    "made",
    [
        PGD,
        APGD,
        lambda eps: PGD(eps, norm="l2"),
        lambda eps: to_8bit(random_pixels(1), random_pixels(1), eps),
    ],
)
def test_a_radius_is_zero_or_more(made: Callable[[float], Any], value: float) -> None:
    with pytest.raises(ValueError, match="eps_255"):
        made(value)


COUNTS: dict[str, Callable[[Any], Any]] = {
    "PGD steps": lambda n: PGD(4.0, n),
    "PGD restarts": lambda n: PGD(4.0, n_restarts=n),
    "APGD steps": lambda n: APGD(4.0, n),
    "words": lambda n: WordSubstitution(n),
    "chunk": lambda n: WordSubstitution(1, chunk=n),
    "character edits": lambda n: CharacterEdits(n),
    "slots": lambda n: CharacterEdits(n_slots=n),
    "Charmer's edits": lambda n: Charmer(n),
    "mixes": lambda n: DiversifiedPGD(PGD(4.0), n),
    "tried edits": lambda n: InnerAttack(PGD(4.0), WordSubstitution(), n or -1),
}


@pytest.mark.parametrize("value", [*NEVER, 1.5])
@pytest.mark.parametrize("name", COUNTS)
def test_counts_are_whole_numbers(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match="whole number"):
        COUNTS[name](value)


@pytest.mark.parametrize("value", [*NEVER, 0])
def test_scales_of_views_are_above_zero(value: Any) -> None:
    with pytest.raises(ValueError, match="scale must be above 0"):
        ScaleViews((0.5, value))
    if value != 0:
        with pytest.raises(ValueError, match="noise of views must be above 0"):
            ScaleViews((0.5,), noise=value)


def test_a_scale_at_which_nothing_is_left_is_refused() -> None:
    with pytest.raises(ValueError, match=r"scale 0\.05 leaves nothing of 16 pixels"):
        ScaleViews((0.05,))(random_pixels(1), generator())


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
def test_terms_of_an_attack_never_help_the_model(value: float) -> None:
    with pytest.raises(ValueError, match="alpha must be finite, 0 or more"):
        both(co_attack, alpha=value)
    with pytest.raises(ValueError, match="weights must be finite, 0 or more"):
        both(dra, weights=(0.5, 0.5, value))


def test_zero_is_no_attack_and_allowed() -> None:
    for attack in (PGD(0.0), PGD(4.0, 0), APGD(0.0, 3), APGD(4.0, 0)):
        pixels, encoder = random_pixels(2), tiny_encoder()
        found = attack(encoder, pixels, lambda f: f.sum(1), generator=generator())
        assert torch.equal(found, pixels)
    assert WordSubstitution(0)(tiny_encoder(), ["red star"], [[]]) == ["red star"]


@pytest.mark.parametrize("side", [16, 33])
def test_released_views_are_those_of_the_pinned_torchvision(side: int) -> None:
    """`Resize` of a tensor without antialiasing, clamped after the way there alone."""
    pixels = torch.rand(2, 3, side, side, generator=generator()).round()  # overshoots most
    scales, g = (0.5, 0.75, 1.25, 1.5), generator(1)
    streams = noise_of(g, pixels)
    found = ScaleViews(scales, released=True)(pixels, generator(1))
    assert torch.equal(found[0], pixels)
    for view, scale in zip(found[1:], scales, strict=True):
        noisy = pixels + 0.05 * streams.normal(pixels)
        cubic: Any = {"interpolation": InterpolationMode.BICUBIC, "antialias": False}
        small = resize(noisy, [int(scale * side)] * 2, **cubic).clamp(0, 1)
        assert torch.equal(view, resize(small, [side, side], **cubic))
    assert max(float(view.max()) for view in found) > 1  # the clamp is left out
    assert all(float(v.min()) >= 0 and float(v.max()) <= 1 for v in ScaleViews()(pixels, g))


CAPTIONS = [
    "a dog and a dog, the dog's dog.",
    "two well-dressed men don't play chess!",
    '"stop" (he said); a man & woman...',
    "the 2nd do3g runs at 10:30, they're happy",
]


def test_dictionary_words_are_counted_once_each() -> None:
    assert n_dictionary_words("a dog and a dog", {"dog", "a"}) == 2
    assert n_dictionary_words("Dog dog's d-og do3g", {"dog", "do", "og", "d", "g"}) == 1


@pytest.mark.parametrize("caption", CAPTIONS)
def test_dictionary_words_are_those_of_nltk(caption: str) -> None:
    """LEAF: `len(W.intersection(word_tokenize(text.lower())))`, here of one sentence."""
    nltk = pytest.importorskip("nltk.tokenize")
    tokens = set(nltk.NLTKWordTokenizer().tokenize(caption.lower()))
    every = {word for text in CAPTIONS for word in text.lower().replace("-", " ").split()}
    parts = {"dog", "men", "well", "dressed", "do", "n't", "said", "stop", "'re", "they", "woman"}
    words = {w for w in every | parts if any(c.isalpha() for c in w)}
    assert n_dictionary_words(caption, words) == len(words & tokens)
