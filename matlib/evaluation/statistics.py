"""The rules of inference: intervals, multiplicity, verdicts.

- **Queries.** Intervals over queries resample *images* with all their captions, since captions
  of one image are not independent (cluster bootstrap, percentile interval). The gallery stays
  as it is: they speak of other queries in this gallery. Differences are paired: both sides
  get the same resample.
- **Seeds.** One seed tells about those weights, not about the method. From three trained weights
  on, an interval over seeds, images and worlds (`matlib.evaluation.crossed`); with fewer, the
  verdict carries "for these weights only" and can never read *supported*.
- **Methods.** Claims about methods need five seeds; with three or four they stay
  *inconclusive*.
- **Multiplicity.** One-sided p-values against the claim's threshold, by Holm over one family:
  all claims of all studies. A claim that needs all of its contrasts has the largest of their
  p-values (intersection-union; Berger 1982).
- **Floor.** Where the intervals of the defended and the undefended model both reach down to
  chance, there is nothing to compare: *inconclusive (floor)*.
- A verdict follows from the interval by `verdict`, never from a person.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from matlib.evaluation.retrieval import Direction, Outcomes

Endpoint = tuple[tuple[Direction, int], ...]
"""Recalls that are averaged, e.g. (("TR", 5),) for TR@5."""

PRIMARY: Endpoint = (("TR", 1), ("IR", 1))

_LEVEL = 0.95  # of every interval, unless another is asked for


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
    level: float = _LEVEL,
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
    return sum(outcomes.recall(direction, k) for direction, k in PRIMARY) / len(PRIMARY)


def primary_difference(
    first: Outcomes, second: Outcomes | None, own: Tensor, *, n_boot: int = 2000, seed: int = 0
) -> Estimate:
    """Primary endpoint of `first` minus that of `second` on the same queries, paired.

    Args:
        second: outcomes of another model or attack; None for the endpoint of `first` alone.
        own: int64 (M,), the image of each caption.

    Raises:
        ValueError: outcomes of different queries.
    """
    if second is None:
        return _share(first, own, PRIMARY, n_boot=n_boot, seed=seed)
    pair = Stratum(((1.0, first), (-1.0, second)), own)
    return bootstrap_contrast([pair], n_boot=n_boot, seed=seed)


def _share(
    outcomes: Outcomes, own: Tensor, endpoint: Endpoint, *, n_boot: int, seed: int
) -> Estimate:
    """95 % interval of one model's endpoint; exact where resampling has nothing to show.

    With no hit at all (or no miss) every resample is the same and the percentile interval is
    a point. The interval is then Clopper & Pearson's for that many *images*: 0 of 250 is
    0 to 1.5 %.
    """
    alone = Stratum(((1.0, outcomes),), own)
    found = bootstrap_contrast([alone], endpoint=endpoint, n_boot=n_boot, seed=seed)
    beyond = 1 - ((1 - _LEVEL) / 2) ** (1 / found.n)
    if found.value == 0.0:
        return replace(found, high=beyond)
    return replace(found, low=1 - beyond) if found.value == 1.0 else found


ResamplingUnit = Literal["query", "seed"]
_DRAWS_AT_ONCE = 2**22  # bounds the memory of a bootstrap to some 100 MB


@dataclass(frozen=True)
class Estimate:
    """A number with its interval.

    Attributes:
        value: the estimate.
        low, high: interval, at 95 % unless said otherwise.
        n: what was resampled or averaged (images, originals, seeds).
        p_below: one-sided p-value of "the true value is at most `threshold`" if computed.
        unit: whether the interval is over queries (of given weights) or over seeds.
    """

    value: float
    low: float
    high: float
    n: int
    p_below: float = float("nan")
    unit: ResamplingUnit = "query"

    @property
    def n_seeds(self) -> int:
        """Trained weights that it speaks of: below three seeds those of the first alone."""
        return self.n if self.unit == "seed" else 1

    def columns(self, value: str = "value", limits: str = "") -> dict[str, float]:
        """For a row of a table: the estimate as `value`, its interval as `low` and `high`.

        Args:
            limits: prefix of the names of the two limits.
        """
        return {value: self.value, f"{limits}low": self.low, f"{limits}high": self.high}


def in_percent(value: float, low: float, high: float) -> str:
    """A share of 1 in percent, with its interval if it has one: `48.4 [45.0, 51.9]`."""
    limits = "" if math.isnan(low) else f" [{100 * low:.1f}, {100 * high:.1f}]"
    return f"{100 * value:.1f}{limits}"


def bootstrap_ratio(
    numerator: Tensor,
    denominator: Tensor,
    *,
    n_boot: int = 2000,
    seed: int = 0,
    level: float = _LEVEL,
    threshold: float = 0.0,
) -> Estimate:
    """Interval of sum(numerator) / sum(denominator), resampling units (rows).

    Args:
        numerator, denominator: (n,), totals per unit, e.g. hits and captions per image; or
            (n, Q) for the mean of Q such ratios.
        threshold: for `p_below`, the share of bootstrap samples at or below it.

    Raises:
        ValueError: no units, or different shapes.
    """
    if len(numerator) == 0 or denominator.shape != numerator.shape:
        raise ValueError(
            "expected as many numerators as denominators; "
            f"got {tuple(numerator.shape)} and {tuple(denominator.shape)}"
        )
    n = len(numerator)
    top, bottom = numerator.double().view(n, -1), denominator.double().view(n, -1)
    samples = resampled_ratios(top, bottom, n_boot=n_boot, seed=(seed, 0))
    value = float((top.sum(0) / bottom.sum(0)).mean())
    return percentile_estimate(value, samples, n, level, threshold)


def bootstrap_mean(
    values: Tensor,
    *,
    n_boot: int = 2000,
    seed: int = 0,
    level: float = _LEVEL,
    threshold: float = 0.0,
) -> Estimate:
    """Interval of the mean of (n,) independent values.

    Raises:
        ValueError: no values.
    """
    return bootstrap_ratio(
        values.double(),
        torch.ones(len(values), dtype=torch.double),
        n_boot=n_boot,
        seed=seed,
        level=level,
        threshold=threshold,
    )


def resampled_ratios(
    numerator: Tensor, denominator: Tensor, *, n_boot: int, seed: tuple[int, ...]
) -> Tensor:
    """float64 (n_boot,): the mean over columns of sum(numerator) / sum(denominator) per resample.

    Args:
        numerator, denominator: float64 (n, Q), totals per unit.
        seed: same seed and n, same resamples, whatever the totals.
    """
    samples = [
        ((weights @ numerator) / (weights @ denominator)).mean(1)
        for weights in _weights(len(numerator), n_boot, seed)
    ]
    return torch.cat(samples)


def percentile_estimate(
    value: float, samples: Tensor, n: int, level: float = _LEVEL, threshold: float = 0.0
) -> Estimate:
    """The estimate `value` with the percentile interval of its bootstrap `samples`."""
    if not 0 < level < 1:
        raise ValueError(f"level is a share in (0, 1), e.g. 0.95; got {level}")
    tail = (1 - level) / 2
    low, high = np.quantile(samples.numpy(), [tail, 1 - tail]).tolist()
    # (count + 1) / (samples + 1): never 0, since n_boot samples cannot show more than that
    p = (float((samples <= threshold).sum()) + 1) / (len(samples) + 1)
    return Estimate(value, low, high, n, p)


def _weights(n: int, n_boot: int, seed: tuple[int, ...]) -> Iterator[Tensor]:
    """float64 (B, n) parts of (n_boot, n): how often each unit is drawn in each resample."""
    rng = np.random.default_rng(seed)
    rows_at_once = max(1, _DRAWS_AT_ONCE // n)
    for start in range(0, n_boot, rows_at_once):
        rows = min(rows_at_once, n_boot - start)
        drawn = rng.integers(n, size=(rows, n)) + np.arange(rows)[:, None] * n
        counts = np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n)
        yield torch.from_numpy(counts).double()


MIN_SEEDS_FOR_INTERVAL = 3
MIN_SEEDS_FOR_CLAIM = 5


def t_interval(
    differences: Sequence[float], *, level: float = _LEVEL, threshold: float = 0.0
) -> Estimate:
    """Student's interval of the mean of per-seed differences.

    Raises:
        ValueError: fewer than three seeds.
    """
    n = len(differences)
    if n < MIN_SEEDS_FOR_INTERVAL:
        raise ValueError(f"a t-interval needs {MIN_SEEDS_FOR_INTERVAL} seeds; got {n}")
    values = np.asarray(differences, dtype=float)
    mean, error = float(values.mean()), float(values.std(ddof=1) / math.sqrt(n))
    half = float(stats.t.ppf((1 + level) / 2, n - 1)) * error
    if error == 0:
        p = float(mean <= threshold)
    else:
        p = float(stats.t.sf((mean - threshold) / error, n - 1))
    return Estimate(mean, mean - half, mean + half, n, p, "seed")


def over_seeds(values: Sequence[float], fewer: Callable[[], Estimate]) -> Estimate:
    """The rule of intervals: over training seeds where there are three; else what `fewer` says.

    Args:
        values: what was found with each seed.
        fewer: gives the estimate from the weights of the first seed alone.
    """
    return t_interval(values) if len(values) >= MIN_SEEDS_FOR_INTERVAL else fewer()


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p-values, in the order given (Holm 1979).

    Raises:
        ValueError: a p-value that is NaN or outside [0, 1].
    """
    if not all(0 <= p <= 1 for p in p_values):
        raise ValueError(f"p-values lie in [0, 1]; got {list(p_values)}")
    adjusted = [0.0] * len(p_values)
    running = 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=lambda j: p_values[j])):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = running
    return adjusted


