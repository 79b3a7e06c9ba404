"""An open_clip model that a program holds already, behind the contract."""

from __future__ import annotations

from collections.abc import Callable

import torch
from open_clip.model import get_model_preprocess_cfg
from torch import Tensor, nn

from matlib.models.dual_encoder import TowerPart, weights_of
from matlib.models.encoder import VisionLanguageModel, named_parts
from matlib.models.settings import Settings, said_by_preprocessing

_FLAT = (
    "transformer", "token_embedding", "positional_embedding", "ln_final", "text_projection",
    "cls_emb",
)  # fmt: skip
"""The text tower of open_clip's plain class, whose parts lie in the model itself."""


class ClipInMemory(VisionLanguageModel):
    """A model of open_clip's, whatever its class; nothing is copied.

    Mean, deviation and size of the pixels are those that the model says (open_clip's
    `create_model_and_transforms` writes them into it). `matlib.models.open` loads the same weights
    faster for text attacks, because captions then share what they have in common.

    Args:
        clip: gives features by `encode_image` and `encode_text`, and has a `logit_scale`.
        tokenize: its own, of `open_clip.get_tokenizer`: strings -> int64 (B, T).

    Raises:
        ValueError: not such a model, one that does not say the size of its images, or a
            tokenizer of another model.
    """

    def __init__(self, clip: nn.Module, tokenize: Callable[..., Tensor]) -> None:
        lacking = [n for n in ("visual", "encode_text", "logit_scale") if not hasattr(clip, n)]
        if lacking or not callable(tokenize):
            fault = f"without {', '.join(lacking)}" if lacking else "without a tokenizer"
            raise ValueError(
                "expected a model of open_clip and its tokenizer (open_clip.get_tokenizer); got "
                f"{type(clip).__name__} {fault}"
            )
        said = get_model_preprocess_cfg(clip)
        size = said.get("size")
        sides = {size} if isinstance(size, int) else set(size or ())
        if len(sides) != 1:
            raise ValueError(f"{type(clip).__name__}: expected one side of its images; got {size}")
        settings = Settings(**said_by_preprocessing(said, type(clip).__name__))
        super().__init__(clip, int(sides.pop()), settings)
        self.tokenize = tokenize
        own = getattr(clip, "text", clip)
        table, length = (len(t) if isinstance(t, Tensor) else 0 for t in (
            getattr(getattr(own, "token_embedding", None), "weight", None),
            getattr(own, "positional_embedding", None),
        ))  # fmt: skip
        check_tokens(tokenize(["a"]), table, length, type(clip).__name__)

    def _image_features(self, normalised: Tensor) -> Tensor:
        return self.clip.encode_image(normalised)  # type: ignore[operator]

    def _text_features(self, texts: list[str]) -> Tensor:
        return self.clip.encode_text(self.tokenize(texts).to(self.device))  # type: ignore[operator]

    def towers(self) -> dict[str, list[TowerPart]]:
        """See `TrainableEncoder`."""
        text = named_parts(self.clip, "text") or named_parts(self.clip, *_FLAT)
        return {
            "image": named_parts(self.clip, "visual"), "text": text, "scale": [self.log_scale],
        }  # fmt: skip

    def heads(self) -> list[nn.Parameter]:
        """See `TrainableEncoder`; empty for CLIP's ResNets."""
        text = getattr(self.clip, "text", self.clip)
        image = named_parts(self.clip.visual, "proj", "head")
        found = weights_of([*image, *named_parts(text, "text_projection", "proj")])
        return [*found, self.log_scale] if found else []


def check_tokens(tokens: Tensor, known: int, length: int, what: str) -> None:
    """Refuse the tokenizer of another model.

    Args:
        tokens: int64 (B, T), of any texts.
        known: tokens that the text tower knows; 0 if it does not say.
        length: positions that it has; 0 if it does not say.

    Raises:
        ValueError: tokens that the text tower does not know, or more of them than it reads.
    """
    if not isinstance(tokens, Tensor) or tokens.dtype != torch.int64 or tokens.ndim != 2:
        raise ValueError(
            f"{what}: its tokenizer must give int64 (B, T) of B strings; pass that of "
            "open_clip.get_tokenizer, or transformers' processor"
        )
    if known and int(tokens.max()) >= known:
        raise ValueError(
            f"{what} knows {known:,} tokens, and the tokenizer gave {int(tokens.max()):,}: it is "
            "of another model; pass the tokenizer that belongs to these weights"
        )
    if length and tokens.shape[1] > length:
        raise ValueError(
            f"{what} reads {length} tokens, and the tokenizer gave {tokens.shape[1]}: it is of "
            f"another model; pass one with a context length of {length}"
        )
