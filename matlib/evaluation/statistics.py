"""The rules of inference: intervals, multiplicity, verdicts.

- **Queries.** Intervals over queries resample *images* with all their captions, since captions
  of one image are not independent (cluster bootstrap, percentile interval). The gallery stays
  as it is: they speak of other queries in this gallery. Differences are paired: both sides
  get the same resample.
- **Seeds.** One seed tells about those weights, not about the method. From three seeds on, a
  t-interval on the per-seed paired differences; with fewer, the verdict carries "for these
  weights only" and can never read *supported*.
- **Methods.** Claims about methods need five seeds; with three or four they stay
  *inconclusive*.
- **Multiplicity.** One-sided p-values against the claim's threshold, by Holm across claims and
  across the contrasts inside one claim.
- **Floor.** Where the intervals of the defended and the undefended model both reach down to
  chance, there is nothing to compare: *inconclusive (floor)*.
- A verdict follows from the interval by `verdict`, never from a person.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from matlib.evaluation.bootstrap import (
    Estimate,
    percentile_estimate,
    resampled_ratios,
)
from matlib.evaluation.retrieval import Direction, Outcomes

Endpoint = tuple[tuple[Direction, int], ...]
"""Recalls that are averaged, e.g. (("TR", 5),) for TR@5."""

PRIMARY: Endpoint = (("TR", 1), ("IR", 1))


@dataclass(frozen=True)
class Stratum:
    """Weighted outcomes on the same queries; one resample of the images serves all of them.

    Attributes:
        terms: (weight, outcomes) pairs, e.g. (1, defended), (-1, undefended).
        own: int64 (M,), the image each caption was written for.
    """

    terms: tuple[tuple[float, Outcomes], ...]
    own: Tensor

    def totals(self, endpoint: Endpoint) -> tuple[Tensor, Tensor]:
        """float64 (N, Q) each: weighted hits and queries per image, per recall of `endpoint`.

        Raises:
            ValueError: no terms, or outcomes of different queries.
        """
        sizes = {(len(o.tr_rank), len(o.ir_rank)) for _, o in self.terms}
        if len(sizes) != 1 or {m for _, m in sizes} != {len(self.own)}:
            raise ValueError(
                "a paired contrast needs the same queries on all sides and one `own` per "
                f"caption; got (images, captions) {sorted(sizes)} and {len(self.own)} in `own`"
            )
        n = next(iter(sizes))[0]
        hits, queries = [], []
        for direction, k in endpoint:
            own = torch.arange(n) if direction == "TR" else self.own
            weighted = [w * o.hits(direction, k).double() for w, o in self.terms]
            found = torch.stack(weighted).sum(0)
            hits.append(torch.zeros(n, dtype=torch.double).index_add_(0, own, found))
            queries.append(torch.bincount(own, minlength=n).double())
        return torch.stack(hits, 1), torch.stack(queries, 1)


def bootstrap_contrast(
    strata: Sequence[Stratum],
    *,
    endpoint: Endpoint = PRIMARY,
    n_boot: int = 2000,
    seed: int = 0,
    level: float = 0.95,
    threshold: float = 0.0,
) -> Estimate:
    """Interval of a weighted sum of endpoints, resampling images with all their captions.

    Two models on the same queries are two terms of one stratum (paired). Differences between
    data, such as training minus held-out recall, are two strata (resampled independently).

    Args:
        strata: what is added up.
        endpoint: recalls averaged, by default the primary endpoint mean(TR@1, IR@1).
        n_boot: bootstrap samples; 1 / (n_boot + 1) is the smallest p-value.
        seed: same seed and same number of images, same resamples.
        level: of the percentile interval.
        threshold: for `p_below`.

    Raises:
        ValueError: no strata, or a stratum of outcomes of different queries.
    """
    if not strata:
        raise ValueError("a contrast needs at least one stratum")
    value, samples, n = 0.0, torch.zeros(n_boot, dtype=torch.double), 0
    for index, stratum in enumerate(strata):
        hits, queries = stratum.totals(endpoint)
        value += float((hits.sum(0) / queries.sum(0)).mean())
        samples += resampled_ratios(hits, queries, n_boot=n_boot, seed=(seed, index))
        n += len(hits)
    return percentile_estimate(value, samples, n, level, threshold)


def recall_estimate(
    outcomes: Outcomes,
    own: Tensor,
    direction: Direction,
    k: int,
    *,
    n_boot: int = 2000,
    seed: int = 0,
) -> Estimate:
    """TR@k or IR@k with its interval over images.

    Args:
        own: int64 (M,), the image of each caption; a resampled image brings its captions.
    """
    return _share(outcomes, own, ((direction, k),), n_boot=n_boot, seed=seed)


def primary_endpoint(outcomes: Outcomes) -> float:
    """Mean of TR@1 and IR@1: the study's primary endpoint, in [0, 1]."""
    return endpoint_value(outcomes, PRIMARY)


def endpoint_value(outcomes: Outcomes, endpoint: Endpoint) -> float:
    """Mean of the recalls of `endpoint`, in [0, 1]."""
    return sum(outcomes.recall(direction, k) for direction, k in endpoint) / len(endpoint)


def primary_difference(
    first: Outcomes,
    second: Outcomes | None,
    own: Tensor,
    *,
    n_boot: int = 2000,
    seed: int = 0,
    level: float = 0.95,
    threshold: float = 0.0,
) -> Estimate:
    """Primary endpoint of `first` minus that of `second` on the same queries, paired.

    Args:
        second: outcomes of another model or attack; None for the endpoint of `first` alone.
        own: int64 (M,), the image of each caption.

    Raises:
        ValueError: outcomes of different queries.
    """
    if second is None:
        return _share(
            first, own, PRIMARY, n_boot=n_boot, seed=seed, level=level, threshold=threshold
        )
    return bootstrap_contrast(
        [Stratum(((1.0, first), (-1.0, second)), own)],
        n_boot=n_boot,
        seed=seed,
        level=level,
        threshold=threshold,
    )


def _share(
    outcomes: Outcomes,
    own: Tensor,
    endpoint: Endpoint,
    *,
    n_boot: int,
    seed: int,
    level: float = 0.95,
    threshold: float = 0.0,
) -> Estimate:
    """Interval of one model's endpoint; exact where resampling has nothing to show.

    With no hit at all (or no miss) every resample is the same and the percentile interval is
    a point. The interval is then Clopper & Pearson's for that many *images*: 0 of 250 is
    0 to 1.5 %.
    """
    found = bootstrap_contrast(
        [Stratum(((1.0, outcomes),), own)],
        endpoint=endpoint,
        n_boot=n_boot,
        seed=seed,
        level=level,
        threshold=threshold,
    )
    beyond = 1 - ((1 - level) / 2) ** (1 / found.n)
    if found.value == 0.0:
        return replace(found, high=beyond)
    return replace(found, low=1 - beyond) if found.value == 1.0 else found


def per_seed_differences(
    first: Sequence[Outcomes], second: Sequence[Outcomes], endpoint: Endpoint = PRIMARY
) -> list[float]:
    """Endpoint of `first` minus that of `second` for each seed; the input of `t_interval`.

    Args:
        first, second: outcomes of two methods, seed by seed in the same order.

    Raises:
        ValueError: different numbers of seeds.
    """
    if len(first) != len(second):
        raise ValueError(f"expected the same seeds twice; got {len(first)} and {len(second)}")
    return [
        endpoint_value(a, endpoint) - endpoint_value(b, endpoint)
        for a, b in zip(first, second, strict=True)
    ]
