"""The augmentations of a study are measured once, completely, and against the truth."""

from __future__ import annotations

import pandas as pd
import pytest

from matlib.scenes.truth import aligned_fraction
from matlib.study.made.measures import first_variants, measures, techniques_of
from matlib.study.study import Study


@pytest.fixture(scope="module")
def table(base_study: Study) -> pd.DataFrame:
    return measures(base_study)


def test_every_technique_and_the_originals_have_each_property(
    table: pd.DataFrame, base_study: Study
) -> None:
    assert set(table["technique"]) == {"none", *techniques_of(base_study)}
    for technique, part in table.groupby("technique"):
        wanted = {"alignment", "shift", "diversity"}
        assert set(part["property"]) == wanted, technique
    assert not table.duplicated(["technique", "measure", "modality"]).any()


def test_what_a_technique_does_not_touch_has_no_row(table: pd.DataFrame) -> None:
    shift = table[table["property"] == "shift"].groupby("technique")["modality"].agg(set)
    assert shift["captions"] == shift["drop-swap"] == shift["mismatched"] == {"text", "joint"}
    assert shift["renderings"] == shift["randaugment"] == {"image", "joint"}
    assert shift["none"] == {"text", "image", "joint"}


def test_intervals_hold_their_estimates(table: pd.DataFrame) -> None:
    assert (table["low"] <= table["value"]).all() and (table["value"] <= table["high"]).all()
    mmd = table[table["measure"] == "mmd2"]
    assert mmd["p_value"].between(0, 1).all() and (mmd["bandwidth"] > 0).all()
    widths = mmd.groupby("modality")["bandwidth"]  # one unit for all, up to rounding
    assert (widths.max() - widths.min() <= 1e-5 * widths.max()).all()


def test_true_captions_are_true_and_mismatched_ones_are_not(table: pd.DataFrame) -> None:
    share = table[table["measure"] == "true_fraction"].set_index("technique")["value"]
    assert share["captions"] == 1.0
    assert share["mismatched"] < share["drop-swap"] < 1.0


def test_true_fraction_is_that_of_the_scenes(table: pd.DataFrame, base_study: Study) -> None:
    n = base_study.profile.analysis_images
    variants = first_variants(base_study, "mismatched", n)
    scenes = base_study.source.world.train.scenes[:n]  # type: ignore[union-attr]
    per_image = [
        sum(aligned_fraction(caption, scene) for caption in added) / len(added)
        for scene, (_, *added) in zip(scenes, variants.captions, strict=True)
    ]
    row = table[(table["technique"] == "mismatched") & (table["measure"] == "true_fraction")]
    assert row["value"].item() == pytest.approx(sum(per_image) / n)
    assert row["n"].item() == n


def test_measures_are_computed_once(base_study: Study, table: pd.DataFrame) -> None:
    before = {p: p.stat().st_mtime_ns for p in base_study.store.runs.glob("measures-*/*")}
    again = measures(Study(base_study.profile, base_study.root.parent))
    pd.testing.assert_frame_equal(again, table)
    assert {p: p.stat().st_mtime_ns for p in base_study.store.runs.glob("measures-*/*")} == before


def test_originals_of_the_variants_are_the_training_pairs(base_study: Study) -> None:
    variants = first_variants(base_study, "captions", 3)
    train = base_study.pairs("train")
    assert [own[0] for own in variants.captions] == list(train.captions[:3])
    assert len(variants.captions[0]) == base_study.profile.n_variants
