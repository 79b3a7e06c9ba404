"""README's way of adding an attack, an augmentation and a defence, followed from outside."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from matlib.attacks import PGD, WordSubstitution
from matlib.augmentations import TECHNIQUES, Wanted
from matlib.data import ImageTensor, ImageTextPairs
from matlib.defences import DEFENCES, InnerAttack
from matlib.evaluation import ATTACKS, Suite, evaluate
from matlib.study.profile.profile import load_profile
from matlib.study.profile.rows import Run
from matlib.study.sources.scenes import ScenesSource
from matlib.study.store.provenance import code_hash
from matlib.training import Schedule, train
from tests.toys import generator, random_captions, random_edits, tiny_encoder

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
N = 8


@pytest.fixture(autouse=True)
def added() -> Iterator[None]:
    """README's three entries, for one test."""
    tables = (ATTACKS, TECHNIQUES, DEFENCES)
    before = [dict(table) for table in tables]
    [code] = [c for c in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "ATTACKS[" in c]
    exec(code, {})
    yield
    for table, entries in zip(tables, before, strict=True):
        for name in table.keys() - entries.keys():
            del table[name]  # type: ignore[attr-defined]


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
