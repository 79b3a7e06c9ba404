"""Figures: pure functions from tables and tensors to matplotlib figures, one message each."""

from matlib.analysis.figures.bars import interval_dots, robustness_bars
from matlib.analysis.figures.curves import learning_curves, strength_curves
from matlib.analysis.figures.maps import augmentation_map
from matlib.analysis.figures.pictures import (
    Shelf,
    adversarial_pictures,
    captioned_pictures,
    one_to_many_pictures,
    retrieval_strip,
)
from matlib.analysis.figures.sanity import violation_dots
from matlib.analysis.figures.style import colour_of, label_of, save_figure, show

__all__ = [
    "Shelf",
    "adversarial_pictures",
    "augmentation_map",
    "captioned_pictures",
    "colour_of",
    "interval_dots",
    "label_of",
    "learning_curves",
    "one_to_many_pictures",
    "retrieval_strip",
    "robustness_bars",
    "save_figure",
    "show",
    "strength_curves",
    "violation_dots",
]
