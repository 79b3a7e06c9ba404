"""Judging one model: every attack of the suite, each in its own fully adversarial gallery."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from matlib.attacks.image import PGD, ScaleViews
from matlib.attacks.multimodal import Gallery, contrastive_attack, embed_images, pgd, sga
from matlib.attacks.text import CandidateTable, WordSubstitution, embed_texts
from matlib.data.pairs import ImageTextPairs
from matlib.evaluation.retrieval import Outcomes, retrieve, worst_of
from matlib.models.cached import CachedText
from matlib.models.dual_encoder import DualEncoder

Key = tuple[str, str]
"""(attack, text threat); the threat is "" where no text is attacked."""


@dataclass(frozen=True)
class Suite:
    """The attacks and their budgets.

    Rows: `clean`, `pgd` (image alone), and per text threat `bert` (text alone), `sep` (both,
    independently), `sga`, `joint` (contrastive loss on both sides with an exhaustive text
    search: the loss that contrastive defences train on), `worst` (per query the minimum over
    pgd, bert, sep, sga and joint: a pessimistic bound).

    Attributes:
        image: budget of the image attack.
        text: budget of the text attack.
        views: SGA's scales.
        attacks: rows to compute; `worst` is the minimum over those that attack.
        n_shown: images whose adversarial pixels are kept for figures.
    """

    image: PGD
    text: WordSubstitution = field(default_factory=WordSubstitution)
    views: ScaleViews = field(default_factory=ScaleViews)
    attacks: tuple[str, ...] = ("clean", "pgd", "bert", "sep", "sga", "joint")
    n_shown: int = 12

    def rows(self, threats: Iterable[str]) -> list[Key]:
        """(attack, threat) of every attack to be run; `worst` follows from them."""
        alone = [(attack, "") for attack in ("clean", "pgd") if attack in self.attacks]
        return alone + [
            (attack, threat)
            for threat in threats
            for attack in ("bert", "sep", "sga", "joint")
            if attack in self.attacks
        ]


@dataclass
class Evaluation:
    """What the suite found.

    Attributes:
        outcomes: per (attack, threat) the rank of every query.
        captions: per (attack, threat) the adversarial captions.
        shown: per (attack, threat) float (n_shown, 3, H, W), the first adversarial images.
        n_embedded: sentences embedded, of which `n_asked` were asked for.
    """

    outcomes: dict[Key, Outcomes] = field(default_factory=dict)
    captions: dict[Key, list[str]] = field(default_factory=dict)
    shown: dict[Key, Tensor] = field(default_factory=dict)
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
) -> Evaluation:
    """Run the suite on one model.

    Args:
        pairs: the gallery: N images with all their captions.
        tables: per text threat, the allowed edits of every caption.
        seed: of the image attacks' starts; each attack has a generator of its own, so adding
            an attack changes no other.
        on_attack: called with the name of each attack when it is done.
    """
    gallery = Gallery(pairs.pixels(), pairs.captions, pairs.relevance(), pairs.image_of)
    model = CachedText(encoder)
    found = Evaluation()
    clean = embed_images(model, gallery.pixels), embed_texts(model, gallery.captions)
    moved: Tensor | None = None
    for attack, threat in suite.rows(tables):
        table = tables[threat] if threat else []
        generator = torch.Generator().manual_seed(seed)
        pixels, captions = None, None
        if attack in ("pgd", "sep"):  # Sep-Attack is exactly PGD and BERT-Attack side by side
            if moved is None:
                moved = pgd(model, gallery, suite.image, generator=generator)
            pixels = moved
        if attack in ("bert", "sep"):
            captions = suite.text(model, gallery.captions, table)
        if attack in ("sga", "joint"):
            pixels, captions = _both(attack, model, gallery, table, suite, generator)
        _record(found, (attack, threat), model, gallery, clean, pixels, captions, suite.n_shown)
        if on_attack is not None:
            on_attack(f"{attack} {threat}".strip())
    for threat in tables:
        parts = [o for key, o in found.outcomes.items() if key[1] in ("", threat)]
        found.outcomes[("worst", threat)] = worst_of(parts)
    found.n_embedded, found.n_asked = model.n_embedded, model.n_asked
    return found


def _both(
    attack: str,
    model: CachedText,
    gallery: Gallery,
    table: CandidateTable,
    suite: Suite,
    generator: torch.Generator,
) -> tuple[Tensor, list[str]]:
    budget = (suite.image, suite.text)
    if attack == "sga":
        return sga(model, gallery, table, *budget, generator=generator, views=suite.views)
    return contrastive_attack(model, gallery, table, *budget, generator=generator)


def _record(
    found: Evaluation,
    key: Key,
    model: CachedText,
    gallery: Gallery,
    clean: tuple[Tensor, Tensor],
    pixels: Tensor | None,
    captions: list[str] | None,
    n_shown: int,
) -> None:
    image = clean[0] if pixels is None else embed_images(model, pixels)
    text = clean[1] if captions is None else embed_texts(model, captions)
    found.outcomes[key] = retrieve(image, text, gallery.relevant)
    if pixels is not None:
        found.shown[key] = pixels[:n_shown].clone()
    if captions is not None:
        found.captions[key] = captions


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
