"""One-to-many augmentation: pure functions of (pairs, generator) that give more pairs."""

TECHNIQUES: dict[str, str] = {
    "captions": "further true captions of each image, by people or by the world's grammar",
    "renderings": "further true images of each caption, drawn by the world's renderer",
    "captions+renderings": "both of the above",
    "drop-swap": "words dropped and swapped at random (EDA, Wei & Zou 2019)",
    "randaugment": "two random image operations (RandAugment, Cubuk et al. 2020)",
    "captions+randaugment": "true captions, and RandAugment on the image",
    "mismatched": "captions of other images: the bad example",
}
"""What makes the variants of a `OneToMany`: technique -> one line for a reader of a table."""
