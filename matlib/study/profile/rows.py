"""One row of a comparison: a defence, the pairs it learns from, and its own choices.

What is studied about pairs: the controlled experiment, and what generates pairs.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from matlib.augmentations.table import TECHNIQUES
from matlib.defences.defence import Defence
from matlib.defences.inner_attack import AttackOrder
from matlib.defences.table import DEFENCES
from matlib.study.profile.parts import Distinct, Part, Seeds, Steps, TextThreat


def _known(name: str) -> str:
    TECHNIQUES.choose(name)
    return name


Augmentation = Annotated[str, AfterValidator(_known)]
"""The name of a technique of `TECHNIQUES`."""

OPTIONS = {
    "n_train": "t", "n_variants": "n", "strength": "x", "keep_aligned": "a", "keep_diverse": "k",
    "vendi": "v",
}  # fmt: skip
"""Options of the pairs -> the letter that they have in a row's name."""


ON_TRUE_WORDS = "-valid"
"""End of the name of a row that has another's defence, on candidates that keep captions true."""


def library_name(name: str) -> str:
    """The entry of `DEFENCES` behind the defence of a row: `mat` behind `mat-valid`."""
    stem = name.removesuffix(ON_TRUE_WORDS)
    return stem if name not in DEFENCES and stem in DEFENCES else name


def row_defence(name: str) -> Defence:
    """The defence of a row, under the row's name for it.

    Raises:
        ValueError: unknown name.
    """
    found = DEFENCES.choose(library_name(name))
    return found if found.name == name else replace(found, name=name)


