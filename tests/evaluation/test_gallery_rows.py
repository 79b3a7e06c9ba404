"""The gallery attacker as rows of the evaluation."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from matlib.attacks.edits import n_changed_words
from matlib.attacks.pgd import PGD
from matlib.data.pairs import ImageTensor, ImageTextPairs
from matlib.evaluation.robustness import evaluate
from matlib.evaluation.suite import GALLERY_AT_REST, WORDS_ALONE, Suite
from tests.toys import generator, random_captions, random_edits, tiny_encoder

ROWS = (*WORDS_ALONE, "gallery", *GALLERY_AT_REST)
SUITE = Suite(PGD(4.0, 2), attacks=("clean", *ROWS))


def toy_pairs() -> ImageTextPairs:
    captions, own = random_captions([1, 2, 3, 1, 2, 2])
    images = torch.randint(256, (6, 3, 16, 16), generator=generator(3)).byte()
    return ImageTextPairs("toy", "test", ImageTensor(images), tuple(captions), own, tuple("abcdef"))


PAIRS = toy_pairs()
TABLES = {"t": random_edits(list(PAIRS.captions)), "u": random_edits(list(PAIRS.captions), 1)}


def test_every_row_is_there_and_worst_leaves_no_more_than_any() -> None:
    found = evaluate(tiny_encoder(), PAIRS, TABLES, SUITE, seed=0)
    for threat in TABLES:
        worst = found.outcomes["worst", threat]
        for key in [("clean", ""), *((row, threat) for row in ROWS)]:
            assert bool((worst.ir_rank >= found.outcomes[key].ir_rank).all()), key
            assert bool((worst.tr_rank >= found.outcomes[key].tr_rank).all()), key
        for row in ROWS:
            moved = found.captions[row, threat]
            assert max(map(n_changed_words, PAIRS.captions, moved)) <= 1
            assert ((row, threat) in found.shown) == (row not in WORDS_ALONE)


@pytest.mark.parametrize("row", ROWS)
def test_a_row_does_not_depend_on_the_others(row: str) -> None:
    together = evaluate(tiny_encoder(), PAIRS, TABLES, SUITE, seed=5).outcomes
    alone = evaluate(tiny_encoder(), PAIRS, TABLES, replace(SUITE, attacks=(row,)), seed=5)
    for threat in TABLES:
        assert torch.equal(together[row, threat].tr_rank, alone.outcomes[row, threat].tr_rank)
        assert torch.equal(together[row, threat].ir_rank, alone.outcomes[row, threat].ir_rank)


def test_the_gallery_attacker_runs_where_the_suite_is_slow() -> None:
    rows = replace(SUITE, slow_under=("t",)).rows(TABLES)
    assert {row for row, threat in rows if threat == "u"} == {"bert", "words"}
