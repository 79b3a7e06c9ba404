"""One-to-many augmentation: pure functions of pairs and a generator that give more pairs.

Captions: by people (`with_captions`), by rules (`eda`, `drop_and_swap`, `character_noise`), by
          networks (`write_variants` with `InstructRewriter` or `BackTranslator`, and
          `captions_by` with a captioner).
Images:   `with_images`, `randaugment`, `augmix`, `crop_flip_jitter`, `similar_images`, and
          `restyled_by_diffusion`, `drawn_by_diffusion`.
Filters:  `keep_aligned`, `keep_diverse`, `thin_to_vendi`; `combine` puts two results together.
By name:  `TECHNIQUES`, one line each: what a technique adds, its function, its strength.
Controls: `mismatched`, and `dialled_captions`, `dialled_images` with set levels of alignment,
          diversity and shift.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
