"""What every notebook starts with: the study of its parameters, announced in one line."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from matlib.config.profile import load_profile
from matlib.study.provenance import PACKAGE_ROOT, checkout_state
from matlib.study.runs import Study


def open_study(profile: str, results: str = "", data: str = "", limit: int | str = 0) -> Study:
    """The study that a notebook's parameters name.

    Prints one line before anything is computed: profile, commit, expected time. Tables are
    shown whole from here on.

    Args:
        profile: name of a profile, or path of a YAML file.
        results: folder of all results; empty: `results` beside the package (in a checkout),
            or in the working folder.
        data: folder of a data set on disk; empty where the profile needs none.
        limit: at most so many test images; 0: all. Digits will do, as papermill's -r passes.

    Raises:
        ProfileError: unknown profile or bad key.
        ValueError: a parameter of another type.
        ValueError, FileNotFoundError: the data are missing.
        StoreVersionError: the results were made by another version.
    """
    limit = _checked_limit(limit)
    for name, value in (("profile", profile), ("results", results), ("data", data)):
        if not isinstance(value, str):
            raise ValueError(f"{name} is expected as text (papermill: -r {name}); got {value!r}")
    chosen = load_profile(profile, limit)
    study = Study(chosen, results_folder(results), Path(data) if data else None)
    pd.set_option("display.max_colwidth", None)
    pd.set_option("display.max_columns", None)
    pd.set_option("display.html.use_mathjax", False)  # dollars in captions begin no formulas
    partial = f", partial: at most {limit} test images" if limit else ""
    print(
        f"profile {chosen.name}{partial} · {_commit()} · the whole study takes about "
        f"{chosen.minutes:g} min; what is finished is loaded",
        flush=True,
    )
    return study


def _checked_limit(limit: int | str) -> int:
    if isinstance(limit, str) and limit.isascii() and limit.isdigit():
        limit = int(limit)
    if not isinstance(limit, int) or isinstance(limit, bool) or limit < 0:
        raise ValueError(
            f"limit is the number of test images at most, 0 for all, a whole number; got {limit!r}"
        )
    return limit


def results_folder(results: str = "") -> Path:
    """The folder that a `results` parameter means."""
    if results:
        return Path(results)
    root = PACKAGE_ROOT if (PACKAGE_ROOT / "pyproject.toml").is_file() else Path.cwd()
    return root / "results"


def _commit() -> str:
    state = checkout_state()
    if state["commit"] is None:
        return "not a git checkout"
    return f"commit {state['commit'][:10]}" + (" (changed since)" if state["dirty"] else "")
