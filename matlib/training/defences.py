"""The defences by name: what is attacked in training, with what loss, which tower learns."""

from __future__ import annotations

from matlib.training.defence import Defence
from matlib.training.families import Contrastive, Guided, PairWeights, ReferenceDistance

__all__ = [
    "DEFENCES", "Contrastive", "Defence", "Guided", "PairWeights", "ReferenceDistance", "defence",
]  # fmt: skip

_AT = "Madry et al. 2018 on CLIP's loss"
_BERT_AT = "BERT-Attack (Li et al. 2020) in training"
_MAT = "MAT (Waseda et al., arXiv 2405.18770)"

# Everywhere ours: classes are the captions of the batch, where TeCoA, PMG-AFT and MMCoA have
# prompts made of class names; and the budgets of the attacks are the same for all.
# What is ours in MAT: the order of the attacks, and that words ascend the contrastive loss
# against the images of the batch (BERT-Attack alone ascends KL from the clean caption). The
# paper's: both inputs attacked, both towers learn, the loss is on attacked pairs.
DEFENCES: dict[str, Defence] = {
    d.name: d
    for d in (
        Contrastive("clean", "fine-tuning without attack (control)"),
        Contrastive("image-at", _AT, "symmetric"),
        Contrastive("image-at-tower", _AT, "symmetric", towers=("image",)),
        Contrastive("text-at", _BERT_AT, None, "contrastive"),
        Contrastive(
            "tecoa", "TeCoA (Mao et al. 2023)", "image_to_text",
            towers=("image",), direction="image_to_text",
        ),
        ReferenceDistance(
            "fare", "FARE (Schlarmann et al. 2024)", "reference_distance", towers=("image",)
        ),
        Guided("pmg-aft", "PMG-AFT (Wang et al. 2024)", "image_to_text", towers=("image",)),
        # The released update also holds the gradients that ten PGD steps leave in the weights'
        # .grad: eleven backward passes for one. Here attacks leave no gradient. The code sums
        # the halves with lambda 0.5: 0.5 (CE + CE') is once the mean of both halves, so each
        # pair weighs 1. The scale learns, as it does for every defence of both towers (ours).
        Contrastive(
            "mmcoa", "MMCoA (Zhou et al. 2024)", "image_to_text", "unimodal",
            order="independent",
            pairs=PairWeights(adv_adv=0, adv_image_clean_text=1, clean_image_adv_text=1),
        ),
        ReferenceDistance(
            "leaf", "LEAF (Abad Rocamora et al. 2025)", None, "characters", towers=("text",)
        ),
        ReferenceDistance(
            "fare+leaf", "FARE and LEAF", "reference_distance", "characters",
            towers=("image", "text"), order="independent",
        ),
        Contrastive("image-at+random", "control: words at random", "symmetric", "random"),
        Contrastive("clean+random", "control: words at random", None, "random"),
        Contrastive("mat", _MAT, "symmetric", "contrastive"),
        # the same defences; the study gives them candidates that keep captions true
        Contrastive("mat-valid", _MAT, "symmetric", "contrastive"),
        Contrastive("text-at-valid", _BERT_AT, None, "contrastive"),
        Contrastive(
            "mat+", "MAT+ (arXiv 2405.18770)", "symmetric", "contrastive", uses_one_to_many=True
        ),
    )
}  # fmt: skip


def defence(name: str) -> Defence:
    """The defence of that name.

    Raises:
        ValueError: unknown name.
    """
    if name not in DEFENCES:
        raise ValueError(f"unknown defence {name!r}; known: {', '.join(DEFENCES)}")
    return DEFENCES[name]
