"""A study: every model and every evaluation of a profile, made on demand and once.

What every notebook starts with: the study of its parameters, announced in one line.

A profile as part of identities: local files and folders are known by their content.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from matlib.attacks.edits import Table, normalise_caption
from matlib.data.pairs import ImageTextPairs, OneToMany
from matlib.defences.own_attack import OwnLossAttack, own_attack
from matlib.evaluation.retrieval import Outcomes
from matlib.evaluation.robustness import evaluate, strength_curve
from matlib.evaluation.suite import Key, Suite
from matlib.models.masked_lm import MaskedLM
from matlib.models.open_clip import OpenClipEncoder
from matlib.progress import Progress
from matlib.study.identity.makers import hands_over, makes
from matlib.study.made import judgings
from matlib.study.made.candidates import load_tables, make_tables, save_tables, validity
from matlib.study.made.judged import Judged, load_evaluation, save_curve, save_evaluation
from matlib.study.made.judgings import GalleryName, Judging
from matlib.study.made.models import Models, about_tables, check_models
from matlib.study.profile.profile import Profile, load_profile, map_places
from matlib.study.profile.rows import Run
from matlib.study.publish.notebooks import arithmetic, one_thread
from matlib.study.recipes import (
    as_run,
    defence_of,
    inside_rows_of,
    profile_of_architecture,
    rows_of,
)
from matlib.study.sources import open_source
from matlib.study.sources.karpathy import KarpathySource
from matlib.study.sources.scenes import ScenesSource
from matlib.study.sources.source import draw
from matlib.study.specs import Specs
from matlib.study.store.provenance import PACKAGE_ROOT, checkout_state, named_weights
from matlib.study.store.store import Artefact, ArtefactSpec, Store
from matlib.training.selection import HeldOutRecall, Validation

HASHES = ".file-hashes"
"""Below the folder of all results: hashes of the files of data sets (`FileHashes`)."""


class Study:
    """One profile with its data and its results.

    Args:
        profile: what is studied.
        results: folder of all results; this profile's lie in `results/<profile name>`.
        data: folder of a data set on disk; not needed for scenes.
        source: the data, where they are open already.

    Raises:
        ValueError, FileNotFoundError: data missing or unfit, before any work.
    """

    def __init__(
        self,
        profile: Profile,
        results: Path,
        data: Path | None = None,
        source: ScenesSource | KarpathySource | None = None,
    ) -> None:
        torch.set_flush_denormal(True)
        check_models(profile)
        self.profile = profile
        self.root = results / profile.name
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        # beside the results: the data may lie on a disk that is only read
        self.source = source or open_source(profile.dataset, data, results / HASHES)
        self.store = Store(self.root, device=self.device)
        self.used: set[str] = set()
        self._others: dict[str, Study] = {}
        self._outcomes: dict[str, Mapping[Key, Outcomes]] = {}

    @cached_property
    def specs(self) -> Specs:
        how = arithmetic(self.device)
        return Specs(identified(self.profile), self.source.identity(), how)

    def rows(self) -> list[tuple[str, int]]:
        """(row name, seed) of every model of the study, base first."""
        return rows_of(self.profile)

    def get(self, spec: ArtefactSpec, make: Callable[[Path], dict[str, Any] | None]) -> Artefact:
        """An artefact of this study, loaded or made, and noted as used.

        Small models are made and judged on one thread of a CPU, as `workers` does: otherwise
        their numbers would depend on the cores.
        """
        self.used.add(spec.hash)
        with one_thread(self.device == "cpu" and self.profile.model.kind == "small"):
            return self.store.get_or_make(spec, make)

    def inside_rows(self) -> list[tuple[str, int]]:
        """(row name, seed) of the variations of one defence (`profile.inside`)."""
        return inside_rows_of(self.profile)

    def of_architecture(self, name: str) -> Study:
        """The same study of another of the profile's architectures; itself for "".

        It has the rows in `transfer_rows` only, and shares data, store and what was used: an
        artefact's identity holds the model's shape, so that nothing is taken for another.

        Raises:
            ValueError: the profile has no such architecture.
        """
        if not name:
            return self
        if name not in self._others:
            profile = profile_of_architecture(self.profile, name)
            other = Study(profile, self.root.parent, source=self.source)
            other.used, other.store = self.used, self.store
            self._others[name] = other
        return self._others[name]

    # --- data ------------------------------------------------------------------------------

    def pairs(self, gallery: str) -> ImageTextPairs:
        """`train` (1:1), `val`, `test`; or the equal galleries `train-1` and `test-1`."""
        if not gallery.endswith("-1"):
            pairs = self.source.pairs(gallery)
            if self.profile.evaluation.conventions == "released":
                captions = tuple(normalise_caption(c) or c for c in pairs.captions)
                pairs = replace(pairs, captions=captions)
            return pairs
        split = gallery.removesuffix("-1")
        n = min(self.profile.dataset.n_train, self.profile.dataset.n_test)
        pairs = self.source.pairs(split).subset(range(n))
        return pairs.one_to_one(draw(0, gallery))

    def variants(self, technique: str | Run, seed: int = 0) -> OneToMany:
        """The training pairs with the variants of a technique.

        Args:
            technique: an augmentation by name, or a row with its options.

        Raises:
            ValueError: unknown augmentation, or one that these data do not allow.
        """
        return self.models.variants(as_run(technique), seed)

    # --- models ----------------------------------------------------------------------------

    @cached_property
    @hands_over
    def models(self) -> Models:
        """What makes the study's models."""
        return Models(
            self.profile, self.source, self.specs, self.get, self.store.find, self.validation,
            self.device,
        )  # fmt: skip

    def validation(self) -> Validation | None:
        """What measures a model beside its fine-tuning and chooses its weights, if anything."""
        phase = self.profile.finetune
        if phase is None or not phase.validate_every:
            return None
        how = judgings.validating(self.profile.evaluation)
        pairs, tables, suite = self.pairs("val"), self.tables("val", how.threats), self.suite(how)

        def measure(encoder: OpenClipEncoder) -> HeldOutRecall:
            found = evaluate(encoder, pairs, tables, suite, seed=0).outcomes
            attacked, clean = found["joint", how.threats[0]], found["clean", ""]
            recalls = [(each.recall("TR", 1) + each.recall("IR", 1)) / 2
                       for each in (attacked, clean)]  # fmt: skip
            return HeldOutRecall(*recalls)

        name = self.specs.tables("val", how.threats).hash
        return Validation(measure, phase.validate_every, keep_best=True, identity=name)

    def masked_lm(self) -> MaskedLM:
        """The attacker's masked language model."""
        return self.models.masked_lm()

    def model(self, name: str, seed: int = 0) -> OpenClipEncoder:
        """A model of the study by row name: `base`, `mat`, `mat+.captions` …"""
        return self.models.model(name, seed)

    def history(self, name: str, seed: int = 0) -> pd.DataFrame:
        """Loss per step of a model's training (empty for a pretrained base)."""
        return self.models.history(name, seed)

    # --- evaluation ------------------------------------------------------------------------

    @makes("tables")
    def tables(self, gallery: GalleryName, threats: tuple[str, ...]) -> dict[str, Table]:
        """Per text threat the allowed edits of every caption of a gallery."""

        def make(folder: Path) -> dict[str, Any]:
            pairs = self.pairs(gallery)
            captions = list(pairs.captions)
            tables = make_tables(
                captions, threats, self.masked_lm(), self.profile.candidates,
                stop_words=self.source.stop_words, typos=self.source.typos, seed=0,
                conventions=self.profile.evaluation.conventions,
                is_valid=validity(
                    self.source, gallery.removesuffix("-1"), captions, pairs.image_of.tolist()
                ),
                held_out_words=self.source.held_out_words,
            )  # fmt: skip
            save_tables(tables, folder / "tables.json")
            return about_tables(tables)

        artefact = self.get(self.specs.tables(gallery, threats), make)
        return load_tables(artefact.file("tables.json"))

    @makes("judged")
    def judged(self, name: str, seed: int = 0, how: Judging | None = None) -> Judged:
        """Per-query outcomes, adversarial captions and a few images of one model.

        Args:
            how: the full suite on the test gallery by default.
        """
        how = how or self.main_judging("test")

        def make(folder: Path) -> dict[str, Any]:
            encoder, pairs = self.model(name, seed), self.pairs(how.gallery)
            tables = self.tables(how.gallery, how.threats)
            suite = replace(self.suite(how), own=self._own_attack(name))
            total = len(suite.rows(how.threats))
            with Progress(f"attack {name} s{seed} ({how.gallery})", total) as progress:
                found = evaluate(
                    encoder, pairs, tables, suite, seed=0,
                    on_attack=lambda attack: progress.advance(1, attack),
                )  # fmt: skip
            save_evaluation(found, folder)
            if how.with_curve:
                eps = self.profile.evaluation.curve_eps_255
                save_curve(strength_curve(encoder, pairs, suite.image, eps, seed=0), folder)
            vanished = {"/".join(key): n for key, n in found.n_vanished.items() if n}
            return {
                "n_embedded": found.n_embedded,
                "n_edits": found.n_edits,
                **found.about_words(),
                "n_images_with_vanished_gradient": vanished,
            }

        return load_evaluation(self.get(self.specs.judged(name, seed, how), make))

    def outcomes(self, name: str, seed: int, how: Judging) -> Mapping[Key, Outcomes]:
        """The ranks of `judged` alone, read once: tables ask for the same row many times."""
        spec = self.specs.judged(name, seed, how)
        if spec.hash not in self._outcomes:
            self._outcomes[spec.hash] = self.judged(name, seed, how).outcomes
        self.used.add(spec.hash)
        return self._outcomes[spec.hash]

    def _own_attack(self, name: str) -> OwnLossAttack | None:
        """The attack of the row's own training loss, where the suite has it not already."""
        if name == "base":
            return None
        how = defence_of(self.specs.run(name))
        return own_attack(how, self.model("base") if how.needs_reference else None)

    def main_judging(self, gallery: GalleryName) -> Judging:
        """The full suite under the evaluation budget."""
        return judgings.full(self.profile.evaluation, gallery)

    def held_out_judging(self) -> Judging:
        """Edits of kinds that no defence trains on."""
        return judgings.held_out(self.profile.evaluation)

    def inside_judging(self) -> Judging:
        """How variations of one defence are compared."""
        return judgings.inside(self.profile.evaluation)

    def gap_judging(self, gallery: GalleryName) -> Judging:
        """How training and held-out pairs are judged."""
        return judgings.gap(self.profile.evaluation, gallery)

    def suite(self, how: Judging) -> Suite:
        """The attacks of one judging."""
        return judgings.make_suite(self.profile.evaluation, how)


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


def identified(profile: Profile) -> Profile:
    """The profile with the hash of its content in place of every path of this machine.

    Names on a hub stay as they are.
    """
    return map_places(profile, lambda _, name: named_weights(name))
