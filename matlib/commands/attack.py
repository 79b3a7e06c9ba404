"""`python -m matlib attack`: adversarial pairs of any model from a user's images and captions.

What an attack achieved: ranks of every query over all finished batches, and a summary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from matlib.attacks.ascent import AttackReport, ScaleViews
from matlib.attacks.attackable import check_count, check_positive
from matlib.attacks.balls import to_8bit
from matlib.attacks.edits import Table, normalise_caption
from matlib.attacks.gallery import Gallery, embed_images
from matlib.attacks.pgd import PGD
from matlib.attacks.scoring import embed_texts
from matlib.attacks.words import WordSubstitution
from matlib.commands.batches import MAKER, AttackedBatch, AttackFolder, check_folder, result_name
from matlib.commands.models import open_model, weights_identity
from matlib.commands.user_data import check_readable, file_hashes, identity, read_user_data, sized
from matlib.commands.words import Words, attackable
from matlib.data.pairs import ImageTextPairs
from matlib.evaluation.retrieval import (
    DIRECTIONS,
    KS,
    Outcomes,
    chance_recall,
    conditional_attack_success,
    difference_attack_success,
    retrieve,
)
from matlib.evaluation.suite import ATTACKS, MOVES, ON_REQUEST, TEXT_ATTACKS, WORDS_ALONE, Suite
from matlib.models.open_clip import OpenClipEncoder
from matlib.models.opening import checked_device
from matlib.progress import Progress
from matlib.study.identity.makers import makes
from matlib.study.store.provenance import code_hash

NAMES = tuple(name for name in (*ATTACKS, *ON_REQUEST) if name != "clean")


@dataclass(frozen=True)
class AttackOptions:
    """What is attacked, with what.

    Attributes:
        model, weights, profile, rest: see `open_model`.
        images, captions, split: see `read_user_data`.
        attack: one of `NAMES`, the rows of a suite.
        out: folder for the results.
        eps_255, n_steps, step_255: L-infinity budget of the image attack.
        n_words: words that may change per caption.
        words: where edits come from; only attacks on text need it.
        batch: images attacked together, with all their captions. The contrastive attacks (pgd,
            sep, joint, apgd) take their negatives from the batch, so a larger one is stronger;
            the others do not depend on it but for the noise that they draw.
        form: `png`: 8-bit files; `float`: arrays as computed, in the batches' safetensors.
        seed: of the image attack's draws.
        conventions: `released`: of the field's code (see `Suite`, `normalise_caption`, and
            `MaskedLM.candidates`), to compare with published numbers.
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
    conventions: Literal["matlib", "released"] = "matlib"
    scales: tuple[float, ...] = ScaleViews().scales
    device: str = ""

    @property
    def edits_text(self) -> bool:
        return self.attack in (*TEXT_ATTACKS, *ON_REQUEST)

    @property
    def is_released(self) -> bool:
        return self.conventions == "released"

    def suite(self) -> Suite:
        """The attacks in this budget.

        Raises:
            ValueError: an unknown attack, or a budget in another unit.
        """
        if self.attack not in NAMES:
            raise ValueError(f"unknown attack {self.attack!r}; known: {', '.join(NAMES)}")
        image = PGD(self.eps_255, self.n_steps, self.step_255)
        views, text = ScaleViews(self.scales), WordSubstitution(self.n_words)
        return Suite(image, text, views, (self.attack,), released=self.is_released)

    def check(self) -> None:
        """Find what is wrong with the options themselves.

        Raises:
            ValueError, FileNotFoundError: what was expected and what came.
        """
        self.suite()
        check_positive("--eps", self.eps_255, " in 1/255 of the pixel range")
        check_count("--steps", self.n_steps, 1)
        check_count("--n-words", self.n_words, 1)
        if not 0 <= self.seed < 2**31:  # every batch derives a seed of 64 bits from it
            raise ValueError(f"--seed is a whole number from 0 to 2^31 - 1; got {self.seed}")
        if self.device:
            checked_device(self.device)
        if self.batch < 1:
            raise ValueError(f"--batch is the number of images, 1 or more; got {self.batch}")
        if self.form == "png" and self.attack not in WORDS_ALONE and 0 < self.eps_255 < 1:
            raise ValueError(
                f"8-bit files cannot hold changes below 1/255, eps is {self.eps_255}/255: "
                "take --format float"
            )
        if self.edits_text:
            (self.words or Words()).check()  # `Words()` says what is missing


