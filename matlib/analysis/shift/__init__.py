"""Distribution shift: do the added embeddings come from where the test embeddings come from?

Several views of the same question. MMD and the kernel distance measure a distance and test
whether it is zero; the Fréchet distance compares mean and covariance; the two-sample
classifier says how well the two samples can be told apart, in a unit that a person can read
(50 % is chance).

Variants of one original are not independent: groups name the original of each row. The
tests then use one row per original, and the classifier keeps the variants of an original on
one side of every split.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
