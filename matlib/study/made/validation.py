"""Are the measures of augmented pairs worth believing? Each against something known.

Alignment against captions whose true share is known, diversity against other measures of the
same sets, shift against doses that were mixed in. Everything is made once and kept as a table.

Captions and images whose truth, making or dose of shift is known, to try the measures on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from matlib.analysis.agreement import calibration, correlation, rank_agreement
from matlib.analysis.alignment import rank_pairs
from matlib.analysis.diversity import per_set
from matlib.analysis.embeddings import HeldOutEmbeddings, embed_test, embed_variants
from matlib.analysis.shift.sensitivity import dose_curve, mixed, shift_statistics, size_curve
from matlib.augmentations.images import randaugment
from matlib.augmentations.text import drop_and_swap, mismatched
from matlib.augmentations.variants import with_captions
from matlib.choices import Choices
from matlib.data.pairs import ImageTensor, ImageTextPairs, OneToMany
from matlib.models.dual_encoder import DualEncoder
from matlib.scenes.grammar import Dials, write_captions
from matlib.scenes.renderer import Style, render
from matlib.scenes.scene import corrupt_scene, sample_scenes
from matlib.study.context import Context, Node
from matlib.study.identity.makers import makes
from matlib.study.made.measures import (
    first_images,
    reference_model,
    reference_node,
    references_of,
)
from matlib.study.recipes import as_run
from matlib.study.sources.scenes import ScenesSource
from matlib.study.sources.source import draw

VALIDATION_FILE = "table.csv"
SAMPLE_SIZES = (25, 50, 100, 250, 500)
"""Sample sizes of the validation of shift, as far as the data reach."""

N_DRAWS, N_NULL = 20, 30
DOSE_AT = 100
"""Sample size at which the dose is varied."""

SIZE_DOSE = 0.5
"""Share of shifted items at which the sample size is varied."""


def alignment_validation(study: Context) -> pd.DataFrame:
    """Similarity and ranks of caption and image beside the true share, under each reference.

    Returns:
        columns reference, original, kind, truth (share in [0, 1]), similarity, caption_rank,
        image_rank; one row per caption. Empty where the data know no truth.
    """
    if first_images(study, _n_graded(study)).truth() is None:
        return pd.DataFrame()
    return study.get(validated(study, "alignment"))


def _n_graded(study: Context) -> int:
    return min(study.profile.analysis_images, study.profile.dataset.n_train)


def _alignment(study: Context) -> pd.DataFrame:
    graded = graded_captions(study, _n_graded(study))
    parts = []
    for name in references_of(study):
        ranks = rank_pairs(embed_variants(reference_model(study, name), graded.variants))
        parts.append(
            graded.table.assign(
                reference=name,
                similarity=ranks.similarity.numpy(),
                caption_rank=ranks.caption_rank.numpy(),
                image_rank=ranks.image_rank.numpy(),
            )
        )
    return pd.concat(parts, ignore_index=True)


def calibration_curves(graded: pd.DataFrame) -> pd.DataFrame:
    """How much is true in captions of each similarity, under each reference.

    Args:
        graded: from `alignment_validation`.

    Returns:
        columns of `calibration`, and reference; empty if `graded` is.
    """
    parts = [
        calibration(*_columns(part, "similarity", "truth", "original")).assign(reference=name)
        for name, part in (graded.groupby("reference", sort=False) if len(graded) else ())
    ]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def truth_correlations(graded: pd.DataFrame) -> pd.DataFrame:
    """Spearman's correlation of the measures of alignment with the share that is true.

    Args:
        graded: from `alignment_validation`.

    Returns:
        columns reference, measure, value, low, high, n (originals); no rows if `graded` has none.
    """
    rows = []
    for name, part in graded.groupby("reference", sort=False) if len(graded) else ():
        for measure in ("similarity", "caption_rank"):
            found = correlation(*_columns(part, measure, "truth", "original"))
            rows.append((name, measure, found.value, found.low, found.high, found.n))
    return pd.DataFrame(rows, columns=["reference", "measure", "value", "low", "high", "n"])


def diversity_validation(study: Context) -> pd.DataFrame:
    """Spearman's correlation of every two diversity measures over sets of known making.

    Returns:
        columns of `rank_agreement`; measures of embeddings carry their reference in brackets.
    """
    return study.get(validated(study, "diversity"))


def _diversity(study: Context) -> pd.DataFrame:
    sets = diverse_sets(study, min(study.profile.analysis_images, 200))
    values: dict[str, list[Tensor]] = {}
    for k, name in enumerate(references_of(study)):
        encoder = reference_model(study, name)
        for variants in sets:
            found = per_set(variants.captions, embed_variants(encoder, variants).captions)
            for measure, own in found.items():
                if measure in ("distance", "vendi"):
                    values.setdefault(f"{measure} ({name})", []).append(own)
                elif k == 0:
                    values.setdefault(measure, []).append(own)
    stacked = {measure: torch.stack(own) for measure, own in values.items()}
    return rank_agreement(stacked, n_boot=min(1000, study.profile.evaluation.n_boot))


def shift_validation(study: Context) -> pd.DataFrame:
    """Every shift measure against a known share of shifted items, and against sample size.

    Returns:
        columns of `dose_curve`, with modality and curve (`dose` or `size`).
    """
    return study.get(validated(study, "shift"))


def _shift(study: Context) -> pd.DataFrame:
    items = shifted_items(study, 2 * max(SAMPLE_SIZES))
    encoder = reference_model(study, "base")
    parts = []
    for modality in ("image", "text"):
        rows = items.rows(modality, encoder)
        pools = {
            share: mixed(rows.plain, rows.shifted, share, draw(0, "mixed")) for share in TRUE_SHARES
        }
        statistics = shift_statistics(rows.plain, rows.test)
        reach = len(rows.test) // 2
        n = min(DOSE_AT, reach)
        parts.append(
            dose_curve(pools, rows.test, statistics, n=n, n_draws=N_DRAWS, n_null=N_NULL).assign(
                modality=modality, curve="dose"
            )
        )
        if modality == "text":
            continue  # what a sample's size does is the same for both
        sizes = [size for size in SAMPLE_SIZES if size <= reach] or [reach]
        two = {dose: pools[dose] for dose in (0.0, SIZE_DOSE)}
        parts.append(
            size_curve(
                two, rows.test, statistics, sizes=sizes, n_draws=N_DRAWS, n_null=N_NULL
            ).assign(modality=modality, curve="size")
        )
    return pd.concat(parts, ignore_index=True)


def _columns(table: pd.DataFrame, *names: str) -> tuple[Tensor, ...]:
    return tuple(torch.tensor(table[name].to_numpy(copy=True)) for name in names)


VALIDATIONS: Choices[Callable[[Context], pd.DataFrame]] = Choices({
    "alignment": _alignment, "diversity": _diversity, "shift": _shift,
}, what="validation")  # fmt: skip


@makes("validation")
def validated(study: Context, name: str) -> Node[pd.DataFrame]:
    """The table of one validation, made once per study."""
    profile = study.profile

    def make(folder: Path) -> None:
        VALIDATIONS.choose(name)(study).to_csv(folder / VALIDATION_FILE, index=False)

    config = {
        "n_images": profile.analysis_images,
        "n_variants": profile.n_variants,
        "n_boot": profile.evaluation.n_boot,
        "references": list(references_of(study)),
        "model": study.identified.model.model_dump(),
    }
    inputs = {each: reference_node(study, each) for each in references_of(study)}
    return study.node(
        "validation", name, 0, config, inputs, make,
        lambda artefact: pd.read_csv(artefact.file(VALIDATION_FILE)),
        chosen=(name, "captions") if name == "diversity" else (name,),
    )  # fmt: skip


WRONG = (0.0, 0.1, 0.2, 0.35, 0.5, 1.0)
"""Probability that an attribute of the scene is replaced before the caption is written."""

DROP = (0.1, 0.3, 0.6)
"""Rates of words dropped."""

SYNONYMS = (0.3, 1.0)
"""Rates of words written as one of their synonyms."""

TRUE_SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Shares of shifted items."""


