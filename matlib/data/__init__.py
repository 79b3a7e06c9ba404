"""Images with their captions: in memory, on disk, or fetched.

`ImageTextPairs` are the images and captions of one split, `OneToMany` the variants of pairs to
train on. `read_karpathy` reads a data set with Karpathy's splits, `read_caption_file` JSON, CSV
or `.token` files, `decode_image` one image. `load_manifest`, `fetch` and `verify` get a data set
by its manifest and check it.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
