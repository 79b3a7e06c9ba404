"""`python -m matlib attack`: adversarial pairs of any model from a user's images and captions.

What an attack achieved: ranks of every query over all finished batches, and a summary.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from itertools import product
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from matlib.attacks.balls import to_8bit
from matlib.attacks.budgets import check_count, check_positive
from matlib.attacks.edits import Table, normalise_caption
from matlib.attacks.gallery import Gallery, embed_images
from matlib.attacks.pgd import PGD
from matlib.attacks.scoring import embed_texts
from matlib.attacks.word_substitution import WordSubstitution
from matlib.commands.allowed_words import allowed_edits, attackable, meet, words_identity
from matlib.commands.batches import MAKER, AttackedBatch, AttackFolder, check_folder, result_name
from matlib.commands.models import open_any
from matlib.commands.options import AttackOptions, ThreatOptions
from matlib.commands.user_data import check_readable, file_hashes, identity, read_user_data, sized
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
from matlib.evaluation.robustness import Attacks
from matlib.evaluation.suite import ATTACKS, Suite
from matlib.evaluation.threat import THREAT
from matlib.models.dual_encoder import as_fusion
from matlib.models.encoder import VisionLanguageModel
from matlib.models.opening import checked_device
from matlib.progress import Progress
from matlib.study.identity.makers import makes
from matlib.study.store.provenance import code_hash, named_weights

BY_EMBEDDINGS = (
    "ranks are by embeddings alone; `evaluate` has candidates read together with the query"
)


def suite_of(options: AttackOptions) -> Suite:
    """The attack in its budget.

    Raises:
        ValueError: an unknown attack, or a budget in another unit.
    """
    image = PGD(options.eps_255, options.n_steps, options.step_255)
    text = WordSubstitution(options.n_words)
    return Suite(image, text, attacks=(options.attack,), released=options.is_released)


def edits_text(options: AttackOptions) -> bool:
    return ATTACKS.choose(options.attack).moves_words


def check_threat(options: ThreatOptions, *, needs_words: bool) -> None:
    """Find what is wrong with a budget, a seed, a device, or with where words come from.

    Raises:
        ValueError: what was expected and what came.
    """
    check_positive("--eps", options.eps_255, " in 1/255 of the pixel range")
    check_count("--steps", options.n_steps, 1)
    check_count("--n-words", options.n_words, 1)
    check_count("k", options.k, 1)
    if not 0 <= options.seed < 2**31:  # every batch derives a seed of 64 bits from it
        raise ValueError(f"--seed is a whole number from 0 to 2^31 - 1; got {options.seed}")
    n_sources = len(options.sources_of_words)
    if n_sources != 1 and (n_sources or needs_words):
        raise ValueError(
            "a text attack needs one source of words: --masked-lm, --synonyms or "
            f"--candidates; got {n_sources}"
        )
    if options.device:
        checked_device(options.device)


def check_options(options: AttackOptions) -> None:
    """Find what is wrong with the options themselves.

    Raises:
        ValueError, FileNotFoundError: what was expected and what came.
    """
    suite_of(options)
    check_threat(options, needs_words=edits_text(options))
    if options.batch < 1:
        raise ValueError(f"--batch is the number of images, 1 or more; got {options.batch}")
    moves_images = ATTACKS.choose(options.attack).moves_images
    if options.format == "png" and moves_images and 0 < options.eps_255 < 1:
        raise ValueError(
            f"8-bit files cannot hold changes below 1/255, eps is {options.eps_255}/255: "
            "take --format float"
        )


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
    check_options(options)
    torch.set_flush_denormal(True)
    pairs = read_user_data(options.images, options.captions, options.split)
    if options.is_released:
        pairs = replace(pairs, captions=tuple(normalise_caption(c) or c for c in pairs.captions))
    if edits_text(options):
        pairs = replace(pairs, notes=(*pairs.notes, *meet(options, pairs.captions)))
    check_folder(options.out)
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    encoder = open_any(
        options.model, options.weights, device, profile=options.profile, rest=options.rest
    )
    ATTACKS.choose(options.attack).check_meets(encoder)
    if as_fusion(encoder):
        pairs = replace(pairs, notes=(*pairs.notes, BY_EMBEDDINGS))
    how = encoder.settings
    pairs = sized(pairs, encoder.image_size, how.image_mode, how.interpolation)
    settings = {**_settings(options, device), "trained_with": how.as_json()}
    chosen = (options.attack,)
    folder = AttackFolder(options.out, settings, options.seed, chosen, device)
    files = file_hashes(pairs)
    rows = torch.arange(len(pairs)).split(options.batch)
    contents = [identity(pairs, files, part) for part in rows]
    waiting = [r for n, r in enumerate(rows) if not folder.has_batch(n, contents[n])]
    check_readable(pairs, [row for part in waiting for row in part.tolist()])
    table: Table = [[] for _ in pairs.captions]
    if edits_text(options):
        make_table = partial(allowed_edits, options, pairs.captions, device)
        table = folder.table(pairs.captions, make_table)
    found: list[tuple[AttackedBatch, list[Any]]] = []
    with Progress(f"attack {options.attack}", len(rows)) as progress:
        for number, part in enumerate(rows):
            names = tuple(result_name(row, pairs.image_ids[row]) for row in part.tolist())
            make = partial(_attack_batch, options, number, part, encoder, pairs, table)
            found.append(folder.batch(number, contents[number], names, make))
            progress.advance(1, f"batch {number + 1}")
    about = {**settings, "data": identity(pairs, files), "code": code_hash(MAKER, chosen)}
    return write_outcomes(folder, pairs, found, about, attackable(pairs.captions, table))


ELSEWHERE = {
    "images", "captions", "split", "out", "profile", "masked_lm", "synonyms", "candidates", "k",
}  # fmt: skip
"""Options that say where something lies: what is found there counts by its content."""


def _settings(options: AttackOptions, device: str) -> dict[str, Any]:
    """What every batch depends on beside its own data and code; no path of this machine."""
    return {
        **{name: value for name, value in asdict(options).items() if name not in ELSEWHERE},
        "weights": named_weights(options.weights),
        "rest": named_weights(options.rest),
        "words": words_identity(options) if edits_text(options) else {},
        "device": torch.device(device).type,
    }


def _attack_batch(
    options: AttackOptions,
    number: int,
    rows: Tensor,
    encoder: VisionLanguageModel,
    pairs: ImageTextPairs,
    table: Table,
) -> tuple[AttackedBatch, Tensor]:
    """The attacked images with their captions, and the images as `options.format` keeps them."""
    part = pairs.subset(rows)
    columns = torch.isin(pairs.image_of, rows).nonzero().flatten().tolist()
    gallery = Gallery(part.pixels(), part.captions, part.relevance(), part.image_of)
    words, seed = {THREAT: [table[i] for i in columns]}, options.seed * 1_000_003 + number
    attacks = Attacks(encoder, gallery, words, suite_of(options), seed)
    found, captions, report = attacks.run(options.attack, THREAT)
    moved = gallery.pixels if found is None else found
    edited = list(gallery.captions) if captions is None else captions
    in_steps = to_8bit(moved, gallery.pixels, options.eps_255)
    tensors = {
        "image_clean": embed_images(encoder, gallery.pixels),
        "image_float": embed_images(encoder, moved),
        "image_8bit": embed_images(encoder, in_steps),
        "text_clean": embed_texts(encoder, part.captions),
        "text": embed_texts(encoder, edited),
    }
    kept = (in_steps * 255).round().to(torch.uint8) if options.format == "png" else moved
    counts = {
        "n_gradients": report.n_gradients,
        "n_zero": report.n_zero,
        "n_non_finite": report.n_non_finite,
        "n_images_vanished": report.n_images_vanished,
    }
    return AttackedBatch(tuple(edited), tensors, counts), kept


TOP = {f"{direction}@{k}": (direction, k) for direction, k in product(DIRECTIONS, KS)}


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
    records = _records(pairs, captions, places, outcomes, as_stored)
    folder.finish({"summary": summary, "settings": dict(settings), "pairs": records})
    return summary


def judge(found: Sequence[AttackedBatch], pairs: ImageTextPairs) -> dict[str, Outcomes]:
    """Outcomes of `clean` pairs, and of adversarial ones as `float` and as `8bit` images."""
    names = {"clean": "text_clean", "float": "text", "8bit": "text"}

    def all_of(name: str) -> Tensor:
        return torch.cat([batch.tensors[name] for batch in found])

    return {
        image: retrieve(all_of(f"image_{image}"), all_of(text), pairs.relevance())
        for image, text in names.items()
    }


def _recalls(
    outcomes: Mapping[str, Outcomes], pairs: ImageTextPairs, as_stored: str
) -> dict[str, Any]:
    relevant = pairs.relevance()
    recall = {
        name: {key: found.recall(*top) for key, top in TOP.items()}
        for name, found in outcomes.items()
    }
    recall["chance"] = {key: chance_recall(relevant, *top) for key, top in TOP.items()}
    success = {}
    for key, top in TOP.items():
        hits = outcomes["clean"].hits(*top), outcomes[as_stored].hits(*top)
        conditional = conditional_attack_success(*hits)
        success[key] = {
            # JSON has no NaN: None where no clean query was right
            "conditional": None if math.isnan(conditional) else conditional,
            "difference": difference_attack_success(*hits),
        }
    return {
        "recall": recall,
        "attack_success": success,
        "recall_gained_by_quantisation": {
            key: recall["8bit"][key] - recall["float"][key] for key in TOP
        },
    }


def _records(
    pairs: ImageTextPairs,
    captions: Sequence[str],
    places: Sequence[Any],
    outcomes: Mapping[str, Outcomes],
    as_stored: str,
) -> list[dict[str, Any]]:
    """Every image with its captions, and at which rank the first right answer stands."""
    names = {"clean": "clean", "adversarial": as_stored, "adversarial_float": "float"}
    tr, ir = (
        pd.DataFrame({name: getattr(outcomes[key], rank).numpy() for name, key in names.items()})
        for rank in ("tr_rank", "ir_rank")
    )
    own: list[list[dict[str, Any]]] = [[] for _ in pairs.image_ids]
    each = zip(
        pairs.image_of.tolist(), pairs.captions, captions, ir.to_dict("records"), strict=True
    )
    for image, original, edited, ranks in each:
        own[image].append(
            {
                "original": original,
                "adversarial": edited,
                "changed": changed_words(original, edited),
                "ir_rank": ranks,
            }
        )
    whole = zip(pairs.image_ids, places, tr.to_dict("records"), own, strict=True)
    keys = ("image", "adversarial_image", "tr_rank", "captions")
    return [dict(zip(keys, values, strict=True)) for values in whole]


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
    labels = {
        "clean": "clean",
        "float": "attacked, float images",
        "8bit": "attacked, 8-bit images",
        "chance": "chance",
    }
    table = 100 * pd.DataFrame(summary["recall"])[[*labels]].rename(columns=labels).T
    gradients = summary["gradients"]
    n_vanished = gradients["n_zero"] + gradients["n_non_finite"]
    lines = [
        table.to_string(float_format="{:.1f}".format, col_space=7),
        f"{summary['n_images']:,} images, {summary['n_captions']:,} captions; "
        f"{summary['n_changed_captions']:,} captions changed, "
        f"{summary['n_unattackable_captions']:,} have no word that may be changed, "
        f"{summary['attackable_words_per_caption']:.2f} words per caption may",
        f"{n_vanished:,} of {gradients['n_gradients']:,} gradients vanished",
        *summary["notes"],
    ]
    return "\n".join(lines)
