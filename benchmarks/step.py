"""A step of MAT against the passes that it cannot do without, in turns within one run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor

from benchmarks.load import Load
from benchmarks.timing import seconds
from matlib.attacks.edits import Edit, apply_edit
from matlib.attacks.pgd import PGD
from matlib.attacks.scoring import embed_texts
from matlib.attacks.word_substitution import WordSubstitution
from matlib.data.pairs import ImageTensor, ImageTextPairs, OneToMany
from matlib.defences.defence import contrastive_loss
from matlib.defences.inner_attack import InnerAttack
from matlib.defences.table import defence
from matlib.models.dual_encoder import frozen
from matlib.models.open_clip import OpenClipEncoder
from matlib.study.profile.profile import load_profile
from matlib.training.log import Bookkeeping
from matlib.training.loop import train
from matlib.training.schedule import Precision, Schedule

N_WARM = 2
"""Steps before the first that counts."""


@dataclass(frozen=True)
class StepSize:
    """How MAT is trained here; by default as in the demo profile.

    Attributes:
        batch: pairs of a step.
        image_steps: K, of the attack on images.
        max_edits: candidates scored per caption.
        n_steps: measured steps.
    """

    batch: int
    image_steps: int
    max_edits: int
    n_steps: int = 15
    precision: Precision = "no"

    @classmethod
    def demo(cls, n_steps: int = 15, precision: Precision = "no") -> StepSize:
        """The demo profile's."""
        profile = load_profile("demo")
        assert profile.finetune is not None and profile.train_attack.max_edits is not None
        attack = profile.train_attack
        return cls(
            profile.finetune.batch_size, attack.pgd_steps, attack.max_edits or 6, n_steps, precision
        )

    @classmethod
    def paper(cls, n_steps: int = 3) -> StepSize:
        """K of the profile flickr30k, at a batch that a CPU does in seconds.

        Captions have as many candidates as in the demo: more would only make the candidate
        passes, which are necessary, a larger part of the step.
        """
        return cls(8, load_profile("flickr30k").train_attack.pgd_steps, 6, n_steps)


def bench_step(load: Load, size: StepSize) -> dict[str, Any]:
    """Seconds of MAT's step over those of its necessary parts, and where they go.

    The parts are K forward-backward passes of the images to the pixels, one training pass of
    both towers, and the forward passes of the clean and the edited captions. A step does besides:
    it reads the batch, draws noise and edits, embeds the images that the words are attacked
    against and the captions that the pixels are attacked against, and moves the weights.

    Args:
        load: at least `size.batch` images with a caption each; the encoder is trained.
    """
    parts: list[dict[str, float]] = []
    rows: list[Mapping[str, float]] = []
    necessary = _parts(load, size)
    was_training = load.encoder.training

    def after(row: Mapping[str, float]) -> None:
        parts.append({name: seconds(call, load.encoder.device) for name, call in necessary.items()})
        rows.append(row)

    attack = InnerAttack(
        PGD(3.0, size.image_steps), WordSubstitution(1, search="exhaustive"), size.max_edits
    )
    candidates = dict(zip(load.captions, load.table, strict=True))
    schedule = Schedule(
        size.n_steps + N_WARM, size.batch, 1e-6, mixed_precision=size.precision,
        checkpoint_every=10**6,
    )  # fmt: skip
    train(
        load.encoder, _pairs(load), defence("mat"), schedule, seed=0, inner=attack,
        candidates=candidates, books=Bookkeeping(on_row=after),
    )  # fmt: skip
    load.encoder.train(was_training)
    return _summary(rows[N_WARM:], parts[N_WARM:], size)


def _summary(
    rows: list[Mapping[str, float]], parts: list[dict[str, float]], size: StepSize
) -> dict[str, Any]:
    turns = list(zip(rows, parts, strict=True))
    total = sum(row["seconds"] for row in rows)
    return {
        "mat_step_over_necessary": median(r["seconds"] / sum(p.values()) for r, p in turns),
        "mat_step_seconds": median(row["seconds"] for row in rows),
        "mat_step_necessary_seconds": {k: median(p[k] for p in parts) for k in parts[0]},
        "mat_step_text_share": sum(row["text_attack_seconds"] for row in rows) / total,
        "mat_step_image_share": sum(row["image_attack_seconds"] for row in rows) / total,
        "mat_step_batch": size.batch,
        "mat_step_image_steps": size.image_steps,
        "mat_step_edits_per_caption": size.max_edits,
    }


def _parts(load: Load, size: StepSize) -> dict[str, Callable[[], object]]:
    """The necessary passes, on a fixed batch with the first candidates of each caption."""
    encoder = load.encoder
    pixels = load.pixels[: size.batch].to(encoder.device)
    captions = load.captions[: size.batch]
    tried = [_tried(c, row[: size.max_edits]) for c, row in zip(captions, load.table, strict=False)]
    sentences = [text for own in tried for text in own]
    text = embed_texts(encoder, captions)

    def run(call: Callable[[], object]) -> object:
        half = torch.bfloat16 if size.precision == "bf16" else torch.float16
        with torch.autocast(encoder.device.type, half, enabled=size.precision != "no"):
            return call()

    return {
        "image_passes": lambda: run(lambda: _image_passes(encoder, pixels, text, size.image_steps)),
        "training_pass": lambda: run(lambda: _training_pass(encoder, pixels, captions)),
        "candidate_passes": lambda: run(lambda: embed_texts(encoder, sentences)),
    }


def _tried(caption: str, row: list[Edit]) -> list[str]:
    return [caption, *(apply_edit(caption, edit) for edit in row)]


def _image_passes(encoder: OpenClipEncoder, pixels: Tensor, text: Tensor, n: int) -> None:
    with frozen(encoder):
        for _ in range(n):
            point = pixels.clone().requires_grad_(True)
            score = (encoder.encode_image(point) * text).sum()
            torch.autograd.grad(score, point)


def _training_pass(encoder: OpenClipEncoder, pixels: Tensor, captions: list[str]) -> None:
    image, text = encoder.encode_image(pixels), encoder.encode_text(captions)
    contrastive_loss(image.float(), text.float(), encoder.logit_scale).backward()
    for parameter in encoder.parameters():
        parameter.grad = None


def _pairs(load: Load) -> OneToMany:
    images = ImageTensor((load.pixels.cpu() * 255).round().byte())
    ids = tuple(str(i) for i in range(len(images)))
    return OneToMany.from_pairs(
        ImageTextPairs("bench", "train", images, tuple(load.captions), load.own.cpu(), ids)
    )
