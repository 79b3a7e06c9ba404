"""The families of defences: attacked inputs, learning towers, and a loss that the weights descend.

Losses are taken from the embeddings of the whole batch, over all processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from matlib.defences.batch import Batch
from matlib.defences.inner_attack import (
    BY_DISTANCE,
    BY_WORDS,
    AttackOrder,
    Candidates,
    ImageStep,
    InnerAttack,
    TextStep,
    as_measured,
    attack_pairs,
    family_features,
)
from matlib.defences.matching import matching_loss
from matlib.defences.processes import ONE_PROCESS, Processes
from matlib.defences.reference import given_reference, reference_image, reference_text
from matlib.models.dual_encoder import DualEncoder, FusionEncoder, as_fusion, frozen

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
        return self.text in BY_WORDS

    @property
    def needs_reference(self) -> bool:
        """Whether it needs a frozen copy of the model before fine-tuning."""
        distances = ("reference_distance", "away_from_all")
        return self.image in distances or self.text in BY_DISTANCE

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
        """Adversarial versions of what is attacked; see `inner_attack.attack_pairs`."""
        inner = self.budget(inner)
        return attack_pairs(
            self, encoder, batch, inner, candidates, generators, reference, processes
        )

    def budget(self, inner: InnerAttack) -> InnerAttack:
        """The inner attack as this defence uses it; what it is already stays as it is."""
        return inner

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


LossDirection = Literal["symmetric", "image_to_text"]


def contrastive_loss(
    image: Tensor, text: Tensor, scale: Tensor, direction: LossDirection = "symmetric"
) -> Tensor:
    """CLIP's loss, or its image-to-text half, over the batch.

    The whole equals `open_clip.loss.ClipLoss` on one process (a test compares them). That is not
    used because it has no half of its own, and because on several processes it gathers the
    embeddings itself, at every call and for both towers alike. Here a defence gathers each version
    of the inputs once, with a gradient only for towers that learn, and pairs them as it needs.

    Args:
        image, text: unit (G, D); row i of one belongs to row i of the other.
        scale: logit scale.
        direction: `symmetric`: the mean of both halves (Radford et al. 2021, figure 3);
            `image_to_text`: captions are the classes (TeCoA).

    Returns:
        scalar.
    """
    logits = scale * image @ text.T  # (G, G)
    target = torch.arange(len(logits), device=logits.device)
    to_text = F.cross_entropy(logits, target)  # ()
    if direction == "image_to_text":
        return to_text
    return (to_text + F.cross_entropy(logits.T, target)) / 2


def distance_loss(features: Tensor, target: Tensor) -> Tensor:
    """mean_i |f_i - t_i|^2: summed over dimensions, averaged over rows (FARE, LEAF).

    Args:
        features: (G, D), not normalised.
        target: (G, D); no gradient goes there.

    Returns:
        scalar.
    """
    return (features - target.detach()).square().sum(1).mean()  # (G, D) -> (G,) -> ()


def divergence_loss(logits: Tensor, target_logits: Tensor) -> Tensor:
    """mean_i KL(softmax(target_i) || softmax(logits_i)); no gradient goes to the target.

    Args:
        logits, target_logits: (G, C).

    Returns:
        scalar.
    """
    target = F.log_softmax(target_logits.detach(), dim=1)
    return F.kl_div(F.log_softmax(logits, dim=1), target, reduction="batchmean", log_target=True)


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
        matching: weight of the matching loss beside it, of models that have one (ALBEF, BLIP).
        direction: `symmetric` (both halves of CLIP's loss) or `image_to_text` (TeCoA).
    """

    pairs: PairWeights = PairWeights()
    direction: LossDirection = "symmetric"
    matching: float = 1.0
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
        scale, parts = self._scale(encoder), []
        reader = as_fusion(encoder) if self.matching else None
        for (i, t), weight in used.items():
            loss = contrastive_loss(images[i], texts[t], scale, self.direction)
            if reader is not None:
                first = processes.rank * len(batches[t].captions)
                own = slice(first, first + len(batches[t].captions))
                similarity = (scale * images[i][own] @ texts[t][own].T).detach()  # (B, B)
                seen = self._seen(reader, batches[i].pixels)
                match = matching_loss(reader, seen, batches[t].captions, similarity)
                loss = loss + self.matching * match
            parts.append(loss if weight == 1 else weight * loss)
        return parts[0] if len(parts) == 1 else torch.stack(parts).sum()

    def _seen(self, reader: FusionEncoder, pixels: Tensor) -> Tensor:
        with torch.set_grad_enabled(torch.is_grad_enabled() and "image" in self.towers):
            return reader.image_tokens(pixels)


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
            features = self._images(as_measured(self.image, encoder), attacked.pixels, processes)
            target = processes.gather_fixed(reference_image(model, clean.pixels))  # (G, D)
            parts.append(distance_loss(features, target))
        if self.attacks_text:
            features = self._texts(as_measured(self.text, encoder), attacked.captions, processes)
            target = processes.gather_fixed(reference_text(model, clean.captions))  # (G, D)
            parts.append(distance_loss(features, target))
        return torch.stack(parts).sum()


