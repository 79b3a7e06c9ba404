from __future__ import annotations

import pytest
import torch

from benchmarks import step as module
from benchmarks.feed import bench_feed
from benchmarks.load import scenes_load
from benchmarks.memory import TOY
from benchmarks.step import N_WARM, StepSize, bench_step
from matlib.study.profile.profile import load_profile

SIZE = StepSize(batch=4, image_steps=3, max_edits=2, n_steps=3)


def test_every_step_is_set_beside_its_parts_in_the_same_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    load, calls = scenes_load(8, 1, TOY), []
    images, texts = load.encoder.image_features, load.encoder.text_features

    def part(call: object, device: torch.device) -> float:
        before = len(counts)
        call()  # type: ignore[operator]
        calls.append(counts[before:])
        return 0.5

    counts: list[tuple[str, int]] = []

    def image(pixels: torch.Tensor) -> torch.Tensor:
        counts.append(("image", len(pixels)))
        return images(pixels)

    def text(captions: list[str]) -> torch.Tensor:
        counts.append(("text", len(captions)))
        return texts(captions)

    monkeypatch.setattr(load.encoder, "image_features", image)
    monkeypatch.setattr(load.encoder, "text_features", text)
    monkeypatch.setattr(module, "seconds", part)
    found = bench_step(load, SIZE)
    assert len(calls) == 3 * (SIZE.n_steps + N_WARM)
    assert calls[0] == [("image", 4)] * 3  # K passes
    assert calls[1] == [("image", 4), ("text", 4)]
    assert calls[2] == [("text", 4 * (1 + 2))]  # the caption itself, and two edits of it
    expected = found["mat_step_seconds"] / 1.5
    assert found["mat_step_over_necessary"] == pytest.approx(expected)
    assert 0 < found["mat_step_text_share"] < 1 and 0 < found["mat_step_image_share"] < 1
    assert all(p.grad is None for p in load.encoder.parameters()) and not load.encoder.training


def test_the_measured_step_is_the_demos() -> None:
    found, profile = StepSize.demo(), load_profile("demo")
    assert profile.finetune is not None
    assert (found.batch, found.image_steps, found.max_edits) == (
        profile.finetune.batch_size, profile.train_attack.pgd_steps,
        profile.train_attack.max_edits,
    )  # fmt: skip


def test_the_large_step_has_the_image_steps_of_the_papers_profile() -> None:
    profile = load_profile("flickr30k")
    assert StepSize.paper().image_steps == profile.train_attack.pgd_steps


def test_the_feed_is_measured_for_every_number_of_threads() -> None:
    found = bench_feed(n_images=4, batch=2, size=16, n_repeats=1)["feed_samples_per_second"]
    assert list(found["decoding_by_threads"]) == ["0", "1", "2"]
    assert all(rate > 0 for rate in (*found["decoding_by_threads"].values(), found["in_memory"]))
