from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from matlib.defences.table import defence
from matlib.models.open_clip import OpenClipEncoder
from matlib.models.small import build_small
from matlib.training.checkpoint import last_checkpoint
from matlib.training.log import Bookkeeping, History
from matlib.training.loop import train
from matlib.training.schedule import Schedule
from tests.toys import TINY, tiny_encoder
from tests.training.toy_runs import INNER, RUNS, toy_candidates, toy_data, train_toy

DATA = toy_data()


class Stopped(Exception):
    """Stands for a kill at a step."""


def run(  # type: ignore[no-untyped-def]
    encoder: OpenClipEncoder, name: str, schedule: Schedule, folder: Path | None = None,
    stop: int = -1, seed: int = 0, seen: Callable[[Mapping[str, float]], None] = dict, **more,
) -> History:  # fmt: skip
    def stop_there(row: Mapping[str, float]) -> None:
        seen(row)
        if row["step"] == stop:
            raise Stopped

    return train(
        encoder, DATA, defence(name), schedule, seed=seed, inner=INNER,
        candidates=toy_candidates(DATA), books=Bookkeeping(folder, on_row=stop_there), **more,
    )  # fmt: skip


def same(a: OpenClipEncoder, b: OpenClipEncoder) -> bool:
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


def dropping_encoder() -> OpenClipEncoder:
    """Drops features in training mode, with torch's global generator."""
    encoder = tiny_encoder()
    dropout = torch.nn.Dropout(0.3)
    encoder.clip.visual.ln_post = torch.nn.Sequential(encoder.clip.visual.ln_post, dropout)
    return encoder


def stop_and_restart(tmp_path: Path, n_kills: int) -> None:
    """Kill a program at random steps until it ends; compare with one that was let alone."""
    command = [sys.executable, "-m", "tests.training.toy_runs", str(tmp_path), "killed"]
    environment = {**os.environ, "MATLIB_PROGRESS": "off", "OMP_NUM_THREADS": "1"}
    chance, kept = random.Random(n_kills), tmp_path / "killed"
    for _ in range(n_kills):
        process = subprocess.Popen(command, env=environment)
        begun = {path.name for path in kept.glob("*step-*")}
        new, n_wanted = set[str](), chance.randint(1, 3)
        while process.poll() is None and len(new) < n_wanted:  # checkpoints whole or begun
            new |= {path.name for path in kept.glob("*step-*")} - begun
        process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run(command, env=environment, check=True)
    torch.set_num_threads(1)
    expected, _ = train_toy(RUNS["killed"])
    torch.set_num_threads(2)
    found = load_file(tmp_path / "killed.safetensors")
    assert all(torch.equal(found[key], value) for key, value in expected.state_dict().items())


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_a_killed_run_started_again_ends_in_the_same_weights(tmp_path: Path) -> None:
    stop_and_restart(tmp_path, n_kills=1)


@pytest.mark.full
@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
@pytest.mark.parametrize("n_kills", [3, 5, 7])
def test_a_run_killed_many_times_ends_in_the_same_weights(tmp_path: Path, n_kills: int) -> None:
    stop_and_restart(tmp_path, n_kills)


@pytest.mark.parametrize("name", ["mat", "fare", "clean"])
@pytest.mark.parametrize("stop", [1, 4])
def test_a_stopped_run_goes_on_as_if_it_had_not_stopped(
    tmp_path: Path, name: str, stop: int
) -> None:
    schedule = Schedule(7, 4, 1e-3, checkpoint_every=2, ema_decay=0.9, micro_batches=2)
    whole, again = dropping_encoder(), dropping_encoder()
    expected = run(whole, name, schedule)
    with pytest.raises(Stopped):
        run(dropping_encoder(), name, schedule, tmp_path, stop)
    found = run(again, name, schedule, tmp_path)
    assert same(whole, again) and not whole.training
    assert [r["loss"] for r in found.rows] == [r["loss"] for r in expected.rows]
    assert [r["step"] for r in found.rows] == list(range(7))


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before_and_named(tmp_path: Path) -> None:
    schedule = Schedule(7, 4, 1e-3, checkpoint_every=2)
    with pytest.raises(Stopped):
        run(tiny_encoder(), "clean", schedule, tmp_path, stop=5)
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["step-00000003", "step-00000005"]
    tensors = tmp_path / "step-00000005" / "tensors.safetensors"
    content = bytearray(tensors.read_bytes())
    content[-5] ^= 1
    tensors.write_bytes(content)
    whole, again = tiny_encoder(), tiny_encoder()
    run(whole, "clean", schedule)
    history = run(again, "clean", schedule, tmp_path)
    assert same(whole, again)
    (warning,) = history.warnings
    assert "step-00000005" in warning and "goes on from step-00000003" in warning
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("file", ["state.json", "tensors.safetensors"])
def test_a_cut_or_missing_file_is_damage_not_a_crash(tmp_path: Path, file: str) -> None:
    with pytest.raises(Stopped):
        run(tiny_encoder(), "clean", Schedule(4, 4, 1e-3, checkpoint_every=1), tmp_path, stop=2)
    newest = tmp_path / "step-00000003" / file
    newest.write_bytes(newest.read_bytes()[:-3])
    found, damaged = last_checkpoint(tmp_path)
    assert found is not None and found.path.name == "step-00000002" and len(damaged) == 1
    newest.unlink()
    (tmp_path / "step-00000002" / file).unlink()
    found, damaged = last_checkpoint(tmp_path)
    assert found is None and len(damaged) == 2


def test_another_run_never_goes_on_from_a_checkpoint(tmp_path: Path) -> None:
    schedule = Schedule(4, 4, 1e-3)
    with pytest.raises(Stopped):
        run(tiny_encoder(), "mat", schedule, tmp_path, stop=2)
    for message, arguments in (
        (r"schedule\.lr \(0\.001 there, 0\.002 here\)", ("mat", replace(schedule, lr=2e-3))),
        (r"defence\.", ("image-at", schedule)),
    ):
        with pytest.raises(ValueError, match=f"another run; they differ in.*{message}"):
            run(tiny_encoder(), *arguments, tmp_path)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"seed \(0 there, 1 here\)"):
        run(tiny_encoder(), "mat", schedule, tmp_path, seed=1)
    with pytest.raises(ValueError, match="initial weights"):
        run(tiny_encoder(1), "mat", schedule, tmp_path)
    wider = build_small(replace(TINY, image_width=64), 0)
    with pytest.raises(ValueError, match=r"tensors do not fit.*\(32\,\) instead of \(64\,\)"):
        run(wider, "mat", schedule, tmp_path)
    run(tiny_encoder(), "mat", replace(schedule, checkpoint_every=1), tmp_path)  # the same run


def test_final_weights_are_averages_over_the_steps() -> None:
    schedule, averaged, last = Schedule(3, 4, 1e-2, ema_decay=0.5), tiny_encoder(), tiny_encoder()
    seen = [tiny_encoder().clip.visual.proj.detach()]
    keep = lambda _: seen.append(last.clip.visual.proj.detach().clone())  # noqa: E731
    run(last, "clean", replace(schedule, ema_decay=0.0), seen=keep)
    run(averaged, "clean", schedule)
    expected = seen[0]
    for step, weights in enumerate(seen[1:]):
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * weights
    assert torch.allclose(averaged.clip.visual.proj, expected, atol=1e-6)
    assert not torch.allclose(averaged.clip.visual.proj, last.clip.visual.proj, atol=1e-6)
