"""What every defence has: attacked inputs, learning towers, a loss over all processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from matlib.models.dual_encoder import DualEncoder
from matlib.training.attacked import attack_pairs
from matlib.training.batch import Batch
from matlib.training.inner import AttackOrder, Candidates, ImageStep, InnerAttack, TextStep
from matlib.training.processes import ONE_PROCESS, Processes

TOWERS = ("image", "text", "scale")


@dataclass(frozen=True)
class Defence:
    """One way of fine-tuning; subclasses say what the weights descend.

    Attributes:
        name: row name in every table.
        source: the publication.
        image: what the image step ascends; None: images stay clean.
        text: how captions are changed; None: they stay clean.
        towers: which parts learn: `image`, `text`, `scale`.
        order: whether the image step sees the changed captions, the text step the changed
            images, or each the clean other. Of use where both are attacked. Source: ours.
        uses_one_to_many: draws captions and renderings from the one-to-many relation.
        kind: the family of the loss.
    """

    name: str
    source: str
    image: ImageStep | None = None
    text: TextStep | None = None
    towers: tuple[str, ...] = TOWERS
    order: AttackOrder = "text_then_image"
    uses_one_to_many: bool = False
    kind: str = field(default="", init=False)

    def __post_init__(self) -> None:
        unknown = [tower for tower in self.towers if tower not in TOWERS]
        if unknown or not self.towers:
            raise ValueError(
                f"{self.name}: towers are some of {', '.join(TOWERS)}; got {self.towers}"
            )
        if self.order not in ("text_then_image", "image_then_text", "independent"):
            raise ValueError(f"{self.name}: unknown order of the attacks {self.order!r}")

    @property
    def attacks_image(self) -> bool:
        """Whether training needs the image step."""
        return self.image is not None

    @property
    def attacks_text(self) -> bool:
        """Whether training changes captions, be it by an attack or at random."""
        return self.text is not None

    @property
    def needs_candidates(self) -> bool:
        """Whether it takes word edits from a table."""
        return self.text in ("contrastive", "unimodal", "random")

    @property
    def needs_reference(self) -> bool:
        """Whether it needs a frozen copy of the model before fine-tuning."""
        return self.image == "reference_distance" or self.text == "characters"

    def attack(
        self,
        encoder: DualEncoder,
        batch: Batch,
        inner: InnerAttack,
        candidates: Candidates,
        generators: Sequence[torch.Generator],
        reference: DualEncoder | None = None,
        processes: Processes = ONE_PROCESS,
    ) -> Batch:
        """Adversarial versions of what is attacked; see `matlib.training.attacked.attack_pairs`."""
        return attack_pairs(
            self, encoder, batch, inner, candidates, generators, reference, processes
        )

    def loss(
        self,
        encoder: DualEncoder,
        clean: Batch,
        attacked: Batch,
        reference: DualEncoder | None = None,
        processes: Processes = ONE_PROCESS,
    ) -> Tensor:
        """What the weights descend: a scalar, the loss of the batch over all processes.

        Every process computes it from the features of all. Its gradient in own features is
        then the sum over processes of equal gradients, so that averaging the weights'
        gradients over processes gives those of one process. Only the towers in `towers` get a
        gradient.
        """
        raise NotImplementedError

    def _images(self, encoder: DualEncoder, pixels: Tensor, processes: Processes) -> Tensor:
        """(G, D) embeddings of the images of all processes."""
        learns = torch.is_grad_enabled() and "image" in self.towers
        with torch.set_grad_enabled(learns):
            own = encoder.encode_image(pixels)
        return processes.gather(own) if learns else processes.gather_fixed(own)

    def _texts(self, encoder: DualEncoder, captions: Sequence[str], processes: Processes) -> Tensor:
        """(G, D) embeddings of the captions of all processes."""
        learns = torch.is_grad_enabled() and "text" in self.towers
        with torch.set_grad_enabled(learns):
            own = encoder.encode_text(captions)
        return processes.gather(own) if learns else processes.gather_fixed(own)

    def _scale(self, encoder: DualEncoder) -> Tensor:
        scale = encoder.logit_scale
        return scale if "scale" in self.towers else scale.detach()
