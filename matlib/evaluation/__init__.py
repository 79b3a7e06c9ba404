"""Retrieval under attack, judged with intervals, and checks of the judgement itself.

`benchmark` is the one call: a model, pairs and a `Threat` -> a table of recalls.
`retrieve` ranks a gallery and gives `Outcomes`. `evaluate` runs the attacks of a `Suite` (some
of `ATTACKS`, one line each) on a model, each in its own fully adversarial gallery, with the worst
case per query beside them.
`recall_estimate`, `bootstrap_contrast`, `t_interval` and `holm` say how sure a number is.
`sanity` looks for signs that an attack was too weak to judge by (masked gradients among them).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
