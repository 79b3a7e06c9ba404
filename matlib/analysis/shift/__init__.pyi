# The names of this front door (`__init__.py`), for type checkers and `lazy_loader` alike.

from .classifier import (
    TwoSampleClassifier as TwoSampleClassifier,
    two_sample_accuracy as two_sample_accuracy,
)
from .frechet import (
    FrechetTest as FrechetTest,
    frechet_distance as frechet_distance,
    frechet_interval as frechet_interval,
    frechet_test as frechet_test,
)
from .mmd import (
    MmdTest as MmdTest,
    kernel_distance as kernel_distance,
    kernel_distance_interval as kernel_distance_interval,
    kernel_distance_test as kernel_distance_test,
    median_bandwidth as median_bandwidth,
    mmd2_interval as mmd2_interval,
    mmd2_unbiased as mmd2_unbiased,
    mmd_test as mmd_test,
)
