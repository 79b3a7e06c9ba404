"""The model that a sanity check examines, and how a comparison of recalls becomes a check.

Every check turns what it asserts into a *violation*: a difference of recalls of the same
queries that is at most zero when the assertion holds. Its interval resamples images with all
their captions (paired).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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
from matlib.attacks.word_substitution import WordSubstitution
from matlib.evaluation.retrieval import Outcomes, chance_recall, retrieve
from matlib.evaluation.statistics import (
    Estimate,
    Stratum,
    bootstrap_contrast,
    bootstrap_mean,
    primary_endpoint,
)
from matlib.evaluation.suite import OwnAttack
from matlib.models.dual_encoder import CachedText, DualEncoder

BOUNDS_LEVEL = 0.9
"""Of the two-sided interval whose ends are one-sided 95 % bounds."""

TOLERANCE_POINTS = 2.0
"""Recall points by which an assertion may fail before it counts."""

Terms = tuple[tuple[float, Outcomes], ...]
CheckVerdict = Literal["passed", "open", "violated"]
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
        gains: by comparison how far the assertion fails, in points (positive is suspicious:
            what should be no stronger gains that much), and its one-sided 95 % lower and upper
            bound, over images; no bounds but the number itself where the check is exact.
        exact: holds or does not; no interval, no tolerance.
        n_images: images in the gallery.
    """

    name: str
    asserts: str
    numbers: dict[str, float]
    gains: dict[str, list[float]]
    exact: bool
    n_images: int

    @property
    def worst(self) -> str:
        """The comparison whose upper bound is highest."""
        return max(self.gains, key=lambda comparison: self.gains[comparison][2])

    @property
    def verdict(self) -> CheckVerdict:
        """`violated` if some gain surely exceeds 2 points, `passed` if surely none does.

        Nothing is corrected for the number of checks: that would help the defender. An exact
        check is violated if anything differs.
        """
        lowest, highest = (max(gain[end] for gain in self.gains.values()) for end in (1, 2))
        limit = 0.0 if self.exact else TOLERANCE_POINTS
        if lowest > limit:
            return "violated"
        return "passed" if highest <= limit else "open"


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
        n_restarts: of the evaluation's gallery attacker.
        own: the attack of the defence's own loss, where no row of the suite ascends it.
        train: other images with their captions, to learn a universal perturbation on.
        n_boot: bootstrap samples.
    """

    encoder: DualEncoder
    gallery: Gallery
    image: PGD
    seed: int = 0
    source: DualEncoder | None = None
    tables: Mapping[str, CandidateTable] = field(default_factory=dict)
    word_search: WordSubstitution = field(default_factory=WordSubstitution)
    apgd_steps: int = 50
    n_restarts: int = 1
    own: OwnAttack | None = None
    train: Gallery | None = None
    n_boot: int = 2000

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
        self.kept: dict[object, Outcomes] = {}  # of attacks that several checks compare

    def given_source(self) -> DualEncoder:
        """The source.

        Raises:
            ValueError: there is none.
        """
        if self.source is None:
            raise ValueError("this check needs a source model; the subject has none")
        return self.source

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
        gains = {}
        for high, low in rule:
            if isinstance(low, str):
                less = tuple((-weight, outcomes) for weight, outcomes in weighted[low])
                gains[f"{high} - {low}"] = self._violation(weighted[high] + less)
            else:
                numbers["chance"] = 100 * low
                gains[f"{high} - chance"] = self._violation(weighted[high], low)
        return self.check(name, asserts, numbers, gains)

    def _violation(self, terms: Terms, floor: float = 0.0) -> Estimate:
        """Weighted sum of primary endpoints minus `floor`, with its one-sided bounds."""
        found = bootstrap_contrast(
            [Stratum(terms, self.gallery.own)],
            n_boot=self.n_boot,
            seed=self.seed,
            level=BOUNDS_LEVEL,
        )
        return Estimate(found.value - floor, found.low - floor, found.high - floor, found.n)

    def share(self, name: str, asserts: str, numbers: dict[str, float], n_bad: int) -> Check:
        """A check on images: `n_bad` of them are bad, and their share is the violation."""
        is_bad = (torch.arange(len(self.gallery.pixels)) < n_bad).double()
        found = bootstrap_mean(is_bad, n_boot=self.n_boot, seed=self.seed, level=BOUNDS_LEVEL)
        return self.check(name, asserts, numbers, {"share of images": found})

    def check(
        self, name: str, asserts: str, numbers: dict[str, float], gains: Mapping[str, Estimate]
    ) -> Check:
        """A check on intervals over the gallery's images."""
        points = {label: [100 * found.value, 100 * found.low, 100 * found.high]
                  for label, found in gains.items()}  # fmt: skip
        return Check(name, asserts, numbers, points, False, len(self.gallery.pixels))
