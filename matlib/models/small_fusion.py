"""Small fusion models for the embedded world, from their shape; the real classes of each family."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn
from transformers import BlipConfig, BlipForImageTextRetrieval

from matlib.models.albef import Albef, AlbefNetwork, AlbefShape
from matlib.models.fusion import Blip, FusionModel, Tokens
from matlib.models.settings import Settings
from matlib.models.tokens import END, ClipTokenizer

_PAD = END + 1
_START = END - 1


class ClipTokens:
    """B strings -> `Tokens` of CLIP's byte pairs; the start token is the one that is pooled.

    Args:
        context_length: most tokens of a text, start and end included.
    """

    def __init__(self, context_length: int) -> None:
        self._tokenizer = ClipTokenizer(context_length, _PAD)

    def __call__(self, texts: Sequence[str]) -> Tokens:
        ids = self._tokenizer(texts)
        mask = ids != _PAD
        return Tokens(ids, mask, mask & (ids != _START) & (ids != END))


def small_blip(shape: Any, settings: Settings) -> FusionModel:
    """A small BLIP with weights drawn from torch's global generator.

    Args:
        shape: a `SmallModel`; every text layer reads the image when it is shown one.
    """
    common = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    text = {
        **common, "vocab_size": _PAD + 1, "hidden_size": shape.text_width,
        "encoder_hidden_size": shape.image_width, "intermediate_size": 4 * shape.text_width,
        "num_hidden_layers": shape.text_layers, "pad_token_id": _PAD, "bos_token_id": _START,
        "eos_token_id": END, "sep_token_id": END, "max_position_embeddings": shape.context_length,
        "num_attention_heads": _heads(shape, shape.text_width),
    }  # fmt: skip
    vision = {
        "hidden_size": shape.image_width, "intermediate_size": 4 * shape.image_width,
        "num_hidden_layers": shape.image_layers, "image_size": shape.image_size,
        "patch_size": shape.patch_size, "num_attention_heads": _heads(shape, shape.image_width),
    }  # fmt: skip
    config = BlipConfig(
        text_config=text, vision_config=vision, image_text_hidden_size=shape.embed_dim
    )
    tokens = ClipTokens(shape.context_length)
    return Blip(BlipForImageTextRetrieval(config), tokens, shape.image_size, settings)


def small_albef(shape: Any, settings: Settings) -> Albef:
    """A small ALBEF with weights drawn from torch's global generator.

    Args:
        shape: a `SmallModel`; both towers have the image tower's width, and as many layers read
            the image as read text alone.
    """
    network = AlbefNetwork(
        AlbefShape(
            image_size=shape.image_size, patch_size=shape.patch_size, width=shape.image_width,
            heads=_heads(shape, shape.image_width), image_layers=shape.image_layers,
            text_layers=shape.text_layers, fusion_layers=shape.text_layers,
            intermediate=4 * shape.image_width, vocabulary=_PAD + 1,
            positions=shape.context_length, embed_dim=shape.embed_dim,
        )
    )  # fmt: skip
    for module in network.text_encoder.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        elif isinstance(module, (nn.Linear, nn.Embedding)):  # BERT's own start
            nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)
    tokens = ClipTokens(shape.context_length)
    return Albef(network, tokens, shape.image_size, settings)


def _heads(shape: Any, width: int) -> int:
    return max(1, width // int(shape.head_width))
