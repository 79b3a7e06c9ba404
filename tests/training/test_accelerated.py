"""What accelerate reads from its surroundings moves no weight and is there again afterwards."""

from __future__ import annotations

import os

import pytest
import torch

from matlib.defences.table import defence
from matlib.training.loop import train
from matlib.training.schedule import Schedule
from tests.toys import tiny_encoder
from tests.training.toy_runs import toy_data


def trained() -> torch.Tensor:
    """All weights after a few steps."""
    encoder = tiny_encoder()
    train(encoder, toy_data(), defence("clean"), Schedule(4, 4, 3e-3), seed=0)
    return torch.cat([p.detach().flatten() for p in encoder.parameters()])


@pytest.fixture(scope="module")
def weights() -> torch.Tensor:
    return trained()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "8"),
        ("ACCELERATE_MIXED_PRECISION", "bf16"),
        ("ACCELERATE_DYNAMO_BACKEND", "EAGER"),
        ("ACCELERATE_USE_FSDP", "true"),
        ("ACCELERATE_TORCH_DEVICE", "meta"),
    ],
)
def test_no_variable_of_accelerate_changes_the_weights(
    name: str, value: str, weights: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    assert torch.equal(trained(), weights)
    assert {k: v for k, v in os.environ.items() if k.startswith("ACCELERATE_")} == {name: value}
