"""The contrasts behind the claims on defences: of recall between models, attacks, architectures.

Each claim has one row per text threat: words that no training saw, words that it may have seen,
typos, and any word. What claims on pairs compare is in `contrasts_of_pairs`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from scipy.special import expit, logit

from matlib.analysis.agreement import MIN_ROWS, agreement_of_rankings
from matlib.evaluation.crossed import (
    SCORES,
    Array,
    EndpointName,
    contributions,
    crossed_parts,
    linearised,
    within_a_world,
)
from matlib.evaluation.robustness import WORST
from matlib.evaluation.statistics import MIN_SEEDS_FOR_INTERVAL, Estimate, primary_difference
from matlib.study.made.examples import false_share
from matlib.study.made.protocols import HELD_OUT_ATTACKS, UNIMODAL_ATTACKS, unimodal
from matlib.study.recipes import undefended_rows
from matlib.study.study import Study
from matlib.study.tables.endpoints import architectures, chance, ranked_rows
from matlib.study.tables.recalls import Recalls, in_short

LEFT_ALONE = (30, 60)
"""Percent of recall that each attack alone should leave an undefended model (C1)."""


@dataclass(frozen=True)
class Contrast:
    """One difference of two models (or attacks) with what stands behind it.

    Attributes:
        name: in words, e.g. `mat - tecoa`.
        estimate: difference by the endpoint that decides, in [-1, 1], with its interval.
        n_seeds: trained weights behind it.
        unit: what the interval resamples: `query` (images with their captions), `seed` (trained
            weights, images and worlds), or `point` (design points of the experiment).
        at_floor: both sides include chance in their intervals.
        part: row of the claim that it belongs to, e.g. a threat; "" where the claim has one.
        endpoint: that decides.
        beside: the same by the other endpoint, where there is one.
        void: why it gives no verdict; "" if it does.
    """

    name: str
    estimate: Estimate
    n_seeds: int
    unit: str
    at_floor: bool = False
    part: str = ""
    endpoint: EndpointName = "R@1"
    beside: Estimate | None = None
    void: str = ""


def contrast(name: str, estimate: Estimate, *, at_floor: bool = False, part: str = "") -> Contrast:
    """What an estimate that knows its seeds says, under a name."""
    return Contrast(name, estimate, estimate.n_seeds, estimate.unit, at_floor, part)


def p_above(estimate: Estimate, n_boot: int) -> float:
    """One-sided p-value of "the true value is at least 0", from that of "at most 0".

    Args:
        n_boot: samples of the bootstrap behind an interval that is not over seeds.
    """
    if estimate.low == estimate.high:  # the same in every seed: no spread to measure it by
        return float(estimate.value >= 0)
    # of a bootstrap it is never 0, since n_boot samples cannot show more than 1 / (n_boot + 1)
    least = 0.0 if estimate.unit == "seed" else 1 / (n_boot + 1)
    return min(1.0, 1 - estimate.p_below + least)


def turned(estimate: Estimate, n_boot: int) -> Estimate:
    """The estimate of the opposite difference; `n_boot` as of `p_above`."""
    return replace(
        estimate, value=-estimate.value, low=-estimate.high, high=-estimate.low,
        p_below=p_above(estimate, n_boot),
    )  # fmt: skip


class ThreatPart(NamedTuple):
    """A row of the claims on defences.

    Attributes:
        name: in words.
        threats: text threats that it is judged under; the first that a study has.
        mat: the row that stands for MAT: the paper's, or the one that was trained on such words.
    """

    name: str
    threats: tuple[str, ...]
    mat: str


THREAT_PARTS = (
    ThreatPart("known words", ("true_known", "bert_true"), "mat-valid"),
    ThreatPart("held-out words", ("true_held_out",), "mat"),
    ThreatPart("typos", ("typo",), "mat"),
    ThreatPart("any word", ("bert_free",), "mat"),
    ThreatPart("similar words", ("bert_similar",), "mat"),
)
"""The first decides what is said of a claim in short. `similar words` is for human captions."""

FALSE_WORDS = "any word"
"""The part whose attacks may make a caption false."""

RIVALS = (
    "clean+random", "image-at", "image-at-tower", "image-at+random", "text-at", "tecoa", "fare",
    "pmg-aft", "advflyp", "mava", "mmcoa", "leaf", "fare+leaf", "text-at-valid",
    "image-at+random-valid", "mmcoa-valid", "fare+leaf-valid",
)  # fmt: skip
"""Every defence and control that MAT is compared with, the ones on true words among them."""

NEEDED_RIVALS = ("image-at", "text-at", "tecoa")
"""Without them a study cannot say that MAT beats the others."""


def has_rows(study: Study, *names: str) -> bool:
    """Whether a study has all these rows."""
    return set(names) <= {name for name, _ in study.rows()}


def judged_under(study: Study, part: ThreatPart) -> tuple[Recalls, str] | None:
    """How the study was judged under a threat, and its name; None if it was not."""
    e = study.profile.evaluation
    for threat in part.threats:
        if threat in e.threats:
            return Recalls(study), threat
        if threat in e.held_out:
            return Recalls(study, study.held_out_protocol(), attacks=HELD_OUT_ATTACKS), threat
    return None


def mat_of(study: Study, part: ThreatPart) -> str | None:
    """The row that stands for MAT under a threat; None if the study has none."""
    return next((name for name in (part.mat, "mat") if has_rows(study, name)), None)


def compared(
    evaluated: Recalls,
    first: str,
    other: str,
    threat: str | None = None,
    *,
    part: str = "",
    endpoint: EndpointName = "R@1",
    note: str = "",
) -> Contrast:
    """A row minus another under the worst attack, by both endpoints.

    Args:
        threat: of the words; the study's primary one if None.
        endpoint: that decides.
        note: to be said with the name.
    """
    found = {
        name: replace(evaluated, endpoint=name).recall(first, WORST, threat, reference=other)
        for name in SCORES
    }
    [beside] = [each for name, each in found.items() if name != endpoint]
    e = found[endpoint]
    floor = is_at_floor(evaluated, (first, other), threat)
    name = f"{first} - {other}{note}"
    return Contrast(name, e, e.n_seeds, e.unit, floor, part, endpoint, beside)


def robustness_of_mat(study: Study) -> list[Contrast]:
    """C0: MAT minus the undefended model, threat by threat."""
    return _by_threat(study, ("base",))


def rivals_of_mat(study: Study) -> list[Contrast]:
    """C2: MAT minus each other defence and control that the study has, threat by threat.

    Empty without image-only and text-only training and TeCoA.
    """
    if not has_rows(study, *NEEDED_RIVALS):
        return []
    return _by_threat(study, [name for name in RIVALS if has_rows(study, name)])


def _by_threat(study: Study, others: Sequence[str]) -> list[Contrast]:
    found = []
    for part in THREAT_PARTS:
        judged, mat = judged_under(study, part), mat_of(study, part)
        if judged is None or mat is None:
            continue
        evaluated, threat = judged
        note = false_words(study, mat, threat) if part.name == FALSE_WORDS else ""
        found += [
            compared(evaluated, mat, other, threat, part=part.name, note=note) for other in others
        ]
    return found


def false_words(study: Study, row: str, threat: str) -> str:
    """How many of the text attack's successes are false captions, in words; "" if unknown."""
    share = false_share(study, row, threat, seed=study.profile.seeds[0])
    if share is None:
        return ""
    return f" ({100 * share.value:.0f} % of the successes on {row} are false captions)"


