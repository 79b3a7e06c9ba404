"""Noise of images: the published stream, on every device and in every batch."""

from __future__ import annotations

import pytest
import torch
from scipy import stats
from torch import Tensor

from matlib.attacks.noise import Noise, noise_of, seeds_of_images
from tests.attacks.plain_noise import PlainStream
from tests.pretend_accelerator import ACCELERATOR, Remote, pretended
from tests.toys import generator

SEEDS = torch.tensor([1234567, -5, 2**62 - 1, 0])


def test_the_stream_is_splitmix64() -> None:
    # the first outputs for this seed, in the tests of several libraries
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert PlainStream(1234567).next64(3).tolist() == published
    found = Noise(SEEDS[:1]).uniform(torch.empty(1, 3, dtype=torch.float64))
    assert found.tolist() == [[(number >> 40) / 2**24 for number in published]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_draws_go_on_where_the_last_ended_and_are_those_of_the_plain_stream(
    dtype: torch.dtype,
) -> None:
    like, noise = torch.empty(4, 3, 5, 7, dtype=dtype), Noise(SEEDS)
    found = [noise.uniform(like), noise.normal(like), noise.uniform(like[:, :1, :1, :1])]
    assert {part.dtype for part in found} == {dtype}
    for i, seed in enumerate(SEEDS.tolist()):
        plain = PlainStream(seed)
        assert torch.equal(found[0][i].double(), plain.uniform((3, 5, 7)))
        assert torch.equal(found[1][i].double(), plain.normal((3, 5, 7)))
        assert float(found[2][i]) == float(plain.uniform((1,)))


@pytest.mark.parametrize("split", [(1, 3), (2, 2), (1, 1, 2)])
def test_no_image_depends_on_those_beside_it(split: tuple[int, ...]) -> None:
    like = torch.empty(4, 3, 8, 8)

    def drawn(rows: Tensor) -> list[Tensor]:
        noise = Noise(SEEDS[rows])
        return [noise.normal(like[rows]), noise.uniform(like[rows])]

    whole = drawn(torch.arange(4))
    parts = [drawn(rows) for rows in torch.arange(4).split(list(split))]
    for one, many in zip(whole, zip(*parts, strict=True), strict=True):
        assert torch.equal(one, torch.cat(many))


def test_an_accelerator_draws_the_same_without_a_copy() -> None:
    like = torch.empty(4, 3, 8, 8)
    here = Noise(SEEDS)
    expected = [here.uniform(like), here.normal(like)]
    with pretended():
        there = Noise(SEEDS.to(ACCELERATOR))
        found = [there.uniform(like.to(ACCELERATOR)), there.normal(like.to(ACCELERATOR))]
        assert {*map(type, found)} == {Remote}
        for mine, its in zip(expected, found, strict=True):
            assert torch.equal(mine, its.cpu())


def test_numbers_are_uniform_normal_and_unrelated() -> None:
    like = torch.empty(64, 3, 32, 32)
    noise = Noise(torch.arange(64))  # seeds as near to each other as can be
    uniform, normal = noise.uniform(like).flatten(1), noise.normal(like).flatten(1)
    assert float(uniform.min()) >= 0 and float(uniform.max()) < 1
    assert stats.kstest(uniform.flatten(), "uniform").pvalue > 0.01
    assert stats.kstest(normal.flatten(), "norm").pvalue > 0.01
    n = uniform.shape[1]
    for rows in (uniform, normal):
        between = torch.corrcoef(torch.cat([rows, rows.roll(1, 1)])) - torch.eye(128)
        assert float(between.abs().max()) < 6 / n**0.5


def test_a_generator_gives_the_images_their_seeds_in_order() -> None:
    batch = torch.empty(3, 3, 4, 4)
    assert torch.equal(noise_of(generator(3), batch).seeds, seeds_of_images(3, generator(3)))
    twice = generator(3)
    both = torch.cat([seeds_of_images(1, twice), seeds_of_images(2, twice)])
    assert torch.equal(both, seeds_of_images(3, generator(3)))
    own = [generator(i) for i in (7, 8, 9)]
    torch.rand(2, generator=own[1])  # what it drew since changes nothing
    assert Noise.like(own).seeds.tolist() == [7, 8, 9]


def test_seeds_that_do_not_fit_the_batch_are_refused() -> None:
    with pytest.raises(ValueError, match="one seed per image; got 4 for 3"):
        Noise(SEEDS).uniform(torch.empty(3, 2))
