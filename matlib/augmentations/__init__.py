"""One-to-many augmentation: pure functions of (pairs, generator) that give more pairs."""

TECHNIQUES: dict[str, str] = {
    "captions": "further true captions of each image, by people or by the world's grammar",
    "renderings": "further true images of each caption, drawn by the world's renderer",
    "captions+renderings": "both of the above",
    "similar-images": "images of nearly the same captions (N:1)",
    "restated": "the facts of the original in other sentences: nothing new is said",
    "eda": "one of four operations on words (EDA, Wei & Zou 2019)",
    "characters": "misspelt words: a control",
    "rewritten": "rewording by a language model that sees the caption only",
    "back-translated": "translation into another language and back",
    "captioned": "captions that a captioner writes for the image",
    "drop-swap": "words dropped and swapped at random (EDA, Wei & Zou 2019)",
    "randaugment": "two random image operations (RandAugment, Cubuk et al. 2020)",
    "crop-flip-jitter": "random crops, mirror images and colours (as in SimCLR)",
    "augmix": "chains of operations mixed with the original (AugMix, Hendrycks et al. 2020)",
    "restyled": "another palette, or image-to-image diffusion: stands for generated images",
    "generated": "images drawn from the caption by diffusion",
    "dialled": "set levels of alignment, diversity and shift: the controlled experiment",
    "captions+randaugment": "true captions, and RandAugment on the image",
    "mismatched": "captions of other images: the bad example",
}
"""What makes the variants of a `OneToMany`: technique -> one line for a reader of a table."""
