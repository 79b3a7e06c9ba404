"""The strength-time front: what each attack leaves of recall, against the seconds it takes.

All attacks meet one model, one gallery and one budget; the conventions of Co-Attack's and SGA's
released code are among them. The model is trained for a moment on scenes, clean and then by MAT,
since of random weights there is no recall to take, and of undefended ones too little is left. Words
may be replaced by true ones alone, in the training too, or no strong attack would leave anything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.load import Load, demo_shape, true_table
from benchmarks.timing import seconds
from matlib.attacks.apgd import APGD
from matlib.attacks.ascent import ScaleViews
from matlib.attacks.gallery import Gallery, embed_images
from matlib.attacks.gallery_images import JointAscent
from matlib.attacks.multimodal import co_attack, contrastive_attack, pgd_attack, sep_attack, sga
from matlib.attacks.pgd import PGD
from matlib.attacks.scoring import embed_texts
from matlib.attacks.whole_gallery import gallery_attack, words_attack
from matlib.attacks.word_substitution import WordSubstitution
from matlib.data.pairs import OneToMany
from matlib.defences.inner_attack import InnerAttack
from matlib.defences.table import defence
from matlib.evaluation.retrieval import retrieve
from matlib.evaluation.statistics import primary_endpoint
from matlib.models.small import SmallModel, build_small_clip
from matlib.scenes.world import World
from matlib.training.loop import train
from matlib.training.schedule import Schedule

Found = tuple[Tensor | None, list[str] | None]
"""Adversarial images and captions; None for what an attack leaves alone."""


@dataclass(frozen=True)
class StrengthSize:
    """How much is measured.

    Attributes:
        n_images, captions_per_image: of the gallery.
        n_train, n_steps: pairs and optimiser steps of the model.
        eps_255, pgd_steps: budget of the image attacks.
        joint_steps: image steps of each alternation of the gallery attacker, one row each.
        shape: of the model; the demo profile's by default.
    """

    n_images: int = 100
    captions_per_image: int = 3
    n_train: int = 2000
    n_steps: int = 300
    eps_255: float = 3.0
    pgd_steps: int = 7
    joint_steps: tuple[int, ...] = (7, 20, 40)
    shape: SmallModel | None = None


def bench_strength(size: StrengthSize) -> dict[str, dict[str, float | bool]]:
    """Per attack `seconds`, `recall_left` (mean of TR@1 and IR@1, in percent) and `on_front`:
    whether no other attack is as fast and leaves less; `clean` among them."""
    load, gallery = trained_load(size)
    measured = {"clean": (0.0, recall_left(load, gallery, (None, None)))}
    for name, attack in contenders(load, gallery, size).items():
        run = _Run(attack)
        spent = seconds(run, load.encoder.device)
        measured[name] = spent, recall_left(load, gallery, run.found)
    front = front_of(measured)
    return {
        name: {"seconds": spent, "recall_left": left, "on_front": name in front}
        for name, (spent, left) in measured.items()
    }


@dataclass
class _Run:
    """An attack that keeps what it finds."""

    attack: Callable[[], Found]
    found: Found = (None, None)

    def __call__(self) -> None:
        self.found = self.attack()


def front_of(measured: Mapping[str, tuple[float, float]]) -> set[str]:
    """Those (seconds, recall left) that no other is below in one and at most equal in the other."""
    return {
        name
        for name, (spent, left) in measured.items()
        if not any(
            (a <= spent and b <= left) and (a, b) != (spent, left) for a, b in measured.values()
        )
    }


def trained_load(size: StrengthSize) -> tuple[Load, Gallery]:
    """A model of the demo's shape after a little training, clean and by MAT, and its gallery."""
    shape = size.shape or demo_shape()
    world = World(
        0, image_size=shape.image_size, n_train=size.n_train, n_val=1, n_test=size.n_images,
        captions_per_image=size.captions_per_image,
    )  # fmt: skip
    device = "cuda" if torch.cuda.is_available() else "cpu"
    encoder = build_small_clip(shape, seed=0).to(device)
    batch = min(64, size.n_train)
    data = OneToMany.from_pairs(world.train.pairs)
    train(encoder, data, defence("clean"), Schedule(size.n_steps, batch, 1e-3), seed=0)
    # defended, or all attacks but the weakest would leave nothing to tell them apart by
    words = zip(world.train.pairs.captions, true_table(world.train), strict=True)
    train(
        encoder, data, defence("mat"), Schedule(size.n_steps, batch, 5e-4), seed=0,
        inner=InnerAttack(PGD(size.eps_255, 1), WordSubstitution(1)), candidates=dict(words),
    )  # fmt: skip
    pairs = world.test.pairs
    captions, table = list(pairs.captions), true_table(world.test)
    gallery = Gallery(pairs.pixels(), captions, pairs.relevance(), pairs.image_of)
    load = Load(encoder.eval(), gallery.pixels, captions, pairs.image_of, table)
    return load, gallery


