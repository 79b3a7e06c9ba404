"""Alignment, diversity and shift of the augmentations of a study, computed once.

The coordinates of a row's pairs: measured under the base model, and their truth where known.
"""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from matlib.analysis.embeddings import embed_test, embed_variants
from matlib.analysis.technique import MEASURE_COLUMNS, measure_technique, technique_coordinates
from matlib.augmentations.dialled import scenes_told
from matlib.augmentations.table import TECHNIQUES
from matlib.data.pairs import OneToMany
from matlib.models.encoder import VisionLanguageModel
from matlib.study.context import Context, Node
from matlib.study.identity.makers import makes
from matlib.study.made.models import model, open_model
from matlib.study.made.pairs import about_pairs, choices_of, first_pairs, generated, variants
from matlib.study.profile.rows import Augmentation, Run
from matlib.study.recipes import as_run, rows_of
from matlib.study.sources import open_source
from matlib.study.sources.karpathy import KarpathySource
from matlib.study.sources.scenes import ScenesSource
from matlib.study.sources.source import draw
from matlib.study.store.store import Artefact

MEASURED_TECHNIQUES: tuple[Augmentation, ...] = (
    "captions", "eda", "drop-swap", "renderings", "randaugment", "crop-flip-jitter", "augmix",
    "restyled", "mismatched",
)  # fmt: skip
"""Those that need no generating model; the coordinates of the others stand with the comparison
of techniques (`matlib.study.tables.techniques`)."""

MEASURES_FILE = "measures.csv"


def techniques_of(study: Context) -> tuple[Augmentation, ...]:
    """The techniques that can be measured here; EDA of data on disk needs WordNet's files."""
    data = study.source.data
    missing = {"eda"} if data == "disk" else set()
    made = {name for name in MEASURED_TECHNIQUES if TECHNIQUES[name].maker(data) is not None}
    return tuple(name for name in MEASURED_TECHNIQUES if name in made - missing)


def references_of(study: Context) -> tuple[str, ...]:
    """Rows whose encoders serve as reference models: `base`, and one that was trained otherwise.

    The second was trained adversarially on images where the profile has such a row: it looks at
    other features than `base` (from which it started, so the two are not independent). Else the
    clean fine-tuning, else the first defence. It has seen the training images and rates original
    pairs higher than `base` does; orders of techniques can be compared, levels cannot.
    """
    rows = [name for name, _ in rows_of(study.profile) if name != "base"]
    wanted = [name for name in ("image-at", "clean", *rows) if name in rows]
    return ("base", *wanted[:1])


def reference_model(study: Context, reference: str) -> VisionLanguageModel:
    """The encoder of a row, trained with the profile's first seed."""
    return open_model(study, reference, _seed(study, reference))


def reference_node(study: Context, reference: str) -> Node[VisionLanguageModel] | None:
    """A reference model among inputs; None for pretrained weights."""
    return model(study, reference, _seed(study, reference))


def measures(study: Context, reference: str = "base") -> pd.DataFrame:
    """Every measure of every technique and of the originals, one row each.

    The first reference model is the undefended model of the study, which no technique trained.
    The originals are the first `profile.analysis_images` training images; the test sample has
    at most as many images.

    Args:
        reference: row of the study whose encoder embeds, one of `references_of`.

    Returns:
        columns `matlib.analysis.technique.COLUMNS`; `technique` as in `techniques_of`, and
        `none` for the originals.
    """
    parts = [
        study.get(measured(study, technique, reference))
        for technique in ("none", *techniques_of(study))
    ]
    return pd.concat(parts, ignore_index=True)[list(MEASURE_COLUMNS)]


def measures_under_all(study: Context) -> pd.DataFrame:
    """`measures` under each of `references_of`, with a column `reference`."""
    parts = [measures(study, name).assign(reference=name) for name in references_of(study)]
    return pd.concat(parts, ignore_index=True)


@makes("measures")
def measured(
    study: Context, technique: Augmentation, reference: str = "base"
) -> Node[pd.DataFrame]:
    """The measures of one technique under one reference model."""
    profile = study.profile
    n = min(profile.analysis_images, profile.dataset.n_train)

    def make(folder: Path) -> None:
        encoder, test = reference_model(study, reference), study.pairs("test")
        truth = first_images(study, n).truth()
        table = measure_technique(
            encoder,
            first_variants(study, technique, n),
            embed_test(encoder, test.subset(range(min(n, len(test))))),
            truth=truth,
            n_boot=profile.evaluation.n_boot,
        )
        table.assign(technique=technique).to_csv(folder / MEASURES_FILE, index=False)

    config = {
        "n_images": n,
        "reference": reference,
        "n_variants": profile.n_variants,
        "n_boot": profile.evaluation.n_boot,
        "model": study.identified.model.model_dump(),
    }
    return study.node(
        "measures", technique, 0, config, {reference: reference_node(study, reference)}, make,
        lambda artefact: pd.read_csv(artefact.file(MEASURES_FILE)),
        chosen=choices_of(study, as_run(technique)),
    )  # fmt: skip


