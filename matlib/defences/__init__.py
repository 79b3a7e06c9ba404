"""Ways to train against attacks, as small objects without weights of their own.

`DEFENCES` has one line for each: what is attacked, with which loss, which tower learns. It is made
of `Contrastive` (adversarial training, TeCoA, MMCoA, MAT), `ReferenceDistance` (FARE, LEAF) and
`Guided` (PMG-AFT), all a `Defence`. `InnerAttack` holds the budgets of the attack inside a step,
`attack_pairs` makes it, `own_attack` is the attack of a defence's own loss, for judging it.
`matlib.training.train` trains with them.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