def contenders(load: Load, gallery: Gallery, size: StrengthSize) -> dict[str, Callable[[], Found]]:
    """The attacks by name, each at the same budgets of image and words."""
    encoder, table, words = load.encoder, load.table, WordSubstitution(1)
    target, image = (encoder, gallery, table), PGD(size.eps_255, size.pgd_steps)
    released = replace(image, start="positive", step_255=1.25 * size.eps_255 / size.pgd_steps)
    guided, views = replace(image, step_255=size.eps_255 / 4), ScaleViews(released=True)
    apgd = APGD(size.eps_255, 3 * size.pgd_steps)

    def drawn() -> dict[str, Any]:
        return {"generator": torch.Generator().manual_seed(0)}

    found: dict[str, Callable[[], Found]] = {
        "pgd": lambda: (pgd_attack(encoder, gallery, image, **drawn()), None),
        "bert": lambda: (None, words(encoder, gallery.captions, table)),
        "words, pairwise": lambda: (
            None, words_attack(*target, words, attacker="pairwise", **drawn())
        ),
        "words, gallery": lambda: (None, words_attack(*target, words, **drawn())),
        "sep": lambda: sep_attack(*target, image, words, **drawn()),
        "co-attack": lambda: co_attack(*target, image, words, **drawn()),
        "co-attack, released": lambda: co_attack(
            *target, released, words, captions="per_caption_last", **drawn()
        ),
        "sga": lambda: sga(*target, image, words, **drawn()),
        "sga, released": lambda: sga(*target, guided, words, views=views, **drawn()),
        "joint": lambda: contrastive_attack(*target, image, words, **drawn()),
        "joint, APGD": lambda: contrastive_attack(*target, apgd, words, **drawn()),
    }  # fmt: skip
    for n in size.joint_steps:
        cosine = JointAscent(size.eps_255, n)
        for name, how in (("", cosine), (", APGD", replace(cosine, schedule="apgd"))):
            found[f"gallery, {n} steps{name}"] = lambda how=how: gallery_attack(  # type: ignore[misc]
                *target, how, words, **drawn()
            )
    return found


def recall_left(load: Load, gallery: Gallery, found: Found) -> float:
    """Mean of TR@1 and IR@1 in percent; None for what was not attacked."""
    pixels, captions = found
    seen = gallery.pixels if pixels is None else pixels
    image = embed_images(load.encoder, seen.to(load.encoder.device))
    text = embed_texts(load.encoder, gallery.captions if captions is None else captions)
    return 100 * primary_endpoint(retrieve(image, text, gallery.relevant))


def draw_front(found: Mapping[str, Mapping[str, float | bool]], path: Path) -> None:
    """The front as a picture, narrow enough for half a page: seconds against recall left.

    Points are numbered by their seconds and named below. Those on the front are told apart by
    shape and filling, not by colour alone.
    """
    from matplotlib.figure import Figure
    from matplotlib.patheffects import withStroke
    from matplotlib.ticker import LogLocator, NullFormatter

    attacks = {name: row for name, row in found.items() if row["seconds"] > 0}
    ranked = sorted(attacks, key=lambda name: float(attacks[name]["seconds"]))
    figure = Figure(figsize=(4.5, 3.4 + 0.09 * len(ranked)), dpi=200, layout="constrained")
    axis = figure.subplots()
    front = [
        (attacks[name]["seconds"], attacks[name]["recall_left"])
        for name in ranked
        if attacks[name]["on_front"]
    ]
    axis.step(*zip(*front, strict=True), where="post", color=_FRONT, lw=1.5)
    for number, name in enumerate(ranked, 1):
        row = attacks[name]
        style = {"marker": "o", "color": _FRONT} if row["on_front"] else _BEHIND
        label = f"{number} {name}"
        axis.plot(row["seconds"], row["recall_left"], linestyle="", label=label, **style)
        # neighbours in time stand on different sides of their points
        aside, above = -4 if number % 4 > 1 else 4, 5 if number % 2 else -12
        axis.annotate(str(number), (row["seconds"], row["recall_left"]), (aside, above),
                      textcoords="offset points", ha="center", fontsize=9,
                      path_effects=[withStroke(linewidth=2.5, foreground="white")])  # fmt: skip
    figure.legend(loc="outside lower center", fontsize=9, frameon=False, ncols=2,
                  handletextpad=0.1, columnspacing=0.8, labelspacing=0.3)  # fmt: skip
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter("{x:g}")
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.set_ylim(0, 1.1 * max(row["recall_left"] for row in found.values()) + 1)
    axis.set_xlabel("seconds", fontsize=10)
    axis.set_ylabel(f"recall left (clean {found['clean']['recall_left']:.0f} %)", fontsize=10)
    axis.set_title("filled: none as fast leaves less", fontsize=10)
    figure.savefig(path)


_FRONT = "#0072B2"
_BEHIND: dict[str, Any] = {"marker": "s", "color": "#595959", "markerfacecolor": "white"}
