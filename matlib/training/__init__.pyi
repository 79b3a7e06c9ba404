# The names of this front door (`__init__.py`), for type checkers and `lazy_loader` alike.

from .checkpoint import (
    DamagedCheckpointError as DamagedCheckpointError,
    load_weights as load_weights,
    save_weights as save_weights,
)
from .log import History as History
from .loop import train as train
from .schedule import Schedule as Schedule
from .selection import HeldOutRecall as HeldOutRecall, Validation as Validation
from .step import NonFiniteLossError as NonFiniteLossError
