"""The pairs that a row trains on: its technique's variants, filtered, as many as asked for.

Pairs that a generating model adds: made once, stored as captions or images, inspectable.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from inspect import signature
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors.torch import load_file, save_file

from matlib.analysis.diversity import vendi_score
from matlib.analysis.embeddings import embed_variants
from matlib.augmentations.diffusion import (
    GUIDANCE,
    Diffusion,
    drawn_by_diffusion,
    restyled_by_diffusion,
)
from matlib.augmentations.filtering import keep_aligned, keep_diverse, thin_to_vendi
from matlib.augmentations.generators import (
    TRIES,
    BackTranslator,
    Captioner,
    InstructRewriter,
    PretrainedCaptioner,
    Translator,
    Writer,
    captions_by,
    write_variants,
)
from matlib.augmentations.scenes_rewriter import rewrite_scene_captions
from matlib.augmentations.table import TECHNIQUES, Data
from matlib.augmentations.variants import with_captions, with_images
from matlib.choices import Choices
from matlib.data.pairs import ImageTextPairs, OneToMany
from matlib.data.wordnet import wordnet_identity
from matlib.models.captioner import CaptionerConfig, SmallCaptioner, train_captioner
from matlib.progress import Progress
from matlib.study.context import Context, Node
from matlib.study.identity.makers import makes
from matlib.study.made.base import base, masked_lm, open_base, open_masked_lm
from matlib.study.profile.rows import Run
from matlib.study.recipes import filters_of, n_variants_of
from matlib.study.sources.karpathy import KarpathySource
from matlib.study.sources.scenes import ScenesSource
from matlib.study.sources.source import draw, strength_of
from matlib.study.store.store import Artefact

KEPT_FILE = "kept.json"


def about_pairs(study: Context, run: Run) -> dict[str, Any]:
    """The row's own options of its pairs; empty where they are the profile's."""
    about = {k: v for k, v in run.options.items() if k != "n_variants"}
    if run.dials is not None:
        about["dials"] = run.dials.model_dump()
    if run.augmentation == "eda" and study.profile.dataset.name != "scenes":
        about["wordnet"] = wordnet_identity()
    return about


def choices_of(study: Context, run: Run) -> tuple[str, ...]:
    """The entries of tables of choices that make a row's pairs.

    What a generating model adds is an input, whose own hash holds its technique.
    """
    is_stored = generated(study, run, 0) is not None
    return filters_of(run) if is_stored else (run.augmentation, *filters_of(run))


def variants(
    study: Context, run: Run, seed: int = 0, source: ScenesSource | KarpathySource | None = None
) -> OneToMany:
    """The training pairs of a row.

    Order: technique, first `n_train` pairs, alignment, diversity, Vendi score. What filters
    keep is noted in an artefact of its own (`kept`).

    Args:
        source: the same data with fewer training images, where few variants are wanted.

    Raises:
        ValueError: a technique that these data do not allow, or a filter that keeps nothing.
    """
    source = source or study.source
    found = _unfiltered(study, source, run, seed)
    if filters_of(run):
        found, shares = _filtered(study, found, run, seed)
        study.get(kept(study, source, run, seed, shares))
    return replace(found, technique=run.technique)


def _unfiltered(
    study: Context, source: ScenesSource | KarpathySource, run: Run, seed: int
) -> OneToMany:
    stored = generated(study, run, seed)
    if stored is not None:
        found = study.get(stored)
    else:
        found = source.variants(run, n_variants_of(study.profile, run), seed)
    return found if run.n_train is None else first_pairs(found, run.n_train)


def _aligned(study: Context, found: OneToMany, run: Run, seed: int) -> OneToMany:
    assert run.keep_aligned is not None
    return keep_aligned(found, embed_variants(open_base(study), found), run.keep_aligned)


def _diverse(study: Context, found: OneToMany, run: Run, seed: int) -> OneToMany:
    assert run.keep_diverse is not None
    return keep_diverse(found, embed_variants(open_base(study), found), run.keep_diverse)


def _thinned(study: Context, found: OneToMany, run: Run, seed: int) -> OneToMany:
    assert run.vendi is not None
    embedded, generator = embed_variants(open_base(study), found), draw(seed, "vendi")
    return thin_to_vendi(found, embedded, run.vendi, generator, vendi_score)


FILTER_BY: Choices[Callable[[Context, OneToMany, Run, int], OneToMany]] = Choices({
    "keep_aligned": _aligned, "keep_diverse": _diverse, "vendi": _thinned,
}, what="filter")  # fmt: skip


def _filtered(
    study: Context, found: OneToMany, run: Run, seed: int
) -> tuple[OneToMany, dict[str, float]]:
    """What the row's filters leave, and the share of different added variants after each."""
    n_added, shares = max(1, n_different(found)), {}
    for name in filters_of(run):
        found = FILTER_BY.choose(name)(study, found, run, seed)
        shares[name] = n_different(found) / n_added
    return found, shares


