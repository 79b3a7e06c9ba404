"""Diversity: how different the variants of one original are from each other.

All measures are per set (the variants of one original), then averaged over originals with an
interval that resamples originals. They grow with the size of the set, so compare techniques
at the same number of variants.

Embeddings see meaning as their model does; words and bytes see form. Which measures agree is
a result (`matlib.analysis.agreement.rank_agreement` on `per_set`), not an assumption.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from matlib.analysis.embeddings import Matrix, unit_rows
from matlib.evaluation.statistics import Estimate, bootstrap_mean


@dataclass(frozen=True)
class Diversity:
    """Diversity of sets of embeddings, averaged over sets.

    Attributes:
        pairwise_distance: cosine distance between two members of a set, in [0, 2].
        vendi: Vendi score, the effective number of different members, 1 to the set's size.
        mean_set_size: members per set.
    """

    pairwise_distance: Estimate
    vendi: Estimate
    mean_set_size: float


def measure_diversity(sets: Sequence[Matrix], *, seed: int = 0, n_boot: int = 2000) -> Diversity:
    """Mean pairwise distance and Vendi score of each set, with 95 % intervals over sets.

    Args:
        sets: N embeddings (n_i, D), n_i >= 1, of the variants of one original each.
        seed: of the bootstrap.
        n_boot: bootstrap samples.

    Raises:
        ValueError: no sets, or a set that is empty or not finite.
    """
    if len(sets) == 0:
        raise ValueError("diversity needs at least one set of embeddings; got none")
    distance = torch.tensor([mean_pairwise_distance(s) for s in sets], dtype=torch.double)
    vendi = torch.tensor([vendi_score(s) for s in sets], dtype=torch.double)
    return Diversity(
        bootstrap_mean(distance, seed=seed, n_boot=n_boot),
        bootstrap_mean(vendi, seed=seed, n_boot=n_boot),
        sum(len(s) for s in sets) / len(sets),
    )


def mean_pairwise_distance(embeddings: Matrix) -> float:
    """Mean of 1 - cosine over all pairs of two different rows, in [0, 2]; 0 for one row.

    Args:
        embeddings: (n, D).
    """
    rows = unit_rows(embeddings)
    n = len(rows)
    if n == 1:
        return 0.0
    # the sum over all ordered pairs of x_i . x_j is |sum of x|^2; n of them are x_i . x_i = 1
    similarity = (float(rows.sum(0).square().sum()) - n) / (n * (n - 1))
    return max(0.0, 1.0 - similarity)


def vendi_score(embeddings: Matrix) -> float:
    """Vendi score under cosine similarity: 1 for copies, n for n orthogonal rows.

    exp of the Shannon entropy of the eigenvalues of K / n, K the (n, n) similarity matrix
    (Friedman & Dieng 2023, *The Vendi Score*). K / n and the (D, D) matrix of second moments
    have the same non-zero eigenvalues; the smaller one is decomposed.

    Args:
        embeddings: (n, D).
    """
    rows = unit_rows(embeddings)
    n, d = rows.shape
    gram = rows @ rows.T if n <= d else rows.T @ rows
    values = torch.linalg.eigvalsh(gram / n).clamp(min=0)
    return float(torch.special.entr(values).sum().exp())


def distinct_n(captions: Sequence[str], n: int) -> float:
    """Different n-grams over all n-grams of a set of captions, in (0, 1].

    Li et al. 2016, *A Diversity-Promoting Objective Function for Neural Conversation Models*.
    Words are split at white space, letter case is ignored. 0 for a set that has no n-gram.

    Args:
        captions: the captions of one original.
        n: words per n-gram, 1 or more.

    Raises:
        ValueError: n below 1.
    """
    if n < 1:
        raise ValueError(f"an n-gram has at least one word; got n = {n}")
    grams = []
    for caption in captions:
        words = caption.lower().split()
        grams += [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    return len(set(grams)) / len(grams) if grams else 0.0


def measure_distinct_n(
    caption_sets: Sequence[Sequence[str]], n: int, *, seed: int = 0, n_boot: int = 2000
) -> Estimate:
    """Mean distinct-n of the sets, with a 95 % interval over sets.

    Args:
        caption_sets: the captions of each original, `OneToMany.captions`.
        n: words per n-gram.
    """
    values = torch.tensor([distinct_n(c, n) for c in caption_sets], dtype=torch.double)
    return bootstrap_mean(values, seed=seed, n_boot=n_boot)


def compressed_share(captions: Sequence[str]) -> float:
    """Bytes after compression over bytes before, of a set's captions joined by line breaks.

    The inverse of the compression ratio of Shaib et al. 2024, *Standardizing the Measurement
    of Text Diversity*, so that more is more diverse: repetition across captions compresses.
    Raw deflate, level 9, without the container's constant bytes; of short sets it can exceed 1.

    Raises:
        ValueError: no text.
    """
    data = "\n".join(captions).lower().encode()
    if not data:
        raise ValueError("nothing to compress: the captions of a set are all empty")
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return len(packer.compress(data) + packer.flush()) / len(data)


def n_distinct(captions: Sequence[str]) -> int:
    """Number of different captions of a set; letter case and spacing do not count."""
    return len({" ".join(caption.lower().split()) for caption in captions})


def n_distinct_images(images: Tensor) -> int:
    """Number of different images of a set, byte for byte; uint8 (R, 3, H, W)."""
    return len(torch.unique(images.flatten(1), dim=0))


def per_set(captions: Sequence[Sequence[str]], embeddings: Sequence[Matrix]) -> dict[str, Tensor]:
    """Every diversity measure of the captions of every original; more is more diverse.

    Args:
        captions: N sets of captions, `OneToMany.captions`.
        embeddings: N (C_i, D) of the same captions, `VariantEmbeddings.captions`.

    Returns:
        float64 (N,) for `distinct_1`, `distinct_2`, `compressed`, `n_distinct`, `distance` and
        `vendi`.

    Raises:
        ValueError: other numbers of captions than of embeddings.
    """
    if [len(own) for own in captions] != [len(own) for own in embeddings]:
        raise ValueError("expected one embedding per caption, set by set")
    found: dict[str, list[float]] = {
        "distinct_1": [distinct_n(own, 1) for own in captions],
        "distinct_2": [distinct_n(own, 2) for own in captions],
        "compressed": [compressed_share(own) for own in captions],
        "n_distinct": [n_distinct(own) for own in captions],
        "distance": [mean_pairwise_distance(own) for own in embeddings],
        "vendi": [vendi_score(own) for own in embeddings],
    }
    return {name: torch.tensor(values, dtype=torch.double) for name, values in found.items()}