@makes("attack")
def run_attack(options: AttackOptions) -> dict[str, Any]:
    """Attack every batch that is not finished yet, then judge all pairs together.

    Everything that can be checked is checked first, down to the last image. A batch is finished
    for its own images and captions: where one image was repaired, the others are not made again.

    Returns:
        the summary that `pairs.json` begins with.

    Raises:
        ValueError, OSError: before any long work.
    """
    options.check()
    torch.set_flush_denormal(True)
    pairs = read_user_data(options.images, options.captions, options.split)
    if options.is_released:
        pairs = replace(pairs, captions=tuple(normalise_caption(c) or c for c in pairs.captions))
    if options.edits_text and options.words is not None:
        notes = options.words.meet(pairs.captions, released=options.is_released)
        pairs = replace(pairs, notes=(*pairs.notes, *notes))
    check_folder(options.out)
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    encoder = open_model(
        options.model, options.weights, device, profile=options.profile, rest=options.rest
    )
    how = encoder.settings
    pairs = sized(pairs, encoder.image_size, how.image_mode, how.interpolation)
    settings = {**_settings(options, device), "trained_with": how.as_json()}
    chosen = tuple({options.attack} & MOVES.keys())
    folder = AttackFolder(options.out, settings, options.seed, chosen, device)
    files = file_hashes(pairs)
    rows = torch.arange(len(pairs)).split(options.batch)
    contents = [identity(pairs, files, part) for part in rows]
    waiting = [r for n, r in enumerate(rows) if not folder.has_batch(n, contents[n])]
    check_readable(pairs, [row for part in waiting for row in part.tolist()])
    table = _table(options, folder, pairs, device)
    found: list[tuple[AttackedBatch, list[Any]]] = []
    with Progress(f"attack {options.attack}", len(rows)) as progress:
        for number, part in enumerate(rows):
            names = tuple(result_name(row, pairs.image_ids[row]) for row in part.tolist())
            make = partial(_attack_batch, options, number, part, encoder, pairs, table)
            found.append(folder.batch(number, contents[number], names, make))
            progress.advance(1, f"batch {number + 1}")
    about = {**settings, "data": identity(pairs, files), "code": code_hash(MAKER, chosen)}
    return write_outcomes(folder, pairs, found, about, attackable(pairs.captions, table))


def _settings(options: AttackOptions, device: str) -> dict[str, Any]:
    """What every batch depends on beside its own data and code; no path of this machine."""
    words = options.words if options.edits_text else None
    return {
        "model": options.model,
        "weights": weights_identity(options.weights),
        "rest": weights_identity(options.rest) if options.rest else "",
        "attack": options.attack,
        "eps_255": options.eps_255,
        "n_steps": options.n_steps,
        "step_255": options.step_255,
        "n_words": options.n_words,
        "words": words.identity() if words is not None else {},
        "scales": list(options.scales),
        "batch": options.batch,
        "format": options.form,
        "seed": options.seed,
        "conventions": options.conventions,
        "device": torch.device(device).type,
    }


def _table(
    options: AttackOptions, folder: AttackFolder, pairs: ImageTextPairs, device: str
) -> Table:
    """The allowed edits, made once per folder; none where no text is attacked."""
    if not options.edits_text or options.words is None:
        return [[] for _ in pairs.captions]
    make = partial(options.words.table, pairs.captions, device, released=options.is_released)
    return folder.table(pairs.captions, make)


