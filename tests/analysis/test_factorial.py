"""The model of the intervention finds what was put into a table of runs, and nothing else."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
import pytest

from matlib.analysis.experiment import (
    DIALS,
    achieved_levels,
    design_matrix,
    fit_effects,
    manipulation_check,
    n_trainings,
    range_check,
    responses_by_dose,
    steps_of_dials,
)
from matlib.analysis.prediction import (
    coordinate_correlations,
    levels_from_measures,
    predict_left_out,
    prediction_errors,
)

TRUE = {"mean": 0.05, "alignment": 0.08, "shift": -0.06, "alignment:diversity": 0.10,
        "modality": 0.03}  # fmt: skip
ACHIEVED = {dial: f"achieved_{dial}" for dial in DIALS}


def runs(n_seeds: int = 2, noise: float = 0.005, seed: int = 0, **change: float) -> pd.DataFrame:
    """A 3 x 3 x 3 x 2 design with known coefficients; `diversity` alone has no effect."""
    rng = np.random.default_rng(seed)
    points = list(product((0.0, 0.5, 1.0), (0.0, 0.5, 1.0), (0.0, 0.5, 1.0), ("image", "text")))
    table = pd.DataFrame(
        [(*p, s) for s in range(n_seeds) for p in points], columns=[*DIALS, "modality", "seed"]
    )
    design, terms = design_matrix(table)
    wanted = {**TRUE, **change}
    table["gain"] = design @ np.array([wanted.get(t, 0.0) for t in terms])
    table["gain"] += rng.normal(0, noise, len(table))
    scale = {"alignment": 2.0, "diversity": 3.0, "shift": 0.5}
    for dial in DIALS:
        table[ACHIEVED[dial]] = 1 + scale[dial] * table[dial]
        table[ACHIEVED[dial]] += rng.normal(0, 0.01 * scale[dial], len(table))
    return table


@pytest.mark.parametrize("n_seeds", [2, 4])
def test_coefficients_are_recovered_with_the_right_unit(n_seeds: int) -> None:
    effects = fit_effects(runs(n_seeds))
    for term, estimate in effects.estimates.items():
        assert estimate.value == pytest.approx(TRUE.get(term, 0.0), abs=0.01), term
        assert estimate.low <= estimate.value <= estimate.high
        assert estimate.unit == ("seed" if n_seeds >= 3 else "query")
        assert estimate.n == (n_seeds if n_seeds >= 3 else 54)
    found = effects.table().set_index("term")
    for term in ("alignment", "shift", "alignment:diversity", "modality"):
        assert found.loc[term, "p_holm"] < 0.05
        assert (found.loc[term, "low"] > 0) == (TRUE[term] > 0)
        assert (found.loc[term, "high"] < 0) == (TRUE[term] < 0)
    assert effects.residual_sd == pytest.approx(0.005, rel=0.3)


@pytest.mark.parametrize("n_seeds", [2, 5])
def test_intervals_cover_and_a_null_effect_is_seldom_found(n_seeds: int) -> None:
    covered, false_alarms, n = 0, 0, 60
    for trial in range(n):
        effects = fit_effects(runs(n_seeds, noise=0.03, seed=trial), n_boot=400)
        shift, null = effects.estimates["shift"], effects.estimates["diversity"]
        covered += shift.low <= TRUE["shift"] <= shift.high
        false_alarms += not null.low <= 0 <= null.high
    assert covered >= 0.85 * n  # 95 % wanted; below 85 % has probability 0.004 of 60
    assert false_alarms <= 0.15 * n


def test_a_common_level_of_each_seed_moves_no_effect() -> None:
    table = runs(2)
    moved = table.assign(gain=table["gain"] + table["seed"] * 0.5)
    for term, estimate in fit_effects(moved).estimates.items():
        if term != "mean":
            assert estimate.value == pytest.approx(fit_effects(table).estimates[term].value)


def test_dose_response_is_the_mean_of_the_runs_and_follows_the_dial() -> None:
    table = runs(3)
    curve = responses_by_dose(table)
    assert set(curve["unit"]) == {"seed"} and len(curve) == 3 * 2 * 3
    row = curve[(curve["dial"] == "shift") & (curve["level"] == 1) & (curve["modality"] == "text")]
    part = table[(table["shift"] == 1) & (table["modality"] == "text")]
    assert row["value"].item() == pytest.approx(part["gain"].mean())
    few = responses_by_dose(runs(2)).set_index(["dial", "modality", "level"])
    assert set(few["unit"]) == {"query"}
    assert few.loc[("shift", "image", 0.0), "low"] > few.loc[("shift", "image", 1.0), "high"]
    width = few["high"] - few["low"]
    # the other dials move the gain by 0.1 and more; their spread is not in the interval
    assert width.loc["shift"].max() < 0.02


def test_a_modality_alone_and_a_dial_at_one_level_are_left_out() -> None:
    table = runs(2)
    part = table[(table["modality"] == "text") & (table["diversity"] == 1.0)]
    assert set(fit_effects(part).estimates) == {
        "mean", "alignment", "shift", "alignment^2", "shift^2", "alignment:shift",
    }  # fmt: skip


def test_a_middle_that_is_better_than_both_ends_is_a_bend_and_no_main_effect() -> None:
    table = runs(2)
    straight = fit_effects(table).estimates
    table["gain"] += 0.04 * (table["alignment"] == 0.5)
    bent = fit_effects(table).estimates
    assert bent["alignment^2"].value == pytest.approx(-0.04, abs=0.005)
    assert bent["alignment^2"].high < 0
    assert bent["alignment"].value == pytest.approx(straight["alignment"].value)
    assert straight["diversity^2"].low < 0 < straight["diversity^2"].high


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"alignment": 1.5}, "levels are set in"),
        ({"gain": float("nan")}, "no gain"),
    ],
)
def test_a_table_that_cannot_be_fitted_is_refused(change: dict[str, object], words: str) -> None:
    table = runs(1)
    for column, value in change.items():
        table[column] = value
    with pytest.raises(ValueError, match=words):
        fit_effects(table)
    with pytest.raises(ValueError, match="unknown modalities"):
        fit_effects(runs(1).replace({"modality": {"text": "sound"}}))
    with pytest.raises(ValueError, match="two runs of one seed"):
        fit_effects(pd.concat([runs(1), runs(1)]))


def test_a_latin_square_finds_steps_and_bends_but_no_interactions_of_dials() -> None:
    table = runs(3, **{"alignment:diversity": 0.0})
    table["gain"] += 0.04 * (table["alignment"] == 0.5)
    level = (2 * table[list(DIALS)]).astype(int)
    square = table[level["shift"] == (level["alignment"] + level["diversity"]) % 3]
    effects = fit_effects(square).estimates
    assert "alignment:shift" not in effects and "shift:modality" in effects
    assert effects["alignment^2"].value == pytest.approx(-0.04, abs=0.006)
    whole, part = steps_of_dials(table), steps_of_dials(square)
    for key, steps in whole.items():
        for (_, _, own), (_, _, wanted) in zip(part[key], steps, strict=True):
            assert own.value == pytest.approx(wanted.value, abs=0.01) and own.n == 3
    check = manipulation_check(square, ACHIEVED)
    assert not check["failed"].any() and len(check) == 18
    assert set(responses_by_dose(square[square["seed"] == 0])["unit"]) == {"query"}


def test_a_training_is_a_seed_in_a_world() -> None:
    one = runs(1, seed=1)
    worlds = pd.concat([one.assign(world=w, gain=one["gain"] + 0.001 * w) for w in (31, 32, 33)])
    assert n_trainings(worlds) == 3 and n_trainings(one) == 1
    [step, _] = steps_of_dials(worlds)["shift", "image"]
    assert (step[2].n, step[2].unit) == (3, "seed")
    assert fit_effects(worlds).n_seeds == 3
    with pytest.raises(ValueError, match="two runs of one seed"):
        fit_effects(worlds.assign(world=31))


def test_dials_that_move_together_are_refused() -> None:
    table = runs(2)
    with pytest.raises(ValueError, match="cannot tell"):
        fit_effects(table[table["alignment"] == table["diversity"]].iloc[:12])


def test_cross_talk_is_flagged_and_a_dead_dial_too() -> None:
    table = runs(2)
    check = manipulation_check(table, ACHIEVED).set_index(["modality", "dial", "measure"])
    assert not check["failed"].any()
    assert (check[check["is_own"]]["share"] == 1).all()
    leaking = table.copy()
    text = leaking["modality"] == "text"
    leaking.loc[text, "achieved_shift"] += 0.2 * 0.5 * leaking.loc[text, "diversity"]
    check = manipulation_check(leaking, ACHIEVED).set_index(["modality", "dial", "measure"])
    assert check.loc[("text", "diversity", "shift"), "failed"]
    assert check.loc[("text", "diversity", "shift"), "share"] == pytest.approx(0.2, abs=0.03)
    assert check["failed"].sum() == 1
    dead = table.assign(achieved_diversity=np.random.default_rng(0).normal(size=len(table)))
    check = manipulation_check(dead, ACHIEVED, ranges=dict.fromkeys(DIALS, 10.0))
    own = check[check["is_own"]].groupby("dial")["failed"].all()
    assert own["diversity"] and not own["alignment"]


def test_a_bend_cannot_hide_in_the_ends() -> None:
    table = runs(2)
    table["achieved_shift"] += 0.2 * (table["alignment"] == 0.5)
    check = manipulation_check(table, ACHIEVED).set_index(["dial", "measure"])
    assert check.loc[("alignment", "shift"), "failed"].all()


def test_achieved_levels_rise_with_the_set_ones() -> None:
    found = achieved_levels(runs(2), ACHIEVED)
    for _, part in found.groupby(["modality", "dial"]):
        assert part.sort_values("level")["value"].is_monotonic_increasing


def techniques(n: int = 8, seed: int = 3) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Measured coordinates of techniques, and the levels they stand for."""
    rng = np.random.default_rng(seed)
    levels = pd.DataFrame(rng.uniform(0, 1, (n, 3)), columns=list(DIALS))
    levels["modality"] = ["image", "text"] * (n // 2)
    measured = levels.assign(
        technique=[f"t{i}" for i in range(n)],
        alignment=1 + 2 * levels["alignment"],
        diversity=1 + 3 * levels["diversity"],
        shift=1 + 0.5 * levels["shift"],
    )
    return measured, levels


def test_techniques_that_follow_the_theory_are_predicted_better_than_by_their_mean() -> None:
    table = runs(2)
    effects = fit_effects(table)
    measured, true_levels = techniques()
    levels = levels_from_measures(table, ACHIEVED, measured)
    np.testing.assert_allclose(levels[list(DIALS)], true_levels[list(DIALS)], atol=0.02)
    assert levels["inside"].all()
    design, terms = design_matrix(true_levels)
    gain = pd.Series(design @ [TRUE.get(t, 0.0) for t in terms], index=measured["technique"])
    predicted = predict_left_out(effects, levels, gain)
    errors = prediction_errors(predicted).set_index("model")
    assert errors.loc["theory", "error"] < 0.2 * errors.loc["baseline", "error"]
    assert errors.loc["theory", "better_low"] > 0
    others = predicted["gain"].drop(0).mean()
    assert predicted["baseline"].iloc[0] == pytest.approx(others)
    # a constant that the dialled runs do not have is learnt from the other techniques
    moved = prediction_errors(predict_left_out(effects, levels, gain + 0.3)).set_index("model")
    assert moved.loc["theory", "error"] > 0.25
    assert moved.loc["theory_offset", "error"] == pytest.approx(
        errors.loc["theory_offset", "error"]
    )


def test_a_theory_of_nothing_predicts_no_better_than_the_mean() -> None:
    table = runs(2)
    measured, _ = techniques(10)
    gain = pd.Series(np.random.default_rng(1).normal(size=10), index=measured["technique"])
    levels = levels_from_measures(table, ACHIEVED, measured)
    errors = prediction_errors(predict_left_out(fit_effects(table), levels, gain))
    better = errors.set_index("model").loc["theory_offset"]
    assert better["better_low"] < 0 < better["better_high"] or better["better_by"] < 0


def test_a_technique_beyond_the_dials_is_marked() -> None:
    measured, _ = techniques()
    measured.loc[0, "alignment"] = 9.0
    assert levels_from_measures(runs(2), ACHIEVED, measured)["inside"].tolist() == [
        False, *[True] * 7,
    ]  # fmt: skip
    far = levels_from_measures(runs(2), ACHIEVED, measured).iloc[0]
    assert far["alignment"] == 1.0 and far["miss"] > 1  # the nearest setting, never beyond it
    with pytest.raises(ValueError, match="modality 'both'"):
        levels_from_measures(runs(2), ACHIEVED, measured.assign(modality="both"))


def test_levels_are_found_where_one_dial_weakens_the_measure_of_another() -> None:
    table = runs(2)
    table["achieved_alignment"] = 1 + 2 * table["alignment"] * (1 - 0.6 * table["shift"])
    measured, levels = techniques()
    measured["alignment"] = 1 + 2 * levels["alignment"] * (1 - 0.6 * levels["shift"])
    found = levels_from_measures(table, ACHIEVED, measured)
    np.testing.assert_allclose(found[list(DIALS)], levels[list(DIALS)], atol=0.05)
    assert found["inside"].all()


def test_a_range_that_stops_short_of_the_techniques_is_seen() -> None:
    measured, _ = techniques(10)
    real = measured.rename(columns={dial: ACHIEVED[dial] for dial in DIALS})
    assert range_check(runs(2), ACHIEVED, real)["spans"].all()
    real["achieved_diversity"] += 2 * (real["modality"] == "image")
    found = range_check(runs(2), ACHIEVED, real).set_index(["modality", "dial"])
    assert not found.loc[("image", "diversity"), "spans"]
    assert found["spans"].sum() == 5


def test_coordinates_that_order_the_gain_correlate_with_it() -> None:
    measured, _ = techniques(10)
    table = measured.assign(gain=measured["alignment"] ** 3)
    found = coordinate_correlations(table).set_index("coordinate")
    assert found.loc["alignment", "value"] == pytest.approx(1)
    assert found.loc["alignment", "low"] > 0.8
    assert found.loc["alignment", "p_above"] < 0.001
    assert found.loc["diversity", "low"] < 0 < found.loc["diversity", "high"]


@pytest.mark.parametrize("n_seeds", [2, 4])
def test_a_dial_that_helps_and_then_harms_is_seen_step_by_step(n_seeds: int) -> None:
    bent = runs(n_seeds, **{"alignment": 0.0, "alignment^2": -0.08})  # ends minus middle
    steps = steps_of_dials(bent, n_boot=200)
    assert set(steps) == {(dial, kind) for dial in DIALS for kind in ("image", "text")}
    for kind in ("image", "text"):
        (low, middle, up), (same, high, down) = steps["alignment", kind]
        assert (low, middle, same, high) == (0.0, 0.5, 0.5, 1.0)
        assert up.value == pytest.approx(0.08, abs=0.01) and up.low > 0
        assert down.value == pytest.approx(-0.08, abs=0.01) and down.high < 0
        assert up.unit == ("seed" if n_seeds >= 3 else "query")
        means = bent[bent["modality"] == kind].groupby("alignment")["gain"].mean()
        assert up.value == pytest.approx(means[0.5] - means[0.0])
        assert [step.value for *_, step in steps["shift", kind]] == pytest.approx(
            [-0.03] * 2, abs=0.01
        )