def is_at_floor(evaluated: Recalls, rows: Sequence[str], threat: str | None = None) -> bool:
    """Whether each row's interval under the worst attack reaches down to chance, with each seed.

    An interval wholly below chance (an attack can do that) counts as reaching it.
    """
    least = chance(evaluated.study)
    found = (each for row in rows for each in evaluated.found(row, WORST, threat))
    return all(primary_difference(each, None, evaluated.images, n_boot=500).low <= least
               for each in found)  # fmt: skip


def joint_beyond_both(study: Study) -> list[Contrast]:
    """C1: what both sides together take beyond what each side alone foretells.

    On undefended models (`undefended_rows`), by equal searches. Foretold is what is left if the
    two attacks act independently on the scale of log-odds.
    """
    rows = undefended_rows(study.profile)
    name = rows[0][0]
    what = "undefended" if rows == [("base", 0)] else f"{name} fine-tuning"
    evaluated = Recalls(study, unimodal(study.profile.evaluation))
    clean, image, words, joint = (evaluated.level(name, attack) for attack in UNIMODAL_ATTACKS)
    foretold = beyond_independence(np.array([clean, image, words, 0.0]))
    label = (
        f"{what}: left if both sides acted independently ({100 * foretold:.0f}%; image alone "
        f"{left_in_words(image)}, words alone {left_in_words(words)}) - left by both "
        f"({100 * joint:.0f}%)"
    )
    sides = []
    for here in evaluated.everywhere:
        found = [here.found(name, attack) for attack in UNIMODAL_ATTACKS]
        sides.append(np.stack([
            [contributions(each, here.images) for each in seeds] for seeds in found
        ]))  # fmt: skip
    n = sum(each.shape[1] for each in sides)
    if n < MIN_SEEDS_FOR_INTERVAL:
        sides = [sides[0][:, :1]]
    parts = [within_a_world(linearised(each, beyond_independence)) for each in sides]
    return [contrast(label, crossed_parts(parts, n, sides[0].shape[2]))]


