"""The models of a study: the attacker's language model, the base, and every defended model.

Whether a study's images are made as its models were trained to see them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from matlib.attacks.edits import Table
from matlib.attacks.pgd import PGD
from matlib.attacks.words import WordSubstitution
from matlib.data.pairs import OneToMany
from matlib.defences.defence import Defence
from matlib.defences.inner_attack import Candidates, InnerAttack
from matlib.defences.table import defence
from matlib.models.masked_lm import MaskedLM, train_masked_lm
from matlib.models.masked_lm_training import MaskedLMConfig
from matlib.models.open_clip import OpenClipEncoder, open_named
from matlib.models.opening import image_size_of, settings_of
from matlib.models.settings import Settings
from matlib.models.small import SmallModel, build_small
from matlib.progress import Progress
from matlib.study.identity.makers import hands_over, makes
from matlib.study.made.candidates import load_tables, make_tables, save_tables, validity
from matlib.study.made.pairs import PairGenerators, make_variants
from matlib.study.profile.parts import Dataset, TrainAttack
from matlib.study.profile.profile import Profile
from matlib.study.profile.rows import Run
from matlib.study.recipes import attacks_anything, defence_of, row_name, schedule_of
from matlib.study.sources.karpathy import KarpathySource
from matlib.study.sources.scenes import ScenesSource
from matlib.study.specs import Specs
from matlib.study.store.store import Artefact, ArtefactSpec
from matlib.training.checkpoint import load_weights, save_weights
from matlib.training.log import describe
from matlib.training.loop import train
from matlib.training.schedule import Schedule
from matlib.training.selection import Validation

WEIGHTS = "model.safetensors"

Make = Callable[[Path], dict[str, Any] | None]


@dataclass(frozen=True)
class Models:
    """Makes models on demand, each once.

    Attributes:
        profile: what is studied.
        source: the data.
        specs: identities of the profile's artefacts.
        get: (specification, maker) -> the artefact, loaded or made.
        find: specification -> the artefact if it is there.
        validation: gives what measures a model beside its training, if anything does.
        device: `cpu` or `cuda`.
    """

    profile: Profile
    source: ScenesSource | KarpathySource
    specs: Specs
    get: Callable[[ArtefactSpec, Make], Artefact]
    find: Callable[[ArtefactSpec], Artefact | None]
    validation: Callable[[], Validation | None]
    device: str

    @property
    @hands_over
    def generators(self) -> PairGenerators:
        """The generating models behind some techniques."""
        return PairGenerators(
            self.profile, self.source, self.specs, self.get, self.masked_lm, self.device
        )

    def variants(
        self, run: Run, seed: int = 0, source: ScenesSource | KarpathySource | None = None
    ) -> OneToMany:
        """The training pairs with the variants of a row's technique.

        Args:
            source: the same data with fewer training images, where few variants are wanted.
        """
        return make_variants(
            self.profile, source or self.source, self.generators, lambda: self.model("base"),
            run, seed,
        )  # fmt: skip

    @makes("masked-lm")
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
                lr=config.lr,
            )
            with Progress("train masked LM", config.n_steps) as progress:
                corpus = self.source.corpus(config.n_captions)
                model = train_masked_lm(
                    corpus, shape, 0, lambda _, loss: progress.advance(1, f"loss {loss:.2f}")
                )
            model.save(folder)

        return MaskedLM.load(self.get(spec, make).path)

    def model(self, name: str, seed: int = 0) -> OpenClipEncoder:
        """A model of the study by row name: `base`, `mat`, `mat+.captions` …"""
        return self._base() if name == "base" else self._defended(self.specs.run(name), seed)

    @makes("base")
    def _base(self) -> OpenClipEncoder:
        spec = self.specs.base()
        if spec is None:
            return self._fresh(0).eval()

        def make(folder: Path) -> dict[str, Any]:
            assert self.profile.base is not None
            schedule, how = schedule_of(self.profile.base), defence("clean")
            data = self.source.base()
            return self._train(self._fresh(0), data, how, schedule, folder, "base", 0)

        return self._load(self.get(spec, make).file(WEIGHTS))

    @makes("defended", validated="matlib.study.study:Study.validation")
    def _defended(self, run: Run, seed: int) -> OpenClipEncoder:
        def make(folder: Path) -> dict[str, Any]:
            assert self.profile.finetune is not None
            encoder, data = self.model("base"), self.variants(run, seed)
            how = defence_of(run)
            return self._train(
                encoder, data, how, schedule_of(self.profile.finetune, run), folder,
                row_name(run), seed,
                inner_attack(self.specs.train_attack(run)) if attacks_anything(run) else None,
                self._candidates(data, run, seed) if how.needs_candidates else None,
                self.validation,
            )  # fmt: skip

        spec = self.specs.defended(run, seed)
        return self._load(self.get(spec, make).file(WEIGHTS))

    def _fresh(self, seed: int) -> OpenClipEncoder:
        model = self.profile.model
        if model.kind == "open_clip":
            return open_named(model.name, model.pretrained or None, self.device, rest=model.rest)
        data = self.profile.dataset
        shape = SmallModel(image_size=data.image_size, **model.shape)
        settings = Settings(image_mode=data.image_mode, interpolation=data.interpolation)
        return build_small(shape, seed, settings).to(self.device)

    def _load(self, weights: Path) -> OpenClipEncoder:
        encoder = self._fresh(0)
        load_weights(encoder, weights)
        return encoder.eval()

    def _train(
        self,
        encoder: OpenClipEncoder,
        data: OneToMany,
        how: Defence,
        schedule: Schedule,
        folder: Path,
        label: str,
        seed: int,
        inner: InnerAttack | None = None,
        candidates: Candidates | None = None,
        validation: Callable[[], Validation | None] = lambda: None,
    ) -> dict[str, Any]:
        with Progress(f"train {label} s{seed}", schedule.n_steps) as progress:
            history = train(
                encoder, data, how, schedule, seed=seed, inner=inner, validation=validation(),
                candidates=candidates, log_in=folder, clean_recall_every=20,  # moves no weight
                # beside the artefact that is being made, whose own folder a kill deletes
                keep_in=folder.parent.parent / "training" / folder.name.removeprefix(".making-"),
                on_row=lambda row: progress.advance(1, describe(row, schedule.batch_size)),
            )  # fmt: skip
        save_weights(encoder, folder / WEIGHTS)
        table = pd.DataFrame(history.rows)
        table.to_csv(folder / "history.csv", index=False)
        if history.held_out:
            pd.DataFrame(history.held_out).to_csv(folder / "held_out.csv", index=False)
        seconds = float(table["seconds"].sum())
        return {
            "seconds": seconds,
            "attack_share": float(table["attack_seconds"].sum()) / seconds,
            "warnings": history.warnings,
        }

    def history(self, name: str, seed: int = 0, file: str = "history.csv") -> pd.DataFrame:
        """Loss per step of a model's training, or its measurements on held-out pairs.

        Empty for a pretrained base and for weights that are not here.

        Args:
            file: `history.csv` or `held_out.csv`.
        """
        spec = self.specs.base() if name == "base" else None
        spec = spec or (self.specs.defended(self.specs.run(name), seed) if name != "base" else None)
        found = self.find(spec) if spec is not None else None
        if found is None or file not in found.provenance["outputs"]:
            return pd.DataFrame()
        return pd.read_csv(found.file(file))

    def prepare_words(self) -> None:
        """The candidate tables of every row's training, with the first seed."""
        seed = self.profile.seeds[0]
        for run in (*self.profile.runs, *self.profile.inside):
            if defence(run.defence).needs_candidates:
                self._candidates(self.variants(run, seed), run, seed)
        self.validation()

    @makes("training-tables", "Models.variants")
    def _candidates(self, data: OneToMany, run: Run, seed: int) -> Candidates:
        """The allowed edits of every caption that training may draw, merged over threats.

        Asking a language model and checking the truth of a training set takes seconds (6 s for
        the demo's 2,000 captions), so defences that train on the same captions share one table.
        """
        owner = {c: i for i, variants in enumerate(data.captions) for c in variants}
        captions = list(owner)

        def make(folder: Path) -> dict[str, Any]:
            tables = make_tables(
                captions, self.specs.train_attack(run).threats, self.masked_lm(),
                self.profile.candidates, stop_words=self.source.stop_words,
                typos=self.source.typos, seed=1000 + seed,
                is_valid=validity(self.source, "train", captions, list(owner.values())),
                held_out_words=self.source.held_out_words, for_training=True,
            )  # fmt: skip
            save_tables(tables, folder / "tables.json")
            return about_tables(tables)

        artefact = self.get(self.specs.training_tables(run, seed), make)
        tables = load_tables(artefact.file("tables.json"))
        return {
            caption: [edit for table in tables.values() for edit in table[i]]
            for i, caption in enumerate(captions)
        }