def n_different(variants: OneToMany) -> int:
    """Added captions and images that are neither the original nor a repeat of another caption."""
    captions = sum(len({*own[1:]} - {own[0]}) for own in variants.captions)
    if variants.images.shape[1] == 1:
        return captions
    images = variants.all_images()
    return captions + sum(int((own[1:] != own[:1]).flatten(1).any(1).sum()) for own in images)


@makes("filtered")
def kept(
    study: Context,
    source: ScenesSource | KarpathySource,
    run: Run,
    seed: int,
    shares: dict[str, float] | None = None,
) -> Node[dict[str, float]]:
    """The shares of added variants that a row's filters keep, one after another.

    Args:
        shares: where they have just been found.
    """

    def make(folder: Path) -> dict[str, Any]:
        own = shares or _filtered(study, _unfiltered(study, source, run, seed), run, seed)[1]
        (folder / KEPT_FILE).write_text(json.dumps(own), encoding="utf-8")
        return own

    config = {
        "augmentation": run.augmentation,
        "n_variants": n_variants_of(study.profile, run),
        "options": run.options,
    }
    return study.node(
        "filtered", run.technique, seed, config,
        {"base": base(study), "pairs": generated(study, run, seed)}, make,
        lambda artefact: dict(artefact.notes),
        chosen=choices_of(study, run), data=source.identity(),
    )  # fmt: skip


def pairs_notes(study: Context) -> pd.DataFrame:
    """What generators and filters noted of the pairs of the first seed, where they worked here.

    Returns:
        one row for each: `pairs` (the technique), then the notes; shares of filters are of the
        added variants that are different. Empty where nothing was generated.
    """
    rows: dict[str, dict[str, Any]] = {}
    profile = study.profile
    seed = profile.seeds_of_techniques[0]
    for run in (*profile.runs, *profile.techniques, *profile.sweeps):
        unfiltered = {"n_variants": run.n_variants, "strength": run.strength}
        own = Run(**{**run.model_dump(include={"defence", "augmentation"}), **unfiltered})
        wanted: list[tuple[str, Node[Any] | None]] = [(own.technique, generated(study, run, seed))]
        if filters_of(run):
            wanted.append((run.technique, kept(study, study.source, run, seed)))
        for name, node in wanted:
            if node is not None and (found := study.find(node)) is not None:
                rows[node.hash] = {"pairs": name, **found.notes}
    return pd.DataFrame(list(rows.values()), dtype=object)


def first_pairs(variants: OneToMany, n: int) -> OneToMany:
    """The first `n` pairs with their variants; all where there are fewer."""
    if n >= len(variants):
        return variants
    images = variants.all_images()[:n]
    return replace(variants, captions=variants.captions[:n], images=images, made_from=None)


CAPTIONS, IMAGES = "captions.json", "images.safetensors"

Made = tuple[OneToMany, dict[str, Any]]
"""The pairs with what was added, and notes of how."""


