"""A tower whose convolutions normalise is the tower that it was, weight by weight."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
from torch import Tensor, nn

from matlib.models.folding import fold_statistics


def tower() -> nn.Module:
    """EfficientNet-lite0 whose statistics, gains and biases are not those of a fresh one."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        found: nn.Module = timm.create_model("tf_efficientnet_lite0", num_classes=0)
        for module in found.modules():
            if isinstance(module, nn.BatchNorm2d):
                for values in (module.running_mean, module.weight, module.bias):
                    assert values is not None
                    values.data += 0.3 * torch.randn_like(values)
                assert module.running_var is not None
                module.running_var.uniform_(0.5, 2.0)
    return found.eval().double()


def gradients(trunk: nn.Module) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Of a weighted sum of features: features, gradient of the pixels and of every weight."""
    pixels = torch.rand(2, 3, 40, 40, generator=torch.Generator().manual_seed(1)).double()
    pixels.requires_grad_()
    features = trunk(pixels)
    (features * torch.linspace(-1, 1, features.shape[1])).sum().backward()
    assert pixels.grad is not None
    found = {name: p.grad for name, p in trunk.named_parameters() if p.grad is not None}
    return features.detach(), pixels.grad, found


def test_a_folded_tower_has_the_same_features_and_gradients() -> None:
    plain = tower()
    folded = copy.deepcopy(plain)
    fold_statistics(folded)
    expected, found = gradients(plain), gradients(folded)
    torch.testing.assert_close(found, expected)
    assert len(found[2]) == len(list(plain.parameters()))
    torch.testing.assert_close(folded.state_dict(), plain.state_dict())


def test_a_copy_has_weights_of_its_own_and_training_mode_changes_nothing() -> None:
    folded = tower()
    fold_statistics(folded)
    pixels = torch.rand(1, 3, 32, 32).double()
    before = folded(pixels)
    other = copy.deepcopy(folded)
    for parameter in other.parameters():
        parameter.data.mul_(1.1)
    assert torch.equal(folded(pixels), before) and not torch.allclose(other(pixels), before)
    for module in folded.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.train()
    assert torch.equal(folded(pixels), before)


def test_a_normalisation_alone_is_refused() -> None:
    layer = timm.layers.BatchNormAct2d
    with pytest.raises(ValueError, match="no convolution without a bias stands before 1"):
        fold_statistics(nn.Sequential(nn.Conv2d(3, 4, 1), layer(4)))
