"""Models behind one contract: pixels and strings in, unit vectors out (`DualEncoder`).

`models.open("ViT-B-32-quickgelu", "openai")` opens any open_clip model by its name and the tag,
file or folder of its weights, with the `Settings` that they were trained with. `build_small` makes
the small CLIP of the embedded world, which `save_small` and `load_small` keep. `MaskedLM` suggests
words for the word attacks, `SentenceEncoder` measures sentences.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
