"""Images by diffusion: an image restyled, or a caption drawn (optional extra `generative`)."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.transforms.v2.functional import resize

from matlib.augmentations.generators import optional
from matlib.augmentations.variants import with_images
from matlib.data.pairs import ImageTextPairs, OneToMany
from matlib.models.whole import load_pretrained, load_whole

STEPS = 30
GUIDANCE = 7.5
"""Steps and guidance of the pipelines' own defaults for Stable Diffusion (50 steps there)."""


@dataclass(frozen=True)
class Diffusion:
    """A diffusers pipeline: `AutoPipelineForImage2Image` or `AutoPipelineForText2Image`.

    Attributes:
        pipeline: of diffusers.
        size: side in pixels that the pipeline works at.
        batch_size: images per call.
        n_steps: denoising steps.
    """

    pipeline: Any
    size: int
    batch_size: int = 4
    n_steps: int = STEPS

    @classmethod
    def load(
        cls, source: str, what: str, device: str = "cpu", *, size: int = 512, batch_size: int = 4
    ) -> Diffusion:
        """From a hub (`stable-diffusion-v1-5/stable-diffusion-v1-5`) or a local folder.

        Args:
            what: `image_to_image` or `text_to_image`.

        Raises:
            MissingExtraError: diffusers is not installed.
            FileNotFoundError: neither here nor on a hub that can be reached.
            ValueError: another `what`, or a model of which a part is missing.
        """
        names = {
            "image_to_image": "AutoPipelineForImage2Image",
            "text_to_image": "AutoPipelineForText2Image",
        }
        if what not in names:
            raise ValueError(f"{what!r} is none of {', '.join(names)}")
        diffusers = optional("diffusers", "diffusion")
        pipeline = load_pretrained(
            getattr(diffusers, names[what]).from_pretrained, source, "diffusion model",
            use_safetensors=True, **_networks(diffusers, source),
        )  # fmt: skip
        pipeline.set_progress_bar_config(disable=True)
        return cls(pipeline.to(device), size, batch_size)

    def draw(
        self,
        captions: Sequence[str],
        generator: torch.Generator,
        images: Tensor | None = None,
        strength: float = 0.5,
    ) -> Tensor:
        """One image per caption, uint8 (N, 3, size, size).

        Args:
            images: uint8 (N, 3, H, W) to start from; None for text to image.
            strength: how far to leave these images, in (0, 1].
        """
        parts = []
        for start in range(0, len(captions), self.batch_size):
            rows = slice(start, start + self.batch_size)
            own: dict[str, Any] = {"height": self.size, "width": self.size}
            if images is not None:
                large = resize(images[rows].float() / 255, [self.size, self.size], antialias=True)
                own = {"image": large, "strength": strength}
            found = self.pipeline(
                prompt=list(captions[rows]), num_inference_steps=self.n_steps, output_type="pt",
                guidance_scale=GUIDANCE, generator=generator, **own,
            ).images  # fmt: skip
            parts.append((found.detach().cpu().float() * 255).round().clamp(0, 255))
        return torch.cat(parts).to(torch.uint8)


def _networks(diffusers: ModuleType, source: str) -> dict[str, Any]:
    """The pipeline's networks, each loaded whole: a pipeline itself does not say what it lacked."""
    parts = load_pretrained(diffusers.DiffusionPipeline.load_config, source, "diffusion model")
    found = {}
    for name, (library, kind) in ((k, v) for k, v in parts.items() if isinstance(v, list)):
        if library is None:
            continue
        is_own = library in ("transformers", "diffusers")
        module = importlib.import_module(library if is_own else f"diffusers.pipelines.{library}")
        network: Any = getattr(module, kind)
        is_network = isinstance(network, type) and issubclass(network, nn.Module)
        if is_network:
            what = f"diffusion model's {name}"
            found[name] = load_whole(network.from_pretrained, source, what, subfolder=name)
    return found


def restyled_by_diffusion(
    pairs: ImageTextPairs,
    n_variants: int,
    generator: torch.Generator,
    model: Diffusion,
    *,
    strength: float = 0.5,
) -> OneToMany:
    """Each image redrawn by image-to-image diffusion under its caption.

    Args:
        pairs: N images with one caption each.
        n_variants: images added to each original, 0 or more.
        generator: CPU generator.
        model: an image-to-image pipeline.
        strength: how far from the original, in (0, 1].

    Raises:
        ValueError: a strength outside its range.
    """
    if not 0 < strength <= 1:
        raise ValueError(f"strength is in (0, 1]; got {strength}")
    images = pairs.images.load(range(len(pairs)))
    drawn = [model.draw(pairs.captions, generator, images, strength) for _ in range(n_variants)]
    return _added(pairs, drawn, "restyled")


def drawn_by_diffusion(
    pairs: ImageTextPairs, n_variants: int, generator: torch.Generator, model: Diffusion
) -> OneToMany:
    """Each caption drawn by text-to-image diffusion (the paper's generated images)."""
    drawn = [model.draw(pairs.captions, generator) for _ in range(n_variants)]
    return _added(pairs, drawn, "generated")


def _added(pairs: ImageTextPairs, drawn: list[Tensor], technique: str) -> OneToMany:
    size = list(pairs.images.load([0]).shape[-2:])
    if not drawn:
        return OneToMany.from_pairs(pairs)
    fitting = [resize(images, size, antialias=True) for images in drawn]
    return with_images(pairs, torch.stack(fitting, 1), technique)
