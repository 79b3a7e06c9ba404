"""The model that a sanity check examines, and how a comparison of recalls becomes a check.

Every check turns what it asserts into a *violation*: a difference of recalls of the same
queries that is at most zero when the assertion holds. Its interval resamples images with all
their captions (paired), its p-value is that of "the violation is at most 2 points".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from matlib.attacks.apgd import APGD
from matlib.attacks.ascent import AttackReport, ImageAttack, attack_in_chunks
from matlib.attacks.balls import MAX_EPS_255
from matlib.attacks.edits import CandidateTable
from matlib.attacks.gallery import Gallery, embed_images
from matlib.attacks.objectives import contrastive
from matlib.attacks.pgd import PGD
from matlib.attacks.scoring import embed_texts
from matlib.attacks.words import WordSubstitution
from matlib.evaluation.retrieval import Outcomes, chance_recall, retrieve
from matlib.evaluation.statistics import (
    Estimate,
    Stratum,
    bootstrap_contrast,
    bootstrap_mean,
    primary_endpoint,
)
from matlib.models.dual_encoder import CachedText, DualEncoder

ALPHA = 0.05
"""One-sided error over all checks and models together."""

TOLERANCE_POINTS = 2.0
"""Recall points by which an assertion may fail before it counts."""

# Resamples of exactly 2 points are no violation, however their sum was rounded.
_TOLERANCE = TOLERANCE_POINTS / 100 + 1e-9

Terms = tuple[tuple[float, Outcomes], ...]
CheckVerdict = Literal["", "passed", "violated"]
CheckRule = Sequence[tuple[str, str | float]]
"""(high, low): the recall labelled `high` should not exceed that labelled `low` (or a number
in [0, 1]); what it does is the violation."""


@dataclass(frozen=True)
class Check:
    """What one check found about one model. Plain values: `dataclasses.asdict` is JSON.

    Attributes:
        name: e.g. `more_steps`.
        asserts: in words, what holds of an attack that works and a defence that is real.
        numbers: what was compared, in points (percent): means of TR@1 and IR@1 by attack,
            chance, shares of images.
        estimate_points: how far the assertion fails, in points; positive is suspicious. Of
            several comparisons the one with the highest lower bound.
        lower_points: one-sided 95 % lower bound of it, Bonferroni over the check's own
            comparisons, not yet corrected for the other checks.
        p_value: one-sided, of "the violation is at most 2 points", Bonferroni within the
            check; None where the check is exact.
        p_smallest: the smallest p-value that the bootstrap could have shown; None if exact.
        exact: holds or does not; no interval, no tolerance.
        n_images: images in the gallery.
        p_adjusted: after Holm over checks and models; None until then, and if exact.
        verdict: `passed` or `violated`, from `sanity.verdicts`; empty until then.
    """

    name: str
    asserts: str
    numbers: dict[str, float]
    estimate_points: float
    lower_points: float
    p_value: float | None
    p_smallest: float | None
    exact: bool
    n_images: int
    p_adjusted: float | None = None
    verdict: CheckVerdict = ""


@dataclass
class SanitySubject:
    """A model under examination; outcomes under an attack are computed once and kept.

    Attributes:
        encoder: the model, in evaluation mode.
        gallery: images and captions.
        image: the evaluation's PGD, L-infinity.
        seed: of the attacks' starts (every attack begins with a fresh generator), the noise,
            the shuffles and the bootstrap.
        source: a model whose adversarial images are transferred, or None.
        tables: per text threat the allowed edits of every caption, or empty.
        word_search: the evaluation's text attack.
        apgd_steps: steps of APGD (paper: 100).
        n_boot: bootstrap samples. Holm multiplies the smallest p-value, 1 / (n_boot + 1), by
            the number of checks and models.
    """

    encoder: DualEncoder
    gallery: Gallery
    image: PGD
    seed: int = 0
    source: DualEncoder | None = None
    tables: Mapping[str, CandidateTable] = field(default_factory=dict)
    word_search: WordSubstitution = field(default_factory=WordSubstitution)
    apgd_steps: int = 50
    n_boot: int = 20_000

    def __post_init__(self) -> None:
        if self.image.norm != "linf" or not 0 < 4 * self.image.eps_255 <= MAX_EPS_255:
            raise ValueError(
                "the battery needs an L-infinity PGD of which 4 * eps is allowed too, "
                f"0 < eps_255 <= {MAX_EPS_255 / 4:g}; got norm {self.image.norm!r} and "
                f"eps_255 {self.image.eps_255}"
            )
        if self.image.n_steps < 1:
            raise ValueError("the battery needs an attack of at least one step; got n_steps 0")
        if self.source is not None and self.source is self.encoder:
            raise ValueError(
                "the source of transferred images is the examined model itself: pass another "
                "model, or None to leave the check out"
            )
        self.encoder = CachedText(self.encoder)  # every sentence is embedded once
        self.report = AttackReport()  # of the evaluation's attack
        self._clean_images = self._embedded(self.gallery.pixels)
        self.clean = self.judge()
        self._found: dict[ImageAttack, Outcomes] = {}

    def generator(self) -> torch.Generator:
        """A fresh CPU generator: no check changes the draws of another."""
        return torch.Generator().manual_seed(self.seed)

    def made_on(
        self, encoder: DualEncoder, attack: ImageAttack, report: AttackReport | None = None
    ) -> Tensor:
        """(N, 3, H, W): every image attacked on `encoder`, contrastive loss, clean captions."""
        text = embed_texts(encoder, self.gallery.captions)
        relevant, scale = self.gallery.relevant.to(text.device), encoder.logit_scale.detach()
        return attack_in_chunks(
            attack,
            encoder,
            self.gallery.pixels,
            lambda rows: contrastive(text, relevant[rows], scale),
            generator=self.generator(),
            report=report,
            chunk=self.gallery.chunk,
        )

    def under(self, attack: PGD | APGD) -> Outcomes:
        """Outcomes under a white-box attack on the images."""
        if attack not in self._found:
            report = self.report if attack == self.image else None
            self._found[attack] = self.judge(self.made_on(self.encoder, attack, report))
        return self._found[attack]

    def judge(
        self, pixels: Tensor | None = None, captions: Sequence[str] | None = None
    ) -> Outcomes:
        """Outcomes of these images and captions; None for the clean ones."""
        image = self._clean_images if pixels is None else self._embedded(pixels)
        text = embed_texts(self.encoder, self.gallery.captions if captions is None else captions)
        return retrieve(image, text, self.gallery.relevant)

    def _embedded(self, pixels: Tensor) -> Tensor:
        return embed_images(self.encoder, pixels.to(self.encoder.device), self.gallery.chunk)

    def points(self, outcomes: Outcomes) -> float:
        """Primary endpoint in points."""
        return 100 * primary_endpoint(outcomes)

    def chance(self) -> float:
        """Primary endpoint of a random ranking, in [0, 1]."""
        return sum(chance_recall(self.gallery.relevant, way, 1) for way in ("TR", "IR")) / 2

    def compare(
        self, name: str, asserts: str, sides: Mapping[str, Sequence[Outcomes]], rule: CheckRule
    ) -> Check:
        """A check on recalls of the same queries.

        Args:
            sides: by label what is compared, the mean over one or more outcomes; every one is
                shown in `numbers`.
            rule: which should not exceed which; a number is shown as chance.
        """
        weighted = {
            label: tuple((1 / len(side), outcomes) for outcomes in side)
            for label, side in sides.items()
        }
        numbers = {
            label: 100 * sum(weight * primary_endpoint(outcomes) for weight, outcomes in side)
            for label, side in weighted.items()
        }
        found = []
        for high, low in rule:
            if isinstance(low, str):
                less = tuple((-weight, outcomes) for weight, outcomes in weighted[low])
                found.append(self._violation(weighted[high] + less, 0.0, len(rule)))
            else:
                found.append(self._violation(weighted[high], low, len(rule)))
                numbers["chance"] = 100 * low
        return _statistical(name, asserts, numbers, found, self)

    def _violation(self, terms: Terms, floor: float, n_rules: int) -> Estimate:
        """Weighted sum of primary endpoints minus `floor`, and its one-sided lower bound."""
        found = bootstrap_contrast(
            [Stratum(terms, self.gallery.own)],
            n_boot=self.n_boot,
            seed=self.seed,
            level=1 - 2 * ALPHA / n_rules,
            threshold=floor + _TOLERANCE,
        )
        return replace(found, value=found.value - floor, low=found.low - floor)

    def share(self, name: str, asserts: str, numbers: dict[str, float], n_bad: int) -> Check:
        """A check on images: `n_bad` of them are bad, and their share is the violation."""
        found = bootstrap_mean(
            (torch.arange(len(self.gallery.pixels)) < n_bad).double(),
            n_boot=self.n_boot,
            seed=self.seed,
            level=1 - 2 * ALPHA,
            threshold=_TOLERANCE,
        )
        return _statistical(name, asserts, numbers, [found], self)


def _statistical(
    name: str,
    asserts: str,
    numbers: dict[str, float],
    found: Sequence[Estimate],
    subject: SanitySubject,
) -> Check:
    worst = max(found, key=lambda estimate: (estimate.low, estimate.value))
    return Check(
        name,
        asserts,
        numbers,
        estimate_points=100 * worst.value,
        lower_points=100 * worst.low,
        p_value=min(1.0, len(found) * min(estimate.p_below for estimate in found)),
        p_smallest=len(found) / (subject.n_boot + 1),
        exact=False,
        n_images=len(subject.gallery.pixels),
    )
