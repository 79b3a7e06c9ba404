"""matlib: multimodal adversarial attacks and defences for vision-language models.

Its parts: `attacks`, `defences`, `training`, `augmentations`, `models`, `evaluation`, `scenes` (the
embedded world), `data` and `analysis`. The text of each says what it offers, from its front door:
`from matlib.attacks import PGD, sga`. `benchmark` is the common wish in one call: what a model
keeps under every attack of a `Threat`. A name is loaded when it is first used. Code of the package
itself imports from the module that defines a name, because the hash of an artefact's code is
read from there. The study built on these parts is in the folder study, and starts by
`python -m matlib study`.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