Verdict = Literal[
    "supported",
    "not supported",
    "inconclusive",
    "inconclusive (floor)",
    "not yet tested",
    "favourable, for these weights only",
    "unfavourable, for these weights only",
    "inconclusive, for these weights only",
]


def verdict(
    low: float,
    high: float,
    *,
    n_seeds: int,
    unit: ResamplingUnit = "seed",
    threshold: float = 0.0,
    p_adjusted: float = 0.0,
    alpha: float = 0.025,
    at_floor: bool = False,
) -> Verdict:
    """What an interval says about "the contrast is above `threshold`".

    Args:
        low, high: interval of the contrast; NaN if nothing was measured.
        n_seeds: trained weights behind it.
        unit: what the interval is over; one over queries is about those weights only,
            however many there were.
        threshold: smallest difference that counts.
        p_adjusted: one-sided p-value after Holm; above `alpha`, nothing is *supported*.
        alpha: one-sided, so that it fits the two-sided 95 % interval.
        at_floor: both sides' intervals reach down to `chance_recall` (an attack can push below
            it), so that there is nothing to compare.

    Raises:
        ValueError: an interval that ends before it begins.
    """
    if math.isnan(low) or math.isnan(high) or n_seeds == 0:
        return "not yet tested"
    if low > high:
        raise ValueError(f"the interval [{low}, {high}] ends before it begins")
    if at_floor:
        return "inconclusive (floor)"
    is_above, is_below = low > threshold and p_adjusted <= alpha, high < threshold
    if n_seeds < MIN_SEEDS_FOR_INTERVAL or unit == "query":
        if is_above:
            return "favourable, for these weights only"
        if is_below:
            return "unfavourable, for these weights only"
        return "inconclusive, for these weights only"
    if n_seeds < MIN_SEEDS_FOR_CLAIM:
        return "inconclusive"
    if is_above:
        return "supported"
    return "not supported" if is_below else "inconclusive"
