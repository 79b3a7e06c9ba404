"""What an image tower holds position by position, and how much each position counts for a score.

Where does the model look? The tokens of the patches as they enter a vision transformer's last
block (behind it only the class token is read), or the last feature map of CLIP's ResNet.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from matlib.models.dual_encoder import DualEncoder, FusionEncoder, frozen

_BLOCKS = (
    "visual.transformer.resblocks",  # open_clip
    "visual.trunk.blocks",  # timm in open_clip
    "vision_model.encoder.layers",  # transformers: CLIP, SigLIP
    "vision_model.encoder.layer",  # transformers: BLIP
    "visual_encoder.blocks",  # ALBEF
)
_MAP = "visual.layer4"  # CLIP's ResNets


@dataclass(frozen=True)
class Seen:
    """An image tower's answer and what it is made of.

    Attributes:
        embeddings: (B, D) unit vectors.
        whole: what the tower holds at its positions, as it comes; for gradients.
    """

    embeddings: Tensor
    whole: Tensor

    @property
    def at(self) -> Tensor:
        return cut(self.whole)


def cut(whole: Tensor) -> Tensor:
    """A tower's tensor -> (B, N, W): patches without class token, or a map line by line.

    A transformer's tokens (B, P + N, W) are P others (class token, registers) and N = side ** 2
    patches, the largest square that there is room for.
    """
    if whole.ndim == 4:
        return whole.flatten(2).transpose(1, 2)  # (B, W, h, w) -> (B, h * w, W)
    return whole[:, -(math.isqrt(whole.shape[1]) ** 2) :]


def seen(encoder: DualEncoder, pixels: Tensor) -> Seen:
    """Embed images and keep what their tower holds at every position; differentiable.

    Args:
        pixels: float (B, 3, H, W) in [0, 1]. Where neither they nor the weights need gradients,
            those with respect to `whole` can be asked for all the same.

    Raises:
        ValueError: an image tower of another kind.
    """
    module, is_block = _place(encoder)
    found: list[Tensor] = []

    def keep(whole: Tensor) -> Tensor:
        needs = whole.requires_grad or not torch.is_grad_enabled()
        found.append(whole if needs else whole.detach().requires_grad_())
        return found[-1]

    def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if args:
            return (keep(args[0]), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": keep(kwargs["hidden_states"])}

    def behind(_: nn.Module, __: Any, output: Tensor) -> Tensor:
        return keep(output)

    if is_block:
        hook = module.register_forward_pre_hook(before, with_kwargs=True)
    else:
        hook = module.register_forward_hook(behind)
    try:
        embeddings = encoder.encode_image(pixels)
    finally:
        hook.remove()
    return Seen(embeddings, found[-1])


def _place(encoder: DualEncoder) -> tuple[nn.Module, bool]:
    """The module to watch, and whether what enters it counts (a block) or what leaves it."""
    modules = dict(encoder.named_modules()) if isinstance(encoder, nn.Module) else {}
    for name, module in modules.items():
        if name.endswith(_BLOCKS) and isinstance(module, nn.ModuleList | nn.Sequential):
            return module[-1], True
        if name.endswith(_MAP):
            return module, False
    raise ValueError(
        f"{type(encoder).__name__} has no image tower whose positions are known; expected a part "
        f"named {', '.join((*_BLOCKS, _MAP))}"
    )


def heat_of_tower(
    encoder: DualEncoder, pixels: Tensor, phrases: Sequence[str], *, differentiable: bool = False
) -> Tensor:
    """Where an image looks like a phrase: what each position adds to their similarity.

    Gradient times feature at every position of the image tower, summed over features: Grad-CAM
    (Selvaraju et al. 2017) without its average of the gradient over positions, which is
    HiResCAM (Draelos and Carin 2020). For towers that read positions through attention the
    average mixes what the places have; on the demo's undefended model the hottest position is
    the thing's own for 87 % of phrases, with the average for 64 %.

    Args:
        encoder: in evaluation mode.
        pixels: float (B, 3, H, W) in [0, 1].
        phrases: B strings.
        differentiable: in the pixels, so that the map can be attacked. That is a second
            derivative of the tower, which fused attention has not: plain attention is used.

    Returns:
        (B, h, h), largest where it is hottest; may be negative.
    """
    plain = sdpa_kernel(SDPBackend.MATH) if differentiable else nullcontext()
    with torch.enable_grad(), frozen(encoder), plain:
        what = seen(encoder, pixels.to(encoder.device))
        with torch.no_grad():
            text = encoder.encode_text(phrases)  # (B, D)
        score = (what.embeddings * text).sum()
        (slope,) = torch.autograd.grad(score, what.whole, create_graph=differentiable)
        heat = (what.at * cut(slope)).sum(2)  # (B, N, W) -> (B, N)
    return _square(heat, differentiable)


def heat_of_fusion(
    encoder: FusionEncoder,
    pixels: Tensor,
    phrases: Sequence[str],
    *,
    differentiable: bool = False,
    layer: int | None = None,
) -> Tensor:
    """Where a fusion model looks when it matches a phrase: Grad-CAM on its cross-attention.

    Attention times the positive part of the matching score's slope, averaged over heads and over
    the phrase's words (ALBEF: Li et al. 2021, section 6 and its code).

    Args:
        encoder, pixels, phrases, differentiable: as of `heat_of_tower`.
        layer: of the fusion; the middle one by default (ALBEF: the third of six).

    Returns:
        (B, h, h), 0 or more.
    """
    plain = sdpa_kernel(SDPBackend.MATH) if differentiable else nullcontext()
    with torch.enable_grad(), frozen(encoder), plain:
        moved = pixels.to(encoder.device)
        moved = moved if moved.requires_grad else moved.detach().requires_grad_()
        found = encoder.fused(moved, phrases)
        looks = found.attention[(len(found.attention) - 1) // 2 if layer is None else layer]
        (slope,) = torch.autograd.grad(found.score.sum(), looks, create_graph=differentiable)
        warm = (looks * slope.clamp_min(0))[..., 1:].mean(1)  # (B, heads, T, 1 + P) -> (B, T, P)
        words = found.is_word.to(warm)[:, :, None]
        heat = (warm * words).sum(1) / words.sum(1).clamp_min(1)  # (B, P)
    return _square(heat, differentiable)


def _square(heat: Tensor, differentiable: bool) -> Tensor:
    """(B, N) -> (B, h, h)."""
    side = math.isqrt(heat.shape[1])
    heat = heat.unflatten(1, (side, side))
    return heat if differentiable else heat.detach()
