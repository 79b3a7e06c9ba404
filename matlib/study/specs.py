"""The identity of every artefact of a study, known before any of them exists.

Hashes follow from the profile, the data and the code alone, so a finished evaluation is
found again without the model that it judged.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from matlib.augmentations.words import wordnet_identity
from matlib.defences.own_attack import OWN_ATTACKS
from matlib.defences.table import defence
from matlib.evaluation.suite import MOVES
from matlib.study.made.judgings import GalleryName, Judging, validating
from matlib.study.profile.parts import TrainAttack, Training
from matlib.study.profile.profile import Profile
from matlib.study.profile.rows import Run
from matlib.study.recipes import (
    attacks_anything,
    defence_of,
    filters_of,
    n_variants_of,
    row_name,
    run_named,
    schedule_of,
    train_attack_of,
)
from matlib.study.store.provenance import named_weights
from matlib.study.store.store import ArtefactSpec

NOT_IN_THE_ATTACKS = (
    "n_boot", "primary_threat", "threats", "held_out", "eps_255", "unimodal_eps_255",
    "sentence_encoder",
)  # fmt: skip
"""Parts of the evaluation that change no attack, or that a `Judging` holds itself."""


def _schedule(phase: Training, run: Run | None = None) -> dict[str, Any]:
    """What shapes the weights: how often checkpoints are kept does not."""
    schedule = asdict(schedule_of(phase, run))
    del schedule["checkpoint_every"]
    return schedule


def _moves(how: Judging) -> tuple[str, ...]:
    """The attacks of a judging that have an entry in the table of attacks."""
    return tuple(attack for attack in how.attacks if attack in MOVES)


class Specs:
    """Specifications of one profile's artefacts.

    Args:
        profile: what is studied, without paths of this machine (`identified`).
        data: identity of the data (`Source.identity()`).
        device: `cpu` or `cuda`, whose numbers differ in the last digits (`arithmetic`).
    """

    def __init__(self, profile: Profile, data: Mapping[str, Any], device: str) -> None:
        self.profile, self._data, self.device = profile, data, device

    def _spec(
        self,
        kind: str,
        name: str,
        seed: int,
        config: Mapping[str, Any],
        inputs: Mapping[str, ArtefactSpec | None],
        maker: str,
        chosen: tuple[str, ...] = (),
    ) -> ArtefactSpec:
        return ArtefactSpec(
            kind=kind,
            name=name,
            seed=seed,
            config={**config, "data": dict(self._data), "device": self.device},
            inputs={key: spec.hash for key, spec in inputs.items() if spec is not None},
            maker=maker,
            chosen=chosen,
        )

    def masked_lm(self) -> ArtefactSpec | None:
        """The study's own masked language model; None where a pretrained one is used."""
        config = self.profile.masked_lm
        if config.kind == "pretrained":
            return None
        return self._spec("masked-lm", config.kind, 0, config.model_dump(), {}, "masked-lm")

    def base(self) -> ArtefactSpec | None:
        """The undefended model; None where a pretrained one is used."""
        profile = self.profile
        if profile.base is None:
            return None
        schedule = _schedule(profile.base)
        config = {"model": profile.model.model_dump(), "schedule": schedule}
        return self._spec("model", "base", 0, config, {}, "base", ("clean",))

    def defended(self, run: Run, seed: int) -> ArtefactSpec:
        """A fine-tuned model."""
        profile, how = self.profile, defence_of(run)
        assert profile.finetune is not None, "profile.runs without profile.finetune"
        every, measured = profile.finetune.validate_every, validating(profile.evaluation)
        inputs = {
            "base": self.base(),
            "candidates": self.training_tables(run, seed) if how.needs_candidates else None,
            "validation": self.tables("val", measured.threats) if every else None,
        }
        config = {
            "model": profile.model.model_dump(),
            "schedule": _schedule(profile.finetune, run),
            "defence": asdict(how),
            "augmentation": run.augmentation,
            "n_variants": n_variants_of(profile, run) if how.uses_one_to_many else 1,
            "attack": self.train_attack(run).model_dump() if attacks_anything(run) else {},
            "validation": {"every": every, **self._judging(measured)} if every else {},
        }
        if about := self.about_pairs(run):
            config["pairs"] = about
        if (stored := self.pairs(run, seed)) is not None:
            inputs["pairs"] = stored
        chosen = (*self.choices(run), how.name)
        if every:
            chosen = (*chosen, "validated", *_moves(measured))
        return self._spec("model", row_name(run), seed, config, inputs, "defended", chosen)

    def about_pairs(self, run: Run) -> dict[str, Any]:
        """The row's own options of its pairs; empty where they are the profile's."""
        about = {k: v for k, v in run.options.items() if k != "n_variants"}
        if run.dials is not None:
            about["dials"] = run.dials.model_dump()
        if run.augmentation == "eda" and self.profile.dataset.name != "scenes":
            about["wordnet"] = wordnet_identity()
        return about

    def choices(self, run: Run) -> tuple[str, ...]:
        """The entries of tables of choices that make a row's pairs.

        What a generating model adds is an input, whose own hash holds its technique.
        """
        stored = self.pairs(run, 0) is not None
        return filters_of(run) if stored else (run.augmentation, *filters_of(run))

    def captioner(self) -> ArtefactSpec | None:
        """The study's own captioner; None where a pretrained one is named."""
        generators, profile = self.profile.generators, self.profile
        if generators.captioner or profile.dataset.name != "scenes":
            return None
        config = {"n_steps": generators.captioner_steps}
        return self._spec("captioner", "small", 0, config, {}, "captioner")

    def pairs(self, run: Run, seed: int) -> ArtefactSpec | None:
        """What a generating model adds for a row; None for techniques that need none.

        The same for all rows that differ only in what they keep of it.
        """
        name, generators = run.augmentation, self.profile.generators
        is_scenes = self.profile.dataset.name == "scenes"
        needs = {"captioned", "rewritten", "back-translated", "generated"}
        if name not in needs and (name != "restyled" or is_scenes):
            return None
        inputs: dict[str, ArtefactSpec | None] = {}
        if name == "captioned":
            inputs["captioner"] = self.captioner()
        if name == "rewritten" and is_scenes:
            inputs["masked_lm"] = self.masked_lm()
        named = {
            "captioned": generators.captioner,
            "rewritten": generators.rewriter,
            "back-translated": list(generators.translators),
            "restyled": generators.image_to_image,
            "generated": generators.text_to_image,
        }
        config = {
            "technique": name, "n_variants": n_variants_of(self.profile, run),
            "strength": run.strength, "generator": named[name], "top_p": generators.top_p,
        }  # fmt: skip
        return self._spec("pairs", name, seed, config, inputs, "pairs", (name,))

    def _judging(self, how: Judging) -> dict[str, Any]:
        budget = self.profile.evaluation.model_dump(exclude=set(NOT_IN_THE_ATTACKS))
        return {**asdict(how), "budget": budget}

    def tables(self, gallery: GalleryName, threats: tuple[str, ...]) -> ArtefactSpec:
        """Candidate tables of a gallery's captions."""
        config = {
            "gallery": gallery,
            "threats": threats,
            "candidates": self.profile.candidates.model_dump(),
            "masked_lm": named_weights(self.profile.masked_lm.name),
            "conventions": self.profile.evaluation.conventions,
        }
        inputs = {"masked_lm": self.masked_lm()}
        return self._spec("candidates", gallery, 0, config, inputs, "tables")

    def train_attack(self, run: Run) -> TrainAttack:
        """The attack inside this run's training."""
        return train_attack_of(self.profile, run)

    def training_tables(self, run: Run, seed: int) -> ArtefactSpec:
        """Candidate tables of the captions that training draws.

        The seed decides the captions of an augmentation, and the typos; the words that a
        language model proposes for the same captions are the same for all seeds.
        """
        profile, augmentation = self.profile, run.augmentation
        if augmentation == "none" and "typo" not in self.train_attack(run).threats:
            seed = 0
        config = {
            "augmentation": augmentation,
            "n_variants": 1 if augmentation == "none" else n_variants_of(profile, run),
            "threats": self.train_attack(run).threats,
            "candidates": profile.candidates.model_dump(),
            "masked_lm": named_weights(profile.masked_lm.name),
        }
        inputs = {"masked_lm": self.masked_lm()}
        if about := self.about_pairs(run):
            config["pairs"] = about
            if filters_of(run):
                inputs["base"] = self.base()
        if (stored := self.pairs(run, seed)) is not None:
            inputs["pairs"] = stored
        chosen = self.choices(run)
        return self._spec("candidates", "train", seed, config, inputs, "training-tables", chosen)

    def judged(self, name: str, seed: int, how: Judging) -> ArtefactSpec:
        """Per-query outcomes of one model."""
        model = self.base() if name == "base" else self.defended(self.run(name), seed)
        inputs = {"model": model, "tables": self.tables(how.gallery, how.threats)}
        chosen = _moves(how)
        if name != "base":
            trained = defence(self.run(name).defence)
            chosen = (*chosen, *(OWN_ATTACKS.keys() & {trained.kind}))
            if trained.needs_reference:
                inputs["reference"] = self.base()  # its distances are ascended by the row `own`
        config = {**self._judging(how), "model": self.profile.model.model_dump()}
        return self._spec("judged", name, seed, config, inputs, "judged", chosen)

    def sanity(
        self, name: str, seed: int, how: Judging, n_images: int, extra: Mapping[str, Any]
    ) -> ArtefactSpec:
        """The sanity battery on one model; transferred images come from the base."""
        judged = self.judged(name, seed, how)
        inputs = {"model": self.defended(self.run(name), seed), "base": self.base()}
        inputs["tables"] = self.tables(how.gallery, how.threats)
        config = {**judged.config, "n_images": n_images, **extra}
        return self._spec("sanity", name, seed, config, inputs, "sanity")

    def transfer(
        self, name: str, how: Judging, models: Mapping[str, ArtefactSpec | None], shapes: Any
    ) -> ArtefactSpec:
        """Attacks made on one model and judged on others, all of the first seed.

        Args:
            name: of the source.
            models: the source and every target; None for a pretrained one.
            shapes: the configuration of every model, by the same names.
        """
        inputs = {**models, "tables": self.tables(how.gallery, how.threats)}
        config = {**self._judging(how), "models": shapes}
        seed = self.profile.seeds[0]
        return self._spec("transfer", name, seed, config, inputs, "transfer", _moves(how))

    def run(self, name: str) -> Run:
        """The run of that row name.

        Raises:
            ValueError: the profile has no such row.
        """
        return run_named(self.profile, name)
