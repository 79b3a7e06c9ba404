"""Claims C4 to C7: which pairs make MAT more robust, from the studies of pairs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from sys import float_info

import pandas as pd

from matlib.analysis.factorial import fit_effects
from matlib.analysis.gains import best_on_validation
from matlib.analysis.manipulation import manipulation_check
from matlib.config.rows import Run
from matlib.evaluation.bootstrap import Estimate
from matlib.study.contrasts import Contrast, contrast
from matlib.study.intervention import ACHIEVED, intervention_table
from matlib.study.recipes import n_variants_of
from matlib.study.runs import Study
from matlib.study.techniques import found_by, technique_table

PAPER_TECHNIQUE = "captions+renderings"
"""The paper's MAT+: several captions and several images."""


def pairs_contrasts(study: Study) -> dict[str, list[Contrast]]:
    """Contrasts by claim; empty for a profile that compares no techniques."""
    if not study.profile.techniques:
        return {}
    found = {
        "C4": _one_to_many(study),
        "C4b": _equal_pairs(study),
        "C4c": _same_facts(study),
        "C5": _text_or_image(study),
        "C6": _cross_or_intra(study),
        **_dials(study),
    }
    return {claim: contrasts for claim, contrasts in found.items() if contrasts}


def _rows(study: Study, is_wanted: Callable[[Run], bool]) -> list[str]:
    return [run.row for run in study.profile.techniques if is_wanted(run)]


def _between(study: Study, firsts: Sequence[str], others: Sequence[str]) -> list[Contrast]:
    seeds = study.profile.seeds_of_techniques
    return [
        contrast(
            study, f"{first} - {other}", lambda name, seed: found_by(study, name, seed)["worst"],
            first, other, study.pairs("test").image_of, seeds,
        )
        for first in firsts
        for other in others
    ]  # fmt: skip


def _is_plain(run: Run, augmentation: str) -> bool:
    return run.augmentation == augmentation and not run.options and not run.label


def _one_to_many(study: Study) -> list[Contrast]:
    """The paper's MAT+ against MAT, and against MAT with weight averaging and decay."""
    plain = _rows(study, lambda run: _is_plain(run, PAPER_TECHNIQUE))
    rivals = [study.profile.reference, *_rows(study, lambda run: not run.modality and (
        run.ema_decay is not None or run.weight_decay is not None))]  # fmt: skip
    return _between(study, plain, rivals)


def _equal_pairs(study: Study) -> list[Contrast]:
    """Few images with several captions and renderings against as many 1:1 pairs."""

    def has_as_many(run: Run) -> bool:
        n = (run.n_train or 0) * n_variants_of(study.profile, run)
        return run.augmentation == PAPER_TECHNIQUE and n == study.profile.dataset.n_train

    return _between(study, _rows(study, has_as_many), [study.profile.reference])


def _same_facts(study: Study) -> list[Contrast]:
    restated = _rows(study, lambda run: _is_plain(run, "restated"))
    return _between(study, restated, [study.profile.reference])


def _text_or_image(study: Study) -> list[Contrast]:
    """The best text technique minus the best image technique, both chosen on validation."""
    runs = technique_table(study)
    text, image = (best_on_validation(runs, modality) for modality in ("text", "image"))
    return _between(study, [text], [image]) if text and image else []


def _cross_or_intra(study: Study) -> list[Contrast]:
    """Captioner, filtered and not, minus rewriter, all thinned to one Vendi score."""
    cross = _rows(study, lambda run: run.augmentation == "captioned" and run.vendi is not None)
    intra = _rows(study, lambda run: run.augmentation == "rewritten" and run.vendi is not None)
    return _between(study, cross, intra)


def _dials(study: Study) -> dict[str, list[Contrast]]:
    """C7a-c: effects of the set levels on the gain, from lowest to highest level."""
    runs = intervention_table(study)
    if runs.empty:
        return {}
    effects = fit_effects(runs, n_boot=study.profile.evaluation.n_boot)
    failed, n_seeds = failed_checks(runs), effects.n_seeds
    behind = f"{effects.n_points} design points, {n_seeds} seed{'' if n_seeds == 1 else 's'}"
    found = {}
    for claim, dial in (("C7a", "alignment"), ("C7b", "diversity"), ("C7c", "shift")):
        effect, words = effects.estimates.get(dial), "high - low"
        if effect is None:
            continue
        if dial == "shift":
            effect, words = _turned(effect, effects.p_values[dial]), "none - large"
        label = f"gain of MAT+ at {dial} {words}, over {behind}{failed.get(dial, '')}"
        unit = "seed" if effect.unit == "seed" else "point"  # not queries: design points
        found[claim] = [Contrast(label, effect, n_seeds, unit)]
    return found


CAVEAT = "; dial failed its check for added "
_ADDED = {"text": "captions", "image": "images"}


def failed_checks(runs: pd.DataFrame) -> dict[str, str]:
    """What to say of dials that failed their manipulation check: dial -> e.g. "; dial failed its
    check for added images"; such a dial moved another measure too, or not its own.

    Args:
        runs: as `intervention_table` gives them.
    """
    check = manipulation_check(runs, ACHIEVED)
    failed = check[check["failed"]].groupby("dial")["modality"]
    return {
        str(dial): CAVEAT + " and ".join(_ADDED[m] for m in sorted(set(modalities), reverse=True))
        for dial, modalities in failed
    }


def caveat_of(contrast: Contrast) -> str:
    """What `failed_checks` has added to a contrast, for the scope of its verdict; "" if nothing."""
    _, caveat, added = contrast.name.partition(CAVEAT)
    return caveat + added


def _turned(estimate: Estimate, p_two_sided: float) -> Estimate:
    """The estimate of the opposite difference.

    Its p-value is taken from the fit's own two-sided one: `1 - p_below` would be 0 where no
    resample lies on the other side, and so many resamples cannot show that.
    """
    smaller = max(p_two_sided / 2, float_info.epsilon)
    return replace(
        estimate, value=-estimate.value, low=-estimate.high, high=-estimate.low,
        p_below=smaller if estimate.p_below > 0.5 else 1 - smaller,
    )  # fmt: skip
