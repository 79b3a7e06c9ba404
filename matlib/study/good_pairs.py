"""The studies of pairs for the notebooks: this study's own tables, or the published ones."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from matlib.analysis.factorial import Effects, fit_effects
from matlib.analysis.gains import CONTROLS, gains_of_techniques
from matlib.analysis.prediction import levels_from_measures, predict_left_out
from matlib.study.full import PublishedStudy, larger_study, where_the_rest_is
from matlib.study.intervention import COORDINATES, intervention_table
from matlib.study.runs import Study
from matlib.study.techniques import sweep_table, technique_table

NAME = "one-to-many"
"""The profile that compares techniques and turns the dials, on the demo's world."""

MIN_PREDICTED = 3


@dataclass(frozen=True)
class PairStudy:
    """Tables of the studies of pairs.

    Attributes:
        techniques, sweeps, dialled: as `technique_table`, `sweep_table` and
            `intervention_table` give them; empty where there is none.
        reference: the row that gains are counted from.
        origin: where the numbers come from, in words.
    """

    techniques: pd.DataFrame
    sweeps: pd.DataFrame
    dialled: pd.DataFrame
    reference: str
    origin: str

    @property
    def gains(self) -> pd.DataFrame:
        """One line per technique: `matlib.analysis.gains.technique_gains`."""
        if self.techniques.empty:
            return pd.DataFrame()
        return gains_of_techniques(self.techniques, self.reference)

    def effects(self) -> Effects | None:
        """The fitted model of the experiment, if there was one."""
        return None if self.dialled.empty else fit_effects(self.dialled)

    def predictions(self, *, within: bool = False) -> pd.DataFrame:
        """Real techniques, left out of the fit, as the fitted model predicts them.

        Plain techniques of one modality with all coordinates; empty where there was no
        experiment of their modality or too few of them.

        Args:
            within: only those that lie within the range of the dials.
        """
        effects, plain = self.effects(), plain_techniques(self.gains)
        if effects is None or plain.empty:
            return pd.DataFrame()
        plain = plain[plain["modality"].isin(set(self.dialled["modality"]))]
        if len(plain) < MIN_PREDICTED:
            return pd.DataFrame()
        measured = plain.rename(columns={column: dial for dial, column in COORDINATES.items()})
        levels = levels_from_measures(self.dialled, COORDINATES, measured)
        levels = levels[levels["inside"]] if within else levels
        if len(levels) < MIN_PREDICTED:
            return pd.DataFrame()
        return predict_left_out(effects, levels, plain.set_index("technique")["gain"])


def plain_techniques(gains: pd.DataFrame) -> pd.DataFrame:
    """The techniques as they usually are: no options, all training pairs."""
    if gains.empty:
        return gains
    is_plain = (gains["technique"] == gains["augmentation"]) & (gains["modality"] != "")
    return gains[is_plain].reset_index(drop=True)


def real_techniques(gains: pd.DataFrame) -> pd.DataFrame:
    """The plain techniques without the controls."""
    plain = plain_techniques(gains)
    return plain if plain.empty else plain[~plain["augmentation"].isin(CONTROLS)]


def pair_study(study: Study, published: Path | None = None) -> PairStudy | None:
    """This study's own tables of pairs; for the demo those in `published/one-to-many`.

    Args:
        published: folder of all published studies; the checkout's own by default.
    """
    profile = study.profile
    if profile.techniques:
        seeds = len(profile.seeds_of_techniques)
        return PairStudy(
            technique_table(study), sweep_table(study), intervention_table(study),
            profile.reference, f"computed here, {seeds} training seeds per technique",
        )  # fmt: skip
    found = larger_study(study, NAME, published)
    return None if found is None else of_published(found)


def of_published(found: PublishedStudy) -> PairStudy:
    """The studies of pairs from published tables."""
    tables = [_read(found, name) for name in ("techniques", "sweeps", "intervention")]
    reference = str(found.profile["reference"])
    return PairStudy(tables[0], tables[1], tables[2], reference, found.origin)


def _read(found: PublishedStudy, name: str) -> pd.DataFrame:
    """A published table; what is empty in a column of numbers was not measured."""
    table = found.table(name)
    words = {"row", "technique", "augmentation", "modality", "dial", "unit", "attack"}
    for column in set(table.columns) - words:
        table[column] = pd.to_numeric(table[column])
    return table


def where_pairs_are(study: Study) -> str:
    """One sentence for a notebook that has no study of pairs to show."""
    return where_the_rest_is(study, NAME)
