"""Small trainings, also as a program of their own: to be killed, or to be one of two processes.

`python -m tests.training.toy_runs FOLDER NAME...` trains each named run and writes its losses
(`NAME.json`) and weights (`NAME.safetensors`) into FOLDER; checkpoints go to `FOLDER/NAME`.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from matlib.attacks.edits import Edit
from matlib.attacks.pgd import PGD
from matlib.attacks.word_substitution import WordSubstitution
from matlib.data.pairs import OneToMany
from matlib.defences.inner_attack import InnerAttack, PairwiseCharacterEdits
from matlib.defences.table import defence
from matlib.models.open_clip import OpenClipEncoder
from matlib.training.checkpoint import save_weights
from matlib.training.log import Bookkeeping, History
from matlib.training.loop import train
from matlib.training.schedule import Schedule
from tests.toys import WORDS, generator, tiny_encoder

INNER = InnerAttack(
    PGD(4.0, 1), WordSubstitution(1), 2, PairwiseCharacterEdits(n_slots=4, n_symbols=4)
)


@dataclass(frozen=True)
class ToyRun:
    """A defence, its schedule and the arithmetic of its weights."""

    defence: str
    schedule: Schedule
    dtype: torch.dtype = torch.float32


RUNS = {
    "exact-mat": ToyRun("mat", Schedule(20, 8, 3e-3), torch.float64),
    "exact-parts": ToyRun("mat", Schedule(6, 8, 3e-3, micro_batches=2), torch.float64),
    "exact-both": ToyRun("fare+leaf", Schedule(4, 8, 1e-3), torch.float64),
    "clean": ToyRun("clean", Schedule(20, 8, 3e-3)),
    "killed": ToyRun("mat", Schedule(24, 4, 1e-3, checkpoint_every=3, ema_decay=0.9)),
}


def toy_data(n: int = 16, captions: int = 2, renderings: int = 2) -> OneToMany:
    images = torch.randint(256, (n, renderings, 3, 16, 16), generator=generator()).byte()
    texts = tuple(
        tuple(f"{WORDS[i % 12]} {WORDS[(5 * i + v + 1) % 12]}" for v in range(captions))
        for i in range(n)
    )
    return OneToMany("toy", texts, images)


def toy_candidates(data: OneToMany) -> dict[str, list[Edit]]:
    words = ("near", "above", "blue")
    return {c: [Edit(0, w) for w in words] for variants in data.captions for c in variants}


def train_toy(run: ToyRun, keep_in: Path | None = None) -> tuple[OpenClipEncoder, History]:
    encoder, data = tiny_encoder().to(run.dtype), toy_data()
    history = train(
        encoder, data, defence(run.defence), run.schedule, seed=0, inner=INNER,
        candidates=toy_candidates(data), books=Bookkeeping(keep_in),
    )  # fmt: skip
    return encoder, history


def main(folder: Path, names: list[str]) -> None:
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    for name in names:
        encoder, history = train_toy(RUNS[name], folder / name)
        if os.environ.get("RANK", "0") == "0":
            save_weights(encoder, folder / f"{name}.safetensors")
            (folder / f"{name}.json").write_text(json.dumps(history.rows))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
