"""The embedded world: structured scenes, their renderings, captions, and truth.

From one scene a renderer draws any number of images and a grammar writes any number of
captions, so both directions of the relation are one-to-many, and truth can be checked.
`World` has its splits; `sample_scenes`, `render` and `write_captions` make more of it; `read` and
`TruthChecker` say what a caption states and of which scenes it is true; `ceiling` is the recall
that no model exceeds.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
