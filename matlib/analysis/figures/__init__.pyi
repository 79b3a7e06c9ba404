# The names of this front door (`__init__.py`), for type checkers and `lazy_loader` alike.

from .bars import (
    choice_dots as choice_dots,
    held_out_curves as held_out_curves,
    interval_dots as interval_dots,
    known_and_held_out as known_and_held_out,
    robustness_bars as robustness_bars,
    violation_dots as violation_dots,
)
from .curves import (
    dose_curves as dose_curves,
    learning_curves as learning_curves,
    size_curves as size_curves,
    strength_curves as strength_curves,
)
from .effects import (
    achieved_curves as achieved_curves,
    dose_response as dose_response,
    effect_dots as effect_dots,
    predicted_gains as predicted_gains,
    row_words as row_words,
    sweep_curves as sweep_curves,
    technique_gains as technique_gains,
    with_true_names as with_true_names,
)
from .maps import (
    agreement_matrix as agreement_matrix,
    augmentation_map as augmentation_map,
    calibration_curve as calibration_curve,
    measure_label as measure_label,
    subject_label as subject_label,
    transfer_map as transfer_map,
)
from .pictures import (
    Shelf as Shelf,
    TaskPicture as TaskPicture,
    adversarial_pictures as adversarial_pictures,
    captioned_pictures as captioned_pictures,
    one_to_many_pictures as one_to_many_pictures,
    retrieval_strip as retrieval_strip,
    task_strip as task_strip,
)
from .sentences import (
    bend_sentence as bend_sentence,
    captions_html as captions_html,
    claim_sentence as claim_sentence,
    comparison as comparison,
    effect_sentence as effect_sentence,
    percent as percent,
    theory_sentence as theory_sentence,
)
from .style import (
    colour_of as colour_of,
    label_of as label_of,
    save_figure as save_figure,
    show as show,
    table_or_note as table_or_note,
)
