"""A tiny model that open_clip knows by name, with tags of its own, for the time of a test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import open_clip
import open_clip.factory
import open_clip.pretrained
import torch
from torch import Tensor, nn

NAME = "matlib-test-named"
SHAPE: dict[str, Any] = {
    "embed_dim": 16,
    "vision_cfg": {"layers": 1, "width": 32, "head_width": 16, "patch_size": 8, "image_size": 16},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}
PIXELS = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
CAPTIONS = ["a red star", "blue", "a dog runs on the grass"]
PLAIN = {"mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25), "interpolation": "bicubic",
         "resize_mode": "shortest"}  # fmt: skip
QUICK = {**PLAIN, "mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0), "interpolation": "bilinear",
         "resize_mode": "squash", "quick_gelu": True}  # fmt: skip


@contextmanager
def registered(shape: dict[str, Any] | None = None, name: str = NAME) -> Iterator[str]:
    """open_clip knows the shape by this name."""
    with mock.patch.dict(open_clip.factory._MODEL_CONFIGS, {name: shape or SHAPE}):
        yield name


@contextmanager
def tagged(tags: dict[str, dict[str, Any]], name: str = NAME) -> Iterator[None]:
    """open_clip knows these tags; a key `file` of one is what fetching it gives."""
    with mock.patch.dict(open_clip.pretrained._PRETRAINED, {name: tags}):
        yield


def flat(seed: int, name: str = NAME, *, quick: bool = False) -> Any:
    """open_clip's own model with random weights, in evaluation mode."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = open_clip.create_model(name, pretrained=None, force_quick_gelu=quick)
    return model.eval()


def activations(model: nn.Module) -> set[str]:
    return {type(m).__name__ for m in model.modules() if "gelu" in type(m).__name__.lower()}


def image_features(model: Any, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    shift, scale = (torch.tensor(v).view(1, 3, 1, 1) for v in (mean, std))
    with torch.no_grad():
        return model.encode_image((PIXELS - shift) / scale, normalize=True)


def text_features(model: Any, name: str = NAME) -> Tensor:
    with torch.no_grad():
        return model.encode_text(open_clip.get_tokenizer(name)(CAPTIONS), normalize=True)


def same(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a.detach(), b.detach(), atol=1e-5)
