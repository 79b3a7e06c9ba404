"""The pairs that a row trains on: its technique's variants, filtered, as many as asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from matlib.analysis.diversity import vendi_score
from matlib.analysis.embeddings import embed_variants
from matlib.augmentations.filtering import keep_aligned, keep_diverse, thin_to_vendi
from matlib.config import Profile, Run
from matlib.data.pairs import OneToMany
from matlib.models.dual_encoder import DualEncoder
from matlib.study.generators import Generators
from matlib.study.recipes import n_variants_of
from matlib.study.sources import KarpathySource, ScenesSource, draw


def make_variants(
    profile: Profile,
    source: ScenesSource | KarpathySource,
    generators: Generators,
    base: Callable[[], DualEncoder],
    run: Run,
    seed: int,
) -> OneToMany:
    """The training pairs of a row.

    Order: technique, first `n_train` pairs, alignment, diversity, Vendi score.

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
    if run.keep_aligned is not None:
        found = keep_aligned(found, embed_variants(base(), found), run.keep_aligned)
    if run.keep_diverse is not None:
        found = keep_diverse(found, embed_variants(base(), found), run.keep_diverse)
    if run.vendi is not None:
        embedded, generator = embed_variants(base(), found), draw(seed, "vendi")
        found = thin_to_vendi(found, embedded, run.vendi, generator, vendi_score)
    return replace(found, technique=run.technique)


def first_pairs(variants: OneToMany, n: int) -> OneToMany:
    """The first `n` pairs with their variants; all where there are fewer."""
    if n >= len(variants):
        return variants
    images = variants.all_images()[:n]
    return replace(variants, captions=variants.captions[:n], images=images, made_from=None)
