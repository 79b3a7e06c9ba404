"""Distribution shift: do the added embeddings come from where the test embeddings come from?

Several views of the same question. MMD and the kernel distance measure a distance and test
whether it is zero; the Fréchet distance compares mean and covariance; the two-sample
classifier says how well the two samples can be told apart, in a unit that a person can read
(50 % is chance).

Variants of one original are not independent: `groups` names the original of each row. The
tests then use one row per original, and the classifier keeps the variants of an original on
one side of every split.
"""

from matlib.analysis.embeddings import Groups
from matlib.analysis.shift.classifier import TwoSampleClassifier, two_sample_accuracy
from matlib.analysis.shift.frechet import (
    FrechetTest,
    frechet_distance,
    frechet_interval,
    frechet_test,
)
from matlib.analysis.shift.mmd import (
    MmdTest,
    kernel_distance,
    kernel_distance_interval,
    kernel_distance_test,
    median_bandwidth,
    mmd2_interval,
    mmd2_unbiased,
    mmd_test,
)

__all__ = [
    "FrechetTest",
    "Groups",
    "MmdTest",
    "TwoSampleClassifier",
    "frechet_distance",
    "frechet_interval",
    "frechet_test",
    "kernel_distance",
    "kernel_distance_interval",
    "kernel_distance_test",
    "median_bandwidth",
    "mmd2_interval",
    "mmd2_unbiased",
    "mmd_test",
    "two_sample_accuracy",
]
