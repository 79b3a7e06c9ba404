"""The coordinates of a row's pairs: measured under the base model, and their truth where known."""

from __future__ import annotations

import json
from pathlib import Path

from matlib.analysis.coordinates import technique_coordinates
from matlib.analysis.embeddings import embed_test, embed_variants
from matlib.augmentations.dialled import scenes_told
from matlib.config.rows import Run
from matlib.data.pairs import OneToMany
from matlib.study.artefacts import ArtefactSpec
from matlib.study.makers import makes
from matlib.study.measures import first_images, first_variants, reference_inputs, reference_model
from matlib.study.runs import Study
from matlib.study.sources.scenes import ScenesSource
from matlib.study.sources.source import draw

COORDINATES_FILE = "coordinates.json"
REFERENCE = "base"
MIN_IMAGES = 250
"""MMD^2 of fewer pairs is mostly noise (`published/demo`, notebook 60)."""


def coordinates_spec(study: Study, run: Run) -> ArtefactSpec:
    """Identity of the coordinates of a row's pairs; rows with equal pairs share them."""
    plain = Run(**{**run.model_dump(include=_OF_PAIRS), "defence": _defence(run)})
    inputs = reference_inputs(study, REFERENCE)
    if (stored := study.specs.pairs(run, 0)) is not None:
        inputs["pairs"] = stored.hash
    return ArtefactSpec(
        kind="coordinates",
        name=plain.technique,
        seed=0,
        config={
            "n_images": _n_images(study),
            "n_variants": study.profile.n_variants,
            "pairs": {**plain.model_dump(mode="json"), **study.specs.about_pairs(plain)},
            "data": study.source.identity(),
            "model": study.specs.profile.model.model_dump(),
            "device": study.specs.device,
        },
        inputs=inputs,
        maker="coordinates",
        chosen=study.specs.choices(run),
    )


_OF_PAIRS = {
    "augmentation", "n_variants", "strength", "keep_aligned", "keep_diverse", "vendi", "dials",
}  # fmt: skip


def _defence(run: Run) -> str:
    return "clean" if run.augmentation == "none" else "mat+"


@makes("coordinates")
def coordinates(study: Study, run: Run) -> dict[str, float]:
    """`similarity`, `vendi`, `mmd2` of a row's pairs and, where it is known, `true_fraction`.

    The latter is the share of an added caption's facts that hold in its scene; of an added
    image, the share of the original caption's facts that hold in what it shows.
    """

    def make(folder: Path) -> None:
        n, encoder = _n_images(study), reference_model(study, REFERENCE)
        variants, test = first_variants(study, run, n), study.pairs("test")
        there = embed_test(encoder, test.subset(range(min(n, len(test)))))
        found = technique_coordinates(embed_variants(encoder, variants), there)
        if (true := _true_fraction(study, run, variants)) is not None:
            found["true_fraction"] = true
        (folder / COORDINATES_FILE).write_text(json.dumps(found), encoding="utf-8")

    text = (
        study.get(coordinates_spec(study, run), make)
        .file(COORDINATES_FILE)
        .read_text(encoding="utf-8")
    )
    found: dict[str, float] = json.loads(text)
    return found


def _n_images(study: Study) -> int:
    profile = study.profile
    wanted = max(MIN_IMAGES, profile.analysis_images)
    return min(wanted, profile.dataset.n_train, profile.dataset.n_test)


def _true_fraction(study: Study, run: Run, variants: OneToMany) -> float | None:
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