def _attack_batch(
    options: AttackOptions,
    number: int,
    rows: Tensor,
    encoder: OpenClipEncoder,
    pairs: ImageTextPairs,
    table: Table,
) -> tuple[AttackedBatch, Tensor]:
    """The attacked images with their captions, and the images as `options.form` keeps them."""
    part = pairs.subset(rows)
    columns = torch.isin(pairs.image_of, rows).nonzero().flatten().tolist()
    gallery = Gallery(part.pixels(), part.captions, part.relevance(), part.image_of)
    report, seed = AttackReport(), options.seed * 1_000_003 + number
    target = encoder, gallery, [table[i] for i in columns]
    moved, edited = _moved(options.suite(), options.attack, *target, seed, report)
    in_steps = to_8bit(moved, gallery.pixels, options.eps_255)
    tensors = {
        "image_clean": embed_images(encoder, gallery.pixels),
        "image_float": embed_images(encoder, moved),
        "image_8bit": embed_images(encoder, in_steps),
        "text_clean": embed_texts(encoder, part.captions),
        "text": embed_texts(encoder, edited),
    }
    kept = (in_steps * 255).round().to(torch.uint8) if options.form == "png" else moved
    return AttackedBatch(tuple(edited), tensors, _counts(report)), kept


def _moved(
    suite: Suite,
    attack: str,
    encoder: OpenClipEncoder,
    gallery: Gallery,
    table: Table,
    seed: int,
    report: AttackReport,
) -> tuple[Tensor, list[str]]:
    """Adversarial images and captions; what the attack leaves alone as it was."""
    if attack not in ("pgd", "bert", "sep"):
        return suite.move_both(attack, encoder, gallery, table, suite.text, seed, report)
    pixels, captions = gallery.pixels, list(gallery.captions)
    if attack != "bert":
        pixels = suite.move_images(encoder, gallery, seed, report)
    if attack != "pgd":
        captions = suite.text(encoder, captions, table)
    return pixels, captions


def _counts(report: AttackReport) -> Mapping[str, int]:
    return {
        "n_gradients": report.n_gradients,
        "n_zero": report.n_zero,
        "n_non_finite": report.n_non_finite,
        "n_images_vanished": report.n_images_vanished,
    }


def write_outcomes(
    folder: AttackFolder,
    pairs: ImageTextPairs,
    made: Sequence[tuple[AttackedBatch, Sequence[Any]]],
    settings: Mapping[str, Any],
    words: Mapping[str, Any],
) -> dict[str, Any]:
    """Judge all pairs from the finished batches and write `pairs.json`.

    All adversarial images stand against all adversarial captions, as in the literature.

    Args:
        made: every batch, with the places of its adversarial images.
        words: of the summary, how much of the captions the attack may change (`attackable`);
            0 where no text is attacked.

    Returns:
        the summary.
    """
    found, places = [batch for batch, _ in made], [place for _, own in made for place in own]
    outcomes = judge(found, pairs)
    captions = [caption for batch in found for caption in batch.captions]
    as_stored = "8bit" if settings["format"] == "png" else "float"
    summary = {
        "n_images": len(pairs),
        "n_captions": pairs.n_captions,
        "stored_as": as_stored,
        **(words if settings["words"] else dict.fromkeys(words, 0)),
        "n_changed_captions": sum(a != b for a, b in zip(pairs.captions, captions, strict=True)),
        "gradients": {key: sum(b.counts[key] for b in found) for key in found[0].counts},
        **_recalls(outcomes, pairs, as_stored),
        "notes": list(pairs.notes),
    }
    content = {
        "summary": summary,
        "settings": dict(settings),
        "pairs": _records(pairs, captions, places, outcomes, as_stored),
    }
    folder.finish(content)
    return summary


def judge(found: Sequence[AttackedBatch], pairs: ImageTextPairs) -> dict[str, Outcomes]:
    """Outcomes of `clean` pairs, and of adversarial ones as `float` and as `8bit` images."""

    def all_of(name: str) -> torch.Tensor:
        return torch.cat([batch.tensors[name] for batch in found])

    relevant, text = pairs.relevance(), all_of("text")
    return {
        "clean": retrieve(all_of("image_clean"), all_of("text_clean"), relevant),
        "float": retrieve(all_of("image_float"), text, relevant),
        "8bit": retrieve(all_of("image_8bit"), text, relevant),
    }


