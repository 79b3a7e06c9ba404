# The names of this front door (`__init__.py`), for type checkers and `lazy_loader` alike.

from .batch import Batch as Batch
from .defence import (
    Contrastive as Contrastive,
    Defence as Defence,
    Guided as Guided,
    PairWeights as PairWeights,
    ReferenceDistance as ReferenceDistance,
    contrastive_loss as contrastive_loss,
    distance_loss as distance_loss,
    divergence_loss as divergence_loss,
)
from .inner_attack import (
    Candidates as Candidates,
    ImageStep as ImageStep,
    InnerAttack as InnerAttack,
    TextStep as TextStep,
    attack_pairs as attack_pairs,
    random_word_edits as random_word_edits,
)
from .own_loss import OwnLossAttack as OwnLossAttack, own_attack as own_attack
from .table import DEFENCES as DEFENCES
