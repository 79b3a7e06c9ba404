"""What must hold on a device, whatever its speed: a CPU's numbers, and those of a run alone."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from benchmarks.load import Load, scenes_load
from matlib.attacks.apgd import APGD
from matlib.attacks.ascent import ScaleViews, Views, attack_in_chunks
from matlib.attacks.objectives import away_from_captions
from matlib.attacks.pgd import PGD
from matlib.attacks.scoring import embed_texts
from matlib.attacks.word_substitution import WordSubstitution
from matlib.data.pairs import ImageTensor, ImageTextPairs, OneToMany
from matlib.defences.inner_attack import InnerAttack
from matlib.defences.table import defence
from matlib.models.small import SmallModel
from matlib.study.profile.profile import load_profile
from matlib.study.run.tasks import Rows, make_rows
from matlib.study.study import Study
from matlib.training.log import Bookkeeping
from matlib.training.loop import train
from matlib.training.schedule import Schedule

GAP = {torch.float64: 1e-9, torch.float32: 1e-6}
"""Pixels that differ by less are equal; double precision leaves some 1e-16."""

PIXELS_EQUAL = {torch.float64: 1.0, torch.float32: 0.99}
"""Share of them: where a gradient is next to nothing, rounding decides its sign."""

BF16_COSINE = 0.999
"""Of an embedding under bf16 with the one in single precision, at least."""

Check = dict[str, Any]


def check_attacks(load: Load, device: torch.device, dtype: torch.dtype) -> Check:
    """Image attacks give the CPU's pixels, and the text attack its captions.

    Args:
        load: on the CPU.
        dtype: float64 or float32, of model and images.
    """
    here = replace(
        load, encoder=copy.deepcopy(load.encoder).to(dtype), pixels=load.pixels.to(dtype)
    )
    there = _moved(here, device)
    found: Check = {}
    for name, attack, views in (
        ("pgd", PGD(2.0, 5), None),
        ("apgd", APGD(2.0, 5), None),
        ("sga_views", PGD(2.0, 5), ScaleViews()),
    ):
        gap = (_attacked(there, attack, views).cpu() - _attacked(here, attack, views)).abs()
        found[f"{name}_pixels_equal"] = float((gap <= GAP[dtype]).double().mean())
        found[f"{name}_largest_gap"] = float(gap.max())
    found["captions_equal"] = _equal(_captions(there), _captions(here))
    found["holds"] = found["captions_equal"] == 1.0 and all(
        value >= PIXELS_EQUAL[dtype]
        for name, value in found.items()
        if name.endswith("pixels_equal")
    )
    return found


def check_bf16(load: Load, device: torch.device) -> Check:
    """Under bf16 embeddings stay where they were; how many captions are chosen equal is told."""
    there = _moved(load, device)
    single = there.encoder.encode_image(there.pixels).detach().float()
    captions = _captions(there)
    with torch.autocast(device.type, torch.bfloat16):
        half = there.encoder.encode_image(there.pixels).detach().float()
        found = _equal(_captions(there), captions)
    cosine = float(torch.cosine_similarity(single, half).min())
    return {"least_cosine": cosine, "captions_equal": found, "holds": cosine >= BF16_COSINE}


def check_resume(load: Load, device: torch.device) -> Check:
    """A training that is stopped and goes on ends with the same weights, bit by bit."""
    with TemporaryDirectory(prefix="matlib-") as folder:
        whole = _trained(load, device, Bookkeeping())
        with suppress(_StoppedError):
            _trained(load, device, Bookkeeping(keep_in=Path(folder), on_row=_stop))
        resumed = _trained(load, device, Bookkeeping(keep_in=Path(folder)))
    differ = sum(not torch.equal(whole[name], resumed[name]) for name in whole)
    return {"tensors": len(whole), "tensors_that_differ": differ, "holds": differ == 0}


def check_workers() -> Check:
    """Two workers on one device find what one after the other finds."""
    ranks = []
    with TemporaryDirectory(prefix="matlib-") as folder:
        for n in (2, 1):
            study = Study(load_profile("smoke"), Path(folder) / str(n))
            rows = Rows(main=(("base", 0), ("clean", 0)))
            make_rows(study, None, rows, n, lambda _: None)
            outcomes = study.evaluated("clean").outcomes
            ranks.append({key: each.tr_rank for key, each in outcomes.items()})
    together, alone = ranks
    differ = sum(not torch.equal(together[key], alone[key]) for key in alone)
    return {"attacks": len(alone), "attacks_that_differ": differ, "holds": differ == 0}


def cpu_load(n_images: int, shape: SmallModel | None) -> Load:
    """A small model, images and captions on the CPU."""
    load = scenes_load(n_images, 2, shape)
    return replace(load, encoder=load.encoder.cpu())


def _moved(load: Load, device: torch.device) -> Load:
    return replace(
        load, encoder=copy.deepcopy(load.encoder).to(device), pixels=load.pixels.to(device)
    )


def _attacked(load: Load, attack: PGD | APGD, views: Views | None) -> Tensor:
    text = embed_texts(load.encoder, load.captions)
    own = (load.own == torch.arange(len(load.pixels))[:, None]).to(text.device)  # (N, M)
    return attack_in_chunks(
        attack, load.encoder, load.pixels,
        lambda rows: away_from_captions(text, own[rows.to(own.device)]),
        generator=torch.Generator().manual_seed(0), views=views,
    )  # fmt: skip


def _captions(load: Load) -> list[str]:
    return WordSubstitution()(load.encoder, load.captions, load.table)


def _equal(found: list[str], expected: list[str]) -> float:
    return sum(a == b for a, b in zip(found, expected, strict=True)) / len(expected)


class _StoppedError(Exception):
    """As a kill, between two steps."""


def _stop(row: Mapping[str, float]) -> None:
    if row["step"] == 5:
        raise _StoppedError


def _trained(load: Load, device: torch.device, books: Bookkeeping) -> dict[str, Tensor]:
    """Weights after some steps of MAT, on the CPU."""
    encoder = copy.deepcopy(load.encoder).to(device)
    n = min(8, len(load.pixels))
    pairs = load.first(n)
    images = ImageTensor((pairs.pixels * 255).round().byte())
    data = ImageTextPairs(
        "bench", "train", images, tuple(pairs.captions), pairs.own, tuple(map(str, range(n)))
    )
    train(
        encoder, OneToMany.from_pairs(data), defence("mat"),
        Schedule(8, 4, 1e-3, checkpoint_every=2), seed=0,
        inner=InnerAttack(PGD(3.0, 1), WordSubstitution(1, search="exhaustive"), 3),
        candidates=dict(zip(pairs.captions, pairs.table, strict=True)), books=books,
    )  # fmt: skip
    return {name: value.cpu() for name, value in encoder.state_dict().items()}


def checks_of(load: Load, device: torch.device) -> dict[str, Callable[[], Check]]:
    """Every check by name, to be made when it is called."""
    return {
        "attacks_float64": lambda: check_attacks(load, device, torch.float64),
        "attacks_float32": lambda: check_attacks(load, device, torch.float32),
        "bf16": lambda: check_bf16(load, device),
        "resume": lambda: check_resume(load, device),
        "two_workers": check_workers,
    }
