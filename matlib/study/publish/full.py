"""A larger study's published tables, for the notebooks of a smaller one.

The studies of pairs for the notebooks: this study's own tables, or the published ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from matlib.analysis.experiment import CONTROLS, Effects, fit_effects, gains_of_techniques
from matlib.analysis.prediction import levels_from_measures, predict_left_out
from matlib.study.publish.shown import origin_markdown
from matlib.study.store.provenance import PACKAGE_ROOT
from matlib.study.store.shared_json import read_shared
from matlib.study.study import Study
from matlib.study.tables.contrasts_of_pairs import curve_of_pairs
from matlib.study.tables.techniques import (
    COORDINATES,
    intervention_table,
    sweep_table,
    technique_table,
)

OLDER_JUDGE = (
    " Judged by an older suite, without an attacker who chooses all images and words together: "
    "less is left than these numbers say."
)


@dataclass(frozen=True)
class PublishedStudy:
    """The tables in `published/<profile>/`, which were made elsewhere and are only shown.

    Attributes:
        folder: where they lie.
        profile: the profile's content, from their provenance.
        made: at which commit and in how much time, in words.
    """

    folder: Path
    profile: dict[str, Any]
    made: str

    def table(self, name: str) -> pd.DataFrame:
        """`endpoints`, `inside`, `held_out`, `robustness`; empty where there is none."""
        path = self.folder / f"{name}.csv"
        if not path.is_file():
            return pd.DataFrame()
        return pd.read_csv(path, keep_default_na=False, na_values=["nan", "NaN"])

    @property
    def origin(self) -> str:
        """Where the numbers come from, in words; to be shown beside every one of them."""
        return self._told(seeds_in_words(self.profile))

    def origin_of(self, table: str) -> str:
        """The same for one table, with its own number of training seeds.

        Args:
            table: as in `table`; of those that `seeds_in_words` does not know all are told.
        """
        found = seeds_in_words(self.profile)
        return self._told({table: found[table]} if table in found else found)

    def _told(self, seeds: Mapping[str, str]) -> str:
        told = ", ".join(dict.fromkeys(seeds.values()))
        return (
            f"From published/{self.folder.name}, not computed here: {self.worlds}; training "
            f"seeds: {told}. {self.made}{'' if self.knows_gallery else OLDER_JUDGE}"
        )

    @property
    def deciding(self) -> str:
        """The text threat that decides."""
        return str(self.profile["evaluation"]["primary_threat"])

    @property
    def worlds(self) -> str:
        """Which embedded worlds it is of, in words."""
        seeds = [self.profile["dataset"]["world_seed"], *self.profile.get("worlds", ())]
        return f"world seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"

    @property
    def knows_gallery(self) -> bool:
        """Whether the gallery attacker was among its judges."""
        return "gallery" in set(self.table("endpoints").get("attack", ()))

    @property
    def gallery(self) -> str:
        """What was searched, in words for an axis."""
        data = self.profile["dataset"]
        n = data["n_test"]
        return f"{n:,} images, {n * data['captions_per_image']:,} captions"


def seeds_in_words(profile: Mapping[str, Any]) -> dict[str, str]:
    """How many trained weights stand behind the numbers of each published table.

    Args:
        profile: as `Profile.model_dump` gives it.

    Returns:
        name of a table -> e.g. `5 for each defence`; only tables that the profile makes.
    """
    n, found = len(profile["seeds"]), {}
    if profile.get("runs"):
        told = f"{n} for each defence (the undefended model is one)"
        found = dict.fromkeys(("endpoints", "robustness", "held_out"), told)
    if profile.get("inside"):
        n_inside = len(profile.get("inside_seeds") or profile["seeds"])
        found["inside"] = f"{n_inside} for each variation of a defence"
    if profile.get("transfer_rows"):
        found["transfer"] = "only the first where attacks are sent from model to model"
        if profile.get("architectures"):
            found["ranking"] = f"{n} for each defence on each architecture"
    if profile.get("other_tasks"):
        found["other_tasks"] = f"{n} for each defence on captioning and grounding"
    if profile.get("techniques"):
        n_techniques = len(profile.get("technique_seeds") or profile["seeds"])
        found["techniques"] = f"{n_techniques} for each technique"
    if profile.get("sweeps"):
        found["sweeps"] = "only the first for other amounts and strengths"
    if profile.get("intervention"):
        n_dialled = len(profile["intervention"]["seeds"])
        found["intervention"] = f"{n_dialled} for each setting of the dials"
    return found


def larger_study(
    study: Study, name: str = "demo-full", published: Path | None = None
) -> PublishedStudy | None:
    """The published study of that name, if this one is `demo` and the other is there.

    Both share a world, a model and a budget, so that the one continues the other.

    Args:
        published: folder of all published studies; the checkout's own by default.
    """
    folder = (published or PACKAGE_ROOT / "published") / name
    if study.profile.name != "demo" or not (folder / "provenance.json").is_file():
        return None
    return published_study(folder)


def published_study(folder: Path) -> PublishedStudy:
    """The study whose tables lie in `folder`, with its `provenance.json`."""
    provenance = read_shared(folder / "provenance.json")
    return PublishedStudy(folder, provenance["profile"], origin_markdown(provenance))


def where_the_rest_is(study: Study, name: str = "demo-full") -> str:
    """One sentence for a notebook that has no larger study to show."""
    if study.profile.name != "demo":
        return f"Profile {study.profile.name} shows its own rows only."
    return (
        f"published/{name} is not there yet; `python -m matlib study --profile {name} "
        "--publish` makes it."
    )


NAME = "one-to-many"
"""The profile that compares techniques and turns the dials, on the demo's world."""

MIN_PREDICTED = 3


@dataclass(frozen=True)
class PairStudy:
    """Tables of the studies of pairs.

    Attributes:
        techniques, sweeps, dialled, curves: as `technique_table`, `sweep_table`,
            `intervention_table` and `curve_of_pairs` give them; empty where there is none.
        reference: the row that gains are counted from.
        origin: where the numbers come from, in words.
    """

    techniques: pd.DataFrame
    sweeps: pd.DataFrame
    dialled: pd.DataFrame
    curves: pd.DataFrame
    reference: str
    origin: str

    @property
    def gains(self) -> pd.DataFrame:
        """One line per technique: `matlib.analysis.experiment.gains_of_techniques`."""
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
            curve_of_pairs(study), profile.reference,
            f"computed here, {seeds} training seeds per technique",
        )  # fmt: skip
    found = larger_study(study, NAME, published)
    return None if found is None else of_published(found)


def of_published(found: PublishedStudy) -> PairStudy:
    """The studies of pairs from published tables."""
    tables = [_read(found, name) for name in ("techniques", "sweeps", "intervention", "curves")]
    reference = str(found.profile["reference"])
    return PairStudy(tables[0], tables[1], tables[2], tables[3], reference, found.origin)


def _read(found: PublishedStudy, name: str) -> pd.DataFrame:
    """A published table; what is empty in a column of numbers was not measured."""
    table = found.table(name)
    words = {"row", "technique", "augmentation", "modality", "dial", "unit", "attack",
             "defence", "weights"}  # fmt: skip
    for column in set(table.columns) - words:
        table[column] = pd.to_numeric(table[column])
    return table


def where_pairs_are(study: Study) -> str:
    """One sentence for a notebook that has no study of pairs to show."""
    return where_the_rest_is(study, NAME)