@dataclass(frozen=True)
class Graded:
    """Captions from true to wrong.

    Attributes:
        variants: N originals, each with its graded captions.
        table: original, kind and truth of every added caption, in the order of `rank_pairs`.
    """

    variants: OneToMany
    table: pd.DataFrame


def graded_captions(study: Context, n: int) -> Graded:
    """True captions, captions of ever more corrupted scenes, damaged ones, and other images'.

    Raises:
        ValueError: data that know no truth.
    """
    source = first_images(study, max(n, 2))
    truth = source.truth()
    if truth is None or not isinstance(source, ScenesSource):
        raise ValueError("graded captions need a world that knows what is true of its images")
    pairs, scenes = source.pairs("train"), source.world.train.scenes
    kinds: dict[str, Sequence[str]] = {}
    for p in WRONG:
        generator = draw(0, f"corrupted {p}")
        told = [corrupt_scene(scene, p, generator) for scene in scenes]
        written = write_captions(told, generator, dials=source.world.dials)
        kinds[f"wrong {p:g}"] = [own[0] for own in written]
    for rate in DROP:
        dropped = drop_and_swap(pairs, 1, draw(0, f"drop {rate}"), drop_rate=rate)
        kinds[f"drop {rate:g}"] = [own[1] for own in dropped.captions]
    other = mismatched(pairs, 1, draw(0, "mismatched"))
    kinds["mismatched"] = [own[1] for own in other.captions]
    extra = list(zip(*kinds.values(), strict=True))
    rows = [
        {"original": i, "kind": kind, "truth": truth(i, caption)}
        for i, own in enumerate(extra)
        for kind, caption in zip(kinds, own, strict=True)
    ]
    return Graded(with_captions(pairs, extra, "graded"), pd.DataFrame(rows))


