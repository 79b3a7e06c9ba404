"""What a study begins with: the undefended model and the attacker's masked language model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from matlib.data.pairs import OneToMany
from matlib.defences.defence import Defence
from matlib.defences.inner_attack import Candidates, InnerAttack
from matlib.defences.table import defence
from matlib.models import opening
from matlib.models.encoder import VisionLanguageModel
from matlib.models.masked_lm import MaskedLM, train_masked_lm
from matlib.models.open_clip import OpenClipEncoder
from matlib.models.settings import Settings
from matlib.models.small import build_small
from matlib.progress import Progress
from matlib.study.context import Context, Node
from matlib.study.identity.makers import makes
from matlib.study.profile.parts import Training
from matlib.study.profile.rows import Run
from matlib.study.recipes import schedule_of
from matlib.study.store.store import Artefact
from matlib.training.checkpoint import load_weights, save_weights
from matlib.training.heads import train_heads
from matlib.training.log import Bookkeeping, describe
from matlib.training.loop import train
from matlib.training.schedule import Schedule
from matlib.training.selection import Validation

WEIGHTS = "model.safetensors"


@makes("masked-lm")
def masked_lm(study: Context) -> Node[MaskedLM] | None:
    """The study's own masked language model; None where a pretrained one is used."""
    config = study.identified.masked_lm
    if config.kind == "pretrained":
        return None

    def make(folder: Path) -> None:
        with Progress("train masked LM", config.n_steps) as progress:
            corpus = study.source.corpus(config.n_captions)
            model = train_masked_lm(
                corpus,
                config.training(),
                0,
                lambda _, loss: progress.advance(1, f"loss {loss:.2f}"),
                body=config.body,
            )
        model.save(folder)

    return study.node("masked-lm", config.kind, 0, config.model_dump(), {}, make, _masked_lm_of)


def _masked_lm_of(artefact: Artefact) -> MaskedLM:
    return MaskedLM.load(artefact.path)


def open_masked_lm(study: Context) -> MaskedLM:
    """The attacker's masked language model."""
    own = masked_lm(study)
    return study.get(own) if own else MaskedLM.load(study.profile.masked_lm.name)


@makes("base")
def base(study: Context) -> Node[VisionLanguageModel] | None:
    """The undefended model; None where a pretrained one is used."""
    phase = study.profile.base
    if phase is None:
        return None

    def make(folder: Path) -> dict[str, Any]:
        schedule, how = schedule_of(phase), defence("clean")
        encoder, data = fresh(study), study.source.base()
        if phase.heads is not None:
            if not isinstance(encoder, OpenClipEncoder):
                raise ValueError(
                    f"{type(encoder).__name__} has no heads to train on stored features; "
                    "leave base.heads out, or name a model of open_clip"
                )
            with Progress("train heads", phase.heads.n_steps) as progress:
                train_heads(
                    encoder, data, phase.heads.schedule(), seed=0,
                    on_step=lambda _, loss: progress.advance(1, f"loss {loss:.2f}"),
                )  # fmt: skip
        return trained(encoder, data, how, schedule, folder, "base", 0)

    config = {"model": study.identified.model.model_dump(), "schedule": schedule_config(phase)}
    if phase.heads is not None:
        config["heads"] = phase.heads.model_dump()
    return study.node(
        "model", "base", 0, config, {}, make, weights_in(study), maker="base", chosen=("clean",)
    )


def open_base(study: Context) -> VisionLanguageModel:
    """The undefended model, trained here or pretrained."""
    own = base(study)
    return study.get(own) if own else fresh(study).eval()


def schedule_config(phase: Training, run: Run | None = None) -> dict[str, Any]:
    """What shapes the weights: how often checkpoints are kept does not.

    Several processes round otherwise than one, so that they are a part of it.
    """
    schedule = asdict(schedule_of(phase, run))
    del schedule["checkpoint_every"]
    return schedule | ({"processes": phase.processes} if phase.processes > 1 else {})


def fresh(study: Context, seed: int = 0) -> VisionLanguageModel:
    """The profile's model before any training of this study, on its device."""
    model = study.profile.model
    if model.kind == "open_clip":
        return opening.open_named(
            model.name, model.pretrained or None, study.device, rest=model.rest
        )
    data = study.profile.dataset
    settings = Settings(image_mode=data.image_mode, interpolation=data.interpolation)
    return build_small(model.shape(data.image_size), seed, settings).to(study.device)


def weights_in(study: Context) -> Callable[[Artefact], VisionLanguageModel]:
    """Reads what `trained` has saved."""

    def load(artefact: Artefact) -> VisionLanguageModel:
        encoder = fresh(study)
        load_weights(encoder, artefact.file(WEIGHTS))
        return encoder.eval()

    return load


def trained(
    encoder: VisionLanguageModel,
    data: OneToMany,
    how: Defence,
    schedule: Schedule,
    folder: Path,
    label: str,
    seed: int,
    inner: InnerAttack | None = None,
    candidates: Candidates | None = None,
    validation: Validation | None = None,
) -> dict[str, Any]:
    """Train and save weights, history and measurements into `folder`; returns notes."""
    with Progress(f"train {label} s{seed}", schedule.n_steps) as progress:
        books = Bookkeeping(
            # beside the artefact that is being made, whose own folder a kill deletes
            keep_in=folder.parent.parent / "training" / folder.name.removeprefix(".making-"),
            log_in=folder,
            on_row=lambda row: progress.advance(1, describe(row, schedule.batch_size)),
            clean_recall_every=20,  # moves no weight
        )
        history = train(
            encoder, data, how, schedule, seed=seed, inner=inner, validation=validation,
            candidates=candidates, books=books,
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
