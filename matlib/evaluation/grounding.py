"""Visual grounding under attack: given a phrase, is the heat map hottest where the thing is?

The map is that of an image tower (`positions.heat_of_tower`) or of a fusion model's
cross-attention (`positions.heat_of_fusion`). It is judged by the pointing game (Zhang et
al. 2018), by the overlap of the box around the hot region with the true one, and by the choice
among candidate boxes (ALBEF: Li et al. 2021). It is attacked through the image, through the phrase
and through both; an attacker who wants the map wrong ascends it, not the embeddings, which the
map hardly follows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol, cast

import torch
import torch.nn.functional as F
from scipy.ndimage import label
from torch import Tensor, nn
from torchvision.ops import box_area, box_iou

from matlib.attacks.ascent import ImageAttack, attack_in_chunks
from matlib.attacks.edits import Table, apply_edit
from matlib.attacks.objectives import ImageObjective, away_from_captions
from matlib.attacks.scored import ascend_score
from matlib.attacks.scoring import embed_texts, images_per_forward
from matlib.data.referring import Referring
from matlib.models.dual_encoder import DualEncoder, as_fusion
from matlib.models.positions import heat_of_fusion, heat_of_tower

GROUNDING_ATTACKS = ("clean", "embeddings", "image", "phrase", "both")
"""No attack; the image's embedding moved away from the phrase's; the heat map attacked through the
image, through one word of the phrase, and through both (the word first)."""


class Heat(Protocol):
    """Where an image looks like a phrase, as `heat_of_tower` says."""

    def __call__(
        self, encoder: DualEncoder, pixels: Tensor, phrases: Sequence[str], *,
        differentiable: bool = False,
    ) -> Tensor: ...  # fmt: skip


@dataclass(frozen=True)
class Grounded:
    """What was found under each attack.

    Attributes:
        scores: attack -> measure -> (P,): `pointing` (0 or 1), `choice` (0 or 1), `overlap`.
        heat: attack -> (P, h, w).
        phrases: attack -> the P phrases as they were asked.
        pixels: attack -> float (P, 3, H, W), the image that each was asked about.
    """

    scores: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    heat: dict[str, Tensor] = field(default_factory=dict)
    phrases: dict[str, list[str]] = field(default_factory=dict)
    pixels: dict[str, Tensor] = field(default_factory=dict)


def ground_under_attack(
    encoder: DualEncoder,
    pixels: Tensor,
    referring: Referring,
    attack: ImageAttack,
    words: Table | None = None,
    *,
    heat: Heat | None = None,
    seed: int = 0,
) -> Grounded:
    """Ground every phrase in its clean image and in attacked ones.

    Args:
        encoder: in evaluation mode.
        pixels: float (N, 3, H, W) in [0, 1].
        attack: `PGD` or `APGD`, with its budget.
        words: per phrase the allowed edits of one word; without them phrases stay as they are.
        heat: which map is judged, and attacked; that of the cross-attention by default where a
            model has one, else that of the image tower.
        seed: of the attacks' draws.
    """
    heat = heat or heat_of(encoder)
    found, phrases = Grounded(), list(referring.phrases)
    clean = pixels.to(encoder.device)[referring.image_of.to(encoder.device)]  # (P, 3, H, W)
    text = embed_texts(encoder, phrases)

    def judge(name: str, seen: Tensor, asked: list[str]) -> None:
        found.heat[name] = _in_parts(encoder, seen, asked, heat)
        found.phrases[name], found.pixels[name] = asked, seen
        found.scores[name] = grounding_scores(found.heat[name], referring)

    def ascend(asked: list[str]) -> Tensor:
        def wrong(moved: Tensor, rows: Tensor) -> Tensor:
            here = heat(encoder, moved, [asked[i] for i in rows.tolist()], differentiable=True)
            return outside_margin(here, referring.boxes[rows])

        generator = torch.Generator().manual_seed(seed)
        parts = [encoder] if isinstance(encoder, nn.Module) else []
        return ascend_score(attack, clean, wrong, parts, generator=generator)

    judge("clean", clean, phrases)
    moved = attack_in_chunks(
        attack, encoder, clean, partial(_away_from, text),
        generator=torch.Generator().manual_seed(seed),
    )  # fmt: skip
    judge("embeddings", moved, phrases)
    judge("image", ascend(phrases), phrases)
    if words is not None:
        asked = worst_phrases(encoder, clean, referring, words, heat)
        judge("phrase", clean, asked)
        judge("both", ascend(asked), asked)
    return found


def heat_of(encoder: DualEncoder) -> Heat:
    """The map of a model's kind."""
    return heat_of_tower if as_fusion(encoder) is None else cast(Heat, heat_of_fusion)


def _away_from(text: Tensor, rows: Tensor) -> ImageObjective:
    own = text[rows.to(text.device)]  # (B, D)
    return away_from_captions(own, torch.eye(len(own), dtype=torch.bool, device=own.device))


