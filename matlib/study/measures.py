"""Alignment, diversity and shift of the augmentations of a study, computed once."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from matlib.analysis.technique import COLUMNS, embed_test, measure_technique
from matlib.config import Augmentation
from matlib.data.pairs import OneToMany
from matlib.study.artefacts import ArtefactSpec
from matlib.study.inputs import KarpathySource, ScenesSource, open_source
from matlib.study.runs import Study
from matlib.study.specs import AUGMENTATION_CODE, DATA_CODE, MODEL_CODE

TECHNIQUES: tuple[Augmentation, ...] = (
    "captions", "renderings", "randaugment", "drop-swap", "mismatched",
)  # fmt: skip

TABLE = "measures.csv"


def techniques_of(study: Study) -> tuple[Augmentation, ...]:
    """The techniques that can be measured here: further renderings exist in scenes only."""
    if study.source.truth() is None:
        return tuple(name for name in TECHNIQUES if name != "renderings")
    return TECHNIQUES


def measures(study: Study) -> pd.DataFrame:
    """Every measure of every technique and of the reference, one row each.

    The reference model is the undefended model of the study, which no technique trained. The
    originals are the first `profile.analysis_images` training images; the test sample has at
    most as many images.

    Returns:
        columns `matlib.analysis.technique.COLUMNS`; `technique` as in `techniques_of`, and
        `none` for the originals.
    """
    parts = [measured(study, technique) for technique in ("none", *techniques_of(study))]
    return pd.concat(parts, ignore_index=True)[list(COLUMNS)]


def measured(study: Study, technique: Augmentation) -> pd.DataFrame:
    """The measures of one technique."""
    profile = study.profile
    n = min(profile.analysis_images, profile.dataset.n_train)
    base = study.specs.base()
    spec = ArtefactSpec(
        kind="measures",
        name=technique,
        seed=0,
        config={
            "n_images": n,
            "n_variants": profile.n_variants,
            "n_boot": profile.evaluation.n_boot,
            "model": profile.model.model_dump(),
            "data": study.source.identity(),
            "device": study.device,
        },
        inputs={"base": base.hash} if base is not None else {},
        modules=(
            *DATA_CODE,
            *AUGMENTATION_CODE.get(technique, ()),
            *MODEL_CODE,
            "matlib.analysis.technique",
        ),
    )

    def make(folder: Path) -> None:
        encoder, test = study.model("base"), study.pairs("test")
        truth = _first_images(study, n).truth()
        table = measure_technique(
            encoder,
            first_variants(study, technique, n),
            embed_test(encoder, test.subset(range(min(n, len(test))))),
            truth=truth,
            n_boot=profile.evaluation.n_boot,
        )
        table.assign(technique=technique).to_csv(folder / TABLE, index=False)

    return pd.read_csv(study.get(spec, make).file(TABLE))


def first_variants(study: Study, technique: Augmentation, n: int) -> OneToMany:
    """What a technique adds to the first `n` training pairs (at least two)."""
    source = _first_images(study, max(n, 2))
    return source.variants(technique, study.profile.n_variants, seed=0)


def _first_images(study: Study, n: int) -> ScenesSource | KarpathySource:
    """The study's data with `n` training images, so that few variants are held in memory."""
    config = study.profile.dataset.model_copy(update={"n_train": n})
    folder = getattr(study.source, "folder", None)
    return open_source(config, folder)
