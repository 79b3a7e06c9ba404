"""First-order importance of words: the slope of a score at their token embeddings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn


def word_saliency(
    encode: Callable[[Tensor], Tensor],
    embedding: nn.Module,
    tokens: Tensor,
    n_tokens: Sequence[Sequence[int]],
    score: Callable[[Tensor], Tensor],
) -> list[list[float]]:
    """Norm of d score / d (embeddings of a word's tokens), for every word.

    Only the output of the token embedding gets a gradient; frozen weights and their `.grad`
    stay untouched.

    Args:
        encode: int64 (B, T) tokens -> (B, D) unit embeddings.
        embedding: the module that turns tokens into vectors.
        tokens: int64 (B, T), a start token, the words' tokens, an end token, padding.
        n_tokens: `n_tokens[text][word]`; words that were cut off have saliency 0.
        score: (B, D) -> (B,), each row's score from its own embedding only.
    """
    found: list[Tensor] = []

    def take(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        found.append(output.detach().requires_grad_())
        return found[-1]

    hook = embedding.register_forward_hook(take)
    try:
        with torch.enable_grad():
            total = score(encode(tokens)).sum()
            [gradient] = torch.autograd.grad(total, found[-1])
    finally:
        hook.remove()
    squared = gradient.float().square().sum(2).tolist()  # (B, T)
    return [_per_word(row, n) for row, n in zip(squared, n_tokens, strict=True)]


def _per_word(squared: list[float], n_tokens: Sequence[int]) -> list[float]:
    last = len(squared) - 1  # of a caption that was cut: its end token
    out, at = [], 1
    for n in n_tokens:
        out.append(sum(squared[at : min(at + n, last)]) ** 0.5)
        at += n
    return out
