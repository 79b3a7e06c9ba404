"""What an attack ascends: a score per image or per candidate caption, from embeddings only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

ImageObjective = Callable[[Tensor], Tensor]
"""(B, D) unit image embeddings of the current batch -> (B,) score to ascend.

The score of an image must depend on that image alone: attacks ascend the sum over the batch
and keep the best point per image. `symmetric_contrastive` is the exception, see there. An
objective belongs to the images it was built for; for a part of a data set, build another one
from the rows of its mask (see `matlib.attacks.ascent.attack_in_chunks`).
"""


def away_from_captions(text: Tensor, mask: Tensor) -> ImageObjective:
    """Negative similarity to all captions of the own image (SGA, image step).

    Args:
        text: (M, D) unit caption embeddings.
        mask: bool (B, M), the captions of each image of the batch.
    """
    weight = mask.to(text.dtype)  # (B, M)

    def score(image: Tensor) -> Tensor:
        return -((image @ text.T) * weight).sum(1)  # (B, M) -> (B,)

    return score


def contrastive(text: Tensor, mask: Tensor, scale: Tensor | float) -> ImageObjective:
    """Image-to-text cross-entropy, any number of true captions per image, in margin form.

    m = log sum over the false captions of exp(s) - log sum over the true ones of exp(s).
    The cross-entropy is log(1 + exp(m)): it rises exactly when m rises, so sign-gradient
    steps are the same; but where the model is confident its gradient underflows (at scale
    100 a cosine gap of 0.9 leaves exp(-90)), and an attack would stand still. For one true
    caption this is TeCoA's inner loss; for several it can only be raised by pushing all of
    them below a false one, which is what TR@1 counts. An image of which every caption is true
    has nothing false to move towards: it only moves away from the true ones.

    Args:
        text: (M, D) unit embeddings of the gallery's captions.
        mask: bool (B, M), True where the caption is true of the image.
        scale: the model's logit scale.
    """
    hidden = hidden_in_margin(mask)

    def score(image: Tensor) -> Tensor:
        return margin(scale * image @ text.T, hidden)

    return score


def hidden_in_margin(mask: Tensor) -> Tensor:
    """What `margin` leaves out, in one table: known before a loop, so that no step asks for it.

    Args:
        mask: bool (B, M), True where true.

    Returns:
        bool (B, 2 * M + 1): what the sum over the true leaves out, what that over the false does,
        and whether there is none to sum over. Rows without a false logit leave out nothing: the
        gradient of all minus infinity is NaN.
    """
    all_true = mask.all(1, keepdim=True)  # (B, 1)
    return torch.cat([~mask, mask & ~all_true, all_true], 1)


def margin(logits: Tensor, hidden: Tensor) -> Tensor:
    """Log-sum-exp of the false minus that of the true logits; of the true alone if none is false.

    Args:
        logits: (B, M).
        hidden: bool (B, 2 * M + 1), of `hidden_in_margin`.

    Returns:
        (B,).
    """
    m = logits.shape[1]
    true = logits.masked_fill(hidden[:, :m], -torch.inf).logsumexp(1)  # (B,)
    false = logits.masked_fill(hidden[:, m : 2 * m], -torch.inf).logsumexp(1)
    return false.masked_fill(hidden[:, -1], 0) - true


def symmetric_contrastive(
    text: Tensor,
    scale: Tensor | float,
    *,
    gather: Callable[[Tensor], Tensor] | None = None,
    own: slice = slice(None),
) -> ImageObjective:
    """Both halves of CLIP's loss for aligned pairs (image i, caption i) of one batch.

    This is the loss that MAT and image-only adversarial training descend in the weights.
    Its caption-to-image half sets caption i against *all* images of the batch, so the score
    of image i also depends on the others: the ascent of the sum is exact, but a best point
    per image (`PGD(n_restarts=...)`, `APGD`) was scored among the points the others had then.

    A batch that is split over processes is ascended as one: then B images are this process's
    of G in all, and `text` holds the captions of all of them.

    Args:
        text: (G, D) unit caption embeddings.
        scale: the model's logit scale.
        gather: (B, D) -> (G, D), the images of all processes at this step, those of the others
            as constants. Every process calls it equally often.
        own: where this process's images lie among all.
    """
    n, scaled = len(text), scale * text.T  # (D, G)
    target = torch.arange(n, device=text.device).repeat(2)  # (2 G,)

    def score(image: Tensor) -> Tensor:
        every = image if gather is None else gather(image)
        logits = every @ scaled  # (G, G)
        both = torch.cat([logits, logits.T])  # (2 G, G): to the texts, to the images
        loss = F.cross_entropy(both, target, reduction="none").view(2, n).mean(0)  # (G,)
        if gather is None:
            return loss
        # The others' captions are set against own images too: their slope belongs to the ascent
        # of the sum, their value does not belong to the score of an own image.
        rest = loss.sum() - loss[own].sum()
        return loss[own] + (rest - rest.detach()) / len(image)

    return score


def squared_distance(clean: Tensor) -> ImageObjective:
    """Squared Euclidean distance to the image's own clean embedding (FARE, inner loss).

    FARE takes it between embeddings before normalisation; training does so by handing over
    an encoder that does not normalise. Encoders as a rule return unit vectors, for which
    |v' - v|^2 = 1 + 1 - 2 <v', v> = 2 - 2 cos: the direction is attacked, and a change of
    length, which no retrieval sees, is not.

    The gradient at the clean image is zero (the minimum): use a random start.

    Args:
        clean: (B, D) unit embeddings of the clean images, of the attacked or of another model
            (FARE: of the model before fine-tuning).
    """

    def score(image: Tensor) -> Tensor:
        return (image - clean).square().sum(1)  # (B, D) -> (B,)

    return score


def kl_from_image(clean: Tensor) -> ImageObjective:
    """KL(p(v) || p(v')) to the image's own clean embedding (Co-Attack's code, image alone).

    p is the softmax over the D coordinates of a unit vector, not over classes; its only
    justification is that the field's baselines use it. The code averages over the batch, here
    each image has its own: signs and directions of length 1 are the same.

    The gradient at the clean image is zero (the minimum): use a random start.

    Args:
        clean: (B, D) unit embeddings v of the clean images.
    """
    reference = F.log_softmax(clean, dim=1)
    weight = reference.exp()

    def score(image: Tensor) -> Tensor:
        return (weight * (reference - F.log_softmax(image, dim=1))).sum(1)  # (B, D) -> (B,)

    return score


def kl_from_image_and_captions(
    clean: Tensor,
    text: Tensor,
    mask: Tensor,
    *,
    alpha: float = 3.0,
    captions: Literal["mean", "sum"] = "mean",
) -> ImageObjective:
    """KL(p(v) || p(v')) + alpha * KL(p(t') || p(v')) (Co-Attack's code for CLIP, alpha 3).

    Co-Attack attacks an image once per caption, so it never meets several at once. For C
    captions `mean` keeps the balance of 1 to alpha whatever C is, and equals it for one;
    `sum` weighs the captions by 1 to C * alpha (1 to 15 for five). The convention of the
    code, once per caption with the last attack kept, is this objective with a mask of the
    last caption.

    Args:
        clean: (B, D) unit embeddings v of the clean images.
        text: (M, D) unit embeddings t' of the (adversarial) captions.
        mask: bool (B, M), the captions of each image of the batch, one or more.
        alpha: weight of the captions.
        captions: how the divergences of several captions are put together.

    Raises:
        ValueError: `captions` is neither; an image without captions; alpha negative.
    """
    if not alpha >= 0:
        raise ValueError(f"alpha must be 0 or more; got {alpha}")
    weight = _caption_weight(mask, captions).to(text.dtype)
    from_image = kl_from_image(clean)
    # sum_c w_c KL(p_c || q) = sum_c w_c <p_c, log p_c> - <sum_c w_c p_c, log q>: both sums
    # over captions are made once, a step costs (B, D) whatever M is.
    log_p = F.log_softmax(text, dim=1)  # (M, D)
    constant = weight @ (log_p.exp() * log_p).sum(1)  # (B, M) @ (M,) -> (B,)
    target = weight @ log_p.exp()  # (B, M) @ (M, D) -> (B, D)

    def score(image: Tensor) -> Tensor:
        from_captions = constant - (target * F.log_softmax(image, dim=1)).sum(1)
        return from_image(image) + alpha * from_captions

    return score


def _caption_weight(mask: Tensor, captions: str) -> Tensor:
    """bool (B, M) -> float64 (B, M): 1 for each own caption, or rows that sum to 1."""
    if captions not in ("mean", "sum"):
        raise ValueError(f"captions must be 'mean' or 'sum'; got {captions!r}")
    if not bool(mask.any(1).all()):
        raise ValueError("every image needs at least one caption; a row of mask has none")
    weight = mask.double()
    return weight / weight.sum(1, keepdim=True) if captions == "mean" else weight


TextObjective = Callable[[Tensor, Tensor], Tensor]
"""(R, D) unit caption embeddings and int64 (R,) caption index -> (R,) score to ascend."""


def kl_from(clean: Tensor) -> TextObjective:
    """KL(p(clean) || p(edited)), p the softmax over embedding dimensions (Co-Attack's code).

    The softmax runs over the D coordinates of a unit vector, not over classes; its only
    justification is that the field's baselines use it.

    Args:
        clean: (M, D) unit embeddings of the unedited captions.
    """
    reference = F.log_softmax(clean, dim=1)

    def score(text: Tensor, caption: Tensor) -> Tensor:
        own = reference[caption]  # (R, D)
        return (own.exp() * (own - F.log_softmax(text, dim=1))).sum(1)

    return score


def squared_distance_from(clean: Tensor) -> TextObjective:
    """Squared distance to the original embedding (LEAF).

    LEAF measures it between embeddings that are not normalised. Between the unit vectors that a
    `DualEncoder` gives it is 2 - 2 cos, so it ranks edits as the cosine does.

    Args:
        clean: (M, D) unit embeddings of the unedited captions; of another model (the one
            before a defence was trained) where the defence's own training loss is wanted.
    """

    def score(text: Tensor, caption: Tensor) -> Tensor:
        return (text - clean[caption]).square().sum(1)  # (R, D) -> (R,)

    return score


def away_from_image(image: Tensor) -> TextObjective:
    """Negative similarity to the caption's own image (SGA, both text steps).

    Args:
        image: (M, D) unit embeddings, row m the image of caption m.
    """

    def score(text: Tensor, caption: Tensor) -> Tensor:
        return -(text * image[caption]).sum(1)  # (R, D) -> (R,)

    return score


def caption_contrastive(image: Tensor, mask: Tensor, scale: Tensor | float) -> TextObjective:
    """Caption-to-image cross-entropy against a gallery of images, in `contrastive`'s margin form.

    Args:
        image: (N, D) unit embeddings of the gallery.
        mask: bool (M, N), True where image n is an answer to caption m.
        scale: the model's logit scale.
    """
    hidden = hidden_in_margin(mask)

    def score(text: Tensor, caption: Tensor) -> Tensor:
        logits = scale * text @ image.T  # (R, N)
        return margin(logits, hidden[caption])  # (R,)

    return score


def contrastive_of_pairs(image: Tensor, scale: Tensor | float, first: int = 0) -> TextObjective:
    """`caption_contrastive` where image `first` + m alone is an answer to caption m.

    Args:
        image: (G, D) unit embeddings.
        scale: the model's logit scale.
        first: the image of caption 0.

    Raises:
        ValueError: one image, which leaves nothing false to move towards.
    """
    if len(image) < 2:
        raise ValueError(f"expected at least 2 images to tell apart; got {len(image)}")

    def score(text: Tensor, caption: Tensor) -> Tensor:
        logits = scale * text @ image.T  # (R, G)
        own = (caption + first)[:, None]  # (R, 1)
        false = logits.scatter(1, own, -torch.inf).logsumexp(1)  # (R,)
        return false - logits.gather(1, own).squeeze(1)

    return score
