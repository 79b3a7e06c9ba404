"""Two-tower models of transformers (CLIP, SigLIP) with their processor, behind the contract."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from matlib.models.dual_encoder import TowerPart, weights_of
from matlib.models.encoder import VisionLanguageModel, named_parts
from matlib.models.in_memory import check_tokens
from matlib.models.settings import Settings
from matlib.models.transformers_clip import said_by_image_processor


class Processor:
    """What a processor of transformers says of images, and its tokens of texts.

    Args:
        processor: has an `image_processor` and a `tokenizer`.
        config: the model's, with `text_config` and `vision_config`.
        fixed: whether texts have the model's full length whatever they are (SigLIP, which
            hides no padding).

    Raises:
        ValueError: images of another size than the model's, not square, or a tokenizer whose
            tokens the model does not know.
    """

    def __init__(self, processor: Any, config: Any, *, fixed: bool = False) -> None:
        images: Any = getattr(processor, "image_processor", None)
        self.tokenizer: Any = getattr(processor, "tokenizer", None)
        what = type(processor).__name__
        if images is None or self.tokenizer is None:
            raise ValueError(
                f"expected the model's processor of transformers (AutoProcessor.from_pretrained), "
                f"with an image_processor and a tokenizer; got {what}"
            )
        self.settings = Settings(**said_by_image_processor(images.to_dict(), Path(what)))
        self.image_size = int(config.vision_config.image_size)
        self._check_size(images.to_dict(), what)
        self._fixed, self.length = fixed, int(config.text_config.max_position_embeddings)
        known = int(config.text_config.vocab_size)
        end = getattr(config.text_config, "eos_token_id", None)
        if config.model_type == "clip" and end not in (2, None, self.tokenizer.eos_token_id):
            raise ValueError(  # 2: in older folders, where the highest token is pooled
                f"the model reads a text at token {end}, and {what} ends it with "
                f"{self.tokenizer.eos_token_id}: pass the processor of these weights"
            )
        check_tokens(self(["a"])["input_ids"], known, self.length, "the model")

    def _check_size(self, images: Mapping[str, Any], what: str) -> None:
        size = images.get("crop_size") if images.get("do_center_crop") else images.get("size")
        sides = {size} if isinstance(size, int) else {*(size or {}).values()} - {None}
        if sides and sides != {self.image_size}:
            raise ValueError(
                f"{what} makes images of {' x '.join(map(str, sorted(sides)))} pixels, and the "
                f"model takes {self.image_size}: pass the processor of these weights"
            )

    def __call__(self, texts: list[str]) -> dict[str, Tensor]:
        """B strings -> `input_ids` and `attention_mask`, int64 (B, T) each."""
        padding = "max_length" if self._fixed else "longest"
        found = self.tokenizer(
            texts, padding=padding, truncation=True, max_length=self.length,
            return_tensors="pt", return_attention_mask=True,
        )  # fmt: skip
        return {name: found[name] for name in ("input_ids", "attention_mask")}


class TransformersEncoder(VisionLanguageModel):
    """transformers' `CLIPModel` or `SiglipModel`; nothing is copied.

    Args:
        model: the model, whole.
        processor: its own (`AutoProcessor.from_pretrained`).

    Raises:
        ValueError: as `Processor`.
    """

    def __init__(self, model: nn.Module, processor: Any) -> None:
        config: Any = model.config
        self_padding = config.model_type.startswith("siglip")
        made = Processor(processor, config, fixed=self_padding)
        super().__init__(model, made.image_size, made.settings)
        self._processor, self._masks = made, not self_padding

    def _image_features(self, normalised: Tensor) -> Tensor:
        return _pooled(self.clip.get_image_features(pixel_values=normalised))  # type: ignore[operator]

    def _text_features(self, texts: list[str]) -> Tensor:
        tokens = {name: value.to(self.device) for name, value in self._processor(texts).items()}
        if not self._masks:
            del tokens["attention_mask"]
        return _pooled(self.clip.get_text_features(**tokens))  # type: ignore[operator]

    def towers(self) -> dict[str, list[TowerPart]]:
        """See `TrainableEncoder`; SigLIP's bias, which no ranking sees, belongs to none."""
        return {
            "image": named_parts(self.clip, "vision_model", "visual_projection"),
            "text": named_parts(self.clip, "text_model", "text_projection"),
            "scale": [self.log_scale],
        }

    def heads(self) -> list[nn.Parameter]:
        """See `TrainableEncoder`; empty for SigLIP."""
        found = weights_of(named_parts(self.clip, "visual_projection", "text_projection"))
        return [*found, self.log_scale] if found else []


def _pooled(found: Any) -> Tensor:
    pooled: Tensor = found if isinstance(found, torch.Tensor) else found.pooler_output
    return pooled
