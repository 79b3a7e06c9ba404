"""The fast check of edits agrees with the plain one on every edit."""

from __future__ import annotations

import random

from matlib.scenes.lexicon import VOCABULARY
from matlib.scenes.truth import EditChecker
from matlib.scenes.world import World

WORLD = World(3, image_size=16, n_train=150, n_val=2, n_test=2, captions_per_image=1)
PAIRS = WORLD.train.pairs
OWN = PAIRS.image_of.tolist()


def test_swapped_words_are_judged_as_by_the_full_parse() -> None:
    rng, checker = random.Random(0), WORLD.train.checker
    fast = EditChecker(checker, PAIRS.captions, OWN)
    words = [*sorted(VOCABULARY), "rde", "xyzzy", "Red"]
    n_valid = 0
    for i, caption in enumerate(PAIRS.captions):
        already = checker.described(caption)
        for position in range(len(caption.split(" "))):
            for new in rng.sample(words, 25):
                edited = " ".join(
                    new if at == position else word for at, word in enumerate(caption.split(" "))
                )
                wanted = checker.is_valid_edit(edited, OWN[i], already)
                assert fast(i, edited) == wanted, (caption, edited)
                n_valid += wanted
    assert n_valid > 200


def test_other_edits_are_judged_as_well() -> None:
    checker = WORLD.train.checker
    fast = EditChecker(checker, PAIRS.captions, OWN)
    for i, caption in enumerate(PAIRS.captions[:20]):
        already = checker.described(caption)
        shorter = caption.rsplit(" ", 1)[0]
        for edited in (caption, shorter, caption + " and", caption.upper(), ""):
            assert fast(i, edited) == checker.is_valid_edit(edited, OWN[i], already)
