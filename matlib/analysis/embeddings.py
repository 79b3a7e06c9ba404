"""Embeddings of one-to-many sets under a reference model: what the analyses start from.

Every comparison of two samples first checks shapes, originals and independence here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from matlib.data.pairs import ImageTextPairs, OneToMany
from matlib.models.dual_encoder import DualEncoder, frozen

Matrix = np.ndarray | Tensor
"""(n, D), one embedding per row, of any floating type."""


@dataclass(frozen=True)
class VariantEmbeddings:
    """Every caption and every image of N originals, embedded.

    Attributes:
        technique: what made the variants.
        captions: N float (C_i, D), unit rows; row 0 is the original, C_i >= 1.
        images: float (N, R, D), unit rows; rendering 0 is the original, R >= 1.
    """

    technique: str
    captions: tuple[Tensor, ...]
    images: Tensor

    def __len__(self) -> int:
        return len(self.captions)

    @property
    def n_added_captions(self) -> int:
        """Captions beyond the originals, over all images."""
        return sum(len(c) for c in self.captions) - len(self)

    @property
    def n_added_images(self) -> int:
        """Images beyond the originals, over all pairs."""
        return len(self) * (self.images.shape[1] - 1)

    def added_captions(self) -> tuple[Tensor, Tensor]:
        """(T, D) embeddings of the added captions and int64 (T,) their originals."""
        return _beyond_first(self.captions)

    def added_images(self) -> tuple[Tensor, Tensor]:
        """(T, D) embeddings of the added images and int64 (T,) their originals."""
        return _beyond_first(tuple(self.images))


def embed_variants(
    encoder: DualEncoder, one_to_many: OneToMany, *, batch_size: int = 256
) -> VariantEmbeddings:
    """All captions and images of `one_to_many` under `encoder`, on the CPU, without gradients.

    The reference model should be one that no compared technique has trained, such as the
    base model; otherwise the measure favours the technique it was trained with.

    Args:
        encoder: the reference; its weights and mode stay untouched.
        one_to_many: N originals with their variants.
        batch_size: captions or images per forward pass.
    """
    n, n_images = one_to_many.images.shape[:2]
    flat_images = one_to_many.all_images().flatten(0, 1)
    flat_captions = [c for captions in one_to_many.captions for c in captions]
    with torch.no_grad(), frozen(encoder):
        image = [
            encoder.encode_image(part.float().div(255).to(encoder.device)).cpu()
            for part in flat_images.split(batch_size)
        ]
        text = [
            encoder.encode_text(flat_captions[start : start + batch_size]).cpu()
            for start in range(0, len(flat_captions), batch_size)
        ]
    sizes = [len(captions) for captions in one_to_many.captions]
    return VariantEmbeddings(
        one_to_many.technique,
        torch.cat(text).float().split(sizes),
        torch.cat(image).float().unflatten(0, (n, n_images)),
    )


@dataclass(frozen=True)
class HeldOutEmbeddings:
    """Embeddings of test pairs that the added variants are compared with.

    Attributes:
        image: unit (N, D), one row per test image.
        text: unit (N, D), one caption of each.
    """

    image: Tensor
    text: Tensor

    def of(self, modality: str) -> Tensor:
        """The rows of `image`, of `text`, or of both (`joint`, see `joint_rows`)."""
        if modality == "joint":
            return joint_rows(self.image, self.text)
        return self.image if modality == "image" else self.text


def embed_test(encoder: DualEncoder, test: ImageTextPairs) -> HeldOutEmbeddings:
    """Every test image and the first of its captions under `encoder`."""
    found = embed_variants(encoder, OneToMany.from_pairs(test))
    return HeldOutEmbeddings(found.images[:, 0], torch.stack([rows[0] for rows in found.captions]))


def joint_rows(image: Tensor, text: Tensor) -> Tensor:
    """(N, 2 D) unit rows of N pairs: both embeddings beside each other.

    A Gaussian kernel on them is the product of a kernel on images and one on captions, so a
    distance of kernel means also sees pairs whose halves no longer belong together.

    Args:
        image, text: unit (N, D), row by row one pair.
    """
    return torch.cat([image, text], 1) / 2**0.5


def image_sets(one_to_many: OneToMany) -> Iterator[Tensor]:
    """uint8 (R, 3, H, W): the images of each original in turn."""
    yield from one_to_many.all_images()


def unit_rows(embeddings: Matrix) -> Tensor:
    """float64 (n, D) with rows of norm 1.

    Raises:
        ValueError: not a non-empty matrix of finite numbers, or a row of zeros.
    """
    rows = float_rows(embeddings)
    if bool((rows.norm(dim=1) == 0).any()):
        raise ValueError("an embedding of zeros has no direction; cosine similarity needs one")
    return F.normalize(rows, dim=1)


def float_rows(embeddings: Matrix) -> Tensor:
    """float64 (n, D) on the CPU.

    Raises:
        ValueError: not a non-empty matrix of finite numbers.
    """
    rows = torch.as_tensor(embeddings).detach().to("cpu", torch.float64)
    if rows.ndim != 2 or 0 in rows.shape:
        raise ValueError(f"expected embeddings (n, D) with n, D >= 1; got {tuple(rows.shape)}")
    if not bool(torch.isfinite(rows).all()):
        raise ValueError("embeddings contain NaN or infinity: check the model that made them")
    return rows


def _beyond_first(sets: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    added = torch.cat([rows[1:] for rows in sets])
    counts = torch.tensor([len(rows) - 1 for rows in sets])
    return added, torch.repeat_interleave(torch.arange(len(sets)), counts)


Groups = np.ndarray | Tensor | list[Any]
"""One label per row: the original that the row is a variant of."""


def two_samples(x: Matrix, y: Matrix) -> tuple[Tensor, Tensor]:
    a, b = float_rows(x), float_rows(y)
    if a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise ValueError(
            "expected two samples (n, D) and (m, D) of the same D with n, m >= 2; "
            f"got {tuple(a.shape)} and {tuple(b.shape)}"
        )
    return a, b


def group_labels(
    a: Tensor, b: Tensor, groups_x: Groups | None, groups_y: Groups | None
) -> tuple[np.ndarray, np.ndarray]:
    """int64 (n,) and (m,): the original of each row, equal where the given labels are."""
    if (groups_x is None) != (groups_y is None):
        raise ValueError("give groups for both samples or for neither: labels are compared")
    if groups_x is None or groups_y is None:
        return np.arange(len(a)), np.arange(len(a), len(a) + len(b))
    if len(groups_x) != len(a) or len(groups_y) != len(b):
        raise ValueError(
            f"groups need one label per row ({len(a)} and {len(b)}); "
            f"got {len(groups_x)} and {len(groups_y)}"
        )
    pooled = np.concatenate([np.asarray(groups_x), np.asarray(groups_y)])
    codes = np.unique(pooled, return_inverse=True)[1]
    return codes[: len(a)], codes[len(a) :]


def one_per_group(labels: np.ndarray, generator: torch.Generator) -> Tensor:
    """int64 (G,): a random row of each group, in random order."""
    order = torch.randperm(len(labels), generator=generator)
    first = np.unique(labels[order.numpy()], return_index=True)[1]
    return order[torch.from_numpy(np.sort(first))]
