"""CLIP's byte-pair tokens, fast for many near-equal sentences, and trimmed where that is harmless.

Padding is not always without effect. A tower without a causal mask attends to it, one that
pools the last position reads its state, and CoCa puts its class token behind it. Such towers
get the model's full context length, as open_clip gives it to all.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from open_clip.hf_model import HFTextEncoder, MeanPooler
from open_clip.tokenizer import SimpleTokenizer
from open_clip.transformer import TextTransformer, Transformer
from torch import Tensor, nn

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
    pools inside the caption, and whose padding is behind a causal mask or masked itself; and a
    tower of transformers, which masks it, where the mean over what is not masked is pooled.

    Args:
        pad: id behind the captions.
        end: id that ends each of them.
    """
    if isinstance(text, HFTextEncoder):
        return type(text.pooler) is MeanPooler and text.config.pad_token_id == pad
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


_PRINTABLE = re.compile(r"[!-%'-~ ]+")  # ASCII without `&`, which may begin an HTML entity
_MOST_WORDS = 50_000
END = 49407
"""The end-of-text token, the last of CLIP's vocabulary."""


class ClipTokenizer:
    """CLIP's byte-pair tokens, as long as the longest caption of the batch or at full length.

    A causal text tower that pools at the end-of-text token cannot read the padding after it;
    leaving it out saves most of the work on captions. Which towers those are is decided by
    `matlib.models.tokens`.

    Args:
        context_length: most tokens of a caption, start and end included.
        pad: id that fills shorter captions; 0 is CLIP's.
        bpe: open_clip's tokenizer with the model's own settings, or another that cuts at
            spaces first (`WordPieces`); None: CLIP's.
        trims: whether padding that all captions of a batch share is left out.
    """

    def __init__(
        self,
        context_length: int,
        pad: int = 0,
        *,
        bpe: Any = None,
        trims: bool = True,
    ) -> None:
        self.context_length, self.pad, self.trims = context_length, pad, trims
        self._bpe = bpe or SimpleTokenizer(context_length=context_length)
        self._words: dict[str, list[int]] = {}

    @property
    def end(self) -> int:
        """The id that ends every caption."""
        return int(self._bpe.eot_token_id)

    def trimming(self, trims: bool) -> ClipTokenizer:
        """This tokenizer, trimming or not."""
        if trims == self.trims:
            return self
        return ClipTokenizer(self.context_length, self.pad, bpe=self._bpe, trims=trims)

    def ids(self, text: str) -> list[int]:
        """Token ids of one caption without start and end; any string is accepted.

        Byte pairs never reach across a space, so printable ASCII can be looked up word by
        word; open_clip's repair of other text (accents, entities) sees the whole string.
        """
        if not _PRINTABLE.fullmatch(text):
            return list(self._bpe.encode(text))
        return [token for word in text.split() for token in self.word_ids(word)]

    def word_ids(self, word: str) -> list[int]:
        """Token ids of one word, remembered."""
        found = self._words.get(word)
        if found is None:
            if len(self._words) >= _MOST_WORDS:  # character attacks make words without end
                self._words.clear()
            found = self._words[word] = list(self._bpe.encode(word))
        return found

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """B strings -> int64 (B, T), T <= context_length; long captions are cut as CLIP does.

        Without trimming T is the context length.
        """
        return self.framed(self.ids(text) for text in texts)

    def framed(self, rows: Iterable[Sequence[int]]) -> Tensor:
        """Token ids of B captions -> int64 (B, T): start and end added, cut and padded."""
        room = self.context_length - 2
        start, end = self._bpe.sot_token_id, self._bpe.eot_token_id
        framed = [[start, *row[:room], end] for row in rows]
        length = max(map(len, framed)) if self.trims else self.context_length
        return torch.tensor([row + [self.pad] * (length - len(row)) for row in framed])
