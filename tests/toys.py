"""Small models and captions that several tests share."""

from __future__ import annotations

import torch
from torch import Tensor

from matlib.attacks.edits import Edit
from matlib.attacks.gallery import Gallery
from matlib.models.open_clip import OpenClipEncoder
from matlib.models.small import SmallModel, build_small

TINY = SmallModel(
    image_size=16,
    patch_size=8,
    image_width=32,
    image_layers=1,
    text_width=32,
    text_layers=1,
    context_length=16,
    head_width=16,
    embed_dim=16,
)

WORDS = [
    "red",
    "blue",
    "green",
    "small",
    "large",
    "circle",
    "star",
    "square",
    "cross",
    "above",
    "below",
    "near",
]


def tiny_encoder(seed: int = 0) -> OpenClipEncoder:
    """A 16-pixel CLIP with random weights, in evaluation mode."""
    return build_small(TINY, seed).eval()


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_pixels(n: int, seed: int = 0) -> Tensor:
    return torch.rand(n, 3, 16, 16, generator=generator(seed))


def random_captions(counts: list[int], seed: int = 0) -> tuple[list[str], Tensor]:
    """Captions of 1 to 6 words, `counts[i]` of them for image i, and their image."""
    g = generator(seed)
    captions, own = [], []
    for image, n in enumerate(counts):
        for _ in range(n):
            length = int(torch.randint(1, 7, (1,), generator=g))
            picks = torch.randint(len(WORDS), (length,), generator=g).tolist()
            captions.append(" ".join(WORDS[i] for i in picks))
            own.append(image)
    return captions, torch.tensor(own)


def random_edits(captions: list[str], seed: int = 0, per_word: int = 2) -> list[list[Edit]]:
    """A candidate table with `per_word` edits for about two thirds of the words."""
    g = generator(seed)
    table = []
    for caption in captions:
        row = []
        for position in range(len(caption.split(" "))):
            if int(torch.randint(3, (1,), generator=g)) == 0:
                continue
            picks = torch.randint(len(WORDS), (per_word,), generator=g).tolist()
            row += [Edit(position, WORDS[i]) for i in picks]
        table.append(row)
    return table


def toy_gallery(counts: list[int], seed: int = 0) -> Gallery:
    captions, own = random_captions(counts, seed)
    relevant = torch.zeros(len(counts), len(captions), dtype=torch.bool)
    relevant[own, torch.arange(len(captions))] = True
    return Gallery(random_pixels(len(counts), seed), captions, relevant, own, chunk=4)
