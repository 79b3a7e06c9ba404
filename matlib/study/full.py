"""A larger study's published tables, for the notebooks of a smaller one."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from matlib.study.provenance import PACKAGE_ROOT
from matlib.study.readme import origin_markdown
from matlib.study.runs import Study


@dataclass(frozen=True)
class PublishedStudy:
    """The tables in `published/<profile>/`, which were made elsewhere and are only shown.

    Attributes:
        folder: where they lie.
        profile: the profile's content, from their provenance.
        origin: where the numbers come from, in words; to be shown beside every one of them.
    """

    folder: Path
    profile: dict[str, Any]
    origin: str

    def table(self, name: str) -> pd.DataFrame:
        """`endpoints`, `inside`, `held_out`, `robustness`; empty where there is none."""
        path = self.folder / f"{name}.csv"
        if not path.is_file():
            return pd.DataFrame()
        return pd.read_csv(path, keep_default_na=False, na_values=["nan", "NaN"])

    @property
    def gallery(self) -> str:
        """What was searched, in words for an axis."""
        data = self.profile["dataset"]
        n = data["n_test"]
        return f"{n:,} images, {n * data['captions_per_image']:,} captions"


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
    provenance = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))
    profile = provenance["profile"]
    n_seeds = len(profile.get("technique_seeds") or profile["seeds"])
    origin = (
        f"From published/{name}, not computed here: {n_seeds} training seeds per row, world "
        f"seed {profile['dataset']['world_seed']}. {origin_markdown(provenance)}"
    )
    return PublishedStudy(folder, profile, origin)


def where_the_rest_is(study: Study, name: str = "demo-full") -> str:
    """One sentence for a notebook that has no larger study to show."""
    if study.profile.name != "demo":
        return f"Profile {study.profile.name} shows its own rows only."
    return (
        f"published/{name} is not there yet; `python -m matlib study --profile {name} "
        "--publish` makes it."
    )
