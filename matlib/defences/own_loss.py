"""The defence's own training loss as a judge: what it was trained against, with an attacker's
budget and the whole gallery."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from matlib.attacks.ascent import AttackReport, ImageAttack, attack_in_chunks
from matlib.attacks.edits import CandidateTable
from matlib.attacks.gallery import Gallery, embed_images, prepared
from matlib.attacks.multimodal import pgd_attack
from matlib.attacks.objectives import caption_contrastive, squared_distance, squared_distance_from
from matlib.attacks.scoring import images_per_forward
from matlib.attacks.word_substitution import WordSubstitution
from matlib.choices import Choices
from matlib.defences.defence import Defence
from matlib.defences.reference import Unnormalised, reference_image, reference_text
from matlib.models.dual_encoder import CachedText, DualEncoder


@dataclass(frozen=True)
class OwnLossAttack:
    """Ascends the distances that a defence was trained to keep small (FARE, LEAF).

    What the defence trained on is attacked through its own loss; the other modality through
    the contrastive loss, so that both are attacked as the threat model allows. Character
    defences meet the edits of the threat's table: the budget is the judge's, not theirs.

    Attributes:
        how: the judged defence.
        reference: the model before fine-tuning, to which distances are taken.
    """

    how: Defence
    reference: DualEncoder

    def __call__(
        self,
        encoder: DualEncoder,
        gallery: Gallery,
        candidates: CandidateTable,
        image: ImageAttack,
        text: WordSubstitution,
        generator: torch.Generator,
        report: AttackReport,
    ) -> tuple[Tensor, list[str]]:
        """Adversarial images and captions of the gallery.

        Args:
            candidates: the allowed edits of every caption.
            image, text: the judge's budgets.
        """
        # distances are of features, which the memory of unit embeddings does not hold
        encoder = encoder.encoder if isinstance(encoder, CachedText) else encoder
        if self.how.image == "reference_distance":
            moved = self._far_images(encoder, gallery, image, generator, report)
        else:
            moved = pgd_attack(encoder, gallery, image, generator=generator, report=report)
        every = replace(text, search="exhaustive", max_kept=0)  # one pass: nothing is met twice
        captions = list(gallery.captions)
        if self.how.text == "characters":
            target = reference_text(self.reference, captions)
            measured = Unnormalised(encoder)
            away = prepared(measured, gallery, candidates, every, report)
            return moved, away(squared_distance_from(target))
        relevant = gallery.relevant.T.to(encoder.device)
        found = embed_images(encoder, moved, gallery.chunk)
        wrong = caption_contrastive(found, relevant, encoder.logit_scale.detach())
        return moved, prepared(encoder, gallery, candidates, every, report)(wrong)

    def _far_images(
        self,
        encoder: DualEncoder,
        gallery: Gallery,
        image: ImageAttack,
        generator: torch.Generator,
        report: AttackReport,
    ) -> Tensor:
        size = gallery.chunk or images_per_forward(gallery.pixels, device=encoder.device)
        parts = gallery.pixels.split(size)
        target = torch.cat([reference_image(self.reference, part) for part in parts])
        return attack_in_chunks(
            image,
            Unnormalised(encoder),
            gallery.pixels,
            lambda rows: squared_distance(target[rows]),
            generator=generator,
            report=report,
            chunk=gallery.chunk,
        )


OWN_ATTACKS: Choices[type[OwnLossAttack]] = Choices({"reference-distance": OwnLossAttack})
"""By the family of the defence's loss; the others' loss is ascended by a row of the suite."""


def own_attack(how: Defence, reference: DualEncoder | None) -> OwnLossAttack | None:
    """The attack of a defence's own loss; None where a row of the suite has it already.

    Contrastive training is ascended by `pgd`, `bert` and `joint`, PMG-AFT's inner attack by
    `pgd`.

    Raises:
        ValueError: a defence by distances without its reference.
    """
    if how.kind not in OWN_ATTACKS:
        return None
    if reference is None:
        raise ValueError(f"{how.name} is measured from the model before fine-tuning: pass it")
    return OWN_ATTACKS[how.kind](how, reference)
