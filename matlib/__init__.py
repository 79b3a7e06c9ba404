"""matlib: multimodal adversarial attacks and defences for vision-language models.

The library: `matlib.attacks`, `defences`, `training`, `augmentations`, `models`, `evaluation`,
`scenes` (the embedded world), `data` and `analysis`. What each offers stands at its front door:
`from matlib.attacks import PGD, sga`. A name is loaded when it is first used, and package code
imports it from the module that defines it. The study that is built on them is `matlib.study`,
the command line `python -m matlib`.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
