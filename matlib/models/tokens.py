"""Tokens as a text tower reads them: captions are trimmed only where nothing behind them is read.

Padding is not always without effect. A tower without a causal mask attends to it, one that
pools the last position reads its state, and CoCa puts its class token behind it. Such towers
get the model's full context length, as open_clip gives it to all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from open_clip.tokenizer import SimpleTokenizer
from open_clip.transformer import TextTransformer, Transformer
from torch import Tensor, nn

from matlib.models.clip_tokenizer import ClipTokenizer

Tokenize = Callable[[Sequence[str]], Tensor]


def fitted(tokenize: Any, text: nn.Module) -> Tokenize:
    """The tokenizer that gives a text tower the embeddings of open_clip's full-length tokens.

    Args:
        tokenize: the model's own, of open_clip, or a `ClipTokenizer`.
        text: the tower that reads its tokens.

    Returns:
        CLIP's byte pairs as a `ClipTokenizer`, which trims where that is safe; any other
        tokenizer as it is, at full length.
    """
    if type(tokenize) is SimpleTokenizer and tokenize.reduction_fn is None:
        tokenize = ClipTokenizer(tokenize.context_length, bpe=tokenize)
    if isinstance(tokenize, ClipTokenizer):
        return tokenize.trimming(can_trim(text, tokenize.pad, tokenize.end))
    own: Tokenize = tokenize
    return own


def can_trim(text: Any, pad: int, end: int) -> bool:
    """Whether padding behind every caption of a batch may be left out.

    Only what is known to be safe: open_clip's own transformer without a class token, which
    pools inside the caption, and whose padding is behind a causal mask or masked itself.

    Args:
        pad: id behind the captions.
        end: id that ends each of them.
    """
    if not is_plain(text):
        return False
    pools_inside = {"argmax": pad < end, "eos": text.eos_id != pad}
    hides_padding = is_causal(text) or (text.use_pad_mask and text.pad_id == pad)
    return bool(hides_padding and pools_inside.get(text.pool_type))


def is_plain(text: Any) -> bool:
    """Whether a text tower is open_clip's transformer over the caption's tokens alone."""
    return (
        type(text) is TextTransformer
        and type(text.transformer) is Transformer
        and text.cls_emb is None
    )


def is_causal(text: Any) -> bool:
    """Whether each position of a plain text tower sees itself and those before it only."""
    mask = text.attn_mask
    if not isinstance(mask, Tensor):
        return False
    return torch.equal(mask, torch.full_like(mask, float("-inf")).triu(1))
