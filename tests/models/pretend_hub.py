"""Tiny models of transformers' real classes with their processors, and a hub's cache on disk."""

from __future__ import annotations

import shutil
import string
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    BertTokenizer,
    BlipConfig,
    BlipForImageTextRetrieval,
    BlipImageProcessor,
    BlipProcessor,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPProcessor,
    CLIPTokenizer,
    SiglipConfig,
    SiglipImageProcessor,
    SiglipModel,
)

LETTERS = list(string.ascii_lowercase)
ENDED = [f"{letter}</w>" for letter in LETTERS]
SIZE, LENGTH = 16, 24
COMMON = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
          "num_attention_heads": 2, "projection_dim": 16}  # fmt: skip
PIXELS = {"image_size": SIZE, "patch_size": 8}


def drawn(model: Any, seed: int = 3) -> Any:
    """The model with weights that are drawn anew: its own start is all zeros in places."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in model.named_parameters():
        if not name.startswith("logit"):
            is_norm = value.ndim == 1 and name.endswith("weight")
            value.data = torch.randn(value.shape, generator=generator) * 0.15 + is_norm
    return model.eval()


def clip_processor(size: int = SIZE) -> CLIPProcessor:
    tokens = [*LETTERS, *ENDED, "<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer(vocab={token: i for i, token in enumerate(tokens)}, merges=[])
    images = CLIPImageProcessor(
        size={"shortest_edge": size}, crop_size={"height": size, "width": size},
        image_mean=[0.5, 0.4, 0.3], image_std=[0.2, 0.3, 0.4], resample=2,
    )  # fmt: skip
    return CLIPProcessor(images, tokenizer)


def clip_model(act: str = "quick_gelu") -> Any:
    text = {**COMMON, "hidden_act": act, "vocab_size": 54, "max_position_embeddings": LENGTH,
            "bos_token_id": 52, "eos_token_id": 53, "pad_token_id": 53}  # fmt: skip
    vision = {**COMMON, **PIXELS, "hidden_act": act}
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)
    return drawn(CLIPModel(config))


def bert_tokenizer() -> BertTokenizer:
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *(f"##{c}" for c in LETTERS)]
    return BertTokenizer(vocab={token: i for i, token in enumerate(tokens)})


def blip() -> tuple[Any, BlipProcessor]:
    """A tiny model of BLIP's class for retrieval, with its processor."""
    text = {**COMMON, "encoder_hidden_size": 32, "vocab_size": 64, "pad_token_id": 0,
            "max_position_embeddings": LENGTH, "bos_token_id": 2, "eos_token_id": 3,
            "sep_token_id": 3, "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0}  # fmt: skip
    config = BlipConfig(text_config=text, vision_config={**COMMON, **PIXELS},
                        image_text_hidden_size=16)  # fmt: skip
    images = BlipImageProcessor(size={"height": SIZE, "width": SIZE})
    return drawn(BlipForImageTextRetrieval(config)), BlipProcessor(images, bert_tokenizer())


def siglip() -> tuple[Any, Any]:
    """A model and what a processor has: images and a tokenizer."""
    text = {**COMMON, "vocab_size": 64, "max_position_embeddings": LENGTH, "pad_token_id": 0,
            "bos_token_id": 2, "eos_token_id": 3}  # fmt: skip
    config = SiglipConfig(text_config=text, vision_config={**COMMON, **PIXELS})

    class Both:
        image_processor = SiglipImageProcessor(size={"height": SIZE, "width": SIZE})
        tokenizer = bert_tokenizer()

    return drawn(SiglipModel(config)), Both()


def in_cache(folder: Path, name: str, cache: Path, patch: pytest.MonkeyPatch) -> str:
    """A folder as the hub's cache holds a model; returns the name that opens it."""
    import huggingface_hub.constants

    place = cache / f"models--{name.replace('/', '--')}"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text("0" * 40)
    shutil.copytree(folder, place / "snapshots" / ("0" * 40))
    patch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    patch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return f"hf-hub:{name}"
