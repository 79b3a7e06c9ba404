"""Are the measures of augmented pairs worth believing? Each against something known.

Alignment against captions whose true share is known, diversity against other measures of the
same sets, shift against doses that were mixed in. Everything is made once and kept as a table.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from matlib.analysis.agreement import calibration, correlation, rank_agreement
from matlib.analysis.alignment import rank_pairs
from matlib.analysis.diversity import per_set
from matlib.analysis.embeddings import embed_variants
from matlib.analysis.shift.sensitivity import dose_curve, mixed, shift_statistics, size_curve
from matlib.study.artefacts import ArtefactSpec
from matlib.study.makers import makes
from matlib.study.measures import first_images, reference_inputs, reference_model, references_of
from matlib.study.runs import Study
from matlib.study.sources.source import draw
from matlib.study.validation_data import TRUE_SHARES, diverse_sets, graded_captions, shifted_items

VALIDATION_FILE = "table.csv"
SAMPLE_SIZES = (25, 50, 100, 250, 500)
"""Sample sizes of the validation of shift, as far as the data reach."""

N_DRAWS, N_NULL = 20, 30
DOSE_AT = 100
"""Sample size at which the dose is varied."""

SIZE_DOSE = 0.5
"""Share of shifted items at which the sample size is varied."""


def alignment_validation(study: Study) -> pd.DataFrame:
    """Similarity and ranks of caption and image beside the true share, under each reference.

    Returns:
        columns reference, original, kind, truth (share in [0, 1]), similarity, caption_rank,
        image_rank; one row per caption. Empty where the data know no truth.
    """
    n = min(study.profile.analysis_images, study.profile.dataset.n_train)
    if first_images(study, n).truth() is None:
        return pd.DataFrame()

    def make() -> pd.DataFrame:
        graded = graded_captions(study, n)
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

    return _kept(study, "alignment", make)


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


def diversity_validation(study: Study) -> pd.DataFrame:
    """Spearman's correlation of every two diversity measures over sets of known making.

    Returns:
        columns of `rank_agreement`; measures of embeddings carry their reference in brackets.
    """

    def make() -> pd.DataFrame:
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

    return _kept(study, "diversity", make)


def shift_validation(study: Study) -> pd.DataFrame:
    """Every shift measure against a known share of shifted items, and against sample size.

    Returns:
        columns of `dose_curve`, with modality and curve (`dose` or `size`).
    """

    def make() -> pd.DataFrame:
        items = shifted_items(study, 2 * max(SAMPLE_SIZES))
        encoder = reference_model(study, "base")
        parts = []
        for modality in ("image", "text"):
            rows = items.rows(modality, encoder)
            pools = {
                share: mixed(rows.plain, rows.shifted, share, draw(0, "mixed"))
                for share in TRUE_SHARES
            }
            statistics = shift_statistics(rows.plain, rows.test)
            reach = len(rows.test) // 2
            n = min(DOSE_AT, reach)
            parts.append(
                dose_curve(
                    pools, rows.test, statistics, n=n, n_draws=N_DRAWS, n_null=N_NULL
                ).assign(modality=modality, curve="dose")
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

    return _kept(study, "shift", make)


def _columns(table: pd.DataFrame, *names: str) -> tuple[Tensor, ...]:
    return tuple(torch.tensor(table[name].to_numpy(copy=True)) for name in names)


@makes(
    "validation",
    alignment="alignment_validation", diversity="diversity_validation", shift="shift_validation",
)  # fmt: skip
def _kept(study: Study, name: str, table: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """The table of one validation, made once per study."""
    profile = study.profile
    inputs: dict[str, str] = {}
    for reference in references_of(study):
        inputs |= reference_inputs(study, reference)
    spec = ArtefactSpec(
        kind="validation",
        name=name,
        seed=0,
        config={
            "n_images": profile.analysis_images,
            "n_variants": profile.n_variants,
            "n_boot": profile.evaluation.n_boot,
            "references": list(references_of(study)),
            "model": study.specs.profile.model.model_dump(),
            "data": study.source.identity(),
            "device": study.specs.device,
        },
        inputs=inputs,
        maker="validation",
        chosen=(name, "captions") if name == "diversity" else (name,),
    )

    def make(folder: Path) -> None:
        table().to_csv(folder / VALIDATION_FILE, index=False)

    return pd.read_csv(study.get(spec, make).file(VALIDATION_FILE))
