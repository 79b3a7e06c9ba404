"""open_clip models behind the `DualEncoder` contract, any of them by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from open_clip.hf_model import HFTextEncoder
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from matlib.models.chosen import ChosenTexts
from matlib.models.dual_encoder import TowerPart, frozen, weights_of
from matlib.models.encoder import VisionLanguageModel, named_parts
from matlib.models.prefix_sharing import can_share, encode_shared
from matlib.models.saliency import word_saliency
from matlib.models.settings import CLIP_SETTINGS, Settings
from matlib.models.tokens import ClipTokenizer, Tokenize, fitted, is_plain


class PatchProjection(nn.Conv2d):
    """A convolution whose patches do not overlap, computed as one matrix product.

    Same weights, same numbers; but the gradient with respect to the pixels, which every
    image attack needs, is a matrix product too (on CPU the convolution's input gradient took
    64 % of a PGD step).
    """

    def forward(self, pixels: Tensor) -> Tensor:
        """float (B, C, H, W) -> (B, D, H / p, W / p)."""
        (p, q), (b, c, h, w) = self.kernel_size, pixels.shape
        patches = pixels.reshape(b, c, h // p, p, w // q, q).permute(0, 2, 4, 1, 3, 5)
        flat = patches.reshape(b, h // p, w // q, c * p * q)
        return (flat @ self.weight.flatten(1).T).permute(0, 3, 1, 2)


def _project_patches_by_product(visual: nn.Module) -> None:
    """Swap a ViT's patch convolution for `PatchProjection`; other towers stay as they are."""
    conv = getattr(visual, "conv1", None)
    if type(conv) is not nn.Conv2d or conv.kernel_size != conv.stride or conv.bias is not None:
        return
    side = getattr(visual, "image_size", (0, 0))
    p = conv.kernel_size[0]
    if conv.kernel_size != (p, p) or any(s % p for s in side) or conv.padding != (0, 0):
        return
    swapped = PatchProjection(  # on `meta` it draws no random numbers
        conv.in_channels, conv.out_channels, p, p, bias=False, device="meta"
    )
    swapped.weight = conv.weight
    visual.conv1 = swapped


def _fit_mask(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Cut the causal mask to trimmed tokens: open_clip cuts positions but not this mask."""
    mask = kwargs.get("attn_mask")
    if mask is not None and mask.ndim == 2:
        length = args[0].shape[1]  # (B, T, width): open_clip's transformers are batch-first
        kwargs = {**kwargs, "attn_mask": mask[:length, :length]}
    return args, kwargs


class OpenClipEncoder(VisionLanguageModel):
    """An open_clip model as a `DualEncoder`.

    Args:
        clip: model with `visual`, `text`, `logit_scale` (open_clip's `CustomTextCLIP`).
        tokenize: strings -> int64 (B, T), the model's own of open_clip; captions are trimmed
            where the text tower does not read what is behind them (see `tokens.fitted`).
        image_size: side of the square input in pixels.
        settings: what the weights were trained with; the towers' activation must be theirs.
        keeps_statistics: layers of batch normalisation never leave evaluation mode, so that
            the statistics of pre-training stay.
    """

    def __init__(
        self,
        clip: nn.Module,
        tokenize: Tokenize,
        image_size: int,
        settings: Settings = CLIP_SETTINGS,
        *,
        keeps_statistics: bool = False,
    ) -> None:
        super().__init__(clip, image_size, settings)
        self._keeps_statistics = keeps_statistics
        text: nn.Module = clip.text  # type: ignore[assignment]
        self.tokenize = fitted(tokenize, text)
        _project_patches_by_product(clip.visual)  # type: ignore[arg-type]
        self._shares_prefixes = can_share(text)
        trims = isinstance(self.tokenize, ClipTokenizer) and self.tokenize.trims
        if trims and is_plain(text):
            text.transformer.register_forward_pre_hook(_fit_mask, with_kwargs=True)  # type: ignore[union-attr]

    def train(self, mode: bool = True) -> OpenClipEncoder:
        super().train(mode)
        for module in self.modules() if self._keeps_statistics else ():
            if isinstance(module, _BatchNorm):
                module.eval()
        return self

    def _image_features(self, normalised: Tensor) -> Tensor:
        return self.clip.encode_image(normalised, normalize=False)  # type: ignore[operator]

    def text_features(self, texts: Sequence[str]) -> Tensor:
        """See the base; chosen texts whose tokens are this model's are not read as strings."""
        if isinstance(texts, ChosenTexts) and texts.tokenize is self.tokenize:
            return self.clip.encode_text(texts.tokens, normalize=False)  # type: ignore[operator]
        return super().text_features(texts)

    def may_choose(self) -> Tokenize | None:
        """What `ChosenTexts` are tokenised by, where their strings need not be read."""
        return self.tokenize

    def _text_features(self, texts: list[str]) -> Tensor:
        """Without gradients the strings share what they can (see `prefix_sharing`)."""
        if self._shares_prefixes and not torch.is_grad_enabled():
            return encode_shared(self.clip.text, self.tokenize(texts))
        tokens = self.tokenize(texts).to(self.device)
        return self.clip.encode_text(tokens, normalize=False)  # type: ignore[operator]

    def word_saliency(
        self, texts: Sequence[str], score: Callable[[Tensor], Tensor]
    ) -> list[list[float]]:
        """Per text and word of `text.split(" ")`, the norm of the score's gradient there.

        Args:
            score: (B, D) unit embeddings of `texts` -> (B,), each row from its own embedding.

        Raises:
            ValueError: the model does not read tokens that are those of its words alone.
        """
        tokenizer, text = self.tokenize, self.clip.text
        embedding = getattr(text, "token_embedding", None)
        if isinstance(text, HFTextEncoder):
            embedding = text.transformer.get_input_embeddings()
        if not isinstance(tokenizer, ClipTokenizer) or embedding is None:
            raise ValueError("word saliency needs a model with CLIP's tokenizer; use masking")

        def encode(tokens: Tensor) -> Tensor:
            return self.clip.encode_text(tokens.to(self.device), normalize=True)  # type: ignore[operator]

        rows = [[tokenizer.word_ids(word) for word in text.split(" ")] for text in texts]
        with frozen(self):
            counts = [[len(word) for word in row] for row in rows]
            tokens = tokenizer.framed([t for word in row for t in word] for row in rows)
            return word_saliency(encode, embedding, tokens, counts, score)

    def towers(self) -> dict[str, list[TowerPart]]:
        """See `TrainableEncoder`; CoCa's decoder belongs to none."""
        return {
            "image": named_parts(self.clip, "visual"), "text": named_parts(self.clip, "text"),
            "scale": [self.log_scale],
        }  # fmt: skip

    def heads(self) -> list[nn.Parameter]:
        """See `TrainableEncoder`; empty for CLIP's ResNets."""
        image = named_parts(self.clip.visual, "proj", "head")
        found = weights_of([*image, *named_parts(self.clip.text, "text_projection", "proj")])
        return [*found, self.log_scale] if found else []
