"""`python -m matlib evaluate --images … --captions …`: any model on one's own pairs."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch

import matlib
from matlib.attacks.edits import normalise_caption
from matlib.attacks.gallery import embed_images
from matlib.attacks.scoring import embed_texts
from matlib.commands.allowed_words import allowed_edits, meet, words_identity
from matlib.commands.attack import check_threat
from matlib.commands.models import open_any
from matlib.commands.options import EvaluateOptions
from matlib.commands.record import FORMAT, RECALLS, Record, recorded
from matlib.commands.user_data import check_readable, file_hashes, identity, read_user_data, sized
from matlib.data.pairs import ImageTextPairs
from matlib.evaluation.r_precision import precision_at_r
from matlib.evaluation.robustness import gallery_of
from matlib.evaluation.suite import ATTACKS
from matlib.evaluation.threat import ASKED, ROWS, Threat, benchmark
from matlib.files import file_hash, write_durably
from matlib.models.dual_encoder import as_fusion
from matlib.models.encoder import VisionLanguageModel
from matlib.models.opening import checked_device
from matlib.models.settings import LOCAL
from matlib.models.zoo import ZOO, ZooModel, found_in_zoo
from matlib.progress import Progress
from matlib.study.identity.makers import makes
from matlib.study.store.provenance import code_hash, named_weights, text_hash


@makes("benchmark")
def run_benchmark(options: EvaluateOptions) -> Record:
    """Judge a model on a folder of images with captions, and write the record where one is asked.

    Everything that can be checked is checked first, down to the last image.

    Raises:
        ValueError, OSError: before any long work.
    """
    check_threat(options, needs_words=True)
    torch.set_flush_denormal(True)
    found = found_in_zoo(options.zoo, options.zoo_file or ZOO) if options.zoo else None
    if options.out is not None and options.out.is_dir():
        options = replace(options, out=options.out / f"{_file_name(options)}.json")
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
    assert options.images is not None and options.captions is not None, "the form of a folder"
    pairs = read_user_data(options.images, options.captions, options.split, options.relevance)
    if options.is_released:
        pairs = replace(pairs, captions=tuple(normalise_caption(c) or c for c in pairs.captions))
    pairs = replace(pairs, notes=(*pairs.notes, *meet(options, pairs.captions)))
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if found is None:
        encoder = open_any(
            options.model, options.checkpoint, device, profile=options.profile, rest=options.rest
        )
    else:
        encoder = found.open(checked_device(device))
    how = encoder.settings
    pairs = sized(pairs, encoder.image_size, how.image_mode, how.interpolation)
    check_readable(pairs, range(len(pairs)))
    if options.relevance != "own":
        pairs = replace(pairs, notes=(*pairs.notes, precision_text(encoder, pairs)))
    threat = Threat(
        eps_255=options.eps_255, n_steps=options.n_steps, step_255=options.step_255,
        n_words=options.n_words, words=allowed_edits(options, pairs.captions, device),
        k=options.k, rerank=options.rerank, released=options.is_released,
    )  # fmt: skip
    n_rows = len(ASKED if as_fusion(encoder) else ROWS)
    with Progress(f"attack {_name(options)}", n_rows) as progress:
        table = benchmark(
            encoder, pairs, threat, seed=options.seed,
            on_attack=lambda attack: progress.advance(1, attack),
        )  # fmt: skip
    record = _record(options, found, encoder, pairs, table)
    if options.out is not None:
        text = json.dumps(record.model_dump(mode="json"), indent=1, ensure_ascii=False)
        write_durably(options.out, text + "\n")
    return record


def precision_text(encoder: VisionLanguageModel, pairs: ImageTextPairs) -> str:
    """mAP@R and R-precision without attack, of the queries that have further right answers."""
    gallery = gallery_of(pairs)
    image, text = embed_images(encoder, gallery.pixels), embed_texts(encoder, gallery.captions)
    n_own = pairs.image_of.bincount(minlength=len(pairs))
    parts = []
    for name, query, other, right, n in (
        ("images that look for captions", image, text, gallery.relevant, n_own),
        ("captions that look for images", text, image, gallery.relevant.T, 1),
    ):
        rows = right.sum(1) > n
        if bool(rows.any()):
            found = precision_at_r(query[rows.to(query.device)], other, right[rows])
            shares = [
                f"{100 * float(each.mean()):.1f}" for each in (found.map_at_r, found.r_precision)
            ]
            parts.append(f"{shares[0]} and {shares[1]} over {int(rows.sum()):,} {name}")
    return "clean mAP@R and R-precision (%): " + ("; ".join(parts) or "no further right answers")


def _name(options: EvaluateOptions) -> str:
    return options.name or options.zoo or options.model


def _file_name(options: EvaluateOptions) -> str:
    """One file for each model and set of captions."""
    assert options.captions is not None
    return re.sub(r"[^A-Za-z0-9_.+-]+", "-", f"{_name(options)}.{options.captions.stem}")


def _judged(
    options: EvaluateOptions, found: ZooModel | None, encoder: VisionLanguageModel
) -> dict[str, Any]:
    """What a record says of the model: no path of this machine."""
    said = {"name": _name(options), "trained_with": encoder.settings.as_json()}
    if found is not None:
        entry, folder = found.entry, found.model.removeprefix(LOCAL)
        weights = named_weights(found.weights or folder)
        rest = named_weights(found.rest)
        return {**said, "model": entry.model, "weights": weights, "rest": rest,
                "about": entry.about()}  # fmt: skip
    folder = options.model.removeprefix(LOCAL)
    own = Path(folder).is_dir() and not options.checkpoint
    weights = named_weights(folder if own else options.checkpoint)
    model = Path(folder).name if own else options.model
    return {**said, "model": model, "weights": weights, "rest": named_weights(options.rest)}


def _record(
    options: EvaluateOptions,
    found: ZooModel | None,
    encoder: VisionLanguageModel,
    pairs: ImageTextPairs,
    table: pd.DataFrame,
) -> Record:
    assert options.captions is not None
    files, rows = file_hashes(pairs), recorded(table)
    moved = tuple(row["attack"] for row in rows if row["attack"] in ATTACKS)
    content = {
        "format": FORMAT,
        "model": _judged(options, found, encoder),
        "data": {
            "name": pairs.name,
            "split": pairs.split,
            "n_images": len(pairs),
            "n_captions": pairs.n_captions,
            "images": text_hash(json.dumps([*zip(pairs.image_ids, files, strict=True)])),
            "captions": file_hash(options.captions),
            "identity": identity(pairs, files),
        },
        "threat": {
            "eps_255": options.eps_255,
            "n_steps": options.n_steps,
            "step_255": options.step_255,
            "n_words": options.n_words,
            "words": words_identity(options),
            "conventions": options.conventions,
            "seed": options.seed,
            "attacks": ASKED,
            "rerank": options.rerank,
        },
        "rows": rows,
        "device": encoder.device.type,
        "version": matlib.__version__,
        "code": code_hash("benchmark", moved),
        "notes": pairs.notes,
    }
    return Record.model_validate(content)


def table_text(record: Record) -> str:
    """The record for people: recalls in percent with their intervals, what was attacked, notes."""
    table = pd.DataFrame.from_dict(record.cells, orient="index", columns=list(RECALLS))
    data = record.data
    lines = [
        table.to_string(),
        f"{data.n_images:,} images, {data.n_captions:,} captions; {record.threat}",
        "recall in %, with 95 % intervals over images; mean: of TR@1 and IR@1; worst: per query "
        "the minimum over all rows",
        *record.notes,
    ]
    return "\n".join(lines)
