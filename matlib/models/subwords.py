"""Words and sub-tokens: how pieces make words, and replacements for words of several of them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice, product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

MOST_SUBTOKENS = 12
TOP_PIECES = 4
MOST_PRODUCTS = 24


class Pieces:
    """How the pieces of a tokenizer make words: WordPiece, or byte pairs as RoBERTa has them.

    WordPiece marks the pieces that go on with a word (`##ing`), byte pairs those that begin
    one (`Ġdog`).

    Args:
        tokenizer: a fast tokenizer of transformers.

    Raises:
        ValueError: it marks words in another way, or not those of a caption cut at its spaces.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        backend = getattr(tokenizer, "backend_tokenizer", None)
        self.goes_on = getattr(getattr(backend, "model", None), "continuing_subword_prefix", None)
        self.begins = ""
        if not self.goes_on and type(getattr(backend, "decoder", None)).__name__ == "ByteLevel":
            self.begins = "Ġ"
        marks = self.goes_on or (self.begins and self._marks_every_word())
        if not marks:
            raise ValueError(
                f"{type(tokenizer).__name__} marks neither the pieces that go on with a word "
                "(WordPiece: ##ing) nor every one that begins a word (byte pairs with "
                "add_prefix_space: Ġdog), so whole words cannot be told from parts"
            )

    def _marks_every_word(self) -> bool:
        ids = self.tokenizer(["a", "a"], is_split_into_words=True, add_special_tokens=False)
        return all(
            piece.startswith(self.begins)
            for piece in self.tokenizer.convert_ids_to_tokens(ids["input_ids"])
        )

    def word(self, ids: Sequence[int]) -> str:
        """The one whole word that pieces make; empty if they make a part, or several words."""
        first, *rest = (str(each) for each in self.tokenizer.convert_ids_to_tokens(list(ids)))
        if self.goes_on:
            if first.startswith(self.goes_on) or not all(r.startswith(self.goes_on) for r in rest):
                return ""
            return first + "".join(r.removeprefix(self.goes_on) for r in rest)
        if not first.startswith(self.begins) or any(r.startswith(self.begins) for r in rest):
            return ""
        text: str = self.tokenizer.convert_tokens_to_string([first, *rest])
        return text.strip()


def longest_input(model: nn.Module, tokenizer: Any) -> int:
    """Most tokens of a sentence, special ones included, that model and tokenizer allow.

    RoBERTa's and MPNet's first positions are for padding and its kind: their tables have a
    row or two more than they have places.
    """
    limit = int(tokenizer.model_max_length)  # 1e30 where the tokenizer has none
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            used = 0 if module.padding_idx is None else module.padding_idx + 1
            return min(limit, module.num_embeddings - used)
    return min(limit, int(getattr(model.config, "max_position_embeddings", limit)))


def first_products(top: Sequence[Sequence[int]]) -> list[tuple[int, ...]]:
    """The first 24 combinations of the first 4 ids of each of the first 12 sub-tokens.

    The released code builds all 4^L combinations as lists before it cuts them to 24 (L = 12:
    16.8 million; users report hangs of hours). Only 24 are ever used, so only these are made.
    The last sub-token varies fastest and 24 = 1.5 x 4 x 4: before the last two sub-tokens,
    one takes 2 of its 4 ids and every earlier one stays at its likeliest.
    """
    return list(islice(product(*(ids[:TOP_PIECES] for ids in top[:MOST_SUBTOKENS])), MOST_PRODUCTS))


def by_pseudo_perplexity(
    model: Any, words: Sequence[Sequence[tuple[int, ...]]]
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
        rows = torch.tensor([row for n in own for row in words[n]]).to(model.device)
        loss = _mean_cross_entropy(model, rows).tolist()
        at = 0
        for n in own:
            values = loss[at : at + len(words[n])]
            at += len(words[n])
            ranked[n] = [words[n][i] for i in sorted(range(len(values)), key=values.__getitem__)]
    return ranked


def _mean_cross_entropy(model: Any, rows: Tensor) -> Tensor:
    with torch.no_grad():
        logits = model(input_ids=rows).logits  # (R, L, V)
    return F.cross_entropy(logits.transpose(1, 2), rows, reduction="none").mean(1)
