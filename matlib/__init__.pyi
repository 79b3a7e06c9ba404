# The names of this front door (`__init__.py`), for type checkers and `lazy_loader` alike.

from . import (
    analysis as analysis,
    attacks as attacks,
    augmentations as augmentations,
    data as data,
    defences as defences,
    evaluation as evaluation,
    models as models,
    scenes as scenes,
    training as training,
)
from .evaluation.threat import Threat as Threat, benchmark as benchmark

__version__: str
