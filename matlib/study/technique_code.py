"""Which modules make the variants of each technique: work on one leaves the others alone."""

from __future__ import annotations

from matlib.config import Run

AUGMENTATION_CODE = {
    "captions": ("matlib.augmentations.human",),
    "renderings": ("matlib.augmentations.human",),
    "captions+renderings": ("matlib.augmentations.human", "matlib.augmentations.image"),
    "randaugment": ("matlib.augmentations.image",),
    "similar-images": ("matlib.augmentations.similar", "matlib.augmentations.human"),
    "restated": ("matlib.augmentations.human",),
    "eda": ("matlib.augmentations.eda", "matlib.augmentations.thesaurus"),
    "characters": ("matlib.augmentations.characters",),
    "drop-swap": ("matlib.augmentations.text",),
    "rewritten": ("matlib.augmentations.scenes_rewriter",),
    "back-translated": ("matlib.augmentations.translation", "matlib.augmentations.generated"),
    "captioned": ("matlib.augmentations.captioning", "matlib.augmentations.small_captioner"),
    "crop-flip-jitter": ("matlib.augmentations.basic",),
    "augmix": ("matlib.augmentations.basic",),
    "restyled": ("matlib.augmentations.human",),
    "generated": ("matlib.augmentations.diffusion",),
    "mismatched": ("matlib.augmentations.text",),
    "dialled": ("matlib.augmentations.dialled",),
}
PRETRAINED_CODE = {
    "rewritten": ("matlib.augmentations.rewriting", "matlib.augmentations.generated"),
    "restyled": ("matlib.augmentations.diffusion",),
}
"""The same where a pretrained generator takes the place of the embedded world's stand-in."""
FILTER_CODE = ("matlib.augmentations.filtering",)
FILTERS = ("keep_aligned", "keep_diverse", "vendi")


def pairs_code(run: Run, dataset: str) -> tuple[str, ...]:
    """The modules that make a row's pairs.

    Args:
        dataset: `scenes`, or the name of real data.
    """
    own = AUGMENTATION_CODE.get(run.augmentation, ())
    if dataset != "scenes":
        own = PRETRAINED_CODE.get(run.augmentation, own)
    return (*own, *FILTER_CODE) if set(FILTERS) & set(run.options) else own
