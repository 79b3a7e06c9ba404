"""The families of defences, by what the weights descend."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from matlib.models.dual_encoder import DualEncoder, frozen
from matlib.training.batch import Batch
from matlib.training.defence import Defence
from matlib.training.inner import measured
from matlib.training.losses import LossDirection, contrastive_loss, distance_loss, divergence_loss
from matlib.training.processes import ONE_PROCESS, Processes
from matlib.training.reference import given_reference, reference_image, reference_text


@dataclass(frozen=True)
class PairWeights:
    """How much each combination of attacked and clean inputs weighs; the losses are summed.

    The default trains on attacked pairs alone (MAT, source: paper). Where an input is not
    attacked, its two versions are one.

    Attributes:
        adv_adv: attacked image with attacked caption.
        adv_image_clean_text, clean_image_adv_text: one attacked, the other clean (MMCoA).
        clean_clean: the clean loss.
    """

    adv_adv: float = 1.0
    adv_image_clean_text: float = 0.0
    clean_image_adv_text: float = 0.0
    clean_clean: float = 0.0

    def __post_init__(self) -> None:
        weights = self.by_versions().values()
        if not (all(0 <= w < float("inf") for w in weights) and any(weights)):
            raise ValueError(f"expected weights of 0 and more, not all 0; got {self}")

    def by_versions(self) -> dict[tuple[bool, bool], float]:
        """(image is attacked, caption is attacked) -> weight."""
        return {
            (True, True): self.adv_adv,
            (True, False): self.adv_image_clean_text,
            (False, True): self.clean_image_adv_text,
            (False, False): self.clean_clean,
        }


@dataclass(frozen=True)
class Contrastive(Defence):
    """CLIP's loss, or TeCoA's half of it, on attacked pairs.

    TeCoA's released code multiplies the cosines by CLIP's own scale, which does not learn, for
    the image tower alone does (FARE's repository writes 100 in its place). Here the scale is the
    model's own too, and stays where `towers` has no `scale`.

    Attributes:
        pairs: which versions are paired, with what weight.
        direction: `symmetric` (both halves of CLIP's loss) or `image_to_text` (TeCoA).
    """

    pairs: PairWeights = PairWeights()
    direction: LossDirection = "symmetric"
    kind: str = field(default="contrastive", init=False)

    def loss(
        self,
        encoder: DualEncoder,
        clean: Batch,
        attacked: Batch,
        reference: DualEncoder | None = None,
        processes: Processes = ONE_PROCESS,
    ) -> Tensor:
        weights: dict[tuple[bool, bool], float] = {}
        for (image, text), weight in self.pairs.by_versions().items():
            versions = image and self.attacks_image, text and self.attacks_text
            weights[versions] = weights.get(versions, 0.0) + weight
        used = {versions: weight for versions, weight in weights.items() if weight > 0}
        batches = {False: clean, True: attacked}
        images = {
            v: self._images(encoder, batches[v].pixels, processes)
            for v in sorted({image for image, _ in used})
        }
        texts = {
            v: self._texts(encoder, batches[v].captions, processes)
            for v in sorted({text for _, text in used})
        }
        scale = self._scale(encoder)
        return torch.stack(
            [
                weight * contrastive_loss(images[i], texts[t], scale, self.direction)
                for (i, t), weight in used.items()
            ]
        ).sum()


@dataclass(frozen=True)
class ReferenceDistance(Defence):
    """Squared distance of what is attacked to the reference's embedding of the clean input.

    Between embeddings before normalisation (FARE, LEAF). With both inputs attacked the two
    losses are added; each has one tower of its own, so this equals FARE and LEAF trained side
    by side, but for the clipping of their common gradient.

    FARE's released PGD puts zeros where a gradient is NaN and says nothing, which hides that an
    attack stands still. Here it stands still too; the judge's attacks count such images
    (`AttackReport`), those inside training do not, but a NaN in the weights' gradient ends it.
    """

    kind: str = field(default="reference-distance", init=False)

    def loss(
        self,
        encoder: DualEncoder,
        clean: Batch,
        attacked: Batch,
        reference: DualEncoder | None = None,
        processes: Processes = ONE_PROCESS,
    ) -> Tensor:
        model, parts = given_reference(reference), []
        if self.attacks_image:
            features = self._images(measured(self.image, encoder), attacked.pixels, processes)
            target = processes.gather_fixed(reference_image(model, clean.pixels))
            parts.append(distance_loss(features, target))
        if self.attacks_text:
            features = self._texts(measured(self.text, encoder), attacked.captions, processes)
            target = processes.gather_fixed(reference_text(model, clean.captions))
            parts.append(distance_loss(features, target))
        return torch.stack(parts).sum()


@dataclass(frozen=True)
class Guided(Defence):
    """PMG-AFT: TeCoA's loss, guided by the reference and by the model's own clean predictions.

    CE(p(x'), y) + w_r KL(p_ref(x') || p(x')) + w_c KL(p(x) || p(x')), p over the captions of
    the batch. The released code is corrected in four places:

    - It normalises the text features again after they were multiplied by the logit scale, so
      everything runs at temperature 1 on cosines. Then the largest possible probability among
      N classes is e / (e + (N - 1) / e): with N = 200, cosines of 1 and -1, that is 7.39 /
      (7.39 + 199) = 0.036, and no cross-entropy can fall below 3.3. Here the scale stays.
    - Its two divergences are summed over the batch beside a cross-entropy that is averaged:
      at 256 images weights of 1 act as weights of 256. Here all three are averaged.
    - Its targets carry a gradient. d KL(p || q) / d logits of p = p (log(p / q) - KL), which
      draws the clean predictions towards the attacked ones. Here targets are constants.
    - It normalises pixels with ImageNet's mean and standard deviation, where the weights expect
      CLIP's. Here the model normalises inside, with its own.

    Attributes:
        reference_weight, clean_weight: w_r and w_c (source: paper, 1 and 1).
    """

    reference_weight: float = 1.0
    clean_weight: float = 1.0
    kind: str = field(default="guided", init=False)

    @property
    def needs_reference(self) -> bool:
        """The predictions of the model before fine-tuning are a target."""
        return True

    def loss(
        self,
        encoder: DualEncoder,
        clean: Batch,
        attacked: Batch,
        reference: DualEncoder | None = None,
        processes: Processes = ONE_PROCESS,
    ) -> Tensor:
        model, scale = given_reference(reference), self._scale(encoder)
        text = self._texts(encoder, attacked.captions, processes)
        moved = self._images(encoder, attacked.pixels, processes)
        logits = scale * moved @ text.T
        with torch.no_grad():
            still = self._images(encoder, clean.pixels, processes)
            clean_logits = scale * still @ text.T
            with frozen(model):
                image = processes.gather_fixed(model.encode_image(attacked.pixels))
                classes = processes.gather_fixed(model.encode_text(attacked.captions))
                reference_logits = model.logit_scale * image @ classes.T
        return (
            contrastive_loss(moved, text, scale, "image_to_text")
            + self.reference_weight * divergence_loss(logits, reference_logits)
            + self.clean_weight * divergence_loss(logits, clean_logits)
        )
