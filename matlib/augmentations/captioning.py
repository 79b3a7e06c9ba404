"""Image to text: captions that a captioner writes for the images of training pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import BlipForConditionalGeneration, BlipProcessor

from matlib.augmentations.generated import Writer
from matlib.augmentations.pretrained import seeded
from matlib.data.pairs import ImageTextPairs
from matlib.models.whole import load_pretrained, load_whole


class Captioner(Protocol):
    """Writes captions of images."""

    def __call__(
        self, images: Tensor, n: int, generator: torch.Generator, *, temperature: float = 1.0
    ) -> list[list[str]]:
        """`n` sampled captions of each image.

        Args:
            images: uint8 (N, 3, H, W).
            n: captions of each.
            generator: CPU generator; same generator, same captions.
            temperature: of the sampling; 0 takes the likeliest word each time.
        """
        ...


def captions_by(captioner: Captioner, pairs: ImageTextPairs, *, temperature: float = 1.0) -> Writer:
    """The captioner as a writer for `matlib.augmentations.generated.write_captions`."""

    def write(rows: Sequence[int], n: int, generator: torch.Generator) -> list[list[str]]:
        return captioner(pairs.images.load(rows), n, generator, temperature=temperature)

    return write


@dataclass(frozen=True)
class PretrainedCaptioner:
    """A BLIP model (Li et al. 2022) with nucleus sampling.

    The paper of this project samples several captions per image from a captioner; number,
    nucleus and temperature are ours.

    Attributes:
        model, processor: of transformers.
        top_p: nucleus, in (0, 1].
        batch_size: images per call of the model.
        max_new_tokens: length of a caption at most.
    """

    model: BlipForConditionalGeneration
    processor: Any
    top_p: float = 0.9
    batch_size: int = 16
    max_new_tokens: int = 30

    @classmethod
    def load(
        cls, source: str, device: str = "cpu", *, top_p: float = 0.9, batch_size: int = 16
    ) -> PretrainedCaptioner:
        """From a hub (`Salesforce/blip-image-captioning-base`) or a local folder.

        Raises:
            FileNotFoundError: neither here nor on a hub that can be reached.
            ValueError: another model, or a part of one.
        """
        model = load_whole(BlipForConditionalGeneration.from_pretrained, source, "captioner")
        processor = load_pretrained(BlipProcessor.from_pretrained, source, "captioner's processor")
        return cls(model.to(device).eval(), processor, top_p, batch_size)

    def __call__(
        self, images: Tensor, n: int, generator: torch.Generator, *, temperature: float = 1.0
    ) -> list[list[str]]:
        """`n` sampled captions of each image, uint8 (N, 3, H, W); as `Captioner`."""
        device = self.model.device
        sampling: dict[str, Any] = {"do_sample": False, "num_return_sequences": 1}
        if temperature > 0:
            sampling = {
                "do_sample": True, "top_p": self.top_p, "top_k": 0, "temperature": temperature,
                "num_return_sequences": n,
            }  # fmt: skip
        found: list[list[str]] = []
        with torch.no_grad(), seeded(generator, device):
            for part in images.split(self.batch_size):
                pixels = self.processor(images=list(part), return_tensors="pt")["pixel_values"]
                ids = self.model.generate(
                    pixels.to(device), max_new_tokens=self.max_new_tokens, **sampling
                )
                texts = self.processor.batch_decode(ids, skip_special_tokens=True)
                each = sampling["num_return_sequences"]
                groups = [texts[i : i + each] for i in range(0, len(texts), each)]
                found += [own * (n // each) for own in groups]
        return found
