"""Fusion models behind the contract: two towers, and layers that read image and text together."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from matlib.models.dual_encoder import Fused, TowerPart, weights_of
from matlib.models.encoder import VisionLanguageModel, named_parts
from matlib.models.settings import Settings
from matlib.models.transformers_model import Processor

TEMPERATURE = 0.07
"""Where the temperature begins in ALBEF and BLIP (source: their code)."""


@dataclass(frozen=True)
class Tokens:
    """Texts as a text tower reads them.

    Attributes:
        ids: int64 (B, T), the first one is pooled.
        mask: bool (B, T), False for padding.
        is_word: bool (B, T), without start, end and padding.
    """

    ids: Tensor
    mask: Tensor
    is_word: Tensor


class BertTokens:
    """B strings -> `Tokens` by a tokenizer of transformers.

    Args:
        tokenizer: such as `BertTokenizer`.
        length: most tokens of a text, start and end included (ALBEF: 30).
    """

    def __init__(self, tokenizer: Any, length: int) -> None:
        self._tokenizer, self._length = tokenizer, length

    def __call__(self, texts: Sequence[str]) -> Tokens:
        found = self._tokenizer(
            list(texts), padding="longest", truncation=True, max_length=self._length,
            return_tensors="pt", return_attention_mask=True,
        )  # fmt: skip
        ids, mask = found["input_ids"], found["attention_mask"].bool()
        ends = (self._tokenizer.cls_token_id, self._tokenizer.sep_token_id)
        return Tokens(ids, mask, mask & ~torch.isin(ids, torch.tensor(ends)))


class FusionModel(VisionLanguageModel):
    """What ALBEF and BLIP have in common; see `FusionEncoder`.

    Args:
        clip: has `vision_proj`, `text_proj`, `itm_head`.
        tokenize: B strings -> `Tokens`.
    """

    def __init__(
        self,
        clip: nn.Module,
        tokenize: Callable[[Sequence[str]], Tokens],
        image_size: int,
        settings: Settings,
        temperature: float = TEMPERATURE,
    ) -> None:
        super().__init__(clip, image_size, settings)
        self.tokenize = tokenize
        self.log_inverse_temperature = nn.Parameter(
            torch.tensor(-math.log(temperature), device=self.device)
        )

    @property
    def log_scale(self) -> nn.Parameter:
        """The logarithm of `logit_scale`, 1 / temperature."""
        return self.log_inverse_temperature

    def image_tokens(self, pixels: Tensor) -> Tensor:
        """float (B, 3, S, S) in [0, 1] -> float (B, 1 + P, W), class token first."""
        return self._image_tokens(self.normalised(pixels))

    def match(self, images: Tensor, texts: Sequence[str]) -> Tensor:
        """B images (pixels, or `image_tokens`) and B texts -> float (B,).

        The logit of the pair: that of "match" minus that of "no match". The released evaluations
        rank by the first alone.

        Raises:
            ValueError: not as many images as texts.
        """
        return self._scored(images, texts)[0]

    def fused(self, images: Tensor, texts: Sequence[str]) -> Fused:
        """`match` with what led to it.

        Raises:
            ValueError: not as many images as texts.
        """
        with _kept_attention(self._fusing_layers()) as attention:
            score, state, tokens = self._scored(images, texts)
        return Fused(score, state, tuple(attention), tokens.is_word.to(score.device))

    def _scored(self, images: Tensor, texts: Sequence[str]) -> tuple[Tensor, Tensor, Tokens]:
        if len(images) != len(texts):
            raise ValueError(f"expected a text for each image; got {len(images)} and {len(texts)}")
        seen = images if images.ndim == 3 else self.image_tokens(images)  # (B, 1 + P, W)
        tokens = self.tokenize(list(texts))
        state = self._fuse(seen, tokens)[:, 0]  # (B, T, W) -> (B, W)
        head: Any = self.clip.itm_head
        logits: Tensor = head(state)  # (B, 2): no match, match
        return logits[:, 1] - logits[:, 0], state, tokens

    def _image_features(self, normalised: Tensor) -> Tensor:
        found: Tensor = self.clip.vision_proj(self._image_tokens(normalised)[:, 0])  # type: ignore[operator]
        return found

    def _text_features(self, texts: list[str]) -> Tensor:
        found: Tensor = self.clip.text_proj(self._read(self.tokenize(texts))[:, 0])  # type: ignore[operator]
        return found

    def heads(self) -> list[nn.Parameter]:
        """See `TrainableEncoder`."""
        return [*weights_of(named_parts(self.clip, "vision_proj", "text_proj")), self.log_scale]

    def _towers(self, image: str, text: nn.Module) -> dict[str, list[TowerPart]]:
        """Towers of a BERT whose layers with cross-attention are the fusion, or have a part of it.

        Args:
            image: name of the image tower.
            text: has `embeddings` and `encoder.layer`.
        """
        crossing = [layer.crossattention for layer in self._fusing_layers()]
        fusion: list[TowerPart] = [
            *self._fusion_alone(),
            *crossing,
            *named_parts(self.clip, "itm_head"),
        ]
        own = {id(p) for p in weights_of(fusion)}
        rest = [p for p in text.parameters() if id(p) not in own]
        return {
            "image": named_parts(self.clip, image, "vision_proj"),
            "text": [*rest, *named_parts(self.clip, "text_proj")],
            "fusion": fusion,
            "scale": [self.log_scale],
        }

    def _fusing_layers(self) -> list[Any]:
        """The layers with a `crossattention`."""
        raise NotImplementedError

    def _fusion_alone(self) -> list[TowerPart]:
        """Parts of the text tower that read fused states only, beside the cross-attention."""
        return []

    def _image_tokens(self, normalised: Tensor) -> Tensor:
        raise NotImplementedError

    def _read(self, tokens: Tokens) -> Tensor:
        """Texts alone -> (B, T, W)."""
        raise NotImplementedError

    def _fuse(self, seen: Tensor, tokens: Tokens) -> Tensor:
        """Texts beside (B, 1 + P, W) image tokens -> (B, T, W)."""
        raise NotImplementedError


@contextmanager
def _kept_attention(layers: Sequence[Any]) -> Iterator[list[Tensor]]:
    """The softmax of every cross-attention, (B, heads, T, 1 + P), in the order of the layers."""
    kept: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: Any, output: Any) -> None:
        kept.append(output[1])

    # `self` is the name of the attention's part in BERT
    hooks = [layer.crossattention.self.register_forward_hook(keep) for layer in layers]
    try:
        yield kept
    finally:
        for hook in hooks:
            hook.remove()


class Blip(FusionModel):
    """transformers' `BlipForImageTextRetrieval`; nothing is copied.

    Its class has no temperature: the one that BLIP's training begins with stands in.

    Args:
        clip: the model, whole.
    """

    @classmethod
    def with_processor(cls, model: nn.Module, processor: Any) -> Blip:
        """A model with its own processor (`AutoProcessor.from_pretrained`).

        Raises:
            ValueError: as `Processor`.
        """
        made = Processor(processor, model.config)
        tokenize = BertTokens(made.tokenizer, made.length)
        return cls(model, tokenize, made.image_size, made.settings)

    def towers(self) -> dict[str, list[TowerPart]]:
        """See `TrainableEncoder`; the fusion is the cross-attention with the matching head."""
        return self._towers("vision_model", self.clip.text_encoder)  # type: ignore[arg-type]

    def _fusing_layers(self) -> list[Any]:
        encoder: Any = self.clip.text_encoder
        return list(encoder.encoder.layer)

    def _image_tokens(self, normalised: Tensor) -> Tensor:
        found: Tensor = self.clip.vision_model(pixel_values=normalised).last_hidden_state  # type: ignore[operator]
        return found

    def _read(self, tokens: Tokens, **beside: Any) -> Tensor:
        encoder: Any = self.clip.text_encoder
        mask = tokens.mask.long().to(self.device)
        found: Tensor = encoder(
            input_ids=tokens.ids.to(self.device), attention_mask=mask, **beside
        ).last_hidden_state
        return found

    def _fuse(self, seen: Tensor, tokens: Tokens) -> Tensor:
        return self._read(tokens, encoder_hidden_states=seen)