@makes("pairs")
def generated(study: Context, run: Run, seed: int) -> Node[OneToMany] | None:
    """The training pairs with what a generating model adds; None for techniques without one.

    The same for all rows that differ only in what they keep of it.

    Raises:
        FileNotFoundError: a pretrained generator is neither here nor on a hub.
        ValueError: the profile names no generator for this technique.
    """
    name, named = run.augmentation, study.identified.generators
    technique, data = TECHNIQUES[name], study.profile.dataset.data
    if not technique.needs_model(data):
        return None

    def make(folder: Path) -> dict[str, Any]:
        pairs, generator = study.source.pairs("train"), draw(seed, name)
        n = n_variants_of(study.profile, run) - 1
        made, notes = BY_MODEL.choose(technique.model)(study, run, pairs, n, generator)
        if made.images.shape[1] > 1:
            added = made.all_images()[:, 1:].contiguous()
            save_file({"images": added}, str(folder / IMAGES))
        else:
            added_captions = [own[1:] for own in made.captions]
            text = json.dumps(added_captions, ensure_ascii=False)
            (folder / CAPTIONS).write_text(text, encoding="utf-8")
        return notes

    def load(artefact: Artefact) -> OneToMany:
        pairs = study.source.pairs("train")
        if IMAGES in artefact.provenance["outputs"]:
            return with_images(pairs, load_file(str(artefact.file(IMAGES)))["images"], name)
        captions = json.loads(artefact.file(CAPTIONS).read_text(encoding="utf-8"))
        return with_captions(pairs, captions, name)

    config = {
        "technique": name,
        "n_variants": n_variants_of(study.profile, run),
        "strength": run.strength,
        "generator": getattr(named, technique.model),
        "top_p": named.top_p,
    }
    inputs: dict[str, Node[Any] | None] = {}
    if technique.model == "captioner":
        inputs["captioner"] = captioner(study)
    if technique.model == "rewriter" and data == "scenes":
        inputs["masked_lm"] = masked_lm(study)
    chosen = (name, technique.model)
    return study.node("pairs", name, seed, config, inputs, make, load, chosen=chosen)


CAPTIONER_WORDS: dict[Data, int] = {"scenes": CaptionerConfig.vocabulary, "disk": 3000}
"""How many words the study's own captioner may use, the most frequent of its pairs'."""


@makes("captioner")
def captioner(study: Context) -> Node[SmallCaptioner] | None:
    """The study's own captioner; None where a pretrained one is named."""
    named = study.profile.generators
    if named.captioner:
        return None
    words = CAPTIONER_WORDS[study.profile.dataset.data]
    config = CaptionerConfig(n_steps=named.captioner_steps, vocabulary=words)

    def make(folder: Path) -> dict[str, Any]:
        losses: list[float] = []
        with Progress("train captioner", config.n_steps) as progress:

            def on_step(_: int, loss: float) -> None:
                losses.append(loss)
                progress.advance(1, f"loss {loss:.2f}")

            train_captioner(study.source.base(), config, 0, on_step).save(folder)
        return {"last_loss": sum(losses[-20:]) / len(losses[-20:])}

    about = {"n_steps": config.n_steps}
    return study.node("captioner", "small", 0, about, {}, make, _captioner_of)


def _captioner_of(artefact: Artefact) -> SmallCaptioner:
    return SmallCaptioner.load(artefact.path)


def _named(study: Context, what: str, name: str) -> str:
    if not name:
        raise ValueError(
            f"profile {study.profile.name} names no model: give generators.{what} a hub's name "
            "or a local folder"
        )
    return name


def open_captioner(study: Context) -> Captioner:
    """The study's captioner, or the pretrained one that the profile names."""
    own, named = captioner(study), study.profile.generators
    if own is not None:
        return study.get(own)
    return PretrainedCaptioner.load(
        named.captioner, study.device, top_p=named.top_p, batch_size=named.batch_size
    )


def captioned(
    study: Context, run: Run, pairs: ImageTextPairs, n: int, generator: torch.Generator
) -> Made:
    """Captions by a captioner."""
    writer, strength = open_captioner(study), strength_of(run)
    ask = captions_by(writer, pairs, temperature=strength)
    how = {"temperature": strength, **_sampling(writer)}
    return _written(ask, how, run, pairs, n, generator)


def rewritten(
    study: Context, run: Run, pairs: ImageTextPairs, n: int, generator: torch.Generator
) -> Made:
    """Captions by a language model from the captions that are there."""
    named, strength = study.profile.generators, strength_of(run)
    if isinstance(study.source, ScenesSource) and not named.rewriter:
        made = rewrite_scene_captions(
            pairs, n, generator, open_masked_lm(study), temperature=strength
        )
        return made, {"temperature": strength, **_as_they_came(made)}
    model = InstructRewriter.load(
        _named(study, "rewriter", named.rewriter), study.device,
        top_p=named.top_p, batch_size=named.batch_size,
    )  # fmt: skip
    how = {"prompt": model.prompt, "temperature": strength, **_sampling(model)}
    ask = model.writer(pairs.captions, temperature=strength)
    return _written(ask, how, run, pairs, n, generator)