def first_variants(study: Context, technique: str | Run, n: int) -> OneToMany:
    """What a technique adds to the first `n` training pairs (at least two)."""
    run = as_run(technique)
    return first_pairs(variants(study, run, 0, first_images(study, max(n, 2))), n)


def _seed(study: Context, reference: str) -> int:
    return 0 if reference == "base" else study.profile.seeds[0]


def first_images(study: Context, n: int) -> ScenesSource | KarpathySource:
    """The study's data with `n` training images, so that few variants are held in memory."""
    config = study.profile.dataset.model_copy(update={"n_train": n})
    if isinstance(study.source, KarpathySource):
        return open_source(config, study.source.folder, study.source.kept)
    return open_source(config, None)


COORDINATES_FILE = "coordinates.json"
REFERENCE = "base"
MIN_IMAGES = 250
"""MMD^2 of fewer pairs is mostly noise (`published/demo`, notebook 60)."""


_OF_PAIRS = {
    "augmentation", "n_variants", "strength", "keep_aligned", "keep_diverse", "vendi", "dials",
}  # fmt: skip


def _defence(run: Run) -> str:
    return "clean" if run.augmentation == "none" else "mat+"


@makes("coordinates")
def coordinates(study: Context, run: Run) -> Node[dict[str, float]]:
    """`similarity`, `vendi`, `mmd2` of a row's pairs and, where it is known, `true_fraction`.

    The latter is the share of an added caption's facts that hold in its scene; of an added
    image, the share of the original caption's facts that hold in what it shows. Rows with equal
    pairs share them.
    """

    def make(folder: Path) -> None:
        n, encoder = _n_images(study), reference_model(study, REFERENCE)
        made, test = first_variants(study, run, n), study.pairs("test")
        there = embed_test(encoder, test.subset(range(min(n, len(test)))))
        found = technique_coordinates(embed_variants(encoder, made), there)
        if (true := _true_fraction(study, run, made)) is not None:
            found["true_fraction"] = true
        (folder / COORDINATES_FILE).write_text(json.dumps(found), encoding="utf-8")

    plain = Run(**{**run.model_dump(include=_OF_PAIRS), "defence": _defence(run)})
    config = {
        "n_images": _n_images(study),
        "n_variants": study.profile.n_variants,
        "pairs": {**plain.model_dump(mode="json"), **about_pairs(study, plain)},
        "model": study.identified.model.model_dump(),
    }
    inputs = {REFERENCE: reference_node(study, REFERENCE), "pairs": generated(study, run, 0)}
    return study.node(
        "coordinates", plain.technique, 0, config, inputs, make, _coordinates_in,
        chosen=choices_of(study, run),
    )  # fmt: skip


def _coordinates_in(artefact: Artefact) -> dict[str, float]:
    found: dict[str, float] = json.loads(
        artefact.file(COORDINATES_FILE).read_text(encoding="utf-8")
    )
    return found


def _n_images(study: Context) -> int:
    profile = study.profile
    wanted = max(MIN_IMAGES, profile.analysis_images)
    return min(wanted, profile.dataset.n_train, profile.dataset.n_test)


def _true_fraction(study: Context, run: Run, variants: OneToMany) -> float | None:
    source = first_images(study, len(variants))
    truth = source.truth()
    if truth is None or run.augmentation == "none" or not isinstance(source, ScenesSource):
        return None
    if run.modality == "text":
        shares = [truth(i, c) for i, own in enumerate(variants.captions) for c in own[1:]]
        return sum(shares) / len(shares)
    if run.dials is None:
        return None  # what an operation on pixels leaves of the truth is not known
    scenes = source.world.train.scenes
    told = scenes_told(scenes, run.dials.alignment, draw(0, str(run.dials)))
    captions = [own[0] for own in variants.captions]
    shares = [
        source.fraction(caption, scene) for caption, scene in zip(captions, told, strict=True)
    ]
    return sum(shares) / len(shares)
