# The names of this front door (`__init__.py`), for type checkers and `lazy_loader` alike.

from . import figures as figures, shift as shift
from .agreement import (
    calibration as calibration,
    correlation as correlation,
    mean_rank_correlation as mean_rank_correlation,
    rank_agreement as rank_agreement,
    rank_correlation as rank_correlation,
    reference_agreement as reference_agreement,
)
from .alignment import (
    Alignment as Alignment,
    measure_alignment as measure_alignment,
    rank_pairs as rank_pairs,
)
from .diversity import (
    Diversity as Diversity,
    distinct_n as distinct_n,
    measure_diversity as measure_diversity,
    vendi_score as vendi_score,
)
from .embeddings import (
    HeldOutEmbeddings as HeldOutEmbeddings,
    VariantEmbeddings as VariantEmbeddings,
    embed_test as embed_test,
    embed_variants as embed_variants,
)
from .experiment import (
    Effects as Effects,
    achieved_levels as achieved_levels,
    fit_effects as fit_effects,
    manipulation_check as manipulation_check,
    n_trainings as n_trainings,
    range_check as range_check,
    responses_by_dose as responses_by_dose,
    steps_of_dials as steps_of_dials,
)
from .prediction import (
    coordinate_correlations as coordinate_correlations,
    predict_left_out as predict_left_out,
    prediction_errors as prediction_errors,
)
from .technique import (
    measure_technique as measure_technique,
    technique_coordinates as technique_coordinates,
)
