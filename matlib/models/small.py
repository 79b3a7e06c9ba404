"""Small CLIPs for the embedded world, from their shape; open_clip's own towers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

import torch
from open_clip.model import CLIPTextCfg, CLIPVisionCfg, CustomTextCLIP
from safetensors.torch import save_file

from matlib.models.checkpoints import (
    check_architecture,
    check_numbers,
    read_json_object,
    read_tensors,
)
from matlib.models.encoder import VisionLanguageModel
from matlib.models.open_clip import OpenClipEncoder
from matlib.models.settings import CLIP_SETTINGS, Settings, metadata_of
from matlib.models.tokens import END, ClipTokenizer

SHAPE_FILE, WEIGHTS_FILE = "model.json", "model.safetensors"
"""What a folder of a small model holds."""
ImageTower = Literal["vit", "convnet"]
TextTower = Literal["causal", "bidirectional"]
Family = Literal["clip", "blip", "albef"]


@dataclass(frozen=True)
class SmallModel:
    """Shape of a small model for the embedded world; its numbers are open_clip's settings.

    Attributes:
        image_tower: `vit`, or `convnet` (CLIP's ResNet with `image_layers` blocks in each of
            its four stages and `image_width` channels after the stem; no patches).
        text_tower: `causal` (CLIP's), or `bidirectional`: every word sees all others.
        family: `clip`, or a fusion model of the real classes (`matlib.models.small_fusion`), which
            has a ViT and a BERT whatever the towers above say.
    """

    image_size: int = 64
    patch_size: int = 16
    image_width: int = 128
    image_layers: int = 4
    text_width: int = 96
    text_layers: int = 2
    context_length: int = 32
    head_width: int = 32
    embed_dim: int = 128
    image_tower: ImageTower = "vit"
    text_tower: TextTower = "causal"
    family: Family = "clip"


def build_small(
    shape: SmallModel, seed: int, settings: Settings = CLIP_SETTINGS
) -> VisionLanguageModel:
    """A small model with freshly drawn weights; the same seed gives the same weights.

    Args:
        settings: how the images that it is trained on are made; its towers have GELU.
    """
    if shape.family == "clip":
        return build_small_clip(shape, seed, settings)
    from matlib.models.small_fusion import small_albef, small_blip  # transformers' classes, slow

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        build = {"blip": small_blip, "albef": small_albef}[shape.family]
        return build(shape, settings).eval()


def build_small_clip(
    shape: SmallModel, seed: int, settings: Settings = CLIP_SETTINGS
) -> OpenClipEncoder:
    """As `build_small`, of the family `clip`."""
    is_causal = shape.text_tower == "causal"
    # The end token is CLIP's largest id. Padding of a tower that sees all positions has an id
    # of its own beyond it, which the tower masks: id 0, CLIP's padding, is also the word "!".
    pad = 0 if is_causal else END + 1
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        clip = CustomTextCLIP(
            embed_dim=shape.embed_dim, vision_cfg=_image_config(shape),
            text_cfg=_text_config(shape, pad),
        )  # fmt: skip
    if not is_causal:
        clip.text.use_pad_mask = True  # which open_clip's configuration cannot ask for
    tokenizer = ClipTokenizer(shape.context_length, pad)
    return OpenClipEncoder(clip, tokenizer, shape.image_size, settings).eval()


def _image_config(shape: SmallModel) -> CLIPVisionCfg:
    layers: Any = shape.image_layers
    if shape.image_tower == "convnet":
        layers = (shape.image_layers,) * 4  # four stages are what tells open_clip's ResNet
    return CLIPVisionCfg(
        layers=layers,
        width=shape.image_width,
        head_width=shape.head_width,
        patch_size=shape.patch_size,
        image_size=shape.image_size,
    )


def _text_config(shape: SmallModel, pad: int) -> CLIPTextCfg:
    common: dict[str, Any] = {
        "context_length": shape.context_length,
        "width": shape.text_width,
        "heads": max(1, shape.text_width // shape.head_width),
        "layers": shape.text_layers,
    }
    if shape.text_tower == "causal":
        return CLIPTextCfg(**common)
    return CLIPTextCfg(
        **common, vocab_size=pad + 1, pad_id=pad, eos_id=END, pool_type="eos", no_causal_mask=True
    )


def save_small(encoder: VisionLanguageModel, shape: SmallModel, folder: Path) -> None:
    """Weights as safetensors beside the shape they belong to."""
    settings = metadata_of(encoder.settings)
    save_file(encoder.state_dict(), str(folder / WEIGHTS_FILE), settings)
    (folder / SHAPE_FILE).write_text(json.dumps(asdict(shape), indent=1) + "\n", encoding="utf-8")


def load_small(
    weights: Path, shape: SmallModel | None = None, settings: Settings = CLIP_SETTINGS
) -> VisionLanguageModel:
    """A small model in evaluation mode, from its safetensors.

    Args:
        shape: that of the `model.json` beside the weights by default, as `save_small` wrote it.
        settings: how the images that it was trained on were made.

    Raises:
        FileNotFoundError, ValueError: a file is missing, damaged or of another model.
    """
    beside = weights.with_name(SHAPE_FILE)
    encoder = build_small(shape or shape_from(read_json_object(beside), str(beside)), 0, settings)
    stored = read_tensors(weights)
    check_architecture(stored, encoder.state_dict(), str(weights))
    encoder.load_state_dict(stored)
    check_numbers(encoder, str(weights))
    return encoder.eval()


def shape_from(content: Mapping[str, Any], what: str) -> SmallModel:
    """A shape from its JSON.

    Raises:
        ValueError: a key that is unknown, or a value of another kind.
    """
    kinds = {field.name: type(field.default) for field in fields(SmallModel)}
    wrong = [f"{k}: {v!r:.40}" for k, v in content.items() if type(v) is not kinds.get(k)]
    if wrong:
        raise ValueError(f"{what}: not the shape of a small model ({', '.join(wrong[:3])})")
    return SmallModel(**content)