def worst_phrases(
    encoder: DualEncoder, pixels: Tensor, referring: Referring, words: Table, heat: Heat
) -> list[str]:
    """Each phrase with the edit of one word that makes its map most wrong; all are tried.

    Args:
        pixels: float (P, 3, H, W), the image of each phrase.
        words: per phrase the allowed edits; a phrase without any stays.
    """
    asked = [
        [phrase, *(apply_edit(phrase, edit) for edit in own)]
        for phrase, own in zip(referring.phrases, words, strict=True)
    ]
    rows = torch.tensor([i for i, own in enumerate(asked) for _ in own])  # (E,)
    maps = _in_parts(encoder, pixels, [phrase for own in asked for phrase in own], heat, rows)
    margins = outside_margin(maps, referring.boxes[rows]).split([len(own) for own in asked])
    return [own[int(each.argmax())] for own, each in zip(asked, margins, strict=True)]


def _in_parts(
    encoder: DualEncoder,
    pixels: Tensor,
    phrases: Sequence[str],
    heat: Heat,
    rows: Tensor | None = None,
) -> Tensor:
    """(E, h, w) on the CPU: the maps of E phrases, each in the image that `rows` says."""
    rows = torch.arange(len(phrases)) if rows is None else rows
    maps, at = [], 0
    for part in rows.split(images_per_forward(pixels)):
        asked = phrases[at : at + len(part)]
        maps.append(heat(encoder, pixels[part.to(pixels.device)], asked).cpu())
        at += len(part)
    return torch.cat(maps)


def outside_margin(heat: Tensor, boxes: Tensor) -> Tensor:
    """(B,) hottest position outside the box minus the hottest inside: above 0 the pointing fails.

    Args:
        heat: (B, h, w).
        boxes: (B, 4), as of `Referring`.
    """
    inside = cells_in(boxes, heat.shape[1], heat.shape[2]).to(heat.device)
    lowest = torch.finfo(heat.dtype).min
    outside = heat.masked_fill(inside, lowest).flatten(1).amax(1)
    return outside - heat.masked_fill(~inside, lowest).flatten(1).amax(1)


def cells_in(boxes: Tensor, h: int, w: int) -> Tensor:
    """bool (B, h, w): cells of a grid whose centre lies in the box, and the one at its centre."""
    x, y = (torch.arange(w) + 0.5) / w, (torch.arange(h) + 0.5) / h
    left, top, right, bottom = (each[:, None] for each in boxes.cpu().unbind(1))  # (B, 1)
    inside_x, inside_y = (left <= x) & (x <= right), (top <= y) & (y <= bottom)
    # (left + right) / 2 lies in a cell of its own, however small the box
    own_x = ((left + right) / 2 * w).long().clamp(max=w - 1) == torch.arange(w)
    own_y = ((top + bottom) / 2 * h).long().clamp(max=h - 1) == torch.arange(h)
    return (inside_y | own_y)[:, :, None] & (inside_x | own_x)[:, None, :]


def worst_scores(found: Grounded) -> dict[str, Tensor]:
    """Measure -> (P,): per phrase the least of all attacks."""
    every = list(found.scores.values())
    return {m: torch.stack([each[m] for each in every]).amin(0) for m in every[0]}


def per_image(values: Tensor, image_of: Tensor) -> Tensor:
    """(P,) -> (N,): the mean over the phrases of each image."""
    sums = torch.zeros(int(image_of.max()) + 1).index_add_(0, image_of, values.float())
    return sums / image_of.bincount()


_FINE = 64  # positions per side of a map that boxes are read from


def grounding_scores(heat: Tensor, referring: Referring) -> dict[str, Tensor]:
    """How well maps show where things are.

    Args:
        heat: (P, h, w), one map per phrase.

    Returns:
        measure -> float (P,): `pointing`, 1 where the hottest cell lies in the box; `choice`, 1
        where of the candidate boxes the one with the most heat for its side (sum over
        area ** 0.5) overlaps the true one by half; `overlap`, in [0, 1], of the box around the
        hot region (connected, at least half as hot as the hottest place) with the true one.
    """
    fine = F.interpolate(heat[:, None].float().clamp_min(0), size=(_FINE, _FINE), mode="bilinear")[
        :, 0
    ]  # (P, 64, 64)
    choice, around = [], []
    for i, map_ in enumerate(fine):
        boxes = referring.candidates[int(referring.image_of[i])]
        inside = cells_in(boxes, _FINE, _FINE)  # (K, 64, 64)
        warmth = (inside * map_).sum((1, 2)) / box_area(boxes).sqrt()
        best = boxes[warmth.argmax()][None]
        choice.append(box_iou(best, referring.boxes[i : i + 1])[0, 0] >= 0.5)
        around.append(_hot_box(map_))
    overlap = box_iou(torch.stack(around), referring.boxes).diagonal()
    return {
        "pointing": (outside_margin(heat, referring.boxes) <= 0).float(),
        "choice": torch.stack(choice).float(),
        "overlap": overlap,
    }


def _hot_box(heat: Tensor) -> Tensor:
    """(4,): around the region at least half as hot as the hottest place, and connected with it."""
    parts, _ = label((heat >= heat.max() / 2).numpy())
    own = torch.from_numpy(parts == parts.flat[int(heat.argmax())])
    rows, columns = own.nonzero().unbind(1)
    ends = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
    return torch.stack(ends).float() / len(heat)
