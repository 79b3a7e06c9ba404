"""Filters: candidate table in, smaller candidate table out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from matlib.attacks.candidates import Table
from matlib.attacks.edits import CandidateTable, apply_edit, check_table
from matlib.models.dual_encoder import frozen


class EncodesSentences(Protocol):
    """Anything that embeds sentences; a `DualEncoder` is one."""

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """B strings -> float (B, D)."""
        ...


def keep_similar(
    captions: Sequence[str],
    candidates: CandidateTable,
    encoder: EncodesSentences,
    minimum: float,
    chunk: int = 512,
) -> Table:
    """The edits that leave the sentence's embedding within a cosine of `minimum`.

    The constraint of TextFooler and VLAttack (universal sentence encoder, 0.95 there). It is
    part of the threat, so its encoder should not be the attacked model: a limit on how far
    that one may be moved would limit the attack itself. Memory: `chunk` embeddings and one
    number per edit.

    Args:
        encoder: embeds sentences; rows need not have norm 1.
        minimum: cosine similarity in [-1, 1]; -1 keeps everything.

    Raises:
        ValueError: a table that does not fit, or a minimum outside [-1, 1].
    """
    check_table(captions, candidates)
    if not -1.0 <= minimum <= 1.0:
        raise ValueError(f"expected a cosine similarity in [-1, 1]; got {minimum}")
    rows = [(i, edit) for i, row in enumerate(candidates) for edit in row]
    kept: Table = [[] for _ in captions]
    for at in range(0, len(rows), chunk):
        part = rows[at : at + chunk]
        own = sorted({i for i, _ in part})
        index = {i: n for n, i in enumerate(own)}
        with torch.no_grad(), frozen(encoder):  # type: ignore[arg-type]  # only its modes count
            clean = encoder.encode_text([captions[i] for i in own])
            edited = encoder.encode_text([apply_edit(captions[i], edit) for i, edit in part])
        similarity = F.cosine_similarity(edited, clean[[index[i] for i, _ in part]], dim=1)
        for (i, edit), is_near in zip(part, (similarity >= minimum).tolist(), strict=True):
            if is_near:
                kept[i].append(edit)
    return kept
