"""A study: every model and every evaluation of a profile, made on demand and once."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import pandas as pd
import torch

from matlib.attacks.image import PGD, ScaleViews
from matlib.attacks.text import WordSubstitution
from matlib.config import Augmentation, Profile, Run, TrainAttack
from matlib.data.pairs import ImageTextPairs, OneToMany
from matlib.evaluation.robustness import Suite, evaluate, strength_curve
from matlib.models.masked_lm import MaskedLM, MaskedLMConfig, train_masked_lm
from matlib.models.open_clip import OpenClipEncoder, SmallModel, build_small, open_named
from matlib.progress import Progress
from matlib.study.inputs import ScenesSource, draw, open_source
from matlib.study.judged import Judged, load_evaluation, save_curve, save_evaluation
from matlib.study.specs import (
    ALL_ATTACKS,
    Gallery,
    Judging,
    Specs,
    attacks_anything,
    row_name,
)
from matlib.study.store import Artefact, ArtefactSpec, Store
from matlib.study.threats import Table, load_tables, make_tables, save_tables
from matlib.training.checkpoint import load_weights, save_weights
from matlib.training.loop import Schedule, train
from matlib.training.objectives import Candidates, InnerAttack, defence

WEIGHTS = "model.safetensors"


class Study:
    """One profile with its data and its results.

    Args:
        profile: what is studied.
        results: folder of all results; this profile's lie in `results/<profile name>`.
        data: folder of a data set on disk; not needed for scenes.

    Raises:
        ValueError, FileNotFoundError: data missing or unfit, before any work.
    """

    def __init__(self, profile: Profile, results: Path, data: Path | None = None) -> None:
        torch.set_flush_denormal(True)
        self.profile = profile
        self.root = results / profile.name
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.source = open_source(profile.dataset, data)
        self.store = Store(self.root, device=self.device)
        self.used: set[str] = set()

    @cached_property
    def specs(self) -> Specs:
        return Specs(self.profile, self.source.identity(), self.device)

    def rows(self) -> list[tuple[str, int]]:
        """(row name, seed) of every model of the study, base first."""
        names = [row_name(run) for run in self.profile.runs]
        return [("base", 0), *((name, seed) for seed in self.profile.seeds for name in names)]

    def _get(self, spec: ArtefactSpec, make: Callable[[Path], dict[str, Any] | None]) -> Artefact:
        self.used.add(spec.hash)
        return self.store.get_or_make(spec, make)

    # --- data ------------------------------------------------------------------------------

    def pairs(self, gallery: str) -> ImageTextPairs:
        """`train` (1:1), `val`, `test`; or the equal galleries `train-1` and `test-1`."""
        if not gallery.endswith("-1"):
            return self.source.pairs(gallery)
        split = gallery.removesuffix("-1")
        n = min(self.profile.dataset.n_train, self.profile.dataset.n_test)
        pairs = self.source.pairs(split).subset(range(n))
        return pairs.one_to_one(draw(0, gallery))

    def variants(self, augmentation: str, seed: int = 0) -> OneToMany:
        """The training pairs with the variants of an augmentation.

        Raises:
            ValueError: unknown augmentation.
        """
        for known in get_args(Augmentation):
            if augmentation == known:
                return self.source.variants(known, self.profile.n_variants, seed)
        raise ValueError(f"unknown augmentation {augmentation!r}: {get_args(Augmentation)}")

    # --- models ----------------------------------------------------------------------------

    def masked_lm(self) -> MaskedLM:
        """The attacker's masked language model."""
        config, spec = self.profile.masked_lm, self.specs.masked_lm()
        if spec is None:
            return MaskedLM.load(config.name)

        def make(folder: Path) -> None:
            shape = MaskedLMConfig(
                width=config.width,
                layers=config.layers,
                n_steps=config.n_steps,
                batch_size=config.batch_size,
            )
            with Progress("train masked LM", config.n_steps) as progress:
                corpus = self.source.corpus(config.n_captions)
                model = train_masked_lm(
                    corpus, shape, 0, lambda _, loss: progress.advance(1, f"loss {loss:.2f}")
                )
            model.save(folder)

        return MaskedLM.load(self._get(spec, make).path)

    def model(self, name: str, seed: int = 0) -> OpenClipEncoder:
        """A model of the study by row name: `base`, `mat`, `mat+.captions` …"""
        if name != "base":
            return self._defended(self.specs.run(name), seed)
        spec = self.specs.base()
        if spec is None:
            return self._fresh(0).eval()

        def make(folder: Path) -> dict[str, Any]:
            assert self.profile.base is not None
            schedule = Schedule(**self.profile.base.model_dump())
            data = self.source.base()
            return self._train(self._fresh(0), data, "clean", schedule, folder, "base", 0)

        return self._load(self._get(spec, make).file(WEIGHTS))

    def _defended(self, run: Run, seed: int) -> OpenClipEncoder:
        def make(folder: Path) -> dict[str, Any]:
            assert self.profile.finetune is not None
            schedule = Schedule(**self.profile.finetune.model_dump())
            encoder, data = self.model("base"), self.variants(run.augmentation, seed)
            has_text = defence(run.defence).attacks_text
            return self._train(
                encoder, data, run.defence, schedule, folder, row_name(run), seed,
                inner_attack(self.profile.train_attack) if attacks_anything(run) else None,
                self._training_candidates(data, seed) if has_text else None,
            )  # fmt: skip

        spec = self.specs.defended(run, seed)
        return self._load(self._get(spec, make).file(WEIGHTS))

    def _fresh(self, seed: int) -> OpenClipEncoder:
        model = self.profile.model
        if model.kind == "open_clip":
            return open_named(model.name, model.pretrained or None, self.device)
        shape = model.model_dump(exclude={"kind", "name", "pretrained"})
        size = self.profile.dataset.image_size
        return build_small(SmallModel(image_size=size, **shape), seed).to(self.device)

    def _load(self, weights: Path) -> OpenClipEncoder:
        encoder = self._fresh(0)
        load_weights(encoder, weights)
        return encoder.eval()

    def _train(
        self,
        encoder: OpenClipEncoder,
        data: OneToMany,
        name: str,
        schedule: Schedule,
        folder: Path,
        label: str,
        seed: int,
        inner: InnerAttack | None = None,
        candidates: Candidates | None = None,
    ) -> dict[str, Any]:
        with Progress(f"train {label} s{seed}", schedule.n_steps) as progress:
            history = train(
                encoder, data, defence(name), schedule, seed=seed, inner=inner,
                candidates=candidates, keep_in=folder,
                on_step=lambda _, loss: progress.advance(1, f"loss {loss:.2f}"),
            )  # fmt: skip
        save_weights(encoder, folder / WEIGHTS)
        table = pd.DataFrame(history.rows)
        table.to_csv(folder / "history.csv", index=False)
        seconds = float(table["seconds"].sum())
        return {"seconds": seconds, "attack_share": float(table["attack_seconds"].sum()) / seconds}

    def history(self, name: str, seed: int = 0) -> pd.DataFrame:
        """Loss per step of a model's training (empty for a pretrained base)."""
        spec = self.specs.base() if name == "base" else None
        spec = spec or (self.specs.defended(self.specs.run(name), seed) if name != "base" else None)
        found = self.store.find(spec) if spec is not None else None
        return pd.read_csv(found.file("history.csv")) if found else pd.DataFrame()

    # --- text threats ------------------------------------------------------------------------

    def _training_candidates(self, data: OneToMany, seed: int) -> Candidates:
        """The allowed edits of every caption that training may draw, merged over threats."""
        owner = {c: i for i, variants in enumerate(data.captions) for c in variants}
        captions = list(owner)
        tables = make_tables(
            captions, self.profile.train_attack.threats, self.masked_lm(),
            self.profile.candidates, self.source, seed=1000 + seed,
            is_valid=self._validity("train", captions, list(owner.values())),
        )  # fmt: skip
        return {
            caption: [edit for table in tables.values() for edit in table[i]]
            for i, caption in enumerate(captions)
        }

    def _validity(
        self, split: str, captions: list[str], own: list[int]
    ) -> Callable[[int, str], bool] | None:
        if not isinstance(self.source, ScenesSource):
            return None
        return self.source.valid_edit(split, captions, own)

    def tables(self, gallery: Gallery, threats: tuple[str, ...]) -> dict[str, Table]:
        """Per text threat the allowed edits of every caption of a gallery."""

        def make(folder: Path) -> dict[str, Any]:
            pairs = self.pairs(gallery)
            captions = list(pairs.captions)
            tables = make_tables(
                captions, threats, self.masked_lm(), self.profile.candidates, self.source, seed=0,
                is_valid=self._validity(
                    gallery.removesuffix("-1"), captions, pairs.image_of.tolist()
                ),
            )  # fmt: skip
            save_tables(tables, folder / "tables.json")
            return {
                threat: {
                    "edits_per_caption": sum(map(len, table)) / len(table),
                    "captions_without": sum(not row for row in table),
                }
                for threat, table in tables.items()
            }

        artefact = self._get(self.specs.tables(gallery, threats), make)
        return load_tables(artefact.file("tables.json"))

    # --- evaluation ------------------------------------------------------------------------

    def judged(self, name: str, seed: int = 0, how: Judging | None = None) -> Judged:
        """Per-query outcomes, adversarial captions and a few images of one model.

        Args:
            how: the full suite on the test gallery by default.
        """
        how = how or self.main_judging("test")

        def make(folder: Path) -> dict[str, Any]:
            encoder, pairs = self.model(name, seed), self.pairs(how.gallery)
            tables = self.tables(how.gallery, how.threats)
            suite = self.suite(how)
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
            return {"n_embedded": found.n_embedded, "n_asked": found.n_asked}

        return load_evaluation(self._get(self.specs.judged(name, seed, how), make))

    def main_judging(self, gallery: Gallery) -> Judging:
        """The full suite under the evaluation budget."""
        e = self.profile.evaluation
        return Judging(gallery, e.threats, e.eps_255, ALL_ATTACKS, bool(e.curve_eps_255))

    def suite(self, how: Judging) -> Suite:
        """The attacks of one judging."""
        e = self.profile.evaluation
        step = e.step_255 if how.eps_255 == e.eps_255 else None
        return Suite(
            PGD(how.eps_255, e.pgd_steps, step),
            WordSubstitution(e.n_words),
            ScaleViews(e.sga_scales),
            how.attacks,
        )


def inner_attack(config: TrainAttack) -> InnerAttack:
    """The attack inside training, from its budget."""
    return InnerAttack(
        PGD(config.eps_255, config.pgd_steps, config.step_255),
        WordSubstitution(config.n_words, search=config.search),
    )
