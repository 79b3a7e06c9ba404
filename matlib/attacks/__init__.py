"""Attacks on images, on captions, and on both.

Images:   `PGD`, `APGD`, `DiversifiedPGD` (DRA's step), each an ascent of one of the objectives in
          `matlib.attacks.objectives` inside a `Ball`; `ScaleViews` are SGA's.
Captions: `WordSubstitution` over a table of `Edit`s (`from_masked_lm`, `from_synonyms`,
          `from_table`, thinned by `keep_similar`), and `CharacterEdits`, `Charmer` by characters.
Both, on a `Gallery`: `sep_attack`, `co_attack`, `sga`, `dra`, `contrastive_attack` attack every
          pair for itself; `words_attack`, `gallery_attack`, `aimed_at_rest` choose all images
          and all words of the gallery together.
Without the queries: `Universal`, one perturbation for all images; `hub`, one image added.

Budgets are in 1/255 of the pixel range, pixels in [0, 1]; an `AttackReport` counts what was met.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
