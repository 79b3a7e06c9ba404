"""Figures: pure functions from tables and tensors to matplotlib figures, one message each."""

from matlib.analysis.figures.bars import interval_dots, robustness_bars
from matlib.analysis.figures.choices import choice_dots, held_out_curves, known_and_held_out
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
from matlib.analysis.figures.transfer import subject_label, transfer_map

__all__ = [
    "Shelf",
    "adversarial_pictures",
    "augmentation_map",
    "captioned_pictures",
    "choice_dots",
    "colour_of",
    "held_out_curves",
    "interval_dots",
    "known_and_held_out",
    "label_of",
    "learning_curves",
    "one_to_many_pictures",
    "retrieval_strip",
    "robustness_bars",
    "save_figure",
    "show",
    "strength_curves",
    "subject_label",
    "transfer_map",
    "violation_dots",
]
