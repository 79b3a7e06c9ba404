"""A study is one profile: every number that shapes its results, checked before work starts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from matlib.attacks.image import check_eps
from matlib.models.small import ImageTower, TextTower
from matlib.training.defence import Order
from matlib.training.defences import DEFENCES

Architecture = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9-]*$")]
"""Name of a further model; part of a folder's name, so letters, digits and - only."""

PROFILES = Path(__file__).resolve().parent.parent / "profiles"

Threat = Literal["bert_true", "typo", "bert_free"]
HeldOutThreat = Literal["true_held_out", "typo_held_out"]
TRUE_THREATS = ("bert_true", "true_held_out")
Augmentation = Literal[
    "none", "captions", "renderings", "captions+renderings", "randaugment", "drop-swap",
    "mismatched",
]  # fmt: skip


class ProfileError(ValueError):
    """A profile that does not say what a study needs; the message says which key."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Dataset(_Part):
    """Where pairs come from and how many are used."""

    name: Literal["scenes", "flickr8k", "flickr30k", "coco"]
    image_size: int = Field(ge=16, le=512)
    world_seed: int = 0
    n_train: int = Field(ge=2, description="images of the 1:1 fine-tuning set")
    n_val: int = Field(ge=2)
    n_test: int = Field(ge=2, description="images of the test gallery")
    captions_per_image: int = Field(
        default=5, ge=1, description="scenes only: captions per test image"
    )
    nuisance: float = Field(
        default=0.5, ge=0, le=2, description="scenes only: strength of the renderer's nuisance"
    )
    omit_rate: float = Field(
        default=0.4, ge=0, le=1, description="scenes only: how often captions omit an attribute"
    )
    three_rate: float = Field(
        default=0.25, ge=0, le=1, description="scenes only: share of scenes with three objects"
    )
    n_base: int = Field(default=0, ge=0, description="images of base pre-training; 0: none")
    base_captions: int = Field(default=5, ge=1)
    base_renderings: int = Field(default=1, ge=1)
    image_mode: Literal["crop", "squash"] = "crop"


class Model(_Part):
    """A small open_clip model from its shape, or any open_clip model by name."""

    kind: Literal["small", "open_clip"] = "small"
    image_tower: ImageTower = "vit"
    text_tower: TextTower = "causal"
    patch_size: int = 16
    image_width: int = 128
    image_layers: int = 4
    text_width: int = 96
    text_layers: int = 2
    context_length: int = 32
    head_width: int = 32
    embed_dim: int = 128
    name: str = ""
    pretrained: str = ""

    @model_validator(mode="after")
    def _named(self) -> Model:
        if self.kind == "open_clip" and not self.name:
            raise ValueError("model.kind open_clip needs model.name, e.g. ViT-B-16")
        return self


class MaskedLanguageModel(_Part):
    """A small BERT trained in the study, or one by name or folder."""

    kind: Literal["small", "pretrained"] = "small"
    name: str = ""
    n_captions: int = Field(default=20_000, ge=1)
    width: int = 96
    layers: int = 2
    n_steps: int = Field(default=600, ge=1)
    batch_size: int = Field(default=128, ge=1)
    lr: float = Field(default=2e-3, gt=0, le=1)

    @model_validator(mode="after")
    def _named(self) -> MaskedLanguageModel:
        if self.kind == "pretrained" and not self.name:
            raise ValueError("masked_lm.kind pretrained needs masked_lm.name")
        return self


class Training(_Part):
    """Optimiser steps of one phase."""

    n_steps: int = Field(ge=1)
    batch_size: int = Field(ge=2)
    lr: float = Field(gt=0, le=1)
    weight_decay: float = Field(default=0.01, ge=0)
    warmup: float = Field(default=0.1, ge=0, lt=1, description="share of the steps to the peak")
    checkpoint_every: int = Field(default=50, ge=1, description="steps; changes no number")
    micro_batches: int = Field(default=1, ge=1, description="parts of a batch, to save memory")
    mixed_precision: Literal["no", "fp16", "bf16"] = "no"
    ema_decay: float = Field(default=0.0, ge=0, lt=1, description="0: no weight averaging")
    validate_every: int = Field(
        default=0, ge=0,
        description="steps between measurements on validation pairs, the best of which gives "
        "the weights; 0: the last weights",
    )  # fmt: skip


class Budget(_Part):
    """What an attacker may do."""

    eps_255: float
    pgd_steps: int = Field(ge=0)
    step_255: float | None = None
    n_words: int = Field(default=1, ge=0)

    @model_validator(mode="after")
    def _unit(self) -> Budget:
        check_eps(self.eps_255)
        return self


class TrainAttack(Budget):
    """The attack inside training."""

    threats: tuple[Threat, ...] = ("bert_true", "typo")
    search: Literal["importance", "exhaustive"] = "importance"
    max_edits: int | None = Field(
        default=None,
        ge=1,
        description="edits tried per caption and step, drawn afresh; null: all",
    )


class Evaluation(Budget):
    """The attacks every model is judged by."""

    threats: tuple[Threat, ...] = ("bert_true", "typo", "bert_free")
    primary_threat: Threat = "bert_true"
    n_restarts: int = Field(default=1, ge=1, description="of APGD; the best point is kept")
    slow_under: tuple[Threat, ...] | None = Field(
        default=None,
        description="text threats under which Co-Attack and APGD judge too; null: all",
    )
    held_out: tuple[HeldOutThreat, ...] = Field(
        default=(), description="edits of kinds that no defence trains on, judged on their own"
    )
    sga_scales: tuple[float, ...] = (0.5, 0.75, 1.25, 1.5)
    unimodal_eps_255: float = Field(
        default=2.0, description="C1: image budget at which PGD alone leaves 30-60 % of recall"
    )
    curve_eps_255: tuple[float, ...] = ()
    conventions: Literal["matlib", "released"] = Field(
        default="matlib", description="released: as in the field's code, for published numbers"
    )
    sentence_encoder: str = Field(
        default="",
        description="name or folder of a transformers encoder that tells how near attacked "
        "captions stay to the originals; empty: none",
    )
    n_boot: int = Field(default=2000, ge=100)

    @model_validator(mode="after")
    def _primary(self) -> Evaluation:
        if self.primary_threat not in self.threats:
            raise ValueError("evaluation.primary_threat must be one of evaluation.threats")
        return self


class Candidates(_Part):
    """How large the table of allowed edits is."""

    k_free: int = Field(default=10, ge=1, description="candidates per word, as in BERT-Attack")
    k_true: int = Field(default=60, ge=1, description="candidates per word before the truth check")
    typos_per_word: int = Field(default=3, ge=1)


class Run(_Part):
    """One row of the comparison: a defence and, for mat+, its augmentation.

    Everything after `threats` is a choice inside the defence; what is null stays as the profile
    or the defence has it.
    """

    defence: str
    augmentation: Augmentation = "none"
    threats: tuple[Threat, ...] = Field(
        default=(), description="of the words in training; empty: those of train_attack"
    )
    label: str = Field(
        default="", pattern=r"^[A-Za-z0-9.+-]*$", description="tells variations of a defence apart"
    )
    lr: float | None = Field(default=None, gt=0, le=1, description="peak learning rate")
    order: Order | None = Field(default=None, description="of the attacks on image and text")
    mixed_pairs: float | None = Field(
        default=None, ge=0, le=1,
        description="share of the loss on pairs of which one side is attacked, the other clean",
    )  # fmt: skip
    clean_pairs: float | None = Field(
        default=None, ge=0, le=1, description="share of the loss on clean pairs"
    )
    pgd_steps: int | None = Field(default=None, ge=0, description="of the attack in training")
    ema_decay: float | None = Field(default=None, ge=0, lt=1)

    @property
    def row(self) -> str:
        """Name of its row: the defence, for mat+ its augmentation, the label of a variation."""
        augmentation = "" if self.augmentation == "none" else self.augmentation
        return ".".join(filter(None, (self.defence, augmentation, self.label)))

    @model_validator(mode="after")
    def _known(self) -> Run:
        if self.defence not in DEFENCES:
            raise ValueError(f"unknown defence {self.defence!r}; known: {', '.join(DEFENCES)}")
        shares = (self.mixed_pairs or 0.0) + (self.clean_pairs or 0.0)
        if shares > 1:
            raise ValueError(f"mixed_pairs and clean_pairs are shares of 1; got {shares:g} in all")
        needs = DEFENCES[self.defence].uses_one_to_many
        if needs != (self.augmentation != "none"):
            raise ValueError(
                f"{self.defence} {'needs' if needs else 'takes no'} augmentation; "
                f"got {self.augmentation!r}"
            )
        return self


class Profile(_Part):
    """Everything a study depends on."""

    name: str
    about: str
    minutes: float = Field(gt=0, description="expected time on the hardware named in about")
    dataset: Dataset
    model: Model = Model()
    masked_lm: MaskedLanguageModel = MaskedLanguageModel()
    base: Training | None = None
    finetune: Training | None = None
    train_attack: TrainAttack
    evaluation: Evaluation
    candidates: Candidates = Candidates()
    runs: tuple[Run, ...] = ()
    n_variants: int = Field(default=5, ge=1, description="captions and images per pair for mat+")
    inside: tuple[Run, ...] = Field(
        default=(), description="variations of one defence, for the study of its own choices"
    )
    inside_seeds: tuple[int, ...] = Field(
        default=(), description="training seeds of the variations, some of `seeds`; all by default"
    )
    architectures: dict[Architecture, Model] = Field(
        default={}, description="further models beside `model`, for transfer and C8a"
    )
    transfer_rows: tuple[str, ...] = Field(
        default=(), description="names of rows that every architecture is trained as too"
    )
    seeds: tuple[int, ...] = (0,)
    analysis_images: int = Field(default=100, ge=4)
    limit: int = Field(
        default=0, ge=0, description="0: whole; otherwise at most this many test images"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Profile:
        if self.model.kind == "small" and self.base is None:
            raise ValueError("a small model starts from random weights: give `base`")
        if self.runs and self.finetune is None:
            raise ValueError("`runs` are given but `finetune` is missing")
        if self.base is None and any(m.kind == "small" for m in self.architectures.values()):
            raise ValueError(
                "small models in `architectures` start from random weights: give `base`"
            )
        if not set(self.inside_seeds) <= set(self.seeds):
            raise ValueError(f"inside_seeds must be some of seeds; got {self.inside_seeds}")
        unknown = set(self.transfer_rows) - {run.row for run in self.runs}
        if unknown:
            raise ValueError(
                f"transfer_rows names rows that `runs` has not: {sorted(unknown)}; "
                f"it has: {', '.join(run.row for run in self.runs)}"
            )
        if self.finetune and self.finetune.batch_size > self.dataset.n_train:
            raise ValueError("finetune.batch_size is larger than dataset.n_train")
        if self.base and self.dataset.n_base < self.base.batch_size:
            raise ValueError("base.batch_size is larger than dataset.n_base")
        if self.dataset.name != "scenes" and not set(TRUE_THREATS).isdisjoint(
            (
                *self.evaluation.threats,
                *self.evaluation.held_out,
                *self.train_attack.threats,
                *(threat for run in self.runs for threat in run.threats),
            )
        ):
            raise ValueError(
                "a threat on true words (bert_true, true_held_out) needs the truth, which only "
                "scenes has"
            )
        return self

    def limited(self, limit: int) -> Profile:
        """The same study on at most `limit` test images; its results say so."""
        if limit <= 0:
            return self
        n = min(limit, self.dataset.n_test)
        smaller = self.dataset.model_copy(update={"n_test": max(n, 2)})
        return self.model_copy(update={"dataset": smaller, "limit": limit})


def profile_names() -> list[str]:
    """Names of the profiles that come with the project."""
    return sorted(path.stem for path in PROFILES.glob("*.yaml"))


def load_profile(name_or_path: str | Path, limit: int = 0) -> Profile:
    """Read and check a profile.

    Args:
        name_or_path: a name such as `demo`, or the path of a YAML file.
        limit: if positive, at most so many test images.

    Raises:
        ProfileError: unknown profile, or a key that is unknown, missing or out of range.
    """
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        path = PROFILES / f"{name_or_path}.yaml"
    if not path.is_file():
        raise ProfileError(f"no profile {name_or_path!r}; known: {', '.join(profile_names())}")
    raw = yaml.safe_load(path.read_text())
    if not isinstance(raw, dict):
        raise ProfileError(f"{path.name}: expected keys and values, got {type(raw).__name__}")
    try:
        return Profile(**raw).limited(limit)
    except ValidationError as error:
        lines = [
            f"  {'.'.join(map(str, e['loc'])) or 'profile'}: {e['msg']} (got {e['input']!r:.60})"
            for e in error.errors()
        ]
        raise ProfileError(f"{path.name} is not a valid profile:\n" + "\n".join(lines)) from None
