"""A batch, its candidates and budgets that the tests of defences share."""

from __future__ import annotations

import copy
from functools import cache

import torch

from matlib.attacks.edits import Edit
from matlib.attacks.noise import Noise
from matlib.attacks.pgd import PGD
from matlib.attacks.word_substitution import WordSubstitution
from matlib.defences.batch import Batch
from matlib.defences.inner_attack import InnerAttack, PairwiseCharacterEdits
from matlib.models.open_clip import OpenClipEncoder
from tests.toys import generator, random_pixels, tiny_encoder

CAPTIONS = ["red circle", "blue star", "small green cross", "large square"]
CANDIDATES = {c: [Edit(0, "near"), Edit(1, "below"), Edit(1, "above")] for c in CAPTIONS}
INNER = InnerAttack(
    PGD(8.0, 2), WordSubstitution(1), characters=PairwiseCharacterEdits(n_slots=4, n_symbols=4)
)


def toy_batch(seed: int = 0) -> Batch:
    n = len(CAPTIONS)
    return Batch(random_pixels(n, seed).double(), list(CAPTIONS), torch.arange(n))


def part(batch: Batch, rank: int) -> Batch:
    """A process's half of a batch."""
    n = len(batch.captions) // 2
    rows = slice(rank * n, (rank + 1) * n)
    return Batch(batch.pixels[rows], batch.captions[rows], batch.index[rows])


def pair_generators(batch: Batch) -> list[torch.Generator]:
    return [generator(int(i)) for i in batch.index]


def streams(batch: Batch) -> Noise:
    """What an image attack of the same pairs draws from."""
    return Noise.like(pair_generators(batch))


@cache
def exact_encoder(seed: int = 0) -> OpenClipEncoder:
    """A tiny model in float64, shared: for tests that leave it as it is."""
    return tiny_encoder(seed).double()


def fresh_encoder(seed: int = 0) -> OpenClipEncoder:
    """A copy of `exact_encoder` to train, to freeze, or to hand to another thread."""
    return copy.deepcopy(exact_encoder(seed))
