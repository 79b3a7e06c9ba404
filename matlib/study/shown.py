"""What a results folder shows, and the profile that it is about.

Tables, figures, executed notebooks and pages carry no hash: after a change of the profile those
of the old one would stand among the new ones. So the folder keeps the profile it is about, and
what another one left is removed before anything new is shown.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import yaml

from matlib.config.profile import Profile, ProfileError, load_profile
from matlib.study.durable import write_durably

PROFILE = "profile.yaml"
"""Below `results/<profile>`: the whole profile as it was run, every path absolute."""

FIGURES = {
    "robustness": "Recall under each attack, with 95 % intervals.",
    "adversarial": "Clean images, adversarial images and their difference.",
    "augmentations": "Alignment, diversity and distribution shift of augmented pairs.",
    "good_pairs": "What makes a good pair: robustness gained by the set level of each dial.",
}
RESULTS = (
    "claims.json", "contrasts.csv", "robustness.csv", "endpoints.csv", "held_out.csv", "inside.csv",
    "transfer.csv", "ranking.csv", "techniques.csv", "sweeps.csv", "intervention.csv",
    "provenance.json",
)  # fmt: skip


def keep_profile(profile: Profile, folder: Path) -> Path:
    """Make the folder one about this profile; what another one left to be shown is removed.

    Args:
        folder: `results/<profile>`; artefacts in it are known by their hashes and stay.

    Returns:
        a profile file that says the same from any working folder, for the notebooks.
    """
    path = folder / PROFILE
    text = yaml.safe_dump(profile.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    if not path.is_file() or path.read_bytes() != text.encode():
        for stale in _shown(folder):
            stale.unlink()
        write_durably(path, text)
    return path


def kept_profile(profile: Profile, folder: Path) -> Profile:
    """The profile that the folder is about, with the limit that it was run with.

    Raises:
        FileNotFoundError: no study was run here.
        ProfileError: it is about another version of the profile.
    """
    if not (folder / PROFILE).is_file():
        raise FileNotFoundError(
            f"{folder} holds no study to show; run `python -m matlib study --profile "
            f"{profile.name}` first: what is finished is kept"
        )
    kept = load_profile(folder / PROFILE)
    if kept != profile.limited(kept.limit):
        raise ProfileError(
            f"profile {profile.name} has changed since {folder} was made; run the study again: "
            "what has not changed is kept"
        )
    return kept


def is_writable(folder: Path) -> bool:
    """Whether files can be written there; not on a disk that is only read."""
    return os.access(folder, os.W_OK)


def _shown(folder: Path) -> Iterator[Path]:
    named = [folder / name for name in RESULTS]
    named += [folder / "figures" / f"{name}.png" for name in FIGURES]
    yield from (path for path in named if path.is_file())
    yield from sorted((folder / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    yield from sorted((folder / "report").glob("*.html"))
