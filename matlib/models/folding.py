"""Batch normalisation with fixed statistics as part of the convolution before it.

Same weights under the same names, the same function and the same gradients; but one pass over
the pixels less in each layer. With `channels_last` a step of PGD on EfficientNet-lite0 takes a
third of its time on a CPU.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import BatchNormAct2d, Conv2dSame, pad_same
from torch import Tensor, nn


class _FoldedConv(nn.Conv2d):
    """A convolution with the gain and the bias of the normalisation behind it."""

    _norm: tuple[BatchNormAct2d]  # in a tuple: its weights are not this layer's
    _pads: bool

    def forward(self, x: Tensor) -> Tensor:
        """float (B, C, H, W) -> (B, D, H / stride, W / stride)."""
        (norm,) = self._norm
        mean, variance = norm.running_mean, norm.running_var
        assert mean is not None and variance is not None  # batch statistics that are frozen
        gain = norm.weight / torch.sqrt(variance + norm.eps)
        weight = self.weight * gain.view(-1, 1, 1, 1)
        bias = norm.bias - mean * gain
        if self._pads:
            x = pad_same(x, list(self.kernel_size), list(self.stride), list(self.dilation))
        return F.conv2d(x, weight, bias, self.stride, self.padding, self.dilation, self.groups)


class _Activation(BatchNormAct2d):
    """What is left of such a normalisation: its weights, and the activation."""

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.drop(x))


def _channels_last(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    return (args[0].contiguous(memory_format=torch.channels_last), *args[1:])


def fold_statistics(trunk: nn.Module) -> None:
    """Let every convolution of a timm tower normalise by the statistics behind it, in place.

    Args:
        trunk: each of whose normalisations follows a convolution; its statistics stay as they
            are from here on, in training mode too.

    Raises:
        ValueError: a normalisation without a convolution before it.
    """
    before: nn.Conv2d | None = None
    for name, module in [*trunk.named_modules()]:
        if isinstance(module, nn.Conv2d):
            before = module
        elif isinstance(module, BatchNormAct2d):
            if before is None or before.bias is not None:
                raise ValueError(f"no convolution without a bias stands before {name}")
            folded: Any = before
            folded._norm, folded._pads = (module,), isinstance(before, Conv2dSame)
            folded.__class__, module.__class__ = _FoldedConv, _Activation
            before = None
    trunk.register_forward_pre_hook(_channels_last)