class SetLevels(Part):
    """One point of the controlled experiment: what added pairs are *set* to, in [0, 1].

    Attributes:
        modality: whether captions or images are added.
        alignment: 1: true; 0: every attribute wrong with probability one half.
        diversity: 0: one variant, repeated; 1: all variants different.
        shift: 0: as in the test data; 1: another dialect or palette.
        nuisance: no dial of its own: strength of the renderer's nuisance in added images at
            diversity 1; at 0 it is that of the world, between them in proportion. None: that of
            the world throughout.
    """

    modality: Literal["image", "text"]
    alignment: float = Field(ge=0, le=1)
    diversity: float = Field(ge=0, le=1)
    shift: float = Field(ge=0, le=1)
    nuisance: float | None = Field(default=None, ge=0, le=4)

    def __str__(self) -> str:
        levels = f"{self.modality}-a{self.alignment:g}-d{self.diversity:g}-s{self.shift:g}"
        return levels if self.nuisance is None else f"{levels}-n{self.nuisance:g}"

    @property
    def levels(self) -> dict[str, float]:
        """The three dials."""
        return {"alignment": self.alignment, "diversity": self.diversity, "shift": self.shift}

    @model_serializer(mode="wrap")
    def _without_defaults(self, whole: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A field that is not set is not a part of a run's identity."""
        found: dict[str, Any] = whole(self)
        return {name: value for name, value in found.items() if value is not None}

    @model_validator(mode="after")
    def _of_images(self) -> SetLevels:
        if self.nuisance is not None and self.modality != "image":
            raise ValueError("nuisance is the renderer's: captions have none")
        return self


class Run(Part):
    """One row of the comparison: a defence and, for mat+, its augmentation.

    Everything after `threats` is a choice inside the defence or of its pairs; what is null
    stays as the profile or the defence has it.
    """

    defence: str
    augmentation: Augmentation = "none"
    threats: tuple[TextThreat, ...] = Field(
        default=(), description="of the words in training; empty: those of train_attack"
    )
    label: str = Field(
        default="", pattern=r"^[A-Za-z0-9.+-]*$", description="tells variations of a defence apart"
    )
    lr: float | None = Field(default=None, gt=0, le=1, description="peak learning rate")
    order: AttackOrder | None = Field(default=None, description="of the attacks on image and text")
    image_step: Literal["symmetric", "caption_set"] | None = Field(
        default=None, description="what the image ascends in a defence that attacks by CLIP's loss"
    )
    mixed_pairs: float | None = Field(
        default=None, ge=0, le=1,
        description="share of the loss on pairs of which one side is attacked, the other clean",
    )  # fmt: skip
    clean_pairs: float | None = Field(
        default=None, ge=0, le=1, description="share of the loss on clean pairs"
    )
    pgd_steps: int | None = Field(
        default=None, ge=0, le=100_000, description="of the attack in training"
    )
    ema_decay: float | None = Field(default=None, ge=0, lt=1)
    weights: Literal["last"] | None = Field(
        default=None, description="the last, although finetune.validate_every chooses the best"
    )
    weight_decay: float | None = Field(default=None, ge=0, le=1000)
    n_train: int | None = Field(default=None, ge=2, description="only so many training pairs")
    n_variants: int | None = Field(
        default=None,
        ge=1,
        le=1000,
        description="captions and images per pair, the original among them",
    )
    strength: float | None = Field(default=None, ge=0, description="unit: see TECHNIQUES")
    keep_aligned: float | None = Field(
        default=None, ge=-1, le=1,
        description="drop added pairs whose cosine under the base model is below this",
    )  # fmt: skip
    keep_diverse: int | None = Field(
        default=None,
        ge=1,
        le=1000,
        description="keep only so many added variants, the most diverse",
    )
    vendi: float | None = Field(
        default=None, ge=1,
        description="thin the added captions until their mean Vendi score is no higher",
    )  # fmt: skip
    dials: SetLevels | None = Field(default=None, description="of augmentation dialled")

    @property
    def options(self) -> dict[str, Any]:
        """Options of the pairs that differ from the profile's, by name."""
        chosen = {name: getattr(self, name) for name in OPTIONS}
        return {name: value for name, value in chosen.items() if value is not None}

    @property
    def technique(self) -> str:
        """Name of its pairs: the augmentation with its options, `none` for the originals."""
        own = [str(self.dials)] if self.dials else []
        own += [f"{OPTIONS[name]}{value:g}" for name, value in self.options.items()]
        return ".".join([self.augmentation, *own])

    @property
    def modality(self) -> str:
        """What is added: `text`, `image`, `both` or, for the originals, ``."""
        return TECHNIQUES[self.augmentation].adds if self.dials is None else self.dials.modality

    @property
    def row(self) -> str:
        """Name of its row: the defence, for mat+ its technique, the label of a variation."""
        technique = self.technique.removeprefix("none").removeprefix(".")
        return ".".join(filter(None, (self.defence, technique, self.label)))

    @model_validator(mode="after")
    def _known(self) -> Run:
        shares = (self.mixed_pairs or 0.0) + (self.clean_pairs or 0.0)
        if shares > 1:
            raise ValueError(f"mixed_pairs and clean_pairs are shares of 1; got {shares:g} in all")
        needs = row_defence(self.defence).uses_one_to_many
        if needs != (self.augmentation != "none"):
            raise ValueError(
                f"{self.defence} {'needs' if needs else 'takes no'} augmentation; "
                f"got {self.augmentation!r}"
            )
        return self

    @model_validator(mode="after")
    def _fitting_options(self) -> Run:
        of_pairs = set(self.options) - {"n_train"}
        if of_pairs and self.augmentation == "none":
            raise ValueError(
                f"{sorted(of_pairs)} are about added pairs, and {self.defence} adds none"
            )
        if (self.dials is not None) != (self.augmentation == "dialled"):
            raise ValueError("augmentation dialled needs dials, and no other takes them")
        if self.strength is not None:
            known = TECHNIQUES[self.augmentation].strength
            if known is None:
                have = ", ".join(name for name, each in TECHNIQUES.items() if each.strength)
                raise ValueError(f"{self.augmentation} has no strength; these have: {have}")
            if self.strength > known.greatest:
                raise ValueError(
                    f"strength of {self.augmentation} ({known.unit}) is at most "
                    f"{known.greatest:g}; got {self.strength:g}"
                )
        if self.vendi is not None and self.modality != "text":
            raise ValueError("vendi thins added captions; this row adds none, or images too")
        return self


class Intervention(Part):
    """A factorial experiment: MAT+ on pairs with set alignment, diversity and shift.

    Every dial has the same levels, and every combination (or those of a Latin square) is trained
    once per seed and modality. The repeats per pair are `profile.n_variants` throughout.
    """

    levels: tuple[float, ...] = Field(default=(0.0, 0.5, 1.0), min_length=2)
    design: Literal["factorial", "latin"] = Field(
        default="factorial",
        description="latin: one combination in so many as there are levels, in which each two "
        "levels of two dials meet once; interactions of two dials are part of the third's effect",
    )
    modalities: Annotated[tuple[Literal["image", "text"], ...], Distinct, Field(min_length=1)] = (
        "text",
        "image",
    )
    seeds: Seeds = Field(default=(0, 1), min_length=1)
    threats: tuple[TextThreat, ...] = Field(default=(), description="as in `Run`")
    lr: float | None = Field(default=None, gt=0, le=1)
    nuisance: float | None = Field(
        default=None, ge=0, le=4,
        description="of added images at diversity 1; the world's own leaves them hardly diverse",
    )  # fmt: skip

    @model_validator(mode="after")
    def _ordered(self) -> Intervention:
        in_range = all(0 <= level <= 1 for level in self.levels)
        if not in_range or list(self.levels) != sorted(set(self.levels)):
            raise ValueError(f"levels rise from 0 to 1 without repeats; got {self.levels}")
        return self

    def runs(self) -> tuple[Run, ...]:
        """The rows of the experiment, one per combination."""
        return tuple(
            Run(defence="mat+", augmentation="dialled", threats=self.threats, lr=self.lr,
                dials=SetLevels(modality=modality, alignment=a, diversity=d, shift=s,
                                nuisance=self.nuisance if modality == "image" else None))
            for modality in self.modalities
            for a, d, s in product(self.levels, repeat=3)
        )  # fmt: skip

    def trained(self) -> tuple[Run, ...]:
        """Those of `runs` that the design asks for."""
        return tuple(run for run in self.runs() if self.design == "factorial" or self._meets(run))

    def _meets(self, run: Run) -> bool:
        assert run.dials is not None
        i, j, k = (self.levels.index(level) for level in run.dials.levels.values())
        return k == (i + j) % len(self.levels)


class OtherTasks(Part):
    """The embedded world's other tasks: captioning and visual grounding (claim C8b)."""

    rows: Annotated[tuple[str, ...], Distinct] = Field(
        description="names of rows of `runs` that are judged by them, beside the base"
    )
    architectures: Annotated[tuple[str, ...], Distinct] = Field(
        default=(),
        description="further architectures whose base and rows are judged by them too, of `rows` "
        "those that are in `transfer_rows`",
    )
    captioner_steps: Steps = Field(default=1500, description="of the writer on each frozen tower")
    captioner_width: int = Field(default=96, ge=8, le=4096)
    captioner_batch: int = Field(default=64, ge=1, le=100_000)


class Generators(Part):
    """What makes captions and images: small models of the study, or pretrained ones by name.

    A name is one of a hub or a local folder. Empty: a small captioner of the study's own, and the
    embedded world's own stand-ins, where it has them.
    """

    captioner: str = Field(
        default="", description="a BLIP model, for `captioned`; empty: the study's own"
    )
    captioner_steps: Steps = Field(default=900, description="training of the study's own")
    rewriter: str = Field(default="", description="an instruct model, for `rewritten`")
    translators: tuple[str, ...] = Field(
        default=(), description="there and back, two Marian models, for `back-translated`"
    )
    image_to_image: str = Field(default="", description="a diffusion model, for `restyled`")
    text_to_image: str = Field(default="", description="a diffusion model, for `generated`")
    top_p: float = Field(default=0.9, gt=0, le=1, description="nucleus of all sampling")
    batch_size: int = Field(default=16, ge=1, le=10_000)

    @model_validator(mode="after")
    def _there_and_back(self) -> Generators:
        if len(self.translators) not in (0, 2):
            raise ValueError(f"translators are two models, there and back; got {self.translators}")
        return self