def about_tables(tables: dict[str, Table]) -> dict[str, Any]:
    """Size of candidate tables, for their provenance."""
    return {
        threat: {
            "edits_per_caption": sum(map(len, table)) / len(table),
            "captions_without": sum(not row for row in table),
        }
        for threat, table in tables.items()
    }


def inner_attack(config: TrainAttack) -> InnerAttack:
    """The attack inside training, from its budget."""
    return InnerAttack(
        PGD(config.eps_255, config.pgd_steps, config.step_255),
        WordSubstitution(config.n_words, search=config.search),
        config.max_edits,
    )


def check_models(profile: Profile) -> None:
    """Check every named model of a profile against its data, before any work.

    Weights that are not on this machine are not missed here: finished results need none.

    Raises:
        ValueError: a model takes images of another size, or made in another way.
    """
    for model in (profile.model, *profile.architectures.values()):
        if model.kind != "open_clip":
            continue
        check_size(profile, model.name, image_size_of(model.name))
        try:
            settings = settings_of(model.name, model.pretrained or None, model.rest)
        except FileNotFoundError:
            continue
        if model.pretrained:
            check_images(profile.dataset, settings, f"{model.name} / {model.pretrained}")


def check_size(profile: Profile, what: str, image_size: int) -> None:
    """Raises ValueError: the profile's images have another size than the model's."""
    wanted = profile.dataset.image_size
    if image_size != wanted:
        raise ValueError(
            f"{what} takes images of {image_size} px, profile {profile.name} has {wanted} px: pass "
            f"a profile with dataset.image_size {image_size} (a YAML file will do)"
        )


def check_images(dataset: Dataset, settings: Settings, what: str) -> None:
    """Check how image files are resized; the embedded world draws its images in their size.

    Raises:
        ValueError: the weights were trained with another way.
    """
    if dataset.name == "scenes":
        return
    for key in ("image_mode", "interpolation"):
        has, wants = getattr(dataset, key), getattr(settings, key)
        if has != wants:
            raise ValueError(
                f"{what} was trained with images made by {wants}, the profile's are made by {has}: "
                f"pass a profile with dataset.{key} {wants} (a YAML file will do)"
            )
