"""The pairs that a row trains on: its technique's variants, filtered, as many as asked for."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from matlib.analysis.diversity import vendi_score
from matlib.analysis.embeddings import embed_variants
from matlib.augmentations.filtering import keep_aligned, keep_diverse, thin_to_vendi
from matlib.choices import Choices
from matlib.config.profile import Profile
from matlib.config.rows import Run
from matlib.data.pairs import OneToMany
from matlib.models.dual_encoder import DualEncoder
from matlib.study.artefacts import Artefact, ArtefactSpec
from matlib.study.generators import PairGenerators
from matlib.study.makers import makes
from matlib.study.recipes import filters_of, n_variants_of
from matlib.study.sources.karpathy import KarpathySource
from matlib.study.sources.scenes import ScenesSource
from matlib.study.sources.source import draw
from matlib.study.specs import Specs

KEPT_FILE = "kept.json"

Base = Callable[[], DualEncoder]


@makes("filtered")
def make_variants(
    profile: Profile,
    source: ScenesSource | KarpathySource,
    generators: PairGenerators,
    base: Base,
    run: Run,
    seed: int,
) -> OneToMany:
    """The training pairs of a row.

    Order: technique, first `n_train` pairs, alignment, diversity, Vendi score. What filters
    keep is noted in an artefact of its own (`filter_spec`).

    Args:
        source: the data; with fewer training images, the variants of these.
        generators: of techniques that need a model.
        base: gives the reference model of the filters.

    Raises:
        ValueError: a technique that these data do not allow, or a filter that keeps nothing.
    """
    spec = generators.specs.pairs(run, seed)
    if spec is not None:
        found = generators.variants(run, seed, spec)
    else:
        found = source.variants(run, n_variants_of(profile, run), seed)
    if run.n_train is not None:
        found = first_pairs(found, run.n_train)
    if not filters_of(run):
        return replace(found, technique=run.technique)
    found, shares = _filtered(found, run, base, seed)

    def make(folder: Path) -> dict[str, Any]:
        (folder / KEPT_FILE).write_text(json.dumps(shares), encoding="utf-8")
        return shares

    generators.get(filter_spec(profile, source, generators.specs, run, seed), make)
    return replace(found, technique=run.technique)


def _aligned(found: OneToMany, run: Run, base: Base, seed: int) -> OneToMany:
    assert run.keep_aligned is not None
    return keep_aligned(found, embed_variants(base(), found), run.keep_aligned)


def _diverse(found: OneToMany, run: Run, base: Base, seed: int) -> OneToMany:
    assert run.keep_diverse is not None
    return keep_diverse(found, embed_variants(base(), found), run.keep_diverse)


def _thinned(found: OneToMany, run: Run, base: Base, seed: int) -> OneToMany:
    assert run.vendi is not None
    embedded, generator = embed_variants(base(), found), draw(seed, "vendi")
    return thin_to_vendi(found, embedded, run.vendi, generator, vendi_score)


FILTER_BY: Choices[Callable[[OneToMany, Run, Base, int], OneToMany]] = Choices({
    "keep_aligned": _aligned, "keep_diverse": _diverse, "vendi": _thinned,
}, what="filter")  # fmt: skip


def _filtered(
    found: OneToMany, run: Run, base: Base, seed: int
) -> tuple[OneToMany, dict[str, float]]:
    """What the row's filters leave, and the share of different added variants after each."""
    n_added, shares = max(1, n_different(found)), {}
    for name in filters_of(run):
        found = FILTER_BY.choose(name)(found, run, base, seed)
        shares[name] = n_different(found) / n_added
    return found, shares


def n_different(variants: OneToMany) -> int:
    """Added captions and images that are neither the original nor a repeat of another caption."""
    captions = sum(len({*own[1:]} - {own[0]}) for own in variants.captions)
    if variants.images.shape[1] == 1:
        return captions
    images = variants.all_images()
    return captions + sum(int((own[1:] != own[:1]).flatten(1).any(1).sum()) for own in images)


def filter_spec(
    profile: Profile,
    source: ScenesSource | KarpathySource,
    specs: Specs,
    run: Run,
    seed: int,
) -> ArtefactSpec:
    """Identity of the shares of added variants that a row's filters keep, one after another."""
    inputs = {"base": specs.base(), "pairs": specs.pairs(run, seed)}
    about = {"n_variants": n_variants_of(profile, run), "options": run.options}
    return ArtefactSpec(
        kind="filtered",
        name=run.technique,
        seed=seed,
        config={"augmentation": run.augmentation, **about, "data": source.identity()},
        inputs={name: spec.hash for name, spec in inputs.items() if spec is not None},
        maker="filtered",
        chosen=specs.choices(run),
    )


def pairs_notes(
    profile: Profile,
    source: ScenesSource | KarpathySource,
    specs: Specs,
    find: Callable[[ArtefactSpec], Artefact | None],
) -> pd.DataFrame:
    """What generators and filters noted of the pairs of the first seed, where they worked here.

    Args:
        find: specification -> the artefact if it is there.

    Returns:
        one row for each: `pairs` (the technique), then the notes; shares of filters are of the
        added variants that are different. Empty where nothing was generated.
    """
    rows: dict[str, dict[str, Any]] = {}
    seed = profile.seeds_of_techniques[0]
    for run in (*profile.runs, *profile.techniques, *profile.sweeps):
        unfiltered = {"n_variants": run.n_variants, "strength": run.strength}
        own = Run(**{**run.model_dump(include={"defence", "augmentation"}), **unfiltered})
        wanted = [(own.technique, specs.pairs(run, seed))]
        if filters_of(run):
            wanted.append((run.technique, filter_spec(profile, source, specs, run, seed)))
        for name, spec in wanted:
            found = find(spec) if spec is not None else None
            if spec is not None and found is not None:
                rows[spec.hash] = {"pairs": name, **found.notes}
    return pd.DataFrame(list(rows.values()), dtype=object)


def first_pairs(variants: OneToMany, n: int) -> OneToMany:
    """The first `n` pairs with their variants; all where there are fewer."""
    if n >= len(variants):
        return variants
    images = variants.all_images()[:n]
    return replace(variants, captions=variants.captions[:n], images=images, made_from=None)
