"""`python -m matlib attack`: adversarial pairs of any model from a user's images and captions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from matlib.attacks.candidates import Table, from_table, normalise_caption
from matlib.attacks.image import AttackReport, ScaleViews
from matlib.attacks.multimodal import Gallery, embed_images
from matlib.attacks.text import WordSubstitution, embed_texts
from matlib.commands import batches
from matlib.commands.batches import BatchFolder, quantised
from matlib.commands.compositions import CountingPGD, Task, named
from matlib.commands.models import open_model, weights_identity
from matlib.commands.outcomes import write_outcomes
from matlib.commands.user_data import identity, read_user_data, sized
from matlib.commands.words import Words, n_unattackable
from matlib.data.pairs import ImageTextPairs
from matlib.models.open_clip import OpenClipEncoder
from matlib.progress import Progress
from matlib.study.provenance import code_hash

CODE = ("matlib.attacks", "matlib.models", "matlib.commands.attack", "matlib.commands.compositions")
CANDIDATES = "candidates.json"


@dataclass(frozen=True)
class AttackOptions:
    """What is attacked, with what.

    Attributes:
        model, weights, profile, rest: see `open_model`.
        images, captions, split: see `read_user_data`.
        attack: a name of `compositions.ATTACKS`.
        out: folder for the results.
        eps_255, n_steps, step_255: L-infinity budget of the image attack.
        n_words: words that may change per caption.
        words: where edits come from; only attacks on text need it.
        batch: images attacked together, with all their captions. The contrastive attacks (pgd,
            joint) take their negatives from the batch, so for them a larger one is stronger.
        form: `png`: 8-bit files; `float`: arrays as computed, in the batches' safetensors.
        seed: of the image attack's draws.
        normalise: attack captions as `normalise_caption` writes them.
        scales: of SGA's views.
        device: `cpu`, `cuda`; empty: the GPU if there is one.
    """

    model: str
    weights: str
    images: Path
    captions: Path
    attack: str
    out: Path
    eps_255: float = 2.0
    n_steps: int = 10
    step_255: float | None = None
    n_words: int = 1
    words: Words | None = None
    batch: int = 16
    form: Literal["png", "float"] = "png"
    seed: int = 0
    split: str = "test"
    profile: str = ""
    rest: str = ""
    normalise: bool = False
    scales: tuple[float, ...] = ScaleViews().scales
    device: str = ""

    def image_attack(self) -> CountingPGD:
        return CountingPGD(self.eps_255, self.n_steps, self.step_255)

    def check(self) -> None:
        """Find what is wrong with the options themselves.

        Raises:
            ValueError, FileNotFoundError: what was expected and what came.
        """
        edits_text = named(self.attack).edits_text
        self.image_attack()
        WordSubstitution(self.n_words)
        if self.batch < 1:
            raise ValueError(f"--batch is the number of images, 1 or more; got {self.batch}")
        if self.form == "png" and named(self.attack).moves_images and 0 < self.eps_255 < 1:
            raise ValueError(
                f"8-bit files cannot hold changes below 1/255, eps is {self.eps_255}/255: "
                "take --format float"
            )
        if edits_text:
            (self.words or Words()).check()  # `Words()` says what is missing


def run_attack(options: AttackOptions) -> dict[str, Any]:
    """Attack every batch that is not finished yet, then judge all pairs together.

    Returns:
        the summary that `pairs.json` begins with.

    Raises:
        ValueError, FileNotFoundError: before any long work.
    """
    options.check()
    torch.set_flush_denormal(True)
    pairs = read_user_data(options.images, options.captions, options.split)
    if options.normalise:
        pairs = replace(pairs, captions=tuple(map(normalise_caption, pairs.captions)))
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    encoder = open_model(
        options.model, options.weights, device, profile=options.profile, rest=options.rest
    )
    pairs = sized(pairs, encoder.image_size)
    settings = _settings(options, pairs, device)
    folder = BatchFolder(options.out, settings)
    table = _table(options, folder, pairs, device)
    rows = torch.arange(len(pairs)).split(options.batch)
    with Progress(f"attack {options.attack}", len(rows)) as progress:
        for number, part in enumerate(rows):
            if folder.load(number) is None:
                _attack_batch(options, folder, number, part, encoder, pairs, table)
            progress.advance(1, f"batch {number + 1}")
    return write_outcomes(folder, pairs, len(rows), settings, n_unattackable(pairs.captions, table))


def _settings(options: AttackOptions, pairs: ImageTextPairs, device: str) -> dict[str, Any]:
    """Everything the result depends on, without a path of this machine."""
    words = options.words if named(options.attack).edits_text else None
    return {
        "model": options.model,
        "weights": weights_identity(options.weights),
        "rest": weights_identity(options.rest) if options.rest else "",
        "attack": options.attack,
        "eps_255": options.eps_255,
        "n_steps": options.n_steps,
        "step_255": round(options.image_attack().step * 255, 9),
        "n_words": options.n_words,
        "words": words.identity() if words is not None else {},
        "scales": list(options.scales),
        "batch": options.batch,
        "format": options.form,
        "seed": options.seed,
        "normalise": options.normalise,
        "data": identity(pairs),
        "device": torch.device(device).type,
        "code": code_hash(CODE),
    }


def _table(
    options: AttackOptions, folder: BatchFolder, pairs: ImageTextPairs, device: str
) -> Table:
    """The allowed edits, made once per folder; none where no text is attacked."""
    if not named(options.attack).edits_text or options.words is None:
        return [[] for _ in pairs.captions]
    kept = folder.out / CANDIDATES
    found = json.loads(kept.read_text()) if kept.is_file() else {}
    if found.get("hash") == folder.hash:
        return from_table(pairs.captions, found["table"])
    table = options.words.table(pairs.captions, device)
    batches.write_json(kept, {"hash": folder.hash, "table": table}, indent=None)
    return table


def _attack_batch(
    options: AttackOptions,
    folder: BatchFolder,
    number: int,
    rows: Tensor,
    encoder: OpenClipEncoder,
    pairs: ImageTextPairs,
    table: Table,
) -> None:
    part = pairs.subset(rows)
    columns = torch.isin(pairs.image_of, rows).nonzero().flatten().tolist()
    gallery = Gallery(part.pixels(), part.captions, part.relevance(), part.image_of)
    image = options.image_attack()
    moved, edited = named(options.attack).run(
        Task(
            encoder,
            gallery,
            [table[i] for i in columns],
            image,
            WordSubstitution(options.n_words),
            ScaleViews(options.scales),
            torch.Generator().manual_seed(options.seed * 1_000_003 + number),
        )
    )
    in_bytes = quantised(moved, part.images.load(range(len(part))), options.eps_255)
    tensors = {
        "image_clean": embed_images(encoder, gallery.pixels),
        "image_float": embed_images(encoder, moved),
        "image_8bit": embed_images(encoder, in_bytes.float() / 255),
        "text_clean": embed_texts(encoder, part.captions),
        "text": embed_texts(encoder, edited),
    }
    names: tuple[str, ...] = ()
    if options.form == "png":
        stems = [Path(name).stem for name in part.image_ids]
        names = tuple(f"images/{i:06d}_{s}.png" for i, s in zip(rows.tolist(), stems, strict=True))
        folder.save_images(names, in_bytes)
    else:
        tensors["pixels"] = moved
    folder.save(number, batches.Batch(tuple(edited), tensors, _counts(image.counted), names))


def _counts(report: AttackReport) -> Mapping[str, int]:
    return {
        "n_gradients": report.n_gradients,
        "n_zero": report.n_zero,
        "n_non_finite": report.n_non_finite,
        "n_images_vanished": report.n_images_vanished,
    }
