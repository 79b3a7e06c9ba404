"""The defended models of a study, and the words that their training attacks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from matlib.attacks.edits import Table
from matlib.attacks.pgd import PGD
from matlib.attacks.word_substitution import WordSubstitution
from matlib.choices import Choices
from matlib.defences.inner_attack import Candidates, InnerAttack
from matlib.evaluation.robustness import evaluate
from matlib.models.dual_encoder import TrainableEncoder
from matlib.models.encoder import VisionLanguageModel
from matlib.study.context import Context, Node
from matlib.study.identity.makers import makes
from matlib.study.made.base import (
    base,
    masked_lm,
    open_base,
    open_masked_lm,
    schedule_config,
    trained,
    weights_in,
)
from matlib.study.made.candidates import (
    about_similar,
    about_tables,
    make_tables,
    save_tables,
    similar_in,
    tables,
    tables_in,
    validity,
)
from matlib.study.made.pairs import about_pairs, choices_of, generated, variants
from matlib.study.made.protocols import make_suite, moves_of, protocol_config, validating
from matlib.study.profile.parts import TrainAttack
from matlib.study.profile.rows import Run, library_name
from matlib.study.recipes import (
    attacks_anything,
    defence_of,
    filters_of,
    n_variants_of,
    row_name,
    schedule_of,
    train_attack_of,
)
from matlib.study.store.provenance import named_weights
from matlib.training.selection import HeldOutRecall, Validation


@makes("defended")
def defended(study: Context, run: Run, seed: int) -> Node[VisionLanguageModel]:
    """A fine-tuned model."""
    profile, how, phase = study.identified, defence_of(run), study.profile.finetune
    assert phase is not None, "profile.runs without profile.finetune"
    every = 0 if run.weights == "last" else phase.validate_every
    measured = validating(profile.evaluation)
    words = training_tables(study, run, seed) if how.needs_candidates else None

    def make(folder: Path) -> dict[str, Any]:
        data = variants(study, run, seed)
        inner = inner_attack(train_attack_of(study.profile, run)) if attacks_anything(run) else None
        captions = dict.fromkeys(c for own in data.captions for c in own)
        candidates = merged([*captions], study.get(words)) if words else None
        validation = VALIDATED.choose("validated")(study) if every else None
        return trained(
            open_base(study), data, how, schedule_of(phase, run), folder, row_name(run), seed,
            inner, candidates, validation,
        )  # fmt: skip

    config = {
        "model": profile.model.model_dump(),
        "schedule": schedule_config(phase, run),
        "defence": asdict(how),
        "augmentation": run.augmentation,
        "n_variants": n_variants_of(profile, run) if how.uses_one_to_many else 1,
        "attack": train_attack_of(profile, run).model_dump() if attacks_anything(run) else {},
        "validation": {"every": every, **protocol_config(profile.evaluation, measured)}
        if every else {},
    }  # fmt: skip
    if about := about_pairs(study, run):
        config["pairs"] = about
    inputs = {
        "base": base(study),
        "candidates": words,
        "validation": tables(study, "val", measured.threats) if every else None,
        "pairs": generated(study, run, seed),
    }
    chosen = (*choices_of(study, run), library_name(run.defence))
    if every:
        chosen = (*chosen, "validated", *moves_of(measured))
    return study.node(
        "model", row_name(run), seed, config, inputs, make, weights_in(study),
        maker="defended", chosen=chosen,
    )  # fmt: skip


def model(study: Context, name: str, seed: int = 0) -> Node[VisionLanguageModel] | None:
    """A model of the study by row name; None for a pretrained base."""
    return base(study) if name == "base" else defended(study, study.run(name), seed)


def open_model(study: Context, name: str, seed: int = 0) -> VisionLanguageModel:
    """The same, opened."""
    return open_base(study) if name == "base" else study.get(defended(study, study.run(name), seed))


def history(study: Context, name: str, seed: int = 0, file: str = "history.csv") -> pd.DataFrame:
    """Loss per step of a model's training, or its measurements on held-out pairs.

    Empty for a pretrained base and for weights that are not here.

    Args:
        file: `history.csv` or `held_out.csv`.
    """
    found = study.find(model(study, name, seed))
    if found is None or file not in found.provenance["outputs"]:
        return pd.DataFrame()
    return pd.read_csv(found.file(file))


def validation(study: Context) -> Validation:
    """What measures a model beside its fine-tuning and chooses its weights."""
    phase = study.profile.finetune
    assert phase is not None
    how = validating(study.profile.evaluation)
    words = tables(study, "val", how.threats)
    pairs, found = study.pairs("val"), study.get(words)
    suite = make_suite(study.profile.evaluation, how)

    def measure(encoder: TrainableEncoder) -> HeldOutRecall:
        outcomes = evaluate(encoder, pairs, found, suite, seed=0).outcomes
        attacked, clean = outcomes["joint", how.threats[0]], outcomes["clean", ""]
        recalls = [(each.recall("TR", 1) + each.recall("IR", 1)) / 2 for each in (attacked, clean)]
        return HeldOutRecall(*recalls)

    return Validation(measure, phase.validate_every, keep_best=True, identity=words.hash)


VALIDATED: Choices[Callable[[Context], Validation]] = Choices({
    "validated": validation,
}, what="measurement")  # fmt: skip
"""A choice, so that models trained without it do not depend on how models are judged."""


@makes("training-tables")
def training_tables(study: Context, run: Run, seed: int) -> Node[dict[str, Table]]:
    """The allowed edits of every caption that training may draw, per threat.

    The seed decides the captions of an augmentation, and the typos; the words that a language
    model proposes for the same captions are the same for all seeds. Asking it and checking the
    truth of a training set takes seconds (6 s for the demo's 2,000 captions), so defences that
    train on the same captions share one table.
    """
    profile, augmentation = study.identified, run.augmentation
    threats = train_attack_of(profile, run).threats
    drawn = 0 if augmentation == "none" and "typo" not in threats else seed

    def make(folder: Path) -> dict[str, Any]:
        data = variants(study, run, drawn)
        owner = {c: i for i, own in enumerate(data.captions) for c in own}
        captions, own = list(owner), list(owner.values())
        found = make_tables(
            captions, threats, open_masked_lm(study), study.profile.candidates,
            stop_words=study.source.stop_words, typos=study.source.typos, seed=1000 + drawn,
            is_valid=validity(study.source, "train", captions, own),
            held_out_words=study.source.held_out_words, for_training=True,
            similar=similar_in(study, threats, "train", captions, own),
        )  # fmt: skip
        save_tables(found, folder / "tables.json")
        return about_tables(found)

    config: dict[str, Any] = {
        "augmentation": augmentation,
        "n_variants": 1 if augmentation == "none" else n_variants_of(profile, run),
        "threats": threats,
        "candidates": profile.candidates.model_dump(),
        "masked_lm": named_weights(profile.masked_lm.name),
        **about_similar(study, threats),
    }
    inputs: dict[str, Node[Any] | None] = {
        "masked_lm": masked_lm(study),
        "pairs": generated(study, run, drawn),
    }
    if about := about_pairs(study, run):
        config["pairs"] = about
        if filters_of(run):
            inputs["base"] = base(study)
    return study.node(
        "candidates", "train", drawn, config, inputs, make, tables_in,
        maker="training-tables", chosen=choices_of(study, run),
    )  # fmt: skip


def merged(captions: list[str], tables: dict[str, Table]) -> Candidates:
    """The allowed edits of each caption, of all threats together."""
    return {
        caption: [edit for table in tables.values() for edit in table[i]]
        for i, caption in enumerate(captions)
    }


def inner_attack(config: TrainAttack) -> InnerAttack:
    """The attack inside training, from its budget."""
    return InnerAttack(
        PGD(config.eps_255, config.pgd_steps, config.step_255),
        WordSubstitution(config.n_words, search=config.search),
        config.max_edits,
        ramp=config.eps_ramp,
    )
