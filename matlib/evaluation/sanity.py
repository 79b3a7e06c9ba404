"""The sanity battery: is a model's robustness real, or does the attack only fail to see?

A list of things that hold of every attack that works on every defence that is real (Carlini
et al. 2019, "On Evaluating Adversarial Robustness", arXiv 1902.06705), each a check in
`matlib.evaluation.sanity_checks` with the numbers behind it:

| check | violated if |
|---|---|
| `zero_budget` | a query changes its rank although nothing may be changed (exact) |
| `shuffled_captions` | recall with shuffled captions is above chance |
| `gradients` | images have a gradient of zero, or one that is not finite |
| `more_steps` | four times the steps leave more recall |
| `more_budget` | two or four times the budget leaves more recall |
| `huge_budget` | recall at 64/255 is above chance |
| `random_noise` | random-sign noise of the same size leaves less recall than the attack |
| `restarts` | five runs of the attack leave less recall than one |
| `apgd` | APGD leaves less recall than PGD |
| `transfer` | images attacked on another model leave less recall than the white-box attack |
| `random_edits` | random edits leave less recall than the text attack |

Recall is the primary endpoint, the mean of TR@1 and IR@1. "More", "less" and "above" mean: by
more than 2 points, with a one-sided paired interval over images, after Holm's correction over
all checks and models at 5 % (`verdicts`). The exact check has no tolerance and takes no part
in the correction.

**What passing does not prove.** A check that is not violated reads *passed*; it is then only
not refuted. An attack that nobody tried here (another loss, one without gradients, one made for
this defence) may still break the model. With few images, violations of several points go
unseen: at 100 images a paired difference of recalls has a standard error of about 1 to 3
points, and the correction over some 80 checks asks for three of them beyond the tolerance, so
5 to 11 points in all. A model whose recall is already at chance under the evaluation's attack
passes most checks because nothing is left to lose.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import pandas as pd

from matlib.attacks.edits import CandidateTable
from matlib.attacks.gallery import Gallery
from matlib.attacks.image import PGD
from matlib.attacks.text import WordSubstitution
from matlib.data.pairs import ImageTextPairs
from matlib.evaluation.inference import holm
from matlib.evaluation.sanity_checks import CHECKS, random_edits, transfer
from matlib.evaluation.sanity_subject import ALPHA, Check, SanitySubject
from matlib.models.dual_encoder import DualEncoder


def sanity(
    encoder: DualEncoder,
    pairs: ImageTextPairs,
    tables: Mapping[str, CandidateTable] | None = None,
    *,
    image: PGD,
    source: DualEncoder | None = None,
    seed: int = 0,
    n_images: int | None = None,
    word_search: WordSubstitution | None = None,
    apgd_steps: int = 50,
    n_boot: int = 20_000,
    on_check: Callable[[str], None] | None = None,
) -> list[Check]:
    """Every check that can be made of one model; verdicts come from `verdicts`.

    Cost in gradients per image, at n steps of the evaluation's attack: 14 n (itself, four times
    the steps, two budgets, the huge one, five runs, the source) and `apgd_steps`.

    Args:
        encoder: the model, in evaluation mode; untouched afterwards.
        pairs: the gallery: N images with all their captions.
        tables: per text threat the allowed edits of every caption of `pairs`; None leaves out
            `random_edits`.
        image: the evaluation's image attack, L-infinity, with eps of at most 16/255.
        source: another model for `transfer`; None leaves it out.
        seed: of every attack, noise, shuffle and bootstrap.
        n_images: at most this many images, the first of the gallery; all by default.
        word_search: the evaluation's text attack.
        apgd_steps: steps of APGD; the paper has 100 for classifiers.
        n_boot: bootstrap samples. Holm over K checks and models needs K / ALPHA of them.
        on_check: called with the name of each check when it is done.

    Raises:
        ValueError: a budget that leaves no room for four times it, a source that is the
            encoder itself, tables of another number of captions, or no images.
    """
    if n_images is not None and n_images < 1:
        raise ValueError(f"n_images must be 1 or more, or None for all; got {n_images}")
    kept, kept_tables = _first(pairs, tables or {}, n_images)
    subject = SanitySubject(
        encoder,
        Gallery(kept.pixels(), kept.captions, kept.relevance(), kept.image_of),
        image,
        seed,
        source,
        kept_tables,
        word_search or WordSubstitution(),
        apgd_steps,
        n_boot,
    )
    found = []
    for check in CHECKS:
        if (check is transfer and source is None) or (check is random_edits and not tables):
            continue
        found.append(check(subject))
        if on_check is not None:
            on_check(found[-1].name)
    return found


def _first(
    pairs: ImageTextPairs, tables: Mapping[str, CandidateTable], n_images: int | None
) -> tuple[ImageTextPairs, dict[str, CandidateTable]]:
    """The first images with all their captions, and the tables' rows of these captions."""
    for threat, table in tables.items():
        if len(table) != pairs.n_captions:
            raise ValueError(
                f"table {threat!r} has rows for {len(table)} captions; the gallery has "
                f"{pairs.n_captions}. Make it for these pairs."
            )
    n = len(pairs) if n_images is None else min(n_images, len(pairs))
    order = pairs.image_of.argsort(stable=True)  # captions grouped by image, as `subset` does
    columns = order[pairs.image_of[order] < n].tolist()
    kept: dict[str, CandidateTable] = {}
    for threat, table in tables.items():
        kept[threat] = [table[j] for j in columns]
    return pairs.subset(range(n)), kept


