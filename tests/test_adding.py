"""An attack, an augmentation and a defence are added from outside, as the recipes say."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from matlib.attacks import PGD, WordSubstitution, pgd_attack
from matlib.augmentations import TECHNIQUES, Strength, Technique, Wanted, drop_and_swap
from matlib.data import ImageTensor, ImageTextPairs, OneToMany
from matlib.defences import DEFENCES, Contrastive, InnerAttack
from matlib.evaluation import ATTACKS, Attack, Moved, Situation, Suite, evaluate
from matlib.study.profile.profile import load_profile
from matlib.study.profile.rows import Run
from matlib.study.sources.scenes import ScenesSource
from matlib.study.store.provenance import code_hash
from matlib.training import Schedule, train
from tests.toys import generator, random_captions, random_edits, tiny_encoder

N = 8


def shaken(s: Situation) -> Moved:
    return pgd_attack(s.encoder, s.gallery, PGD(s.suite.image.eps_255, 1), **s.drawn), None


def dropped(w: Wanted) -> OneToMany:
    return drop_and_swap(w.pairs, w.added, w.generator, drop_rate=w.strength, swap_rate=0)


@pytest.fixture(autouse=True)
def added() -> Iterator[None]:
    """The three entries, as the recipes add them, for one test."""
    tables: tuple[dict[str, Any], ...] = (ATTACKS, TECHNIQUES, DEFENCES)
    before = [dict(table) for table in tables]
    ATTACKS["shaken"] = Attack("shaken", "image", shaken)
    TECHNIQUES["dropped"] = Technique(
        "dropped", "text", dropped, strength=Strength("share", 0.2, 1)
    )
    DEFENCES["text-first"] = Contrastive("text-first", "ours", "symmetric", "contrastive")
    yield
    for table, entries in zip(tables, before, strict=True):
        for name in table.keys() - entries.keys():
            del table[name]


def toy_pairs() -> ImageTextPairs:
    captions, own = random_captions([1] * N)
    images = torch.randint(256, (N, 3, 16, 16), generator=generator(3)).byte()
    return ImageTextPairs(
        "toy", "train", ImageTensor(images), tuple(captions), own, tuple("abcdefgh")
    )


PAIRS = toy_pairs()
INNER = InnerAttack(PGD(4.0, 1), WordSubstitution(1))


def learns(defence: str, augmentation: str = "none") -> bool:
    """Whether two steps move the weights, on a technique's pairs under a defence."""
    encoder = tiny_encoder()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    technique = TECHNIQUES[augmentation]
    wanted = Wanted(
        PAIRS, 2, lambda purpose: generator(len(purpose)), augmentation,
        strength=technique.strength.usual if technique.strength else 0.0,
    )  # fmt: skip
    make = technique.maker("disk")
    assert make is not None
    data = make(wanted)
    every = [caption for own in data.captions for caption in own]
    candidates = dict(zip(every, random_edits(every), strict=True))
    train(encoder, data, DEFENCES[defence], Schedule(2, 4, 1e-3), seed=0, inner=INNER,
          candidates=candidates)  # fmt: skip
    return any(not torch.equal(v, before[name]) for name, v in encoder.state_dict().items())


def test_an_attack_is_a_row_of_every_suite() -> None:
    tables = {"t": random_edits(list(PAIRS.captions))}
    assert ("shaken", "") in Suite(PGD(4.0)).rows(tables)
    found = evaluate(tiny_encoder(), PAIRS, tables, Suite(PGD(4.0), attacks=("shaken",)), seed=0)
    moved = (found.shown["shaken", ""] - PAIRS.pixels()).abs().flatten(1).amax(1)
    assert bool((moved > 0).all()) and float(moved.max()) <= 4 / 255 + 1e-6
    worst = found.outcomes["worst", "t"]
    assert bool((worst.tr_rank >= found.outcomes["shaken", ""].tr_rank).all())


def test_an_augmentation_is_trained_on_and_stands_in_a_profile() -> None:
    assert learns("mat+", "dropped")
    row = Run(defence="mat+", augmentation="dropped", strength=0.5)
    assert (row.row, row.modality) == ("mat+.dropped.x0.5", "text")
    config = load_profile("smoke").dataset.model_copy(update={"n_train": 4})
    varied = ScenesSource(config).variants(row, 3, seed=0)
    assert [len(own) for own in varied.captions] == [3] * 4
    assert all(set(c.split()) <= set(own[0].split()) for own in varied.captions for c in own)
    with pytest.raises(ValueError, match=r"strength of dropped \(share\) is at most 1; got 2"):
        Run(defence="mat+", augmentation="dropped", strength=2)


def test_a_defence_is_trained_and_stands_in_a_profile() -> None:
    assert learns("text-first")
    assert Run(defence="text-first").row == "text-first"


def test_a_line_outside_the_table_ties_no_result_to_its_code() -> None:
    with pytest.raises(ValueError, match="dropped: in no table of choices"):
        code_hash("defended", ("mat+", "dropped"))
