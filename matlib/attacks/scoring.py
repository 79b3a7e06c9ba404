"""Bounded memory: many sentences are scored in chunks, and images go through a model in chunks.

Most of a text search's time is spent here. No number depends on the size of a chunk: an image
draws from a seed of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from matlib.attacks.objectives import TextObjective
from matlib.models.dual_encoder import DualEncoder, frozen


def embed_texts(encoder: DualEncoder, texts: Sequence[str], chunk: int = 512) -> Tensor:
    """(len(texts), D) unit embeddings without gradients, `chunk` rows at a time."""
    with torch.no_grad(), frozen(encoder):
        parts = [
            encoder.encode_text(list(texts[i : i + chunk])) for i in range(0, len(texts), chunk)
        ]
    return torch.cat(parts)  # (len(texts), D)


def embed_in_order(
    encoder: DualEncoder, text: Callable[[int], str], key: Sequence[int], chunk: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Embeddings of many sentences, `chunk` rows at a time, in ascending `key`.

    The key is the length of the caption a sentence was made from. Then a chunk holds sentences
    of like length (a forward costs as many positions as its longest sentence has), and the
    variants of one caption stay together (models may compute what they share once). Sentences
    are written out one chunk at a time.

    Args:
        text: row -> sentence.
        key: per row; rows of equal key stay in their order.

    Yields:
        int64 (R,) rows on the CPU and their (R, D) unit embeddings, R <= chunk.
    """
    order = sorted(range(len(key)), key=key.__getitem__)
    with torch.no_grad(), frozen(encoder):
        for i in range(0, len(order), chunk):
            rows = order[i : i + chunk]
            yield torch.tensor(rows), encoder.encode_text([text(row) for row in rows])


def score_texts(
    encoder: DualEncoder,
    texts: Sequence[str],
    owner: Sequence[int],
    lengths: Sequence[int],
    score: TextObjective,
    chunk: int,
) -> Tensor:
    """(R,) values on the CPU of R sentences; only `chunk` embeddings exist at a time.

    Args:
        owner: per sentence the index of the caption it was made from, for the objective.
        lengths: per sentence the length of that caption in characters.
    """
    index = torch.tensor(owner, dtype=torch.long)
    parts = embed_in_order(encoder, texts.__getitem__, lengths, chunk)
    scored = [(rows, score(features, index[rows].to(features.device))) for rows, features in parts]
    return gather_values(scored, len(texts))


def gather_values(scored: Sequence[tuple[Tensor, Tensor]], n: int) -> Tensor:
    """(n,) values on the CPU from parts (rows, values), with one transfer from the device."""
    if not scored:
        return torch.zeros(n)
    found = torch.cat([part for _, part in scored]).cpu()  # (n,), in the order of the parts
    values = torch.zeros(n, dtype=found.dtype)
    values[torch.cat([rows for rows, _ in scored])] = found
    return values


def best_rows(values: Tensor, group: Tensor, n_groups: int) -> Tensor:
    """int64 (n_groups,): the row of each group's highest value, the first of equal ones.

    Args:
        values: (R,), not NaN.
        group: int64 (R,) in [0, n_groups); groups without rows get -1.
    """
    device = values.device
    top = torch.full((n_groups,), float("-inf"), dtype=values.dtype, device=device)
    top = top.scatter_reduce(0, group, values, "amax")  # (n_groups,)
    n = len(values)
    rows = torch.where(values == top[group], torch.arange(n, device=device), n)  # (R,)
    first = torch.full((n_groups,), n, device=device).scatter_reduce(0, group, rows, "amin")
    return torch.where(first < n, first, -1)


def first_above(values: Tensor, rows: Tensor, group: Tensor, bar: Tensor, none: Tensor) -> Tensor:
    """int64 (G,): the first row with the highest of each group's values above its bar.

    Args:
        values: (R,), not NaN.
        rows: int64 (R,), their numbers.
        group: int64 (R,) in [0, G).
        bar: (G,), which a value must exceed.
        none: int64 (G,), above all rows: what a group without such a row gets.
    """
    least = torch.nextafter(bar, torch.tensor(torch.inf, dtype=bar.dtype))
    top = least.scatter_reduce(0, group, values, "amax")[group]  # (R,)
    best = rows.masked_fill(values != top, torch.iinfo(rows.dtype).max)
    return none.scatter_reduce(0, group, best, "amin")


ROUNDING_UNITS = 8


def is_better(new: float, old: float, dtype: torch.dtype) -> bool:
    """Whether `new` exceeds `old` by more than rounding.

    An edit behind the model's last position leaves the embedding as it was, but a forward of
    another batch moves its last digits. 8 units in the last place of max(1, |old|): 1e-6 in
    float32, where a changed word moves a cosine by some 1e-2 and the KL by some 1e-4.
    """
    return new - old > ROUNDING_UNITS * torch.finfo(dtype).eps * max(1.0, abs(old))


CPU_BYTES = 2**25
"""Pixels of one forward on a CPU. glibc takes blocks above 32 MiB from the system and gives them
back each time: SGA's step at 224 px met 2.9 million page faults with 128 images at 5 views, and
took 1.4 times as long as with 8 to 32."""

GPU_BYTES = 2**26
"""Pixels of one forward on a GPU: at 224 px 111 images, views counted."""


def images_per_forward(pixels: Tensor, n_views: int = 1, device: torch.device | None = None) -> int:
    """Images, each in `n_views` views, whose pixels fit into the bound; at least one.

    Args:
        pixels: (N, 3, H, W).
        device: where the forward runs; that of the pixels by default.
    """
    where = (pixels.device if device is None else device).type
    bound = CPU_BYTES if where == "cpu" else GPU_BYTES
    per_image = max(1, pixels[:1].numel() * pixels.element_size() * n_views)
    return max(1, bound // per_image)
