"""ALBEF and TCL: a ViT of timm's and a BERT of transformers whose upper layers read the image.

The layout is that of the released code, name by name (github.com/salesforce/ALBEF,
`models/model_retrieval.py`, `models/xbert.py`, `models/vit.py`; TCL has the same).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from transformers import AutoTokenizer, BertConfig
from transformers.models.bert.modeling_bert import BertEmbeddings, BertLayer

from matlib.models.checkpoints import check_architecture, check_numbers, read_weights
from matlib.models.dual_encoder import TowerPart
from matlib.models.fusion import TEMPERATURE, BertTokens, FusionModel, Tokens
from matlib.models.layouts import found_layout
from matlib.models.settings import CLIP_MEAN, CLIP_STD, Settings
from matlib.models.whole import load_pretrained

ALBEF_SETTINGS = Settings(False, CLIP_MEAN, CLIP_STD, "squash", "bicubic")
"""How ALBEF's images are made (source: `dataset/__init__.py` of its code)."""
ALBEF_LENGTH = 30
"""Most tokens of a text (source: `Retrieval.py`, max_length)."""
_HEAD_WIDTH = 64
_PATCHES = "visual_encoder.patch_embed.proj"
_QUEUES = ("image_queue", "text_queue", "idx_queue", "queue_ptr")


@dataclass(frozen=True)
class AlbefShape:
    """Sizes of an ALBEF; the defaults are the released ones.

    Attributes:
        width: of both towers, as the cross-attention has it.
        text_layers, fusion_layers: BERT's lower layers read text alone, the upper ones the image.
    """

    image_size: int = 384
    patch_size: int = 16
    width: int = 768
    heads: int = 12
    image_layers: int = 12
    text_layers: int = 6
    fusion_layers: int = 6
    intermediate: int = 3072
    vocabulary: int = 30522
    positions: int = 512
    embed_dim: int = 256


class _Layers(nn.Module):
    """The name between a BERT and its layers."""

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.layer = nn.ModuleList(layers)


class FusionBert(nn.Module):
    """BERT's embeddings and layers, the upper ones with cross-attention."""

    def __init__(self, shape: AlbefShape) -> None:
        super().__init__()
        common: dict[str, Any] = {
            "vocab_size": shape.vocabulary, "hidden_size": shape.width,
            "num_attention_heads": shape.heads, "intermediate_size": shape.intermediate,
            "max_position_embeddings": shape.positions, "attn_implementation": "eager",
        }  # fmt: skip
        below = BertConfig(**common)
        above = BertConfig(**common, is_decoder=True, add_cross_attention=True)
        self.embeddings = BertEmbeddings(below)
        n = shape.text_layers + shape.fusion_layers
        self.encoder = _Layers(
            [BertLayer(below if i < shape.text_layers else above, i) for i in range(n)]
        )
        self.n_text = shape.text_layers

    def read(self, ids: Tensor, hidden: Tensor) -> Tensor:
        """Texts alone -> (B, T, W).

        Args:
            ids: int64 (B, T).
            hidden: float (B, 1, 1, T), minus infinity for padding.
        """
        x = self.embeddings(input_ids=ids)
        for layer in self.encoder.layer[: self.n_text]:
            x = layer(x, hidden)
        return x

    def fuse(self, x: Tensor, hidden: Tensor, seen: Tensor) -> Tensor:
        """What `read` gave beside (B, 1 + P, W) image tokens -> (B, T, W)."""
        for layer in self.encoder.layer[self.n_text :]:
            x = layer(x, hidden, encoder_hidden_states=seen)
        return x


class AlbefNetwork(nn.Module):
    """The modules of ALBEF under its own names."""

    def __init__(self, shape: AlbefShape) -> None:
        super().__init__()
        self.visual_encoder = VisionTransformer(
            img_size=shape.image_size, patch_size=shape.patch_size, embed_dim=shape.width,
            depth=shape.image_layers, num_heads=shape.heads, num_classes=0, global_pool="",
        )  # fmt: skip
        self.text_encoder = FusionBert(shape)
        self.vision_proj = nn.Linear(shape.width, shape.embed_dim)
        self.text_proj = nn.Linear(shape.width, shape.embed_dim)
        self.itm_head = nn.Linear(shape.width, 2)


