"""Figures: pure functions from tables and tensors to matplotlib figures, one message each."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
