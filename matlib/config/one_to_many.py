"""What is studied about pairs: the controlled experiment, and what generates pairs."""

from __future__ import annotations

from itertools import product
from typing import Annotated, Literal

from pydantic import Field, model_validator

from matlib.config.parts import Distinct, Part, Seeds, Steps, Threat
from matlib.config.rows import Run, SetLevels


class Intervention(Part):
    """A factorial experiment: MAT+ on pairs with set alignment, diversity and shift.

    Every dial has the same levels, and every combination is trained once per seed and
    modality. The repeats per pair are `profile.n_variants` throughout.
    """

    levels: tuple[float, ...] = Field(default=(0.0, 0.5, 1.0), min_length=2)
    modalities: Annotated[tuple[Literal["image", "text"], ...], Distinct, Field(min_length=1)] = (
        "text",
        "image",
    )
    seeds: Seeds = Field(default=(0, 1), min_length=1)
    threats: tuple[Threat, ...] = Field(default=(), description="as in `Run`")
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
        """The rows of the experiment, one per design point."""
        return tuple(
            Run(defence="mat+", augmentation="dialled", threats=self.threats, lr=self.lr,
                dials=SetLevels(modality=modality, alignment=a, diversity=d, shift=s,
                                nuisance=self.nuisance if modality == "image" else None))
            for modality in self.modalities
            for a, d, s in product(self.levels, repeat=3)
        )  # fmt: skip


class Generators(Part):
    """What makes captions and images: small models of the study, or pretrained ones by name.

    A name is one of a hub or a local folder. Empty: the embedded world's own stand-in, where it
    has one.
    """

    captioner: str = Field(default="", description="a BLIP model, for `captioned`")
    captioner_steps: Steps = Field(default=900, description="scenes: training of its own")
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
