"""Replacements for words of several sub-tokens, as the code released with BERT-Attack finds."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice, product

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import BertForMaskedLM

MOST_SUBTOKENS = 12
TOP = 4
MOST_PRODUCTS = 24


def first_products(top: Sequence[Sequence[int]]) -> list[tuple[int, ...]]:
    """The first 24 combinations of the first 4 ids of each of the first 12 sub-tokens.

    The released code builds all 4^L combinations as lists before it cuts them to 24 (L = 12:
    16.8 million; users report hangs of hours). Only 24 are ever used, so only these are made.
    The last sub-token varies fastest and 24 = 1.5 x 4 x 4: before the last two sub-tokens,
    one takes 2 of its 4 ids and every earlier one stays at its likeliest.
    """
    return list(islice(product(*(ids[:TOP] for ids in top[:MOST_SUBTOKENS])), MOST_PRODUCTS))


def by_pseudo_perplexity(
    model: BertForMaskedLM, words: Sequence[Sequence[tuple[int, ...]]]
) -> list[list[tuple[int, ...]]]:
    """Each word's combinations, the most plausible first.

    Plausible: low mean cross-entropy of the sub-tokens at their own, unmasked places, fed bare:
    no [CLS] or [SEP] and no context, as released. Words of equal length share a forward.
    """
    ranked: list[list[tuple[int, ...]]] = [[] for _ in words]
    by_length: dict[int, list[int]] = {}
    for n, combinations in enumerate(words):
        if combinations:
            by_length.setdefault(len(combinations[0]), []).append(n)
    for own in by_length.values():
        rows = torch.tensor([row for n in own for row in words[n]], device=model.device)
        loss = _mean_cross_entropy(model, rows).tolist()
        at = 0
        for n in own:
            values = loss[at : at + len(words[n])]
            at += len(words[n])
            ranked[n] = [words[n][i] for i in sorted(range(len(values)), key=values.__getitem__)]
    return ranked


def _mean_cross_entropy(model: BertForMaskedLM, rows: Tensor) -> Tensor:
    with torch.no_grad():
        logits = model(input_ids=rows).logits  # (R, L, V)
    return F.cross_entropy(logits.transpose(1, 2), rows, reduction="none").mean(1)
