"""Judging one model: every attack of the suite, each in its own fully adversarial gallery."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from matlib.attacks.edits import CandidateTable
from matlib.attacks.gallery import Gallery, embed_images
from matlib.attacks.image import PGD, AttackReport
from matlib.attacks.multimodal import pgd
from matlib.attacks.scoring import embed_texts
from matlib.data.pairs import ImageTextPairs
from matlib.evaluation.retrieval import Outcomes, retrieve, worst_of
from matlib.evaluation.suite import Key, Suite
from matlib.models.cached import CachedText
from matlib.models.dual_encoder import DualEncoder

__all__ = ["Evaluation", "Key", "Suite", "evaluate", "strength_curve"]

Against = Literal["adversarial", "clean"]
"""What a query searches: the attacked gallery (the field's convention), or the clean one."""


@dataclass
class Evaluation:
    """What the suite found.

    Attributes:
        outcomes: per (attack, threat) the rank of every query.
        captions: per (attack, threat) the adversarial captions.
        shown: per (attack, threat) float (n_shown, 3, H, W), the first adversarial images.
        n_unattackable: per threat the captions without any allowed edit.
        n_vanished: per (attack, threat) the images whose gradient vanished in some step.
        n_embedded: sentences embedded, of which `n_asked` were asked for.
    """

    outcomes: dict[Key, Outcomes] = field(default_factory=dict)
    captions: dict[Key, list[str]] = field(default_factory=dict)
    shown: dict[Key, Tensor] = field(default_factory=dict)
    n_unattackable: dict[str, int] = field(default_factory=dict)
    n_vanished: dict[Key, int] = field(default_factory=dict)
    n_embedded: int = 0
    n_asked: int = 0


def evaluate(
    encoder: DualEncoder,
    pairs: ImageTextPairs,
    tables: Mapping[str, CandidateTable],
    suite: Suite,
    *,
    seed: int,
    on_attack: Callable[[str], None] | None = None,
    source: DualEncoder | None = None,
    gallery: Against = "adversarial",
    quantise_8bit: bool = False,
) -> Evaluation:
    """Run the suite on one model.

    Args:
        pairs: the gallery: N images with all their captions.
        tables: per text threat, the allowed edits of every caption.
        seed: of the image attacks' starts; each attack has a generator of its own, so adding
            an attack changes no other.
        on_attack: called with the name of each attack when it is done.
        source: the model that the attacks are made on (transfer); the judged one by default.
        gallery: `clean` judges adversarial images among clean captions and adversarial
            captions among clean images.
        quantise_8bit: round adversarial images to 8 bit first, as image files do.
    """
    judge = _Judge(encoder, pairs, gallery, quantise_8bit, suite.n_shown)
    attacked = judge.model if source is None else CachedText(source)
    found, pixels_alone, edited_alone = judge.found, None, {}
    for attack, threat in suite.rows(tables):
        table, report = tables[threat] if threat else [], AttackReport()
        pixels, captions = None, None
        if attack in ("pgd", "sep"):  # Sep-Attack is exactly PGD and BERT-Attack side by side
            if pixels_alone is None:
                pixels_alone = suite.move_images(attacked, judge.gallery, seed, report)
            pixels = pixels_alone
        if attack in ("bert", "sep"):
            if threat not in edited_alone:
                edited_alone[threat] = suite.text(attacked, judge.gallery.captions, table)
            captions = edited_alone[threat]
        if attack not in ("clean", "pgd", "bert", "sep"):
            pixels, captions = suite.move_both(attack, attacked, judge.gallery, table, seed, report)
        judge.record((attack, threat), pixels, captions)
        found.n_vanished[attack, threat] = report.n_images_vanished
        if on_attack is not None:
            on_attack(f"{attack} {threat}".strip())
    for threat, table in tables.items():
        parts = [o for key, o in found.outcomes.items() if key[1] in ("", threat)]
        found.outcomes[("worst", threat)] = worst_of(parts)
        found.n_unattackable[threat] = sum(not row for row in table)
    found.n_embedded, found.n_asked = judge.model.n_embedded, judge.model.n_asked
    return found


class _Judge:
    """The judged model with the clean gallery, filling an `Evaluation`."""

    def __init__(
        self,
        encoder: DualEncoder,
        pairs: ImageTextPairs,
        against: Against,
        quantise_8bit: bool,
        n_shown: int,
    ) -> None:
        if against not in ("adversarial", "clean"):
            raise ValueError(f"gallery must be 'adversarial' or 'clean'; got {against!r}")
        self.gallery = Gallery(pairs.pixels(), pairs.captions, pairs.relevance(), pairs.image_of)
        self.model = CachedText(encoder)
        self.found = Evaluation()
        self._against, self._quantise, self._n_shown = against, quantise_8bit, n_shown
        self._image = embed_images(self.model, self.gallery.pixels)
        self._text = embed_texts(self.model, self.gallery.captions)

    def record(self, key: Key, pixels: Tensor | None, captions: list[str] | None) -> None:
        """Rank all queries; None stands for what was not attacked."""
        image, text, relevant = self._image, self._text, self.gallery.relevant
        if pixels is not None:
            pixels = (pixels * 255).round() / 255 if self._quantise else pixels
            image = embed_images(self.model, pixels.to(self.model.device))
            self.found.shown[key] = pixels[: self._n_shown].clone()
        if captions is not None:
            text = embed_texts(self.model, captions)
            self.found.captions[key] = captions
        outcomes = retrieve(image, text, relevant)
        if self._against == "clean":
            outcomes = Outcomes(
                retrieve(image, self._text, relevant).tr_rank,
                retrieve(self._image, text, relevant).ir_rank,
            )
        self.found.outcomes[key] = outcomes


def strength_curve(
    encoder: DualEncoder,
    pairs: ImageTextPairs,
    image: PGD,
    eps_255: tuple[float, ...],
    *,
    seed: int,
) -> dict[float, Outcomes]:
    """Outcomes under PGD for several budgets, with the step scaled to each."""
    gallery = Gallery(pairs.pixels(), pairs.captions, pairs.relevance(), pairs.image_of)
    model = CachedText(encoder)
    text = embed_texts(model, gallery.captions)
    found = {}
    for eps in eps_255:
        attack = PGD(eps, image.n_steps, start=image.start)
        moved = pgd(model, gallery, attack, generator=torch.Generator().manual_seed(seed))
        found[eps] = retrieve(embed_images(model, moved), text, gallery.relevant)
    return found