_LEAST = 1e-3  # a share of 0 or 1 has no log-odds


def beyond_independence(left: Array) -> float:
    """What two attacks would leave together if they acted independently, minus what they leave.

    Independent is additive on the scale of log-odds: `logit(both) = logit(image) + logit(words)
    - logit(clean)`.

    Args:
        left: (4,), shares of 1 that are left: no attack, image, words, both.
    """
    clean, image, words, both = left
    odds = logit(np.clip([clean, image, words], _LEAST, 1 - _LEAST))
    return float(expit(odds[1] + odds[2] - odds[0]) - both)


def left_in_words(share: float) -> str:
    """How much one attack alone leaves (share of 1), and whether C1's range holds it.

    C1 is about budgets where each attack alone leaves `LEFT_ALONE`: where less is left, the
    joint attack has little more to take. The percentage that is shown decides.
    """
    shown, (low, high) = round(100 * share), LEFT_ALONE
    outside = "" if low <= shown <= high else f", not the {low}-{high} % that C1 is about"
    return f"{shown}% left{outside}"


MIN_ARCHITECTURES = 5
"""With fewer, a ranking that carries over is not claimed of models in general."""


def transfer_of_ranking(study: Study) -> list[Contrast]:
    """C8a: mean rank correlation of the techniques' robustness between architectures.

    Empty without other architectures, and with fewer than three techniques on them.
    """
    names, rows = architectures(study), ranked_rows(study)
    if len(names) < 2 or len(rows) < MIN_ROWS:
        return []
    models = [in_short(study, name) for name in names]
    found = [[evaluated.found(row, WORST) for row in rows] for evaluated in models]
    n_boot = study.profile.evaluation.n_boot
    estimate = agreement_of_rankings(found, models[0].images, n_boot=n_boot)
    label = (
        f"rank correlation (100: the same order) of the robustness of {len(rows)} techniques "
        f"between {len(names)} architectures"
    )
    if len(names) < MIN_ARCHITECTURES:
        label += f" of the {MIN_ARCHITECTURES} that a claim needs"
        estimate = replace(estimate, p_below=1.0)
    # a model on which every technique is at chance has no order that could carry over
    return [contrast(label, estimate, at_floor=any(is_at_floor(each, rows) for each in models))]
