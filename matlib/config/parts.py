"""Parts of a profile that say what the data, the models and the attacks are."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from matlib.attacks.image import check_eps
from matlib.data.images import Fit, Interpolation
from matlib.models.settings import model_config
from matlib.models.small import ImageTower, TextTower
from matlib.training.schedule import Schedule

Threat = Literal["bert_true", "typo", "bert_free"]
HeldOutThreat = Literal["true_held_out", "typo_held_out"]
TRUE_THREATS = ("bert_true", "true_held_out")


class Part(BaseModel):
    """A part of a profile: unknown keys are refused, and nothing changes after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Dataset(Part):
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
    image_mode: Fit = "crop"
    interpolation: Interpolation = "bicubic"


class Model(Part):
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
    pretrained: str = Field(default="", description="tag, checkpoint file or folder")
    rest: str = Field(default="", description="the weights that `pretrained` stems from")

    @model_validator(mode="after")
    def _named(self) -> Model:
        if self.kind == "open_clip" and not self.name:
            raise ValueError("model.kind open_clip needs model.name, e.g. ViT-B-16")
        if self.kind == "open_clip":
            model_config(self.name)  # refuses a name that open_clip does not know
        return self

    @model_serializer(mode="wrap")
    def _without_empty_rest(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        found: dict[str, Any] = handler(self)
        return {key: value for key, value in found.items() if key != "rest" or value}

    @property
    def shape(self) -> dict[str, Any]:
        """What `SmallModel` takes, beside the size of the images."""
        return self.model_dump(exclude={"kind", "name", "pretrained", "rest"})


class MaskedLanguageModel(Part):
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


class Training(Part):
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

    @model_validator(mode="after")
    def _trains(self) -> Training:
        # refuses what no loop could train by, such as micro-batches of unequal size
        Schedule(**self.model_dump(exclude={"validate_every"}))
        return self


class Budget(Part):
    """What an attacker may do."""

    eps_255: float
    pgd_steps: int = Field(ge=0)
    step_255: float | None = Field(
        default=None, gt=0, allow_inf_nan=False, description="null: from eps_255 and pgd_steps"
    )
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
    def _budgets(self) -> Evaluation:
        named = [("unimodal_eps_255", self.unimodal_eps_255)]
        named += [("curve_eps_255", eps) for eps in self.curve_eps_255]
        for name, eps in named:
            try:
                check_eps(eps)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
        return self

    @model_validator(mode="after")
    def _primary(self) -> Evaluation:
        if self.primary_threat not in self.threats:
            raise ValueError("evaluation.primary_threat must be one of evaluation.threats")
        return self


class Candidates(Part):
    """How large the table of allowed edits is."""

    k_free: int = Field(default=10, ge=1, description="candidates per word, as in BERT-Attack")
    k_true: int = Field(default=60, ge=1, description="candidates per word before the truth check")
    typos_per_word: int = Field(default=3, ge=1)
