"""Text augmentations: from each 1:1 pair, further captions for the same image."""

from __future__ import annotations

from dataclasses import replace

import torch

from matlib.data.pairs import ImageTextPairs, OneToMany


def drop_and_swap(
    pairs: ImageTextPairs,
    n_variants: int,
    generator: torch.Generator,
    *,
    drop_rate: float = 0.1,
    swap_rate: float = 0.1,
) -> OneToMany:
    """Captions with words swapped and words dropped at random.

    Two of the four operations of EDA (Wei & Zou 2019, *EDA: Easy Data Augmentation Techniques
    for Boosting Performance on Text Classification Tasks*): its random swap, then its random
    deletion. EDA applies one operation to each variant (source: paper); here both apply to
    each variant (source: ours), so that one rate is one strength. Its rates of 0.1 are kept.

    A caption never becomes empty: if every word would be dropped, one at random stays.
    Captions of fewer than two words come back as they are. Runs of spaces become one.

    Args:
        pairs: N images with one caption each.
        n_variants: captions added to each original, 0 or more.
        generator: CPU generator; same generator, same captions.
        drop_rate: probability in [0, 1] that a word is dropped.
        swap_rate: swaps of two random words, as a share in [0, 1] of the caption's words;
            rounded down, but any positive rate swaps at least once (as EDA does).

    Raises:
        ValueError: more than one caption per image, or a parameter outside its range.
    """
    originals = originals_of(pairs, n_variants)
    for name, rate in (("drop_rate", drop_rate), ("swap_rate", swap_rate)):
        if not 0.0 <= rate <= 1.0:
            raise ValueError(f"{name} is a share in [0, 1]; got {rate}")
    captions = tuple(
        (own, *(_vary(own, drop_rate, swap_rate, generator) for _ in range(n_variants)))
        for (own,) in originals.captions
    )
    return replace(originals, technique="drop-swap", captions=captions)


def mismatched(pairs: ImageTextPairs, n_variants: int, generator: torch.Generator) -> OneToMany:
    """Captions of other images: diverse, in distribution, and wrong. The bad example.

    Each variant is one random derangement of the captions, so no image gets its own and each
    caption is used `n_variants` times. A caption of another image can still be true by chance
    (or be the same sentence); the true aligned fraction shows how often.

    Args:
        pairs: N >= 2 images with one caption each.
        n_variants: captions added to each original, 0 or more.
        generator: CPU generator; same generator, same captions.

    Raises:
        ValueError: fewer than two images, or more than one caption per image.
    """
    originals = originals_of(pairs, n_variants)
    columns = [derangement(len(originals), generator).tolist() for _ in range(n_variants)]
    captions = tuple(
        (own, *(originals.captions[column[i]][0] for column in columns))
        for i, (own,) in enumerate(originals.captions)
    )
    return replace(originals, technique="mismatched", captions=captions)


def derangement(n: int, generator: torch.Generator) -> torch.Tensor:
    """int64 (n,): a permutation without fixed point, uniform over all of them.

    Raises:
        ValueError: n < 2, for which there is none.
    """
    if n < 2:
        raise ValueError(f"a derangement needs at least two items; got {n}")
    home = torch.arange(n)
    while True:  # one permutation in e (2.7) has no fixed point, whatever n
        order = torch.randperm(n, generator=generator)
        if not bool((order == home).any()):
            return order


def _vary(caption: str, drop_rate: float, swap_rate: float, generator: torch.Generator) -> str:
    words = caption.split()
    if len(words) < 2:
        return caption
    n_swaps = max(1, int(swap_rate * len(words))) if swap_rate > 0 else 0
    for _ in range(n_swaps):
        i, j = torch.randperm(len(words), generator=generator)[:2].tolist()
        words[i], words[j] = words[j], words[i]
    keep = torch.rand(len(words), generator=generator) >= drop_rate
    if not bool(keep.any()):
        keep[int(torch.randint(len(words), (1,), generator=generator))] = True
    return " ".join(word for word, is_kept in zip(words, keep.tolist(), strict=True) if is_kept)


def originals_of(pairs: ImageTextPairs, n_variants: int) -> OneToMany:
    """The 1:1 pairs that captions are added to, checked.

    Raises:
        ValueError: a negative number of variants, or more than one caption per image.
    """
    if n_variants < 0:
        raise ValueError(f"n_variants must be 0 or more; got {n_variants}")
    if pairs.n_captions != len(pairs):
        raise ValueError(
            f"expected one caption per image, got {pairs.n_captions} for {len(pairs)}; "
            "call pairs.one_to_one(generator) first"
        )
    return OneToMany.from_pairs(pairs)
