"""The released code's order of operations, written plainly: an oracle, and a yardstick for speed.

As in the code released with Co-Attack and SGA: one caption at a time; every word is masked,
stop words too, in batches of 32; the words are gone through by importance, each with one
forward of the caption and its candidates; every forward is padded to the full context; SGA's
second pass computes everything again although only the guiding image changed. Kinder than the
released code: no autograd graph, no synchronisation per candidate, this project's tokenizer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from matlib.attacks.edits import MASK, CandidateTable, Edit, apply_edit
from matlib.attacks.objectives import TextObjective, kl_from
from matlib.models.open_clip import OpenClipEncoder

MASKED_ROWS = 32


@dataclass
class Count:
    """Work of a text tower: forwards, and positions through its first layer (with padding)."""

    n_forwards: int = 0
    n_positions: int = 0


@contextmanager
def counting(encoder: OpenClipEncoder) -> Iterator[Count]:
    """Counts every forward of the text tower inside the block."""
    count = Count()

    def note(_module: Any, inputs: tuple[Tensor, ...], _output: Tensor) -> None:
        count.n_forwards += 1
        count.n_positions += inputs[0].shape[:-1].numel()

    first = encoder.clip.text.transformer.resblocks[0]  # type: ignore[union-attr,index]
    hook = first.mlp.register_forward_hook(note)
    try:
        yield count
    finally:
        hook.remove()


def embed_padded(encoder: OpenClipEncoder, texts: Sequence[str]) -> Tensor:
    """(B, D) unit embeddings, every row padded to the model's full context."""
    short = encoder.tokenize(texts)
    tokens = torch.zeros(len(texts), encoder.tokenize.context_length, dtype=torch.long)  # type: ignore[attr-defined]
    tokens[:, : short.shape[1]] = short
    with torch.no_grad():
        return encoder.clip.encode_text(tokens.to(encoder.device), normalize=True)  # type: ignore[operator]


def peer_text_attack(
    encoder: OpenClipEncoder,
    captions: Sequence[str],
    candidates: CandidateTable,
    objective: TextObjective | None = None,
    n_words: int = 1,
) -> list[str]:
    """One pass over the captions; the same captions as `WordSubstitution` finds.

    Args:
        objective: as for `WordSubstitution`; KL from the clean caption by default.
    """
    return [
        _attack_one(encoder, i, caption, candidates[i], objective, n_words)
        for i, caption in enumerate(captions)
    ]


def peer_both_passes(
    encoder: OpenClipEncoder,
    captions: Sequence[str],
    candidates: CandidateTable,
    objectives: Sequence[TextObjective],
    n_words: int = 1,
) -> list[list[str]]:
    """SGA's text passes, each computed from nothing; one list of captions per objective."""
    return [
        peer_text_attack(encoder, captions, candidates, objective, n_words)
        for objective in objectives
    ]


def _attack_one(
    encoder: OpenClipEncoder,
    index: int,
    caption: str,
    row: Sequence[Edit],
    objective: TextObjective | None,
    n_words: int,
) -> str:
    words = caption.split(" ")
    clean = embed_padded(encoder, [caption])
    masked = [apply_edit(caption, Edit(p, MASK)) for p in range(len(words))]
    features = torch.cat(
        [
            embed_padded(encoder, masked[at : at + MASKED_ROWS])
            for at in range(0, len(masked), MASKED_ROWS)
        ]
    )
    own = torch.zeros(len(words), dtype=torch.long, device=clean.device)
    weight = kl_from(clean)(features, own).tolist()
    current, n_changed = caption, 0
    for position in sorted(range(len(words)), key=lambda p: -weight[p]):
        if n_changed == n_words:
            break
        options = [edit for edit in row if edit.position == position]
        if not options:
            continue  # a stop word
        texts = [current, *(apply_edit(current, edit) for edit in options)]
        edited = embed_padded(encoder, texts)
        if objective is None:
            values = kl_from(clean)(
                edited, torch.zeros(len(texts), dtype=torch.long).to(edited.device)
            )
        else:
            values = objective(edited, torch.full((len(texts),), index).to(edited.device))
        best = int(values.argmax())
        n_changed += texts[best] != current
        current = texts[best]
    return current