def translated(
    study: Context, run: Run, pairs: ImageTextPairs, n: int, generator: torch.Generator
) -> Made:
    """Captions there and back between two languages."""
    named = study.profile.generators
    there, back = named.translators or (_named(study, "translators", ""), "")
    both = BackTranslator(
        Translator.load(there, study.device), Translator.load(back, study.device),
        named.top_p, named.batch_size,
    )  # fmt: skip
    ask = both.writer(pairs.captions)
    return _written(ask, _sampling(both), run, pairs, n, generator)


def diffused(
    study: Context, run: Run, pairs: ImageTextPairs, n: int, generator: torch.Generator
) -> Made:
    """Images by a diffusion model from the captions."""
    model, how = _diffusion(study, "text_to_image", study.profile.generators.text_to_image)
    return drawn_by_diffusion(pairs, n, generator, model), how


def redrawn(
    study: Context, run: Run, pairs: ImageTextPairs, n: int, generator: torch.Generator
) -> Made:
    """Images by a diffusion model from the images."""
    model, how = _diffusion(study, "image_to_image", study.profile.generators.image_to_image)
    strength = strength_of(run) / 2  # half of the way at the usual strength
    made = restyled_by_diffusion(pairs, n, generator, model, strength=strength)
    return made, {**how, "diffusion_strength": strength}


def _diffusion(study: Context, what: str, name: str) -> tuple[Diffusion, dict[str, Any]]:
    model = Diffusion.load(_named(study, what, name), what, study.device)
    return model, {"diffusion_steps": model.n_steps, "guidance": GUIDANCE, "size": model.size}


BY_MODEL: Choices[
    Callable[[Context, Run, ImageTextPairs, int, torch.Generator], Made]
] = Choices({
    "captioner": captioned, "rewriter": rewritten, "translators": translated,
    "image_to_image": redrawn, "text_to_image": diffused,
}, what="generating model")  # fmt: skip
"""What each generating model of a profile (`Generators`) adds, see `Technique.model`."""


def _written(
    ask: Writer,
    how: dict[str, Any],
    run: Run,
    pairs: ImageTextPairs,
    n: int,
    generator: torch.Generator,
) -> Made:
    """What a writer of captions adds, sorted out."""
    writer = _Counting(ask)
    made, report = write_variants(pairs, n, generator, writer, run.augmentation)
    about = {**asdict(report), "n_retried": writer.n_retried, "tries": TRIES}
    return made, {**how, **about}


class _Counting:
    """A writer that counts the pairs that it is asked about again."""

    def __init__(self, writer: Writer) -> None:
        self._writer, self._n_calls, self.n_retried = writer, 0, 0

    def __call__(self, rows: Sequence[int], n: int, generator: torch.Generator) -> list[list[str]]:
        self.n_retried += len(rows) if self._n_calls else 0
        self._n_calls += 1
        return self._writer(rows, n, generator)


def _sampling(model: Any) -> dict[str, Any]:
    """How a model that writes samples: nucleus and length at most."""
    if isinstance(model, SmallCaptioner):  # takes its nucleus by the call, and counts words
        nucleus = signature(model.__call__).parameters["top_p"].default
        return {"top_p": nucleus, "max_words": model.config.max_words}
    return {"top_p": model.top_p, "max_new_tokens": model.max_new_tokens}


def _as_they_came(made: OneToMany) -> dict[str, Any]:
    """Of captions that nobody sorted out: how many are the original, and how many repeats."""
    added = [caption for own in made.captions for caption in own[1:]]
    equal = sum(caption == own[0] for own in made.captions for caption in own[1:])
    different = sum(len(set(own[1:]) - {own[0]}) for own in made.captions)
    repeats = len(added) - equal - different
    return {"n_asked": len(added), "n_equal_original": equal, "n_repeats": repeats}