@dataclass(frozen=True)
class Guided(Defence):
    """PMG-AFT: TeCoA's loss, guided by the reference and by the model's own clean predictions.

    CE(p(x'), y) + w_r KL(p_ref(x') || p(x')) + w_c KL(p(x) || p(x')), p over the captions of
    the batch. AdvFLYP (arXiv 2604.11576) has both halves of CLIP's loss in place of the
    cross-entropy, and adds w_f (|v(x') - v_ref(x')| + |v(x') - v(x)|) between unit embeddings.
    PMG-AFT's released code is corrected in four places:

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
        feature_weight: w_f (AdvFLYP: 1; source: its code).
        direction: of the cross-entropy.
    """

    reference_weight: float = 1.0
    clean_weight: float = 1.0
    feature_weight: float = 0.0
    direction: LossDirection = "image_to_text"
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
        text = self._texts(encoder, attacked.captions, processes)  # (G, D)
        moved = self._images(encoder, attacked.pixels, processes)  # (G, D)
        logits = scale * moved @ text.T  # (G, G)
        with torch.no_grad():
            still = self._images(encoder, clean.pixels, processes)
            clean_logits = scale * still @ text.T  # (G, G)
            with frozen(model):
                image = processes.gather_fixed(model.encode_image(attacked.pixels))
                classes = processes.gather_fixed(model.encode_text(attacked.captions))
                reference_logits = model.logit_scale * image @ classes.T  # (G, G)
        loss = (
            contrastive_loss(moved, text, scale, self.direction)
            + self.reference_weight * divergence_loss(logits, reference_logits)
            + self.clean_weight * divergence_loss(logits, clean_logits)
        )
        if self.feature_weight:
            far = (moved - image).norm(dim=1) + (moved - still).norm(dim=1)
            loss = loss + self.feature_weight * far.mean()
        return loss


@dataclass(frozen=True)
class Neighbours(Defence):
    """MAVA: the mean of the last attacked images, held near the reference and the captions.

    w_a |v(x') - v_ref(x)|^2 + w_c |v(x) - v_ref(x)|^2 - w_t <v(x'), sum of the captions' t>,
    unit embeddings, averaged over images. x' is the mean of the attack's last iterates
    (`n_iterates`; a mean of points of the ball lies in it), so the attack inside training is to
    have more than one step. The captions are those of the image, embedded by the model before
    fine-tuning; the text tower stays.

    Read from the released code. There every image is repeated once per caption, which weighs the
    same; its loss against captions looks up rows of the repeated batch by the number of the
    image, so that most captions meet another image: here each meets its own.

    Attributes:
        attacked_weight, clean_weight, text_weight: w_a, w_c and w_t (source: code).
        n_iterates: the last of them that are averaged (source: code, 3 and the final one).
    """

    attacked_weight: float = 0.4
    clean_weight: float = 0.6
    text_weight: float = 0.002
    n_iterates: int = 4
    kind: str = field(default="neighbours", init=False)

    def budget(self, inner: InnerAttack) -> InnerAttack:
        """With the mean of the last iterates in place of the final one."""
        if inner.image.n_averaged == self.n_iterates:
            return inner
        return replace(inner, image=replace(inner.image, n_averaged=self.n_iterates))

    def loss(
        self,
        encoder: DualEncoder,
        clean: Batch,
        attacked: Batch,
        reference: DualEncoder | None = None,
        processes: Processes = ONE_PROCESS,
    ) -> Tensor:
        model = given_reference(reference)
        moved = self._images(encoder, attacked.pixels, processes)
        still = self._images(encoder, clean.pixels, processes)
        with torch.no_grad(), frozen(model):
            target = processes.gather_fixed(model.encode_image(clean.pixels))
            text, n = family_features(model, clean, clean.captions)
            text = processes.gather_fixed(n[:, None] * text)
        return (
            self.attacked_weight * distance_loss(moved, target)
            + self.clean_weight * distance_loss(still, target)
            - self.text_weight * (moved * text).sum(1).mean()
        )
