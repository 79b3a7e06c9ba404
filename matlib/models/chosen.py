"""Texts of which a device knows which ones they are: the host need not wait to embed them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import overload

from torch import Tensor


class ChosenTexts(Sequence[str]):
    """Some of several texts, chosen by a computation that may still run.

    A model whose tokenizer read the texts embeds the chosen ones from their tokens; whoever
    reads a string waits for the choice, once.

    Args:
        texts: N texts, among which was chosen.
        rows: int64 (B,) on a device, the chosen ones.
        tokens: int64 (N, T) on that device.
        tokenize: what made the tokens.
    """

    def __init__(
        self, texts: Sequence[str], rows: Tensor, tokens: Tensor, tokenize: Callable[..., Tensor]
    ) -> None:
        self.tokenize = tokenize
        self._texts, self._rows, self._tokens = texts, rows, tokens

    @property
    def tokens(self) -> Tensor:
        """int64 (B, T), where the choice was made."""
        return self._tokens[self._rows]

    @cached_property
    def _read(self) -> list[str]:
        return [self._texts[row] for row in self._rows.tolist()]

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        return self._read[index]
