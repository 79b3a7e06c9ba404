"""Training a dual encoder by a defence: one loop, on one process or several.

`train` runs a defence (`matlib.defences.DEFENCES`) for the steps of a `Schedule` and gives its
`History`. A run that was killed goes on from its last checkpoint and ends with the same weights,
bit by bit. `Validation` measures held-out recall beside training and may choose the weights.
`save_weights` and `load_weights` keep them.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
