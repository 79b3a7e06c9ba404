from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

import pytest
import torch
from torch import Tensor

from matlib.data.pairs import OneToMany
from matlib.defences import batch as feed
from matlib.defences.batch import N_AHEAD, Draw, draw_batches, own_rows, read_ahead
from matlib.defences.table import defence
from matlib.training.log import Bookkeeping
from matlib.training.loop import train
from matlib.training.schedule import Schedule
from tests.toys import generator, tiny_encoder
from tests.training.toy_runs import INNER, toy_candidates, toy_data

CPU = torch.device("cpu")
HELD = toy_data()


@dataclass(frozen=True)
class FromHeld:
    """Makes each image when asked for, as files do; counts, and fails on some."""

    images: Tensor
    fails_on: int = -1
    asked: list[tuple[int, int]] = field(default_factory=list)
    origin: str = "toy"

    @property
    def shape(self) -> torch.Size:
        return self.images.shape

    def one(self, image: int, rendering: int) -> Tensor:
        self.asked.append((image, rendering))
        if image == self.fails_on:
            raise ValueError(f"image {image} is damaged")
        return self.images[image, rendering]


def lazy(**more: int) -> OneToMany:
    assert isinstance(HELD.images, Tensor)
    return replace(HELD, images=FromHeld(HELD.images, **more))


def draws(n: int = 5) -> list[Draw]:
    return list(islice(draw_batches(HELD, 4, generator()), n))


PARTS = [slice(0, 2), slice(2, 4)]


@pytest.mark.parametrize("n_threads", [0, 1, 3])
def test_what_is_read_ahead_is_what_the_draws_say_in_their_order(n_threads: int) -> None:
    with read_ahead(iter(draws()), lazy(), PARTS, CPU, n_threads) as fed:
        found = [d.take(lazy(), rows, CPU, torch.float32) for d in fed for rows in PARTS]
    expected = [d.take(HELD, rows, CPU, torch.float32) for d in draws() for rows in PARTS]
    assert [b.captions for b in found] == [b.captions for b in expected]
    assert all(torch.equal(a.pixels, b.pixels) for a, b in zip(found, expected, strict=True))


def test_reading_is_ahead_of_the_step_but_not_by_more_than_it_should() -> None:
    data = lazy()
    images = data.images
    assert isinstance(images, FromHeld)
    with read_ahead(iter(draws(9)), data, [slice(0, 4)], CPU, 2) as fed:
        first = next(fed)
        first.take(data, slice(0, 4), CPU, torch.float32)
    assert 4 <= len(images.asked) <= 4 * (1 + N_AHEAD)


def test_only_a_processes_own_rows_are_read() -> None:
    data = lazy()
    images = data.images
    assert isinstance(images, FromHeld)
    with read_ahead(iter(draws()), data, [slice(2, 4)], CPU, 2) as fed:
        for draw in fed:
            draw.take(data, slice(2, 4), CPU, torch.float32)
    wanted = [
        (int(i), int(r)) for d in draws() for i, r in zip(d.index[2:], d.rendering[2:], strict=True)
    ]
    assert sorted(images.asked) == sorted(wanted)


def test_own_rows_of_all_processes_and_parts_are_the_batch() -> None:
    @dataclass(frozen=True)
    class Process:
        rank: int
        count: int = 3

    found = [
        i
        for part in range(2)
        for rank in range(3)
        for i in range(12)[own_rows(6, part, Process(rank))]  # type: ignore[arg-type]
    ]
    assert found == list(range(12))


def test_a_damaged_image_stops_the_step_that_needs_it_and_leaves_no_thread() -> None:
    broken = int(draws()[1].index[0])
    data, n_before = lazy(fails_on=broken), threading.active_count()
    with (
        pytest.raises(ValueError, match=f"image {broken} is damaged"),
        read_ahead(iter(draws()), data, [slice(0, 4)], CPU, 2) as fed,
    ):
        next(fed).take(data, slice(0, 4), CPU, torch.float32)
        next(fed).take(data, slice(0, 4), CPU, torch.float32)
    assert threading.active_count() == n_before


def test_images_in_memory_are_gathered_ahead_for_a_gpu_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with read_ahead(iter(draws()), HELD, PARTS, CPU) as fed:
        assert all(draw.read is None for draw in fed)
    empty = torch.empty  # as on a machine whose memory can be pinned
    monkeypatch.setattr(feed.torch, "empty", lambda *a, pin_memory, **k: empty(*a, **k))
    with read_ahead(iter(draws()), HELD, PARTS, torch.device("cuda")) as fed:
        found = [d.take(HELD, rows, CPU, torch.float32).pixels for d in fed for rows in PARTS]
    expected = [d.take(HELD, rows, CPU, torch.float32).pixels for d in draws() for rows in PARTS]
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_training_from_files_ends_in_the_weights_of_training_from_memory(tmp_path: Path) -> None:
    schedule = Schedule(6, 4, 1e-3, checkpoint_every=1, micro_batches=2)

    class Stopped(Exception):
        pass

    def stop(row: Mapping[str, float]) -> None:
        if row["step"] == 3:
            raise Stopped

    def weights(data: OneToMany, **more: object) -> list[Tensor]:
        encoder = tiny_encoder()
        train(
            encoder, data, defence("mat"), schedule, seed=0, inner=INNER,
            candidates=toy_candidates(data), **more,  # type: ignore[arg-type]
        )  # fmt: skip
        return list(encoder.parameters())

    expected = weights(HELD)
    with pytest.raises(Stopped):
        weights(lazy(), books=Bookkeeping(tmp_path, on_row=stop))
    resumed = weights(lazy(), books=Bookkeeping(tmp_path))  # killed, and started again
    assert all(torch.equal(a, b) for a, b in zip(expected, resumed, strict=True))
