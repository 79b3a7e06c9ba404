# The names of this front door (`__init__.py`), for type checkers and `lazy_loader` alike.

from .captioning import (
    bleu_4 as bleu_4,
    caption_scores as caption_scores,
    caption_under_attack as caption_under_attack,
)
from .crossed import crossed_estimate as crossed_estimate
from .grounding import (
    ground_under_attack as ground_under_attack,
    grounding_scores as grounding_scores,
)
from .retrieval import (
    DIRECTIONS as DIRECTIONS,
    KS as KS,
    Direction as Direction,
    Outcomes as Outcomes,
    chance_recall as chance_recall,
    conditional_attack_success as conditional_attack_success,
    difference_attack_success as difference_attack_success,
    retrieve as retrieve,
    worst_of as worst_of,
)
from .robustness import (
    Evaluation as Evaluation,
    evaluate as evaluate,
    gallery_of as gallery_of,
    strength_curve as strength_curve,
    transfer_from as transfer_from,
    worst_under as worst_under,
)
from .sanity_checks import sanity as sanity, to_frame as to_frame
from .sanity_subject import (
    TOLERANCE_POINTS as TOLERANCE_POINTS,
    Check as Check,
    SanitySubject as SanitySubject,
)
from .statistics import (
    Endpoint as Endpoint,
    Estimate as Estimate,
    bootstrap_contrast as bootstrap_contrast,
    bootstrap_mean as bootstrap_mean,
    holm as holm,
    over_seeds as over_seeds,
    percentile_estimate as percentile_estimate,
    primary_difference as primary_difference,
    primary_endpoint as primary_endpoint,
    recall_estimate as recall_estimate,
    t_interval as t_interval,
    verdict as verdict,
)
from .suite import (
    ATTACKS as ATTACKS,
    Attack as Attack,
    Moved as Moved,
    Situation as Situation,
    Suite as Suite,
)
from .threat import Threat as Threat, benchmark as benchmark
