"""Figures: pure functions from tables and tensors to matplotlib figures, one message each."""

from matlib.analysis.figures.bars import (
    choice_dots,
    held_out_curves,
    interval_dots,
    known_and_held_out,
    robustness_bars,
    violation_dots,
)
from matlib.analysis.figures.curves import (
    dose_curves,
    learning_curves,
    size_curves,
    strength_curves,
)
from matlib.analysis.figures.effects import (
    achieved_curves,
    dose_response,
    effect_dots,
    predicted_gains,
    row_words,
    sweep_curves,
    technique_gains,
)
from matlib.analysis.figures.maps import (
    agreement_matrix,
    augmentation_map,
    calibration_curve,
    measure_label,
    subject_label,
    transfer_map,
)
from matlib.analysis.figures.pictures import (
    Shelf,
    adversarial_pictures,
    captioned_pictures,
    one_to_many_pictures,
    retrieval_strip,
)
from matlib.analysis.figures.style import colour_of, label_of, save_figure, show

__all__ = [
    "Shelf",
    "achieved_curves",
    "adversarial_pictures",
    "agreement_matrix",
    "augmentation_map",
    "calibration_curve",
    "captioned_pictures",
    "choice_dots",
    "colour_of",
    "dose_curves",
    "dose_response",
    "effect_dots",
    "held_out_curves",
    "interval_dots",
    "known_and_held_out",
    "label_of",
    "learning_curves",
    "measure_label",
    "one_to_many_pictures",
    "predicted_gains",
    "retrieval_strip",
    "robustness_bars",
    "row_words",
    "save_figure",
    "show",
    "size_curves",
    "strength_curves",
    "subject_label",
    "sweep_curves",
    "technique_gains",
    "transfer_map",
    "violation_dots",
]
