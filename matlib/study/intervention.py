"""The controlled experiment: every run with its set and achieved levels and its gain."""

from __future__ import annotations

import math

import pandas as pd

from matlib.evaluation.statistics import primary_endpoint
from matlib.study import judgings
from matlib.study.coordinates import coordinates
from matlib.study.runs import Study
from matlib.study.techniques import found_by, gain_of

INTERVENTION_COLUMNS = (
    "alignment", "diversity", "shift", "modality", "seed", "gain", "sga_gain", "worst", "clean",
    "similarity", "vendi", "mmd2", "true_fraction",
)  # fmt: skip

ACHIEVED = {"alignment": "true_fraction", "diversity": "vendi", "shift": "mmd2"}
"""What each dial is to move, for the manipulation check: the truth, since scenes knows it."""

COORDINATES = {"alignment": "similarity", "diversity": "vendi", "shift": "mmd2"}
"""The same as a study of real data could measure it: what techniques are placed by."""


def intervention_table(study: Study) -> pd.DataFrame:
    """One row per design point and seed.

    Returns:
        `COLUMNS`: levels as set, the gain in worst-of recall (PGD, one word, SGA, joint) over
        MAT of the same seed, the same under SGA, recalls, and the achieved measures, which
        are those of the pairs and so the same for all seeds. Empty without an experiment.
    """
    experiment = study.profile.intervention
    rows, how = [], judgings.inside(study.profile.evaluation)
    for seed in experiment.seeds if experiment else ():
        for run in experiment.runs() if experiment else ():
            assert run.dials is not None
            found = found_by(study, run.row, seed, how)
            achieved = coordinates(study, run)
            rows.append(
                {
                    **run.dials.levels,
                    "modality": run.modality,
                    "seed": seed,
                    "gain": gain_of(study, run.row, seed, how).value,
                    "sga_gain": gain_of(study, run.row, seed, how, "sga").value,
                    "worst": primary_endpoint(found["worst"]),
                    "clean": primary_endpoint(found["clean"]),
                    **achieved,
                    "true_fraction": achieved.get("true_fraction", math.nan),
                }
            )
    return pd.DataFrame(rows, columns=list(INTERVENTION_COLUMNS))
