"""The embedded world's captioner and rewriter: what they see, and that they make mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from matlib.augmentations.scenes_rewriter import rewrite_scene_captions
from matlib.data.pairs import ImageTensor, ImageTextPairs, OneToMany
from matlib.models.captioner import (
    CaptionerConfig,
    SmallCaptioner,
    in_nucleus,
    train_captioner,
)
from matlib.models.masked_lm import MaskedLM, train_masked_lm
from matlib.models.masked_lm_training import MaskedLMConfig
from matlib.scenes.lexicon import CANONICAL_WORDS, FUNCTION_WORDS
from matlib.scenes.truth import read
from matlib.scenes.world import World
from tests.toys import generator

WORLD = World(5, image_size=32, n_train=12, n_val=2, n_test=2)
TINY = CaptionerConfig(width=32, layers=1, heads=2, n_steps=4, batch_size=8)


@pytest.fixture(scope="module")
def rewriter() -> MaskedLM:
    config = MaskedLMConfig(width=32, layers=1, n_steps=30, batch_size=32)
    return train_masked_lm(WORLD.masked_lm_corpus(300), config, 0)


def test_cold_rewrites_keep_to_their_words_and_hot_ones_make_mistakes(rewriter: MaskedLM) -> None:
    pairs = WORLD.train.pairs
    hot = rewrite_scene_captions(pairs, 3, generator(), rewriter, temperature=4.0)
    assert all(len(own) == 4 for own in hot.captions)
    words = {word for own in hot.captions for caption in own[1:] for word in caption.split()}
    assert words <= CANONICAL_WORDS | FUNCTION_WORDS  # no synonyms: these are the attack's words
    facts = [read(own[0]) for own in hot.captions]
    wrong = sum(read(c) != fact for own, fact in zip(hot.captions, facts, strict=True)
                for c in own[1:])  # fmt: skip
    assert wrong > 20
    again = rewrite_scene_captions(pairs, 3, generator(), rewriter, temperature=4.0)
    assert again.captions == hot.captions


def test_the_rewriter_sees_the_caption_only(rewriter: MaskedLM) -> None:
    pairs = WORLD.train.pairs
    black = ImageTensor(torch.zeros(12, 3, 32, 32, dtype=torch.uint8))
    blind = ImageTextPairs(
        "scenes", "train", black, pairs.captions, pairs.image_of, pairs.image_ids
    )
    seen, unseen = (
        rewrite_scene_captions(each, 2, generator(), rewriter).captions for each in (pairs, blind)
    )
    assert seen == unseen
    with pytest.raises(ValueError, match="temperature is 0 or more"):
        rewrite_scene_captions(pairs, 1, generator(), rewriter, temperature=-1)


@pytest.mark.parametrize("top_p", [0.05, 0.5, 0.8, 1.0])
def test_the_nucleus_is_the_smallest_set_that_holds_its_share(top_p: float) -> None:
    scores = torch.randn(7, 20, generator=generator())
    kept = torch.isfinite(in_nucleus(scores, top_p))
    for row, own in zip(scores.softmax(-1), kept, strict=True):
        inside = row[own]
        assert inside.sum() >= top_p - 1e-6 and (not own.all() or top_p == 1.0)
        assert len(inside) == 1 or inside.sum() - inside.min() < top_p


def colours() -> OneToMany:
    """Images of one colour, with its name as their caption."""
    names = ["red", "green", "blue"] * 8
    pixels = torch.zeros(24, 1, 3, 16, 16, dtype=torch.uint8)
    for i in range(24):
        pixels[i, 0, i % 3] = 200
    return OneToMany("none", tuple((name,) for name in names), pixels)


def test_the_captioner_learns_to_say_what_it_sees() -> None:
    data = colours()
    losses: list[float] = []
    config = CaptionerConfig(width=32, layers=1, heads=2, n_steps=60, batch_size=16, lr=5e-3)
    captioner = train_captioner(data, config, 0, lambda _, loss: losses.append(loss))
    assert losses[-1] < 0.2 * losses[0]
    found = captioner(data.all_images()[:, 0], 2, generator(), temperature=0)
    assert found[:3] == [["red", "red"], ["green", "green"], ["blue", "blue"]]


def test_the_captioner_is_saved_whole_and_equal_seeds_give_equal_captions(tmp_path: Path) -> None:
    data = OneToMany.from_pairs(WORLD.train.pairs)
    one, other = (train_captioner(data, TINY, 3) for _ in range(2))
    one.save(tmp_path)
    loaded = SmallCaptioner.load(tmp_path)
    images = data.all_images()[:, 0]
    written = [m(images, 2, generator(1)) for m in (one, other, loaded)]
    assert written[0] == written[1] == written[2] and len(written[0]) == 12
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "captioner.json", "model.safetensors",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="at least one pair"):
        train_captioner(OneToMany("none", (), torch.zeros(0, 1, 3, 16, 16, dtype=torch.uint8)),
                        TINY, 0)  # fmt: skip
