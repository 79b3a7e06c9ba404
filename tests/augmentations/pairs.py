"""Small 1:1 pairs for the tests of augmentations."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from matlib.data.pairs import ImageTensor, ImageTextPairs
from tests.toys import generator

CAPTIONS = (
    "a red circle above a small blue square",
    "two dogs run through tall grass",
    "a man in a green coat waits",
    "sunset over the sea",
    "children play with a yellow kite near the road",
)


def toy_pairs(captions: Sequence[str] = CAPTIONS, per_image: int = 1) -> ImageTextPairs:
    """`per_image` captions for each of the images, which are 16 x 16 noise."""
    n = len(captions) // per_image
    pixels = torch.randint(256, (n, 3, 16, 16), generator=generator(9), dtype=torch.uint8)
    own = torch.arange(n).repeat_interleave(per_image)
    ids = tuple(f"image-{i}" for i in range(n))
    return ImageTextPairs("toy", "train", ImageTensor(pixels), tuple(captions), own, ids)


def without_weight(folder: Path, target: Path, weights: str, name: str) -> Path:
    """A copy of a saved model that lacks one tensor of the file `weights`."""
    shutil.copytree(folder, target)
    state = load_file(str(target / weights))
    del state[name]
    save_file(state, str(target / weights), metadata={"format": "pt"})
    return target
