"""What makes an augmentation good: alignment, diversity, and shift, measured.

`measure_technique` measures one technique by all three: `measure_alignment` (do images and captions
belong together), `measure_diversity`, and the distances of `matlib.analysis.shift`.
`fit_effects` and `predict_left_out` say what they do to robustness, `correlation` and
`calibration` how far two measures agree, `reference_agreement` whether the encoder that
measures matters. `matlib.analysis.figures` draws.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
