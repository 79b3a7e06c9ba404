from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from matlib.study.profile.profile import load_profile
from matlib.study.recipes import inside_rows_of
from matlib.study.run.calibrate import CALIBRATION_COLUMNS, calibrate, calibration_profile

SMOKE = load_profile("smoke")
FEW = SMOKE.model_copy(update={"runs": SMOKE.runs[:2]})


def test_each_row_is_tried_at_each_rate_on_the_other_world() -> None:
    grid = calibration_profile(FEW, 0, [1e-3, 5e-4])
    assert grid.dataset.world_seed == 0 and grid.seeds == (0,) and not grid.runs
    assert [(run.defence, run.lr, run.label) for run in grid.inside] == [
        ("clean", 1e-3, "lr0.001"), ("clean", 5e-4, "lr0.0005"),
        ("image-at", 1e-3, "lr0.001"), ("image-at", 5e-4, "lr0.0005"),
    ]  # fmt: skip


def test_variations_with_seeds_of_their_own_are_calibrated_with_one_all_the_same() -> None:
    grid = calibration_profile(FEW.model_copy(update={"inside_seeds": (0, 1, 2)}), 0, [1e-3])
    assert {seed for _, seed in inside_rows_of(grid)} == {0}


def test_the_world_that_is_reported_on_is_refused() -> None:
    with pytest.raises(ValueError, match="calibrate on another"):
        calibration_profile(FEW, SMOKE.dataset.world_seed, [1e-3])


def test_the_grid_is_judged_and_written_in_the_columns_of_what_is_published(
    tmp_path: Path,
) -> None:
    table = calibrate(FEW, tmp_path, 0, [1e-3, 1e-5], workers=1, say=lambda line: None)
    written = pd.read_csv(tmp_path / "smoke-calibration" / "calibration.csv")
    published = pd.read_csv(Path(__file__).parents[2] / "published" / "calibration.csv", nrows=1)
    assert list(written.columns) == list(CALIBRATION_COLUMNS) == list(published.columns)
    assert list(table["row"]) == ["clean", "clean", "image-at", "image-at"]
    for _, part in table.groupby("row"):
        is_best = part["note"].str.startswith("best")
        assert is_best.sum() == 1
        assert part.loc[is_best, "value"].astype(float).item() == part["value"].astype(float).max()
