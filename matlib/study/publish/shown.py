"""What a results folder shows, and the profile that it is about.

Tables, figures, executed notebooks and pages carry no hash: after a change of the profile those
of the old one would stand among the new ones. So the folder keeps the profile it is about, and
what another one left is removed before anything new is shown.

What made published numbers, in words: at which commit, and whether its code has changed.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from matlib.files import write_durably
from matlib.study.profile.profile import Profile, ProfileError, load_profile
from matlib.study.store.provenance import stale_kinds
from matlib.study.store.shared_json import read_shared

PROFILE = "profile.yaml"
"""Below `results/<profile>`: the whole profile as it was run, every path absolute."""

FIGURES = {
    "retrieval": "What captions find before and after one word and some pixels were changed; an "
    "image is framed where the caption is true of it.",
    "robustness": "Recall under each attack, with 95 % intervals.",
    "adversarial": "Clean images, adversarial images and their difference.",
    "augmentations": "Alignment, diversity and distribution shift of augmented pairs.",
    "good_pairs": "What makes a good pair: robustness gained by the set level of each dial.",
}
SHOW_IMAGES = frozenset({"retrieval", "adversarial"})
"""Figures that show images of the data: of photographs they are never published."""

RESULTS = (
    "claims.json", "contrasts.csv", "robustness.csv", "endpoints.csv", "held_out.csv", "inside.csv",
    "transfer.csv", "ranking.csv", "other_tasks.csv", "techniques.csv", "sweeps.csv",
    "intervention.csv", "curves.csv", "false_words.csv", "provenance.json",
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


def made_in_words(folder: Path) -> str:
    """On which devices and in how much time a study was made, and where its page is built.

    Provenance names no machine and no day: those are of the building, and are said to be.

    Args:
        folder: `results/<profile>`; "" where it holds no `provenance.json`.
    """
    path = folder / "provenance.json"
    if not path.is_file():
        return ""
    artefacts = read_shared(path).get("artefacts", [])
    devices = sorted({str(each["device"]) for each in artefacts if each.get("device")})
    minutes = sum(float(each.get("wall_seconds") or 0) for each in artefacts) / 60
    made = f"Its {len(artefacts)} artefacts took {minutes:.0f} minutes"
    where = f" on {' and '.join(devices)}" if devices else ""
    day = datetime.now(tz=UTC).strftime("%d %B %Y")
    return f"{made}{where}. Built on {day} on {platform.machine()}, {os.cpu_count()} cores."


_KINDS = {
    "masked-lm": "the attacker's language model",
    "candidates": "the candidate words",
    "model": "the models",
    "judged": "the evaluations",
    "sanity": "the sanity checks",
    "captioner": "the captioners",
    "captioning": "the captions under attack",
    "grounding": "the grounding under attack",
    "pairs": "generated pairs",
    "filtered": "the shares that filters keep",
    "coordinates": "measures of pairs",
    "transfer": "the attacks sent from model to model",
}
"""Kinds of artefacts, as a reader would call them."""


def origin_markdown(provenance: Mapping[str, Any]) -> str:
    """Which commit made the published numbers, and whether their code has changed since."""
    artefacts = provenance["artefacts"]
    commits = sorted({str(a["commit"])[:7] + ("+" if a["dirty"] else "") for a in artefacts})
    seconds = sum(a["wall_seconds"] for a in artefacts if a["kind"] in ("model", "judged"))
    n_runs = sum(a["kind"] == "judged" for a in artefacts)
    text = (
        f"Made at commit {', '.join(commits)}: training and attacking took "
        f"{seconds / 60:.0f} minutes for {n_runs} evaluations."
    )
    stale = [_KINDS.get(kind, kind) for kind in stale_kinds(artefacts)]
    if stale:
        text += (
            f" The code of {', '.join(stale)} has changed since: a rerun may give other numbers."
        )
    return text
