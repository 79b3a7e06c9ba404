from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from matlib.augmentations.images import RandAugmented
from matlib.data import pairs as memory
from matlib.data.images import decode_image
from matlib.data.pairs import ImageFiles, ImageTensor, ImageTextPairs, OneToMany
from tests.toys import generator


def files(folder: Path, n: int = 6, size: int = 16) -> ImageFiles:
    for i in range(n):
        noise = torch.randint(256, (size + i, size, 3), generator=generator(i)).byte()
        Image.fromarray(noise.numpy()).save(folder / f"{i}.png")
    paths = tuple(folder / f"{i}.png" for i in range(n))
    return ImageFiles(paths, partial(decode_image, size=size))


def pairs(source: ImageFiles | ImageTensor) -> ImageTextPairs:
    n = len(source)
    ids = tuple(map(str, range(n)))
    return ImageTextPairs("toy", "train", source, tuple("abcdef"[:n]), torch.arange(n), ids)


def test_pairs_of_files_give_the_bytes_of_those_in_memory(tmp_path: Path) -> None:
    source = files(tmp_path)
    lazy = OneToMany.from_pairs(pairs(source))
    held = OneToMany.from_pairs(pairs(ImageTensor(source.load(range(6)), source)))
    index, rendering = torch.tensor([4, 1, 4]), torch.zeros(3, dtype=torch.long)
    assert isinstance(held.images, Tensor) and not isinstance(lazy.images, Tensor)
    assert torch.equal(lazy.take(index, rendering), held.take(index, rendering))
    assert torch.equal(lazy.all_images(), held.images)
    assert lazy.images.shape == held.images.shape == (6, 1, 3, 16, 16)
    with pytest.raises(IndexError, match="number 0; got 1"):
        lazy.images.one(0, 1)


def test_the_origin_is_the_same_in_memory_and_on_disk_and_another_for_other_files(
    tmp_path: Path,
) -> None:
    source = files(tmp_path)
    lazy = OneToMany.from_pairs(pairs(source))
    held = OneToMany.from_pairs(pairs(ImageTensor(source.load(range(6)), source)))
    assert lazy.origin == held.origin == lazy.held(10**9).origin
    fewer = ImageFiles(source.paths[1:], source.decode)
    larger = ImageFiles(source.paths, partial(decode_image, size=17))
    assert len({lazy.origin, fewer.origin, larger.origin}) == 3
    source.paths[0].write_bytes(source.paths[1].read_bytes())
    assert ImageFiles(source.paths, source.decode).origin != lazy.origin


def test_bytes_without_files_are_their_own_origin() -> None:
    images = torch.zeros(2, 1, 3, 4, 4, dtype=torch.uint8)
    changed = images.clone()
    changed[1, 0, 2, 3, 3] = 1
    one, same, other = (OneToMany("x", (("a",), ("b",)), i) for i in (images, images + 0, changed))
    assert one.origin == same.origin != other.origin


def test_images_are_held_only_within_the_budget(tmp_path: Path) -> None:
    lazy = OneToMany.from_pairs(pairs(files(tmp_path)))
    n_bytes = 6 * 3 * 16 * 16
    assert lazy.held(n_bytes - 1) is lazy
    assert torch.equal(torch.as_tensor(lazy.held(n_bytes).images), lazy.all_images())


def test_randaugment_made_when_asked_for_depends_on_seed_image_and_number_only(
    tmp_path: Path,
) -> None:
    source = files(tmp_path)
    lazy, again = (RandAugmented(source, 4, 3) for _ in range(2))
    places = [(i, r) for i in range(6) for r in range(4)]
    expected = [lazy.one(*place) for place in places]
    state = torch.get_rng_state()
    with ThreadPoolExecutor(4) as pool:  # in another order, several at once
        found = list(pool.map(lambda place: again.one(*place), places[::-1]))[::-1]
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(lazy.one(i, 0), source.load([i])[0]) for i in range(6))
    assert len({e.numpy().tobytes() for e in expected}) > 15  # "Identity" is one operation
    assert RandAugmented(source, 4, 4).origin != lazy.origin == again.origin
    other = RandAugmented(source, 4, 4)
    assert any(not torch.equal(other.one(*p), e) for p, e in zip(places, expected, strict=True))


def test_randaugment_draws_both_signs_of_every_operation() -> None:
    """Against torchvision's own: over many draws the same set of images comes out."""
    picture = torch.randint(256, (1, 3, 12, 12), generator=generator()).byte()
    ours = RandAugmented(ImageTensor(picture), 400, 0, n_operations=1)
    mine = {ours.one(0, r).numpy().tobytes() for r in range(1, 400)}
    from torchvision.transforms import v2

    torch.manual_seed(0)
    theirs = {v2.RandAugment(1)(picture[0]).numpy().tobytes() for _ in range(400)}
    assert mine == theirs


def test_bad_parameters_of_randaugment_are_refused() -> None:
    source = ImageTensor(torch.zeros(1, 3, 4, 4, dtype=torch.uint8))
    with pytest.raises(ValueError, match="1 rendering or more"):
        RandAugmented(source, 0, 0)
    with pytest.raises(ValueError, match="magnitude must be in 0 to 30"):
        RandAugmented(source, 2, 0, magnitude=31)


def test_captions_are_found_by_image_as_by_a_plain_search() -> None:
    own = torch.tensor([2, 0, 1, 1, 2, 0, 2])
    source = ImageTensor(torch.zeros(3, 3, 4, 4, dtype=torch.uint8))
    toy = ImageTextPairs("toy", "train", source, tuple("abcdefg"), own, ("x", "y", "z"))
    plain = [(own == i).nonzero().flatten() for i in range(3)]
    assert all(torch.equal(a, b) for a, b in zip(toy.captions_of(), plain, strict=True))


def test_the_budget_is_what_is_asked_for_or_half_of_what_is_free(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(memory.BUDGET_VARIABLE, raising=False)
    monkeypatch.setattr(memory, "free_memory", lambda: 1000)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    assert memory.image_budget() == 500
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert memory.image_budget() == 125
    monkeypatch.setenv(memory.BUDGET_VARIABLE, "1.5")
    assert memory.image_budget() == 3 * 2**29
    monkeypatch.setenv(memory.BUDGET_VARIABLE, "much")
    with pytest.raises(ValueError, match="number of GiB, 0 or more; got 'much'"):
        memory.image_budget()


def test_a_containers_limit_counts_less_its_file_cache(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("700\n")
    (tmp_path / "memory.stat").write_text("anon 500\ninactive_file 150\nactive_file 50\n")
    assert memory._free_in_container(tmp_path) == 450
    (tmp_path / "memory.max").write_text("max\n")
    assert memory._free_in_container(tmp_path) > 2**50
    assert memory._free_in_container(tmp_path / "none") > 2**50
