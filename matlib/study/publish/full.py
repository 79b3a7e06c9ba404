"""A larger study's published tables, for the notebooks of a smaller one.

The studies of pairs for the notebooks: this study's own tables, or the published ones. What is
not there is empty, with its columns, and says where it would come from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from matlib.analysis.experiment import (
    DIALS,
    fit_effects,
    responses_by_dose,
)
from matlib.analysis.gains import CONTROLS, gains_of_techniques
from matlib.analysis.prediction import MODELS, levels_from_measures, predict_left_out
from matlib.study.publish.report import read_claims
from matlib.study.publish.shown import origin_markdown
from matlib.study.store.provenance import PACKAGE_ROOT
from matlib.study.store.shared_json import read_shared
from matlib.study.study import Study
from matlib.study.tables.contrasts_of_pairs import PAIR_CURVE_COLUMNS, curve_of_pairs
from matlib.study.tables.endpoints import (
    ENDPOINT_COLUMNS,
    HELD_OUT_COLUMNS,
    INSIDE_COLUMNS,
    RANKING_COLUMNS,
    TRANSFER_COLUMNS,
)
from matlib.study.tables.findings import EXPLORING, REPLICATIONS
from matlib.study.tables.ledger import CONTRAST_COLUMNS, ClaimEntry, by_family
from matlib.study.tables.other_tasks import OTHER_TASK_COLUMNS
from matlib.study.tables.techniques import (
    COORDINATES,
    INTERVENTION_COLUMNS,
    RUN_COLUMNS,
    SWEEP_COLUMNS,
    intervention_table,
    sweep_table,
    technique_table,
)

LARGER = ("report", "report-rivals", "report-models", "inside-mat", "demo-full")
PAIRS = ("report-pairs", "replication-pairs", "one-to-many")
OF_DIALS = ("report-dials", "replication-pairs", "one-to-many")
"""Published studies that continue the demo: on defences, on pairs, and on the dials of pairs. The
first that has a table gives it; the last makes every table of its kind."""

COLUMNS: dict[str, Sequence[str]] = {
    "endpoints": ENDPOINT_COLUMNS, "held_out": HELD_OUT_COLUMNS, "inside": INSIDE_COLUMNS,
    "transfer": TRANSFER_COLUMNS, "ranking": RANKING_COLUMNS, "other_tasks": OTHER_TASK_COLUMNS,
    "contrasts": CONTRAST_COLUMNS, "techniques": RUN_COLUMNS, "sweeps": SWEEP_COLUMNS,
    "intervention": INTERVENTION_COLUMNS, "curves": PAIR_CURVE_COLUMNS,
}  # fmt: skip
"""What a published table holds, by its name; older ones have fewer of them."""

OLDER_JUDGE = (
    " Judged by an older suite, without an attacker who chooses all images and words together: "
    "less is left than these numbers say."
)


@dataclass(frozen=True)
class PublishedStudy:
    """The tables in `published/<profile>/`, which were made elsewhere and are only shown.

    Attributes:
        folder: where they lie; one that is not there holds no rows and no claims.
        profile: the profile's content, from their provenance.
        made: at which commit and in how much time, in words; of a folder that is not there, why.
    """

    folder: Path
    profile: dict[str, Any]
    made: str

    @property
    def name(self) -> str:
        """Of its profile."""
        return self.folder.name

    def table(self, name: str) -> pd.DataFrame:
        """One of `COLUMNS`; without a row where there is none."""
        path = self.folder / f"{name}.csv"
        if not path.is_file():
            return pd.DataFrame(columns=list(COLUMNS[name]))
        return pd.read_csv(path, keep_default_na=False, na_values=["nan", "NaN"])

    def claims(self) -> list[dict[str, Any]]:
        """The rows of its claims.json, worded as they would be now; [] where there is none."""
        path = self.folder / "claims.json"
        return read_claims(path) if path.is_file() else []

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
        if not self.folder.is_dir():
            return self.made
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
        """Which embedded worlds it is of, or which photographs, in words."""
        data = self.profile["dataset"]
        if data["name"] != "scenes":
            return f"{data['name']} at {data['image_size']} px"
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
    where = " in each world" if profile.get("worlds") else ""
    if profile.get("runs"):
        told = f"{n} for each defence{where} (the undefended model is one)"
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
        found["techniques"] = f"{n_techniques} for each technique{where}"
    if profile.get("sweeps"):
        found["sweeps"] = "only the first for other amounts and strengths"
    if profile.get("intervention"):
        n_dialled = len(profile["intervention"]["seeds"])
        found["intervention"] = f"{n_dialled} for each setting of the dials{where}"
    return found


def larger_study(
    study: Study, table: str, order: Sequence[str] = LARGER, published: Path | None = None
) -> PublishedStudy:
    """The first published study that continues this one, if this is the demo, in a table.

    They share its world, or have new ones of its kind, its model and its size.

    Args:
        table: one of `COLUMNS`, or `claims`.
        order: names of the studies, the first to be asked first.
        published: folder of all published studies; the checkout's own by default.

    Returns:
        one without tables and claims, whose origin says where they would come from, where no
        study has it.
    """
    root = published or PACKAGE_ROOT / "published"
    why = f"Profile {study.profile.name} shows its own rows only."
    if study.profile.name == "demo":
        for folder in (root / name for name in order):
            has_table = any((folder / f"{table}.{kind}").is_file() for kind in ("csv", "json"))
            if has_table and (folder / "provenance.json").is_file():
                return published_study(folder)
        command = f"python -m matlib study --profile {order[-1]} --publish"
        why = f"No published study has the table `{table}` yet; `{command}` makes it."
    return PublishedStudy(root / "nothing", study.profile.model_dump(mode="json"), why)


def continuing(study: Study, published: Path | None = None) -> list[PublishedStudy]:
    """The published studies whose claims stand beside the demo's, each once.

    On defences, what asks again about them, on their ranking over models, on pairs and on the
    dials of pairs; what an older judge decided is none of them.

    Args:
        published: as for `larger_study`.

    Returns:
        one or more; one that says why there is none.
    """
    asked = (
        ("claims", LARGER), *(("claims", (name,)) for name in REPLICATIONS), ("ranking", LARGER),
        ("claims", PAIRS), ("claims", OF_DIALS),
    )  # fmt: skip
    every = [larger_study(study, table, order, published) for table, order in asked]
    found = {each.name: each for each in every}
    now = [each for each in found.values() if each.claims() and each.knows_gallery]
    return now or [*found.values()]


def ledgers_of_now(published: Path) -> dict[str, list[ClaimEntry]]:
    """Claims of every published study that the gallery attacker judged, corrected by family.

    `EXPLORING` are none of them.

    Args:
        published: folder of all published studies.
    """
    found = {
        study.name: study.claims()
        for path in sorted(published.glob("*/claims.json"))
        if (study := published_study(path.parent)).knows_gallery and study.name not in EXPLORING
    }
    return by_family(found)


def own_or_larger(study: Study, table: str, own: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """The study's own table if it has a row, else the published one; and where it comes from.

    Args:
        table: as for `larger_study`.
        own: with a column n_seeds.
    """
    if len(own):
        return own, f"Computed here; training seeds: {own['n_seeds'].max()}."
    larger = larger_study(study, table)
    return larger.table(table), larger.origin_of(table)


def published_study(folder: Path) -> PublishedStudy:
    """The study whose tables lie in `folder`, with its `provenance.json`."""
    provenance = read_shared(folder / "provenance.json")
    return PublishedStudy(folder, provenance["profile"], origin_markdown(provenance))


MIN_PREDICTED = 3

EFFECT_COLUMNS = ("term", "value", "low", "high", "p", "n", "unit", "p_holm")
PREDICTED_COLUMNS = ("technique", "modality", *DIALS, "miss", "inside", "gain", *MODELS)


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
        """One line per technique: `matlib.analysis.gains.gains_of_techniques`."""
        return gains_of_techniques(self.techniques, self.reference)

    def effects(self, modality: str = "") -> pd.DataFrame:
        """The fitted model of the experiment, or of that of one modality: `Effects.table`."""
        runs = self.dialled
        runs = runs[runs["modality"] == modality] if modality else runs
        if runs.empty:
            return pd.DataFrame(columns=list(EFFECT_COLUMNS))
        return fit_effects(runs).table()

    def responses(self) -> pd.DataFrame:
        """Gain by the level of each dial: `matlib.analysis.experiment.responses_by_dose`."""
        return pd.DataFrame() if self.dialled.empty else responses_by_dose(self.dialled)

    def predictions(self, *, within: bool = False) -> pd.DataFrame:
        """Real techniques, left out of the fit, as the fitted model predicts them.

        Plain techniques of one modality with all coordinates; empty where there was no
        experiment of their modality or too few of them.

        Args:
            within: only those that lie within the range of the dials.

        Returns:
            `PREDICTED_COLUMNS`, levels in [0, 1] and gains in shares of 1.
        """
        plain, levels = plain_techniques(self.gains), pd.DataFrame()
        if len(plain):
            plain = plain[plain["modality"].isin(set(self.dialled["modality"]))]
            measured = plain.rename(columns={column: dial for dial, column in COORDINATES.items()})
            levels = levels_from_measures(self.dialled, COORDINATES, measured)
        levels = levels[levels["inside"]] if within and len(levels) else levels
        if len(levels) < MIN_PREDICTED:
            return pd.DataFrame(columns=list(PREDICTED_COLUMNS))
        gain = plain.set_index("technique")["gain"]
        return predict_left_out(fit_effects(self.dialled), levels, gain)


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


def pair_study(
    study: Study,
    table: str = "techniques",
    order: Sequence[str] = PAIRS,
    published: Path | None = None,
) -> PairStudy:
    """This study's own tables of pairs; for the demo those of one published study.

    All of one study: what techniques gain and what the dials foretell are of one world.

    Args:
        table: that the published study is chosen by, as for `larger_study`.
        order: as for `larger_study`.
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
    return of_published(larger_study(study, table, order, published))


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
