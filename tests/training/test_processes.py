from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState, PartialState
from safetensors.torch import load_file

from matlib.defences.inner_attack import sample_generators
from matlib.defences.processes import ONE_PROCESS, current_processes
from matlib.defences.table import defence
from matlib.training.loop import train
from matlib.training.schedule import Schedule
from matlib.training.seen import PreciseEncoder
from tests.toys import random_pixels, tiny_encoder
from tests.training.toy_runs import RUNS, toy_data, train_toy

SPLIT = ("exact-mat", "exact-parts", "exact-both", "clean")


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs of `SPLIT`, trained on two processes with gloo."""
    folder = tmp_path_factory.mktemp("split")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {**os.environ, "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "MATLIB_PROGRESS": "off"}
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.training.toy_runs", str(folder), *SPLIT],
            env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        said = [process.communicate(timeout=60)[1] for process in started]
    finally:
        for process in started:
            process.kill()
            process.communicate()
    assert [process.returncode for process in started] == [0, 0], said
    return folder


def losses(folder: Path, name: str) -> list[float]:
    return [row["loss"] for row in json.loads((folder / f"{name}.json").read_text())]


@pytest.mark.parametrize("name", ["exact-mat", "exact-parts", "exact-both"])
def test_two_processes_have_the_losses_and_weights_of_one_in_float64(
    split: Path, name: str
) -> None:
    encoder, history = train_toy(RUNS[name])
    assert losses(split, name) == pytest.approx([r["loss"] for r in history.rows], abs=1e-6)
    weights = load_file(split / f"{name}.safetensors")
    for key, value in encoder.state_dict().items():
        assert torch.allclose(weights[key], value, atol=1e-6), key


def test_two_processes_have_the_clean_loss_and_recall_of_one_in_float32(split: Path) -> None:
    rows = train_toy(RUNS["clean"])[1].rows
    assert losses(split, "clean") == pytest.approx([r["loss"] for r in rows], abs=1e-4)
    found = json.loads((split / "clean.json").read_text())
    assert [r["clean_recall"] for r in found] == [r["clean_recall"] for r in rows]


def test_noise_belongs_to_the_run_the_step_and_the_pair() -> None:
    def noise(seed: int, step: int, index: list[int]) -> list[float]:
        drawn = sample_generators(seed, step, torch.tensor(index))
        return [float(torch.rand((), generator=g)) for g in drawn]

    assert noise(0, 3, [5, 7, 9])[1:] == noise(0, 3, [7, 9])
    everything = [n for s in range(3) for t in range(3) for n in noise(s, t, [0, 1, 2])]
    assert len(set(everything)) == 27


def test_one_process_hands_features_back_as_they_are() -> None:
    features = torch.ones(2, 3, requires_grad=True)
    assert current_processes() is ONE_PROCESS
    assert ONE_PROCESS.gather(features) is features
    assert ONE_PROCESS.gather_fixed(features) is features


def test_trainings_of_one_program_may_differ_in_precision_and_leave_no_state_behind() -> None:
    before = dict(AcceleratorState._shared_state), dict(PartialState._shared_state)
    random = torch.get_rng_state()
    final = []
    for precision in ("no", "bf16", "no"):
        encoder = tiny_encoder()
        schedule = Schedule(2, 4, 1e-3, mixed_precision=precision)  # type: ignore[arg-type]
        history = train(encoder, toy_data(), defence("clean"), schedule, seed=0)
        final.append(history.rows[-1]["loss"])
        assert {p.dtype for p in encoder.parameters()} == {torch.float32}
    assert final[0] == final[2] and final[1] == pytest.approx(final[0], rel=0.05)
    assert final[1] != final[0]
    assert (dict(AcceleratorState._shared_state), dict(PartialState._shared_state)) == before
    assert torch.equal(torch.get_rng_state(), random)


def test_half_precision_stays_inside_the_towers() -> None:
    encoder = tiny_encoder()
    precise = PreciseEncoder(encoder, lambda: torch.autocast("cpu", torch.bfloat16))
    image = precise.encode_image(random_pixels(3))
    assert image.dtype == torch.float32
    assert not torch.equal(image, encoder.encode_image(random_pixels(3)))
    assert precise.tower("scale") == encoder.tower("scale")