class Albef(FusionModel):
    """An ALBEF or TCL.

    Args:
        network: its modules.
        tokenize: B strings -> `Tokens`.
        image_size: side of the square input in pixels.
    """

    def __init__(
        self,
        network: AlbefNetwork,
        tokenize: Callable[[Sequence[str]], Tokens],
        image_size: int,
        settings: Settings = ALBEF_SETTINGS,
        temperature: float = TEMPERATURE,
    ) -> None:
        super().__init__(network, tokenize, image_size, settings, temperature)

    @property
    def network(self) -> AlbefNetwork:
        """The modules, with their type."""
        return cast(AlbefNetwork, self.clip)

    def towers(self) -> dict[str, list[TowerPart]]:
        """See `TrainableEncoder`; the fusion is BERT's upper layers with the matching head."""
        return self._towers("visual_encoder", self.network.text_encoder)

    def _fusing_layers(self) -> list[Any]:
        bert = self.network.text_encoder
        return list(bert.encoder.layer[bert.n_text :])

    def _fusion_alone(self) -> list[TowerPart]:
        return [
            part for layer in self._fusing_layers()
            for name, part in layer.named_children() if name != "crossattention"
        ]  # fmt: skip

    def _image_tokens(self, normalised: Tensor) -> Tensor:
        found: Tensor = self.network.visual_encoder.forward_features(normalised)
        return found

    def _read(self, tokens: Tokens) -> Tensor:
        return self.network.text_encoder.read(tokens.ids.to(self.device), self._hidden(tokens))

    def _fuse(self, seen: Tensor, tokens: Tokens) -> Tensor:
        text = self._read(tokens)
        return self.network.text_encoder.fuse(text, self._hidden(tokens), seen)

    def _hidden(self, tokens: Tokens) -> Tensor:
        """float (B, 1, 1, T), minus infinity for padding."""
        mask = tokens.mask.to(self.device)[:, None, None]
        return torch.zeros(mask.shape, device=mask.device).masked_fill(~mask, -math.inf)


def open_albef(weights: Path, tokenizer: str) -> Albef:
    """A released checkpoint of ALBEF or TCL, in evaluation mode.

    Its copies of slowly moving weights, its queues and the head that fills masked words are left
    out, as retrieval has no use for them.

    Args:
        weights: the file.
        tokenizer: folder, or name on the hub, of BERT's tokenizer: `bert-base-uncased`.

    Raises:
        FileNotFoundError: no such file or tokenizer.
        ValueError: another model; the message counts what is missing and left over.
    """
    if not tokenizer:
        raise ValueError(
            f"{weights} needs its tokenizer: pass rest=bert-base-uncased, or a folder with it"
        )
    state, temperature = own_weights(read_weights(weights))
    if "visual_encoder.pos_embed" not in state or "vision_proj.weight" not in state:
        raise ValueError(f"{weights} holds no ALBEF; {found_layout(state)}")
    shape = shape_of(state, str(weights))
    read = load_pretrained(AutoTokenizer.from_pretrained, tokenizer, "tokenizer")
    if len(read) > shape.vocabulary:
        raise ValueError(
            f"{weights} knows {shape.vocabulary:,} tokens and {tokenizer} has {len(read):,}: pass "
            "the tokenizer of these weights (rest=bert-base-uncased)"
        )
    network = AlbefNetwork(shape)
    check_architecture(state, network.state_dict(), f"{weights} does not hold an ALBEF")
    network.load_state_dict(state)
    check_numbers(network, str(weights))
    tokenize = BertTokens(read, min(ALBEF_LENGTH, shape.positions))
    return Albef(network, tokenize, shape.image_size, temperature=temperature).eval()


def own_weights(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], float]:
    """The tensors that retrieval needs, by the names of `AlbefNetwork`, and the temperature."""
    found, temperature = {}, TEMPERATURE
    for key, value in state.items():
        first = key.partition(".")[0]
        if key == "temp":
            temperature = float(value)
        elif first.endswith("_m") or first in _QUEUES or key.endswith("position_ids"):
            continue
        elif not key.startswith("text_encoder.cls."):
            name = key.replace("text_encoder.bert.", "text_encoder.", 1)
            found[name] = value.float() if value.is_floating_point() else value
    return found, temperature


def shape_of(state: Mapping[str, Tensor], what: str) -> AlbefShape:
    """The sizes that a checkpoint's tensors tell; heads are 64 wide, as in the released models.

    Raises:
        ValueError: no layer with cross-attention, or images that are not square.
    """
    n_tokens, width = state["visual_encoder.pos_embed"].shape[1:]
    side, patch = math.isqrt(n_tokens - 1), state[f"{_PATCHES}.weight"].shape[3]
    layers = _numbers(state, r"text_encoder\.encoder\.layer\.(\d+)\.")
    crossing = _numbers(state, r"text_encoder\.encoder\.layer\.(\d+)\.crossattention\.")
    if not crossing or side * side != n_tokens - 1:
        raise ValueError(
            f"{what}: expected BERT's upper layers with cross-attention and square images; got "
            f"{len(crossing)} such layers and {n_tokens - 1} patches"
        )
    return AlbefShape(
        image_size=side * patch, patch_size=patch, width=width,
        heads=max(1, width // _HEAD_WIDTH),
        image_layers=len(_numbers(state, r"visual_encoder\.blocks\.(\d+)\.")),
        text_layers=min(crossing), fusion_layers=len(layers) - min(crossing),
        intermediate=len(state["text_encoder.encoder.layer.0.intermediate.dense.weight"]),
        vocabulary=len(state["text_encoder.embeddings.word_embeddings.weight"]),
        positions=len(state["text_encoder.embeddings.position_embeddings.weight"]),
        embed_dim=len(state["vision_proj.weight"]),
    )  # fmt: skip


def _numbers(state: Mapping[str, Tensor], pattern: str) -> set[int]:
    """The numbers of layers in names that begin like this."""
    return {int(found[1]) for key in state if (found := re.match(pattern, key))}
