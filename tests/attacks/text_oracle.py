"""Word substitution written plainly: one caption, one word and one candidate at a time."""

from __future__ import annotations

import torch

from matlib.attacks.edits import MASK, CandidateTable, Edit, apply_edit
from matlib.attacks.objectives import TextObjective, kl_from
from matlib.models.open_clip import OpenClipEncoder


def value_of(encoder: OpenClipEncoder, text: str, i: int, score: TextObjective) -> float:
    with torch.no_grad():
        return float(score(encoder.encode_text([text]), torch.tensor([i])))


def importance_by_masking(
    encoder: OpenClipEncoder, caption: str, positions: list[int]
) -> dict[int, float]:
    with torch.no_grad():
        kl = kl_from(encoder.encode_text([caption]))
    return {p: value_of(encoder, apply_edit(caption, Edit(p, MASK)), 0, kl) for p in positions}


def importance_by_gradient(
    encoder: OpenClipEncoder, caption: str, i: int, score: TextObjective
) -> dict[int, float]:
    [found] = encoder.word_saliency([caption], lambda rows: score(rows, torch.tensor([i])))
    return dict(enumerate(found))


def by_importance(
    encoder: OpenClipEncoder,
    captions: list[str],
    table: CandidateTable,
    score: TextObjective,
    n_words: int,
    importance: str = "masking",
) -> list[str]:
    out = []
    for i, caption in enumerate(captions):
        positions = sorted({edit.position for edit in table[i]})
        if importance == "masking":
            weight = importance_by_masking(encoder, caption, positions)
        else:
            weight = importance_by_gradient(encoder, caption, i, score)
        current, n_changed = caption, 0
        for position in sorted(positions, key=lambda p: -weight[p]):
            if n_changed == n_words:
                break
            best, best_value = current, value_of(encoder, current, i, score)
            for edit in table[i]:
                if edit.position != position:
                    continue
                text = apply_edit(current, edit)
                value = value_of(encoder, text, i, score)
                if value > best_value:
                    best, best_value = text, value
            n_changed += best != current
            current = best
        out.append(current)
    return out


def exhaustively(
    encoder: OpenClipEncoder,
    captions: list[str],
    table: CandidateTable,
    score: TextObjective,
    n_words: int,
) -> list[str]:
    out = []
    for i, caption in enumerate(captions):
        current, edited = caption, set()
        for _ in range(n_words):
            best, at, best_value = current, -1, value_of(encoder, current, i, score)
            # the attack goes through positions in order, each position's edits in the table's
            for edit in sorted(table[i], key=lambda e: e.position):
                if edit.position in edited:
                    continue
                text = apply_edit(current, edit)
                value = value_of(encoder, text, i, score)
                if value > best_value:
                    best, at, best_value = text, edit.position, value
            if at < 0:
                break
            current = best
            edited.add(at)
        out.append(current)
    return out
