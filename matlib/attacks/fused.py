"""Attacks on what a fusion model makes of image and text together: its match, and Co-Attack."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from matlib.attacks.ascent import AttackReport, ImageAttack, attack_in_chunks
from matlib.attacks.edits import CandidateTable
from matlib.attacks.gallery import Gallery
from matlib.attacks.scoring import images_per_forward
from matlib.attacks.word_substitution import WordSubstitution
from matlib.models.dual_encoder import FusionEncoder, frozen


def unmatched(
    encoder: FusionEncoder,
    gallery: Gallery,
    image: ImageAttack,
    *,
    generator: torch.Generator,
    report: AttackReport | None = None,
) -> Tensor:
    """Move each image away from matching its own captions, read beside them.

    The matching loss of a true pair is log(1 + exp(-match)); what is ascended is minus the logit
    itself, which rises with it and does not saturate, in the mean over an image's captions.

    Args:
        encoder: in evaluation mode.

    Returns:
        adversarial pixels (N, 3, H, W).
    """

    def apart(seen: Tensor, which: Tensor) -> Tensor:
        return -encoder.match(seen, [gallery.captions[m] for m in which.tolist()])

    return _ascended(encoder, gallery, image, apart, generator, report)


def fused_co_attack(
    encoder: FusionEncoder,
    gallery: Gallery,
    candidates: CandidateTable,
    image: ImageAttack,
    text: WordSubstitution,
    *,
    generator: torch.Generator,
    report: AttackReport | None = None,
) -> tuple[Tensor, list[str]]:
    """Co-Attack for fusion models (Zhang et al. 2022): text, then image, on the fused state.

    1. each caption, read beside its clean image, moves the fused state away from what it was
       (KL between softmaxes over the state's coordinates, as in Co-Attack's code; every allowed
       edit is tried, where BERT-Attack goes by importance);
    2. the image, read beside its moved captions, moves it further, the mean over its captions.

    Args:
        encoder: in evaluation mode.

    Raises:
        ValueError: as `WordSubstitution`.
    """
    tokens = _tokens(encoder, gallery.pixels, gallery.chunk)
    clean = _states(encoder, tokens[gallery.own], gallery.captions, text.chunk)  # (M, W)
    numbered = _Numbered(encoder)

    def score(number: Tensor, caption: Tensor) -> Tensor:
        texts = [numbered.text(n) for n in number[:, 0].long().tolist()]
        seen = tokens[gallery.own[caption.cpu()].to(tokens.device)]
        return _kl(clean[caption], _states(encoder, seen, texts, text.chunk))

    # which word matters is asked of the fused state as well, so every edit is tried
    away = replace(text, search="exhaustive").prepare(numbered, gallery.captions, candidates)
    if report is not None:
        report.add_captions(len(gallery.captions), away.n_attackable_words)
    edited = away(score)

    def away_from_clean(seen: Tensor, which: Tensor) -> Tensor:
        texts = [edited[m] for m in which.tolist()]
        return _kl(clean[which], encoder.fused(seen, texts).state)

    return _ascended(encoder, gallery, image, away_from_clean, generator, report), edited


def _ascended(
    encoder: FusionEncoder,
    gallery: Gallery,
    image: ImageAttack,
    score: Callable[[Tensor, Tensor], Tensor],
    generator: torch.Generator,
    report: AttackReport | None,
) -> Tensor:
    """(N, 3, H, W): images moved by the mean of a score over the captions of each.

    Args:
        score: (C, 1 + P, W) image tokens and int64 (C,) the caption beside each -> (C,).
    """

    def objective_of(rows: Tensor) -> Callable[[Tensor], Tensor]:
        inside = gallery.own.to(rows.device) == rows[:, None]  # (B, M)
        place, which = inside.nonzero(as_tuple=True)  # (C,) image and caption of each pair
        n_captions = inside.sum(1).clamp_min(1)  # (B,)

        def mean_of_own(seen: Tensor) -> Tensor:
            found = score(seen[place], which)  # (B, 1 + P, W) -> (C, 1 + P, W) -> (C,)
            return found.new_zeros(len(seen)).index_add(0, place, found) / n_captions  # (B,)

        return mean_of_own

    return attack_in_chunks(
        image, _Seen(encoder), gallery.pixels, objective_of, generator=generator, report=report,
        chunk=gallery.chunk,
    )  # fmt: skip


def _kl(clean: Tensor, moved: Tensor) -> Tensor:
    """(R,): KL(p(clean) || p(moved)), p the softmax over coordinates."""
    reference = F.log_softmax(clean, dim=1)
    return (reference.exp() * (reference - F.log_softmax(moved, dim=1))).sum(1)


def _tokens(encoder: FusionEncoder, pixels: Tensor, chunk: int | None) -> Tensor:
    size = chunk or images_per_forward(pixels, device=encoder.device)
    with torch.no_grad():
        return torch.cat([encoder.image_tokens(part) for part in pixels.split(size)])


def _states(encoder: FusionEncoder, seen: Tensor, texts: Sequence[str], chunk: int) -> Tensor:
    """(R, W) fused states without gradients."""
    with torch.no_grad(), frozen(encoder):
        parts = [
            encoder.fused(seen[i : i + chunk], texts[i : i + chunk]).state
            for i in range(0, len(texts), chunk)
        ]
    return torch.cat(parts)


class _Seen(nn.Module):
    """What the image attack ascends through: an image's tokens in the place of its embedding."""

    def __init__(self, encoder: FusionEncoder) -> None:
        super().__init__()
        self.encoder, self.image_size = encoder, encoder.image_size
        self.encode_image = encoder.image_tokens
        self.encode_text = encoder.encode_text

    @property
    def device(self) -> torch.device:
        return self.encoder.device

    @property
    def logit_scale(self) -> Tensor:
        return self.encoder.logit_scale


class _Numbered(_Seen):
    """What the text attack searches with: a text's number, from which the objective reads it.

    What a text is worth depends on the image beside it, which an embedding of the text alone
    cannot say.
    """

    def __init__(self, encoder: FusionEncoder) -> None:
        super().__init__(encoder)
        self._texts: list[str] = []
        self._number: dict[str, int] = {}
        self.encode_text = self._numbers

    def text(self, number: int) -> str:
        """The text of a number."""
        return self._texts[number]

    def _numbers(self, texts: Sequence[str]) -> Tensor:
        """B strings -> float64 (B, 1)."""
        for text in texts:
            if text not in self._number:
                self._number[text] = len(self._texts)
                self._texts.append(text)
        found = [self._number[text] for text in texts]
        return torch.tensor(found, dtype=torch.float64, device=self.device)[:, None]
