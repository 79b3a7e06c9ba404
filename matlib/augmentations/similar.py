"""The other direction of one-to-many: the images of captions that say nearly the same."""

from __future__ import annotations

import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.neighbors import NearestNeighbors

from matlib.augmentations.human import with_images
from matlib.data.pairs import ImageTextPairs, OneToMany

MIN_SIMILARITY = 0.5
"""Cosine of tf-idf vectors of words from which two captions count as nearly the same."""


def similar_images(
    pairs: ImageTextPairs, n_variants: int, *, min_similarity: float = MIN_SIMILARITY
) -> OneToMany:
    """Each caption with the images of the captions nearest to it (N:1).

    People's captions of different photographs often say nearly the same; the photographs are
    then further images of one caption, which exist already. Near is a high cosine of tf-idf
    vectors of words (scikit-learn). Where too few captions are near enough, the original
    image stands in, so that every pair has the same number of images.

    Args:
        pairs: N images with one caption each.
        n_variants: images added to each original, 0 or more.
        min_similarity: cosine in [0, 1].

    Raises:
        ValueError: more than one caption per image, a parameter outside its range, or captions
            without words.
    """
    if n_variants < 0 or not 0.0 <= min_similarity <= 1.0:
        raise ValueError(
            "expected 0 variants or more and a similarity in [0, 1]; got "
            f"{n_variants}, {min_similarity}"
        )
    if pairs.n_captions != len(pairs):
        raise ValueError(f"expected one caption per image; got {pairs.n_captions}")
    vectors = TfidfVectorizer(sublinear_tf=True).fit_transform(pairs.captions)
    n_asked = min(n_variants + 1, len(pairs))
    near = NearestNeighbors(n_neighbors=n_asked, metric="cosine").fit(vectors)
    distances, neighbours = near.kneighbors(vectors)
    chosen = []
    for i, (gaps, others) in enumerate(zip(distances, neighbours, strict=True)):
        fit = [int(j) for gap, j in zip(gaps, others, strict=True)
               if j != i and 1 - gap >= min_similarity]  # fmt: skip
        chosen.append((fit + [i] * n_variants)[:n_variants])
    index = torch.tensor(chosen, dtype=torch.long).view(len(pairs), n_variants)
    images = pairs.images.load(range(len(pairs)))
    return with_images(pairs, images[index], "similar-images")
