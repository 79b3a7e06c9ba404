"""A study: every model and every evaluation of a profile, made on demand and once.

What every notebook starts with: the study of its parameters, announced in one line.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import pandas as pd

from matlib.attacks.edits import Table
from matlib.data.pairs import OneToMany
from matlib.evaluation.retrieval import Outcomes
from matlib.evaluation.suite import Key, Suite
from matlib.models.encoder import VisionLanguageModel
from matlib.models.masked_lm import MaskedLM
from matlib.study.context import Context
from matlib.study.made import protocols
from matlib.study.made.base import open_masked_lm
from matlib.study.made.candidates import tables
from matlib.study.made.evaluated import EvaluatedModel, evaluated
from matlib.study.made.models import history, open_model
from matlib.study.made.pairs import variants
from matlib.study.made.protocols import EvaluationProtocol, GalleryName
from matlib.study.profile.profile import load_profile
from matlib.study.profile.rows import Run
from matlib.study.recipes import as_run, inside_rows_of, rows_of
from matlib.study.store.provenance import PACKAGE_ROOT, checkout_state


class Study(Context):
    """One profile with its data and its results: every model and every evaluation, on demand."""

    def rows(self) -> list[tuple[str, int]]:
        """(row name, seed) of every model of the study, base first."""
        return rows_of(self.profile)

    def inside_rows(self) -> list[tuple[str, int]]:
        """(row name, seed) of the variations of one defence (`profile.inside`)."""
        return inside_rows_of(self.profile)

    def variants(self, technique: str | Run, seed: int = 0) -> OneToMany:
        """The training pairs with the variants of a technique.

        Args:
            technique: an augmentation by name, or a row with its options.

        Raises:
            ValueError: unknown augmentation, or one that these data do not allow.
        """
        return variants(self, as_run(technique), seed)

    def masked_lm(self) -> MaskedLM:
        """The attacker's masked language model."""
        return open_masked_lm(self)

    def model(self, name: str, seed: int = 0) -> VisionLanguageModel:
        """A model of the study by row name: `base`, `mat`, `mat+.captions` …"""
        return open_model(self, name, seed)

    def history(self, name: str, seed: int = 0, file: str = "history.csv") -> pd.DataFrame:
        """As `matlib.study.made.models.history`."""
        return history(self, name, seed, file)

    def tables(self, gallery: GalleryName, threats: tuple[str, ...]) -> dict[str, Table]:
        """Per text threat the allowed edits of every caption of a gallery."""
        return self.get(tables(self, gallery, threats))

    def evaluated(
        self, name: str, seed: int = 0, how: EvaluationProtocol | None = None
    ) -> EvaluatedModel:
        """Per-query outcomes, adversarial captions and a few images of one model.

        Args:
            how: the full suite on the test gallery by default.
        """
        return self.get(evaluated(self, name, seed, how or self.main_protocol("test")))

    def outcomes(self, name: str, seed: int, how: EvaluationProtocol) -> Mapping[Key, Outcomes]:
        """The ranks of `evaluated` alone, read once: tables ask for the same row many times."""
        node = evaluated(self, name, seed, how)
        if node.hash not in self._outcomes:
            self._outcomes[node.hash] = self.get(node).outcomes
        self.used.add(node.hash)
        return self._outcomes[node.hash]

    @cached_property
    def _outcomes(self) -> dict[str, Mapping[Key, Outcomes]]:
        return {}

    def main_protocol(self, gallery: GalleryName) -> EvaluationProtocol:
        """The full suite under the evaluation budget."""
        return protocols.full(self.profile.evaluation, gallery)

    def held_out_protocol(self) -> EvaluationProtocol:
        """Edits of kinds that no defence trains on."""
        return protocols.held_out(self.profile.evaluation)

    def inside_protocol(self) -> EvaluationProtocol:
        """How variations of one defence are compared."""
        return protocols.inside(self.profile.evaluation)

    def gap_protocol(self, gallery: GalleryName) -> EvaluationProtocol:
        """How training and held-out pairs are judged."""
        return protocols.gap(self.profile.evaluation, gallery)

    def suite(self, how: EvaluationProtocol) -> Suite:
        """The attacks of one protocol."""
        return protocols.make_suite(self.profile.evaluation, how)


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