def diverse_sets(study: Context, n: int) -> list[OneToMany]:
    """The captions of the first n training images varied in ever other ways, sets of one size."""
    source, k = first_images(study, max(n, 2)), study.profile.n_variants
    pairs = source.pairs("train")
    copies = [(caption,) * (k - 1) for caption in pairs.captions]
    sets = [with_captions(pairs, copies, "copies")]
    for rate in DROP:
        generator = draw(0, f"drop {rate}")
        dropped = drop_and_swap(pairs, k - 1, generator, drop_rate=rate)
        sets.append(replace(dropped, technique=f"drop {rate:g}"))
    sets.append(mismatched(pairs, k - 1, draw(0, "mismatched")))
    if not isinstance(source, ScenesSource):
        return [*sets, source.variants(as_run("captions"), k, 0)]
    world, rows = source.world, range(len(pairs))
    for name, dials, n_new in (
        ("one further caption", world.dials, 1),
        ("captions", world.dials, k - 1),
        *((f"synonyms {rate:g}", replace(world.dials, synonym_rate=rate), k - 1)
          for rate in SYNONYMS),
        ("one template", replace(world.dials, families=(world.dials.families[0],)), k - 1),
    ):  # fmt: skip
        new = world.more_captions(rows, n_new, draw(0, name), dials=dials)
        filled = [
            (*own, *(first,) * (k - 1 - len(own)))
            for own, first in zip(new, pairs.captions, strict=True)
        ]
        sets.append(with_captions(pairs, filled, name))
    return sets


@dataclass(frozen=True)
class ShiftRows:
    """Unit embeddings (P, D) of items without and with shift, and of test items (P, D)."""

    plain: Tensor
    shifted: Tensor
    test: Tensor


@dataclass(frozen=True)
class ShiftedItems:
    """Pairs without shift, the same shifted in image and caption, and other pairs to test on."""

    plain: ImageTextPairs
    shifted: ImageTextPairs
    test: ImageTextPairs

    def rows(self, modality: str, encoder: DualEncoder) -> ShiftRows:
        """The images or the captions of all three under `encoder`."""
        found = [_of(embed_test(encoder, p), modality) for p in self.all()]
        return ShiftRows(*found)

    def all(self) -> tuple[ImageTextPairs, ImageTextPairs, ImageTextPairs]:
        """plain, shifted, test."""
        return self.plain, self.shifted, self.test


def shifted_items(study: Context, n: int) -> ShiftedItems:
    """`n` pairs without shift, the same shifted, and `n` test pairs.

    In scenes: fresh scenes; shifted images have the palette turned as far as it goes, shifted
    captions are written in synonyms. On photographs: training pairs against test pairs, at
    most as many as there are; RandAugment and dropped words are the shift.
    """
    source = study.source
    if not isinstance(source, ScenesSource):
        plain, test = source.pairs("train"), source.pairs("test")
        n = min(n, len(plain), len(test))
        plain = plain.subset(range(n))
        images = randaugment(plain, 1, draw(0, "shift")).all_images()[:, 1]
        words = drop_and_swap(plain, 1, draw(0, "shift"), drop_rate=0.3).captions
        shifted = _pairs(images, [own[1] for own in words])
        return ShiftedItems(plain, shifted, test.subset(range(n)))
    config, world = source.config, source.world
    n = min(n, max(16, 10 * config.n_test))  # toy profiles stay small
    scenes = sample_scenes(2 * n, draw(0, "shift scenes"), three_rate=config.three_rate)
    here, there = scenes[:n], scenes[n:]
    style = world.style or Style()
    made = []
    for shown, palette, dials in (
        (here, 0.0, world.dials),
        (here, 1.0, Dials(omit_rate=config.omit_rate, synonym_rate=1.0)),
        (there, 0.0, world.dials),
    ):
        generator = draw(0, "shift renderings" if shown is here else "shift test")
        images = render(
            shown, generator, size=config.image_size, style=replace(style, palette_shift=palette)
        )
        made.append(_pairs(images, [c[0] for c in write_captions(shown, generator, dials=dials)]))
    return ShiftedItems(*made)


def _pairs(images: Tensor, captions: Sequence[str]) -> ImageTextPairs:
    ids = tuple(str(i) for i in range(len(captions)))
    return ImageTextPairs(
        "validation", "test", ImageTensor(images), tuple(captions), torch.arange(len(ids)), ids
    )


def _of(embedded: HeldOutEmbeddings, modality: str) -> Tensor:
    return embedded.image if modality == "image" else embedded.text
