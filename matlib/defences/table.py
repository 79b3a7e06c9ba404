"""The defences by name: what is attacked in training, with what loss, which tower learns."""

from __future__ import annotations

from matlib.choices import Choices
from matlib.defences.defence import (
    Contrastive,
    Defence,
    Guided,
    Neighbours,
    PairWeights,
    ReferenceDistance,
)

_AT = "Madry et al. 2018 on CLIP's loss"
_BERT_AT = "BERT-Attack (Li et al. 2020) in training"
_MAT = "MAT (Waseda et al., arXiv 2405.18770)"

# MMCoA: the released update also holds the gradients that ten PGD steps leave in the weights'
# .grad: eleven backward passes for one. Here attacks leave no gradient. The code sums
# the halves with lambda 0.5: 0.5 (CE + CE') is once the mean of both halves, so each
# pair weighs 1. The scale learns, as it does for every defence of both towers (ours).
# Its pairs are images with prompts of 100 classes: two of one class in a batch of 256
# count as negatives of each other; here each pair has a caption of its own. Its entry
# point cannot run as released (the path of the configuration is used as if it were
# read; `args.resume` is undefined), so this follows the text of its training step.
_CROSSED = PairWeights(adv_adv=0, adv_image_clean_text=1, clean_image_adv_text=1)

# Everywhere ours: classes are the captions of the batch, where TeCoA, PMG-AFT and MMCoA have
# prompts made of class names; and the budgets of the attacks are the same for all.
# Ours too: one optimiser for all, AdamW (`make_optimiser`) at a rate tuned for each defence
# (published/calibration.csv), the same pairs and steps. The released codes have:
#   TeCoA    SGD, rate 1e-7 by default, momentum 0.9, no decay, warm-up of 1,000 steps, 10 epochs
#            of ImageNet, batch 256, mixed precision
#   FARE     AdamW, rate 1e-5, decay 1e-4, warm-up of 1,400 steps (14,000 by default), 20,000
#            steps of ImageNet, batch 128
#   PMG-AFT  SGD, rate 5e-5, momentum 0.9, 10 epochs of TinyImageNet, batch 256
#   MMCoA    Adam, rate 1e-6, betas 0.9 and 0.98, decay 0.2, 30 epochs of CIFAR-100, batch 256
#   LEAF     AdamW, rate 1e-5, decay 1e-4, warm-up of 1,400 steps, 30 epochs of 80,000 pairs of
#            DataComp, batch 128
# What is ours in MAT: the order of the attacks, and that words ascend the contrastive loss
# against the images of the batch (BERT-Attack alone ascends KL from the clean caption). The
# paper's: both inputs attacked, both towers learn, the loss is on attacked pairs.
# Text-only training (`text-at`) chooses BERT-Attack's words by that contrastive loss too, not
# by its KL, so that it meets the words that MAT meets and differs in the image attack alone.
DEFENCES: Choices[Defence] = Choices.named(
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
    Contrastive(
        "mmcoa", "MMCoA (Zhou et al. 2024)", "image_to_text", "unimodal",
        order="independent", pairs=_CROSSED,
    ),
    ReferenceDistance(
        "leaf", "LEAF (Abad Rocamora et al. 2025)", None, "characters", towers=("text",)
    ),
    ReferenceDistance(
        "fare+leaf", "FARE and LEAF", "reference_distance", "characters",
        towers=("image", "text"), order="independent",
    ),
    # AdvFLYP: a million pairs of LAION, SGD-like schedule, 2 steps at eps 1/255, rate 1e-4
    Guided(
        "advflyp", "AdvFLYP (arXiv 2604.11576)", "symmetric", towers=("image",),
        feature_weight=1.0, direction="symmetric",
    ),
    # MAVA: COCO with five captions per image, SGD, rate 1e-3, 10 steps of 1/255 at eps 4/255
    Neighbours("mava", "MAVA (ICLR 2025 workshop)", "away_from_all", towers=("image",)),
    Contrastive("image-at+random", "control: words at random", "symmetric", "random"),
    Contrastive("clean+random", "control: words at random", None, "random"),
    Contrastive("mat", _MAT, "symmetric", "contrastive"),
    # LEAF changes characters, which no table of true words holds: its loss on words in their place
    ReferenceDistance(
        "fare+leaf-valid", "FARE and LEAF's loss on words", "reference_distance",
        "reference_words", towers=("image", "text"), order="independent",
    ),
    Contrastive(
        "mat+", "MAT+ (arXiv 2405.18770)", "symmetric", "contrastive", uses_one_to_many=True
    ),
    # the image ascends against all captions of its pair at once
    Contrastive(
        "mat+set", "MAT+ with SAFT's set-level attack (arXiv 2602.12461)", "caption_set",
        "contrastive", uses_one_to_many=True,
    ),
    what="defence",
)  # fmt: skip


def defence(name: str) -> Defence:
    """The defence of that name.

    Raises:
        ValueError: unknown name.
    """
    return DEFENCES.choose(name)