def _recalls(
    outcomes: Mapping[str, Outcomes], pairs: ImageTextPairs, as_stored: str
) -> dict[str, Any]:
    clean, attacked, relevant = outcomes["clean"], outcomes[as_stored], pairs.relevance()
    recall = {
        name: {f"{d}@{k}": found.recall(d, k) for d, k in product(DIRECTIONS, KS)}
        for name, found in outcomes.items()
    }
    success = {
        f"{d}@{k}": {
            "conditional": _or_none(
                conditional_attack_success(clean.hits(d, k), attacked.hits(d, k))
            ),
            "difference": difference_attack_success(clean.hits(d, k), attacked.hits(d, k)),
        }
        for d, k in product(DIRECTIONS, KS)
    }
    gained = {key: recall["8bit"][key] - value for key, value in recall["float"].items()}
    chance = {f"{d}@{k}": chance_recall(relevant, d, k) for d, k in product(DIRECTIONS, KS)}
    return {
        "recall": {**recall, "chance": chance},
        "attack_success": success,
        "recall_gained_by_quantisation": gained,
    }


def _or_none(value: float) -> float | None:
    """JSON has no NaN: None where no clean query was right."""
    return None if value != value else value


def _records(
    pairs: ImageTextPairs,
    captions: Sequence[str],
    places: Sequence[Any],
    outcomes: Mapping[str, Outcomes],
    as_stored: str,
) -> list[dict[str, Any]]:
    names = {"clean": "clean", "adversarial": as_stored, "adversarial_float": "float"}
    tr = {name: outcomes[key].tr_rank.tolist() for name, key in names.items()}
    ir = {name: outcomes[key].ir_rank.tolist() for name, key in names.items()}
    records: list[dict[str, Any]] = [
        {
            "image": image_id,
            "adversarial_image": places[i],
            "tr_rank": {name: ranks[i] for name, ranks in tr.items()},
            "captions": [],
        }
        for i, image_id in enumerate(pairs.image_ids)
    ]
    for m, (image, edited) in enumerate(zip(pairs.image_of.tolist(), captions, strict=True)):
        records[image]["captions"].append(
            {
                "original": pairs.captions[m],
                "adversarial": edited,
                "changed": changed_words(pairs.captions[m], edited),
                "ir_rank": {name: ranks[m] for name, ranks in ir.items()},
            }
        )
    return records


def changed_words(before: str, after: str) -> list[dict[str, Any]]:
    """Position, word before and word after of every changed word."""
    both = zip(before.split(" "), after.split(" "), strict=True)
    return [
        {"position": i, "before": old, "after": new}
        for i, (old, new) in enumerate(both)
        if old != new
    ]


def summary_text(summary: Mapping[str, Any]) -> str:
    """The summary as a table for people; recalls in percent."""
    recall = summary["recall"]
    keys = [f"{d}@{k}" for d in DIRECTIONS for k in KS]
    labels = {
        "clean": "clean",
        "float": "attacked, float images",
        "8bit": "attacked, 8-bit images",
        "chance": "chance",
    }
    lines = [" " * 24 + "".join(f"{key:>8}" for key in keys)]
    for name, label in labels.items():
        lines.append(f"{label:<24}" + "".join(f"{100 * recall[name][key]:8.1f}" for key in keys))
    gradients = summary["gradients"]
    n_vanished = gradients["n_zero"] + gradients["n_non_finite"]
    lines += [
        f"{summary['n_images']:,} images, {summary['n_captions']:,} captions; "
        f"{summary['n_changed_captions']:,} captions changed, "
        f"{summary['n_unattackable_captions']:,} have no word that may be changed, "
        f"{summary['attackable_words_per_caption']:.2f} words per caption may",
        f"{n_vanished:,} of {gradients['n_gradients']:,} gradients vanished",
        *summary["notes"],
    ]
    return "\n".join(lines)
