"""CLIP's text tower on many near-equal sentences: what they share is computed once.

The tower is causal, so the states at a position depend on the tokens up to it and on nothing
else: sentences that begin alike have equal states as far as they do. A text attack embeds many
sentences that differ in one word; as a tree of prefixes they have about half the positions.
And of the last layer only the position that is pooled is needed. Same embeddings up to
rounding, for inference only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from open_clip.transformer import ResidualAttentionBlock, TextTransformer
from torch import Tensor, nn

from matlib.models.tokens import is_causal, is_plain


@dataclass(frozen=True)
class PrefixTree:
    """The distinct prefixes (nodes) of B token sequences.

    Attributes:
        token, depth: int64 (U,), the distinct pairs of a token and its position: before the first
            attention a state knows no more.
        distinct: int64 (N,), the pair of each node.
        node: int64 (B, T), the node of every position; behind a sequence's end that of its end.
        first: int64 (N,), flat index into (B, T) of a position with this node.
        end: int64 (B,), the position that is pooled: the end-of-text token.
    """

    token: Tensor
    depth: Tensor
    distinct: Tensor
    node: Tensor
    first: Tensor
    end: Tensor

    @classmethod
    def of(cls, tokens: Tensor) -> PrefixTree:
        """Args: tokens, int64 (B, T) on the CPU; the highest id ends a sequence."""
        end = tokens.argmax(1)
        order = torch.tensor(sorted(range(len(tokens)), key=tokens.tolist().__getitem__))
        rows, last = tokens[order], end[order]  # (B, T), (B,), sorted
        position = torch.arange(tokens.shape[1])
        # beside its neighbour in sorted order a sequence has the longest common prefix
        same = (rows[1:] == rows[:-1]).cumprod(1).bool()  # (B - 1, T)
        is_new = position <= last[:, None]  # (B, T)
        is_new[1:] &= ~same
        number = (is_new.flatten().cumsum(0) - 1).view_as(rows)  # (B, T)
        # a shared position has the node that the rows above gave it, the newest of its column
        node = torch.where(is_new, number, -1).cummax(0).values  # (B, T)
        node = torch.where(position <= last[:, None], node, node.gather(1, last[:, None]))
        found = is_new.flatten().nonzero().flatten()  # (N,), flat places of the nodes
        row, depth = order[found // tokens.shape[1]], found % tokens.shape[1]  # (N,), (N,)
        unsorted = torch.empty_like(node)
        unsorted[order] = node
        first = row * tokens.shape[1] + depth
        length = tokens.shape[1]
        pairs, distinct = torch.unique(
            tokens.flatten()[first] * length + depth, return_inverse=True
        )
        return cls(pairs // length, pairs % length, distinct, unsorted, first, end)

    def to(self, device: torch.device) -> PrefixTree:
        """The tree on a device, by one copy."""
        parts = (self.token, self.depth, self.distinct, self.node, self.first, self.end)
        sent = torch.cat([part.flatten() for part in parts]).to(device)
        there = sent.split([part.numel() for part in parts])
        return PrefixTree(*(own.view_as(part) for own, part in zip(there, parts, strict=True)))


def can_share(text: Any) -> bool:
    """Whether a text tower is open_clip's plain causal one, which `encode_shared` rebuilds."""
    return bool(
        is_plain(text)
        and is_causal(text)
        and not text.use_pad_mask
        and text.pool_type == "argmax"
        and not text.output_tokens
        and all(_is_plain(block) for block in text.transformer.resblocks)
    )


def _is_plain(block: nn.Module) -> bool:
    return (
        type(block) is ResidualAttentionBlock
        and type(block.attn) is nn.MultiheadAttention
        and block.attn.in_proj_weight is not None
        and block.attn.dropout == 0.0
        and not hasattr(block, "ln_1_kv")
    )


def encode_shared(text: TextTransformer, tokens: Tensor) -> Tensor:
    """(B, D) text features, not normalised, as `text(tokens)` gives them, without gradients.

    Args:
        text: a tower that `can_share`.
        tokens: int64 (B, T) on the CPU.
    """
    device = text.positional_embedding.device
    tree = PrefixTree.of(tokens).to(device)
    blocks = list(text.transformer.resblocks)
    with torch.no_grad():
        x, distinct = _embed(text, tree), tree.distinct  # (U, width), (N,)
        index = distinct[tree.node]  # (B, T): rows of x
        for block in blocks[:-1]:
            attended = _attend(block.attn, block.ln_1(x), index, tree.first)  # (N, width)
            x = _finish(block, x[distinct], attended)  # (N, width)
            index, distinct = tree.node, torch.arange(len(x), device=device)
        ends = index.gather(1, tree.end[:, None]).squeeze(1)  # (B,)
        last = blocks[-1]
        attended = _attend_at_end(last.attn, last.ln_1(x), index, ends, tree.end)  # (B, width)
        pooled = text.ln_final(_finish(last, x[ends], attended))
        if isinstance(text.text_projection, nn.Linear):
            return text.text_projection(pooled)
        return pooled if text.text_projection is None else pooled @ text.text_projection


def _embed(text: TextTransformer, tree: PrefixTree) -> Tensor:
    """(U, width) distinct inputs of the first layer."""
    x = text.token_embedding(tree.token).to(text.transformer.get_cast_dtype())  # (U, width)
    return x + text.positional_embedding.to(x.dtype)[tree.depth]


def _finish(block: ResidualAttentionBlock, x: Tensor, attended: Tensor) -> Tensor:
    """The rest of a block after its attention."""
    x = x + block.ls_1(block.attn.out_proj(attended))
    out: Tensor = x + block.ls_2(block.mlp(block.ln_2(x)))
    return out


def _heads(rows: Tensor, n_parts: int, n_heads: int) -> list[Tensor]:
    """(B, T, parts * width) -> per part (B, heads, T, width / heads)."""
    b, t, _ = rows.shape
    return list(rows.view(b, t, n_parts, n_heads, -1).permute(2, 0, 3, 1, 4))


def _attend(attn: nn.MultiheadAttention, x: Tensor, index: Tensor, first: Tensor) -> Tensor:
    """(N, width) attention outputs of all nodes, before the output projection."""
    projected = F.linear(x, attn.in_proj_weight, attn.in_proj_bias)  # (rows of x, 3 * width)
    q, k, v = _heads(projected[index], 3, attn.num_heads)  # (B, heads, T, d) each
    out = F.scaled_dot_product_attention(q, k, v, is_causal=True)  # (B, heads, T, d)
    return out.transpose(1, 2).flatten(0, 1)[first].flatten(1)  # (B * T, heads, d) -> (N, width)


def _attend_at_end(
    attn: nn.MultiheadAttention, x: Tensor, index: Tensor, ends: Tensor, end: Tensor
) -> Tensor:
    """(B, width) attention outputs at the ends of the sequences only."""
    assert attn.in_proj_weight is not None and attn.in_proj_bias is not None
    width = x.shape[1]
    w, bias = attn.in_proj_weight, attn.in_proj_bias
    query = F.linear(x[ends], w[:width], bias[:width])[:, None]  # (B, 1, width)
    keys = F.linear(x, w[width:], bias[width:])[index]  # (B, T, 2 * width)
    [q] = _heads(query, 1, attn.num_heads)
    k, v = _heads(keys, 2, attn.num_heads)
    inside = torch.arange(index.shape[1], device=x.device) <= end[:, None]  # (B, T)
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=inside[:, None, None])
    return out.flatten(1)  # (B, heads, 1, d) -> (B, width)