def verdicts(per_model: Mapping[str, Sequence[Check]]) -> dict[str, list[Check]]:
    """The checks with `p_adjusted` and `verdict` filled in, by Holm over checks and models.

    A statistical check is violated if its adjusted p-value is at most `ALPHA`: the one-sided
    interval lies wholly above 2 points. An exact one is violated if anything differs.

    Args:
        per_model: by model (a name of weights: one of several seeds is a model of its own)
            what `sanity` found. All models that are reported together belong in one call.

    Raises:
        ValueError: bootstraps too short for that many checks: none could ever be violated.
    """
    places = [
        (model, index)
        for model, checks in per_model.items()
        for index, check in enumerate(checks)
        if not check.exact
    ]
    _check_resolution([per_model[model][index] for model, index in places])
    p_values = [per_model[model][index].p_value for model, index in places]
    adjusted = dict(zip(places, holm([p for p in p_values if p is not None]), strict=True))
    return {
        model: [_judged(check, adjusted.get((model, i))) for i, check in enumerate(checks)]
        for model, checks in per_model.items()
    }


def _check_resolution(checks: Sequence[Check]) -> None:
    coarsest = max((check.p_smallest or 0.0 for check in checks), default=0.0)
    if len(checks) * coarsest > ALPHA:
        raise ValueError(
            f"Holm over {len(checks)} checks multiplies the smallest p-value that the bootstrap "
            f"can show, {coarsest:.2g}, beyond {ALPHA}: no check could be violated. Raise n_boot "
            f"{len(checks) * coarsest / ALPHA:.1f}-fold."
        )


def _judged(check: Check, p_adjusted: float | None) -> Check:
    is_violated = check.estimate_points > 0 if p_adjusted is None else p_adjusted <= ALPHA
    return replace(check, p_adjusted=p_adjusted, verdict="violated" if is_violated else "passed")


_COLUMNS = (
    "asserts",
    "estimate_points",
    "lower_points",
    "p_value",
    "p_adjusted",
    "exact",
    "n_images",
    "verdict",
)


def to_frame(per_model: Mapping[str, Sequence[Check]]) -> pd.DataFrame:
    """One row per model and check, in the order given; `numbers` as JSON, rounded.

    Columns: model, check, asserts, estimate_points, lower_points, p_value, p_adjusted, exact,
    n_images, verdict, numbers.
    """
    rows = [
        {
            "model": model,
            "check": check.name,
            **{column: getattr(check, column) for column in _COLUMNS},
            "numbers": json.dumps({k: round(v, 2) for k, v in check.numbers.items()}),
        }
        for model, checks in per_model.items()
        for check in checks
    ]
    return pd.DataFrame(rows, columns=["model", "check", *_COLUMNS, "numbers"])
