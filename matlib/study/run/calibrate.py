"""Learning rates: every defence at the same few, on a world that no result is reported on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from matlib.evaluation.robustness import WORST
from matlib.files import write_durably
from matlib.study.profile.profile import Profile
from matlib.study.profile.rows import Run
from matlib.study.recipes import row_name
from matlib.study.run.tasks import Rows, make_rows, n_workers
from matlib.study.study import Study
from matlib.study.tables.recalls import in_short

CALIBRATION_COLUMNS = (
    "world_seed", "subject", "setting", "steps", "batch_size", "lr", "n_train", "eps_255",
    "k_true", "row", "measure", "value", "note",
)  # fmt: skip
"""Of `published/calibration.csv`."""

CALIBRATION_FILE = "calibration.csv"


def calibration_profile(profile: Profile, world_seed: int, lrs: Sequence[float]) -> Profile:
    """Each row of a profile at each learning rate, on another world, with one seed.

    Raises:
        ValueError: the world is the one that the profile reports on, or it is no embedded
            world; nothing to tune.
    """
    if profile.dataset.name != "scenes" or not profile.runs or not lrs:
        raise ValueError(
            f"profile {profile.name}: learning rates are calibrated for the rows of an embedded "
            "world; for real data give `lr` to each of `runs`"
        )
    if world_seed == profile.dataset.world_seed:
        raise ValueError(
            f"profile {profile.name} reports on world seed {world_seed}; calibrate on another, "
            "or its results are tuned on what they are measured on"
        )
    runs = [
        Run(**{**run.model_dump(), "label": f"lr{lr:g}", "lr": lr})
        for run in profile.runs
        for lr in lrs
    ]
    return profile.model_copy(
        update={
            "name": f"{profile.name}-calibration",
            "dataset": profile.dataset.model_copy(update={"world_seed": world_seed}),
            "runs": (),
            "inside": tuple(runs),
            "inside_seeds": (),
            "seeds": (0,),
        }
    )


def calibrate(
    profile: Profile,
    results: Path,
    world_seed: int,
    lrs: Sequence[float],
    workers: int = 0,
    say: Callable[[str], None] = print,
) -> pd.DataFrame:
    """Train and judge the grid; what is finished is not redone.

    Returns:
        the rows for `published/calibration.csv`, which are also written to
        `results/<profile>-calibration/calibration.csv`; the note of each defence's best
        learning rate begins with `best`.
    """
    grid = calibration_profile(profile, world_seed, lrs)
    study = Study(grid, results)
    make_rows(study, None, Rows(inside=study.inside_rows()), n_workers(grid, workers), say)
    found = pd.DataFrame(
        [_row(study, run) for run in grid.inside], columns=[*CALIBRATION_COLUMNS, "clean"]
    )
    best = found.groupby("row")["value"].idxmax()
    notes = found["note"].where(~found.index.isin(best), "best of its rates; " + found["note"])
    table = found.assign(note=notes, value=found["value"].map("{:.3f}".format))[
        list(CALIBRATION_COLUMNS)
    ]
    write_durably(study.root / CALIBRATION_FILE, table.to_csv(index=False, lineterminator="\n"))
    return table


def _row(study: Study, run: Run) -> list[object]:
    profile, e = study.profile, study.profile.evaluation
    assert profile.finetune is not None
    evaluated = in_short(study, "", seeds=(0,))
    robust, clean = (evaluated.recall(row_name(run), attack) for attack in (WORST, "clean"))
    plain = row_name(run.model_copy(update={"label": ""}))
    every = profile.finetune.validate_every
    setting = f"best of every {every} steps on validation" if every else "last step"
    return [
        profile.dataset.world_seed, "learning rate", setting, profile.finetune.n_steps,
        profile.finetune.batch_size, f"{run.lr:g}", profile.dataset.n_train, f"{e.eps_255:g}",
        profile.candidates.k_true, plain, "worst of pgd, bert, sga, joint endpoint", robust.value,
        f"[{robust.low:.3f}; {robust.high:.3f}]; clean {clean.value:.3f}", clean.value,
    ]  # fmt: skip
