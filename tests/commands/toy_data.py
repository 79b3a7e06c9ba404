"""A folder of tiny images with captions, a tiny model on disk, and words to swap."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from matlib.commands.options import AttackOptions
from matlib.models.small import save_small
from tests.toys import TINY, WORDS, tiny_encoder

COUNTS = (1, 3, 2, 1, 2)


@dataclass(frozen=True)
class Toy:
    """What a user has: images, captions, a model, synonyms."""

    images: Path
    captions: Path
    weights: Path
    synonyms: Path

    def options(self, out: Path, attack: str = "sga", **changes: Any) -> AttackOptions:
        given: dict[str, Any] = {
            "synonyms": self.synonyms,
            "batch": 2,
            "n_steps": 2,
            "eps_255": 8.0,
            **changes,
        }
        own = {"weights": str(self.weights), "images": self.images, "captions": self.captions}
        return AttackOptions(**{"model": "small", "attack": attack, "out": out, **own, **given})


def make_toy(root: Path) -> Toy:
    """Five images of 20 x 24 pixels with one to three captions each."""
    toy = Toy(root / "images", root / "captions.json", root / "model.safetensors", root / "s.json")
    toy.images.mkdir(parents=True)
    generator = torch.Generator().manual_seed(0)
    captions = {}
    for i, n in enumerate(COUNTS):
        noise = torch.randint(0, 256, (20, 24, 3), generator=generator, dtype=torch.uint8)
        Image.fromarray(noise.numpy()).save(toy.images / f"i{i}.png")
        captions[f"i{i}.png"] = [
            f"a {WORDS[i]} {WORDS[i + 5]} near the {WORDS[(i + 2 * j) % 12]}" for j in range(n)
        ]
    toy.captions.write_text(json.dumps(captions))
    toy.synonyms.write_text(json.dumps({w: [x for x in WORDS if x != w][:4] for w in WORDS}))
    save_small(tiny_encoder(), TINY, root)
    return toy
