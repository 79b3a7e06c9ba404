"""A larger study's published tables, for the notebooks of a smaller one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from matlib.study.origin import origin_markdown
from matlib.study.provenance import PACKAGE_ROOT
from matlib.study.runs import Study


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
        world = self.profile["dataset"]["world_seed"]
        told = ", ".join(dict.fromkeys(seeds.values()))
        return (
            f"From published/{self.folder.name}, not computed here: world seed {world}; training "
            f"seeds: {told}. {self.made}"
        )

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
    provenance = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))
    return PublishedStudy(folder, provenance["profile"], origin_markdown(provenance))


def where_the_rest_is(study: Study, name: str = "demo-full") -> str:
    """One sentence for a notebook that has no larger study to show."""
    if study.profile.name != "demo":
        return f"Profile {study.profile.name} shows its own rows only."
    return (
        f"published/{name} is not there yet; `python -m matlib study --profile {name} "
        "--publish` makes it."
    )
