"""A checkpoint with the exact names of ALBEF's released files, at a tiny size."""

from __future__ import annotations

import torch
from torch import Tensor

WIDTH, SIDE, PATCH, VOCABULARY, POSITIONS, DIM, INNER = 64, 2, 8, 64, 40, 16, 96
TEXT_LAYERS, FUSION_LAYERS, IMAGE_LAYERS = 2, 2, 2
LINEAR = ("weight", "bias")


def _image(prefix: str) -> dict[str, tuple[int, ...]]:
    """Names of `models/vit.py`."""
    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, WIDTH), "pos_embed": (1, SIDE * SIDE + 1, WIDTH),
        "patch_embed.proj.weight": (WIDTH, 3, PATCH, PATCH), "patch_embed.proj.bias": (WIDTH,),
        "norm.weight": (WIDTH,), "norm.bias": (WIDTH,),
    }  # fmt: skip
    for i in range(IMAGE_LAYERS):
        sizes = {"attn.qkv": (3 * WIDTH, WIDTH), "attn.proj": (WIDTH, WIDTH),
                 "mlp.fc1": (4 * WIDTH, WIDTH), "mlp.fc2": (WIDTH, 4 * WIDTH)}  # fmt: skip
        for name, (out, into) in sizes.items():
            shapes |= {f"blocks.{i}.{name}.weight": (out, into), f"blocks.{i}.{name}.bias": (out,)}
        shapes |= {f"blocks.{i}.{n}.{w}": (WIDTH,) for n in ("norm1", "norm2") for w in LINEAR}
    return {f"{prefix}.{name}": shape for name, shape in shapes.items()}


def _attention(name: str) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for part in ("self.query", "self.key", "self.value", "output.dense"):
        shapes |= {f"{name}.{part}.weight": (WIDTH, WIDTH), f"{name}.{part}.bias": (WIDTH,)}
    return shapes | {f"{name}.output.LayerNorm.{w}": (WIDTH,) for w in LINEAR}


def _text(prefix: str) -> dict[str, tuple[int, ...]]:
    """Names of `models/xbert.py`."""
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (VOCABULARY, WIDTH),
        "embeddings.position_embeddings.weight": (POSITIONS, WIDTH),
        "embeddings.token_type_embeddings.weight": (2, WIDTH),
        **{f"embeddings.LayerNorm.{w}": (WIDTH,) for w in LINEAR},
    }
    for i in range(TEXT_LAYERS + FUSION_LAYERS):
        layer = f"encoder.layer.{i}"
        shapes |= _attention(f"{layer}.attention")
        if i >= TEXT_LAYERS:
            shapes |= _attention(f"{layer}.crossattention")
        shapes |= {f"{layer}.intermediate.dense.weight": (INNER, WIDTH),
                   f"{layer}.intermediate.dense.bias": (INNER,),
                   f"{layer}.output.dense.weight": (WIDTH, INNER),
                   f"{layer}.output.dense.bias": (WIDTH,),
                   **{f"{layer}.output.LayerNorm.{w}": (WIDTH,) for w in LINEAR}}  # fmt: skip
    return {f"{prefix}.{name}": shape for name, shape in shapes.items()}


def albef_state(*, pretrained: bool, seed: int = 0) -> dict[str, Tensor]:
    """Names -> tensors of a checkpoint, as `state_dict()` of the released class gives them.

    Args:
        pretrained: the names of pre-training, where BERT also fills masked words.
    """
    bert = "text_encoder.bert" if pretrained else "text_encoder"
    shapes = {**_image("visual_encoder"), **_text(bert)}
    slow = {**_image("visual_encoder_m"), **_text(bert.replace("text_encoder", "text_encoder_m"))}
    for name, out, into in (("vision_proj", DIM, WIDTH), ("text_proj", DIM, WIDTH),
                            ("itm_head", 2, WIDTH)):  # fmt: skip
        shapes |= {f"{name}.weight": (out, into), f"{name}.bias": (out,)}
    slow |= {f"{n}_m.{w}": shapes[f"{n}.{w}"] for n in ("vision_proj", "text_proj") for w in LINEAR}
    if pretrained:
        shapes |= {"text_encoder.cls.predictions.bias": (VOCABULARY,),
                   "text_encoder.cls.predictions.decoder.weight": (VOCABULARY, WIDTH)}  # fmt: skip
    generator = torch.Generator().manual_seed(seed)
    state = {name: 0.15 * torch.randn(shape, generator=generator)
             for name, shape in {**shapes, **slow}.items()}  # fmt: skip
    for name in state:
        if name.endswith(("LayerNorm.weight", "norm.weight", "norm1.weight", "norm2.weight")):
            state[name] += 1
    beside = {"temp": torch.tensor(0.05), "image_queue": torch.zeros(DIM, 8),
              "text_queue": torch.zeros(DIM, 8), "queue_ptr": torch.zeros(1, dtype=torch.long),
              f"{bert}.embeddings.position_ids": torch.arange(POSITIONS)[None]}  # fmt: skip
    return {**state, **beside}
