"""The studies of pairs: tables, claims, what filters and options do to the rows."""

from __future__ import annotations

import json
import math
from itertools import product
from pathlib import Path

import pandas as pd
import pytest

from matlib.analysis.experiment import DIALS
from matlib.evaluation.retrieval import Outcomes, worst_of
from matlib.evaluation.robustness import key_of
from matlib.evaluation.statistics import Estimate, primary_endpoint
from matlib.evaluation.suite import Key
from matlib.study.made.measures import coordinates
from matlib.study.made.models import defended
from matlib.study.made.pairs import generated, pairs_notes
from matlib.study.made.protocols import (
    INSIDE_ATTACKS,
    PAIRS_ATTACKS,
    EvaluationProtocol,
    inside,
    pairs,
)
from matlib.study.profile.rows import Run
from matlib.study.publish.full import pair_study
from matlib.study.publish.report import read_claims
from matlib.study.recipes import as_run
from matlib.study.run.records import accept_records, write_records
from matlib.study.run.tasks import all_rows, is_done, make_rows, tasks_of
from matlib.study.study import Study
from matlib.study.tables.contrasts import _turned, failed_checks, pairs_contrasts
from matlib.study.tables.ledger import CONTRAST_COLUMNS, ledger
from matlib.study.tables.recalls import of_pairs
from matlib.study.tables.results import write_results
from matlib.study.tables.techniques import (
    RUN_COLUMNS,
    intervention_table,
    sweep_table,
    technique_table,
)
from tests.study.pairs_profile import SWEEPS, TECHNIQUES, pairs_profile


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    found = Study(pairs_profile(), tmp_path_factory.mktemp("results"))
    rows = all_rows(found.profile)
    make_rows(found, None, rows, 1, lambda line: None)
    assert all(is_done(found, task) for task in tasks_of(found.profile, rows))
    return found


def test_every_row_of_the_comparison_has_its_numbers(study: Study) -> None:
    table = technique_table(study)
    assert list(table.columns) == list(RUN_COLUMNS)
    assert table["row"].tolist() == [run.row for run in TECHNIQUES]
    reference = table.set_index("row").loc["mat"]
    assert reference["gain"] == 0 and reference["n_variants"] == 1 and reference["modality"] == ""
    gains = table["worst"] - reference["worst"]
    assert table["gain"].tolist() == pytest.approx(gains.tolist())
    assert (table["worst"] <= table[["pgd", "bert", "sga", "joint"]].min(axis=1) + 1e-9).all()
    small = table.set_index("row").loc["mat+.captions+renderings.t8"]
    assert small["n_train"] * small["n_variants"] == study.profile.dataset.n_train


def test_sweeps_hold_the_reference_the_usual_row_and_their_own(study: Study) -> None:
    table = sweep_table(study)
    eda = table[(table["augmentation"] == "eda") & (table["attack"] == "worst")]
    strength = eda[eda["dial"] == "strength"].set_index("level")["row"]
    assert strength.to_dict() == {0.0: "mat", 0.1: "mat+.eda", 0.5: "mat+.eda.x0.5"}
    amount = eda[eda["dial"] == "amount"].set_index("level")["row"]
    assert amount.to_dict() == {1.0: "mat", 2.0: "mat+.eda.n2", 3.0: "mat+.eda"}
    pairs = table[(table["dial"] == "pairs") & (table["attack"] == "sga")]
    plain = pairs[pairs["augmentation"] == "none"]
    assert plain.set_index("level")["row"].to_dict() == {12.0: "mat.t12", 24.0: "mat"}
    attacks = {*PAIRS_ATTACKS, "worst", "gain"}
    assert set(table["attack"]) == attacks and set(table["n_seeds"]) == {1}


def test_where_strength_0_still_adds_images_mat_stands_beside_the_levels(study: Study) -> None:
    table = sweep_table(study)
    part = table[(table["augmentation"] == "crop-flip-jitter") & (table["attack"] == "worst")]
    assert part["row"].tolist() == ["mat+.crop-flip-jitter.x0.5", "mat+.crop-flip-jitter", "mat"]
    assert part["level"].tolist()[:2] == [0.5, 1.0] and math.isnan(part["level"].iloc[2])


def test_gains_over_the_number_of_pairs_are_over_mat_on_as_many(study: Study) -> None:
    table = sweep_table(study)
    gains = table[table["attack"] == "gain"].set_index("level")
    row = "mat+.captions+renderings"
    assert gains["row"].to_dict() == {12.0: f"{row}.t12", 24.0: row}  # no MAT has 8 pairs
    one, other = (of_pairs(study, (0,)).level(name, "worst") for name in (f"{row}.t12", "mat.t12"))
    assert gains.loc[12.0, "value"] == pytest.approx(one - other)
    assert gains.loc[12.0, "low"] <= one - other <= gains.loc[12.0, "high"]


def test_rows_of_the_comparison_are_means_over_all_seeds(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three seeds; the second's every attack leaves what none leaves, the third's what PGD does."""
    before = Study.outcomes

    def outcomes(_: Study, name: str, seed: int, how: EvaluationProtocol) -> dict[Key, Outcomes]:
        own = before(study, name, 0, how)
        return own if seed == 0 else dict.fromkeys(own, own[("clean", "pgd")[seed - 1], ""])

    monkeypatch.setattr("matlib.study.study.Study.outcomes", outcomes)
    three = Study(study.profile.model_copy(update={"technique_seeds": (0, 1, 2)}),
                  study.root.parent, source=study.source)  # fmt: skip
    table = sweep_table(three)
    worst = table[(table["attack"] == "worst") & (table["dial"] == "strength")].set_index("row")
    evaluated = of_pairs(study, (0,))
    own = [evaluated.level("mat+.eda", attack) for attack in ("worst", "clean", "pgd")]
    assert worst.loc["mat+.eda", "value"] == pytest.approx(sum(own) / 3)
    assert worst.loc["mat+.eda", "n_seeds"] == 3 and worst.loc["mat+.eda.x0.5", "n_seeds"] == 1
    gains = table[table["attack"] == "gain"].set_index("level")["n_seeds"]
    assert gains.loc[24.0] == 3 and gains.loc[12.0] == 1  # a sweep has one


def test_gains_of_the_experiment_are_under_the_same_attacks_as_the_reference(study: Study) -> None:
    table = intervention_table(study)
    assert len(table) == 8 and not table.duplicated(list(DIALS)).any()
    row, e = table.iloc[5], study.profile.evaluation
    [name] = [r.row for r in study.profile.intervention.runs()  # type: ignore[union-attr]
              if r.dials is not None
              and [getattr(r.dials, d) for d in DIALS] == [row[d] for d in DIALS]]  # fmt: skip
    own = study.outcomes(name, 0, inside(e))["worst", e.primary_threat]
    reference = study.outcomes("mat", 0, pairs(e))
    same = worst_of([reference[key_of(a, e.primary_threat)] for a in INSIDE_ATTACKS])
    expected = primary_endpoint(own) - primary_endpoint(same)
    assert row["gain"] == pytest.approx(expected)
    true = table.set_index(list(DIALS))["true_fraction"]
    assert (true.xs(1.0, level="alignment") == 1).all()
    assert (true.xs(0.0, level="alignment") < 0.8).all()


def test_the_claims_on_pairs_are_decided_from_these_rows(study: Study) -> None:
    found = pairs_contrasts(study)
    names = {claim: [c.name for c in contrasts] for claim, contrasts in found.items()}
    assert names["C4"] == [
        "mat+.captions+renderings - mat", "mat+.captions+renderings - mat.regularised",
    ]  # fmt: skip
    assert names["C4b"] == ["mat+.captions+renderings.t8 - mat"]
    assert names["C4c"] == ["mat+.restated - mat"]
    assert names["C6"] == ["mat+.captioned.a-1.v1 - mat+.rewritten.v1"]
    [c5] = names["C5"]
    assert c5.endswith(" - mat+.crop-flip-jitter") and c5.split(" - ")[0] in (
        "mat+.eda", "mat+.captioned",
    )  # fmt: skip
    assert {"C7a", "C7b", "C7c"} <= set(names)
    claims = {claim["id"]: claim for claim in ledger(study)}
    assert claims["C4b"]["verdict"] != "not yet tested"
    assert claims["C2"]["verdict"] == "not yet tested" and "C2-valid" not in claims


def test_shift_counts_as_harm_with_its_interval_turned(study: Study) -> None:
    from matlib.analysis.experiment import fit_effects

    effect = fit_effects(intervention_table(study), n_boot=200).estimates["shift"]
    contrasts = pairs_contrasts(study)
    [harm], [alignment] = contrasts["C7c"], contrasts["C7a"]
    assert harm.estimate.value == pytest.approx(-effect.value)
    assert (harm.estimate.low, harm.estimate.high) == pytest.approx((-effect.high, -effect.low))
    assert {harm.unit, alignment.unit} == {"point"}
    assert "alignment high - low, over 8 design points, 1 seed" in alignment.name


def test_a_turned_effect_has_a_p_value_that_no_number_of_resamples_makes_0() -> None:
    always_below = Estimate(-0.2, -0.3, -0.1, 54, 1.0)  # as `percentile_estimate` counts
    assert _turned(always_below, 2 / 2001).p_below == pytest.approx(1 / 2001)
    assert _turned(always_below, 0.0).p_below > 0
    mostly_above = Estimate(0.1, -0.1, 0.3, 54, 0.2)
    turned = _turned(mostly_above, 0.4)
    assert turned.p_below == pytest.approx(0.8)
    assert (turned.value, turned.low, turned.high) == (-0.1, -0.3, 0.1)


def dialled(shift_moves: float) -> pd.DataFrame:
    """An experiment with images of which shift also moves diversity, by that much of its range."""
    rows = [
        {"alignment": a, "diversity": d, "shift": s, "modality": modality, "true_fraction": a,
         "vendi": d + shift_moves * s * (modality == "image"), "mmd2": s}
        for modality in ("text", "image") for a, d, s in product((0.0, 1.0), repeat=3)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_a_dial_that_failed_its_check_says_so_in_contrast_and_scope(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert failed_checks(dialled(0.05)) == {}
    words = "; dial failed its check for added images"
    assert failed_checks(dialled(0.3)) == {"shift": words}
    both = {"shift": "; dial failed its check for added captions and images"}
    monkeypatch.setattr("matlib.study.tables.contrasts.failed_checks", lambda _: both)
    claims = {claim["id"]: claim for claim in ledger(study)}
    for part in ("contrast", "scope"):
        assert claims["C7c"][part].endswith(both["shift"])
        assert "failed" not in claims["C7a"][part]
    assert claims["C7c"]["unit"] == "point" and "these weights" in claims["C7c"]["verdict"]


def test_every_contrast_is_written_beside_the_claims(study: Study) -> None:
    files = write_results(study)
    table = pd.read_csv(files["contrasts.csv"], keep_default_na=False)
    assert list(table.columns) == list(CONTRAST_COLUMNS)
    claims = {claim["id"]: claim for claim in read_claims(files["claims.json"])}
    c4 = table[table["claim"] == "C4"].set_index("contrast")
    assert list(c4.index) == [
        "mat+.captions+renderings - mat", "mat+.captions+renderings - mat.regularised",
    ]  # fmt: skip
    weakest = c4.loc[claims["C4"]["contrast"]]
    assert weakest["ci_low"] == c4["ci_low"].min()
    assert weakest["estimate"] == pytest.approx(claims["C4"]["estimate"], abs=1e-4)
    assert (c4["p_adjusted_within"] > 0).all()
    assert claims["C4"]["figure"] == "notebooks/30_one_to_many.ipynb"
    assert claims["C7a"]["picture"] == "good_pairs.png" and claims["C8b"]["figure"] == ""


def test_the_tables_are_read_again_from_where_they_are_published(study: Study) -> None:
    own = pair_study(study)
    assert own is not None and len(own.gains) == len(TECHNIQUES) - 1
    assert own.effects() is not None and own.reference == "mat"
    published = study.root.parent / "published"
    target = published / "one-to-many"
    target.mkdir(parents=True, exist_ok=True)
    for path in write_results(study).values():
        (target / path.name).write_bytes(path.read_bytes())
    demo = Study(study.profile.model_copy(update={"name": "demo", "techniques": ()}),
                 study.root.parent, source=study.source)  # fmt: skip
    read = pair_study(demo, published)
    assert read is not None and "published/one-to-many" in read.origin
    pd.testing.assert_frame_equal(
        read.gains[["row", "gain"]], own.gains[["row", "gain"]], check_exact=False, atol=1e-6
    )
    other = Study(demo.profile.model_copy(update={"name": "other"}), study.root.parent,
                  source=study.source)  # fmt: skip
    assert pair_study(other, published) is None


def test_records_carry_the_pairs_of_another_machine(study: Study, tmp_path: Path) -> None:
    write_records(study, tmp_path / "records")
    again = Study(study.profile, tmp_path / "results", source=study.source)
    assert accept_records(again, tmp_path / "records", whole=True) > 20
    pd.testing.assert_frame_equal(
        technique_table(again).drop(columns="seconds"),
        technique_table(study).drop(columns="seconds"),
    )
    pd.testing.assert_frame_equal(intervention_table(again), intervention_table(study))
    assert not list((tmp_path / "results").rglob("model.safetensors"))  # nothing was trained


def test_generated_pairs_are_stored_where_they_can_be_looked_at(study: Study) -> None:
    node = generated(study, as_run("captioned"), 0)
    artefact = study.find(node)
    assert artefact is not None and artefact.notes["n_asked"] == 2 * 24
    assert {"n_empty", "n_identical", "n_left_out", "n_retried"} <= set(artefact.notes)
    told = {"tries": 3, "temperature": 1.0, "top_p": 0.9, "max_words": 32}
    assert told.items() <= dict(artefact.notes).items()
    written = json.loads(artefact.file("captions.json").read_text())
    found = study.variants("captioned")
    assert [list(own[1:]) for own in found.captions] == written
    same = generated(study, Run(defence="mat+", augmentation="captioned", vendi=1.0), 0)
    # filters keep of the same captions
    assert same is not None and node is not None and same.hash == node.hash


def test_what_generators_and_filters_did_is_noted(study: Study, tmp_path: Path) -> None:
    study.variants("rewritten")
    notes = pairs_notes(study).set_index("pairs")
    rewritten = notes.loc["rewritten"]
    assert rewritten["n_asked"] == 2 * 24 and 0 <= rewritten["n_equal_original"] <= 48
    assert 0 <= rewritten["n_repeats"] <= 48 - rewritten["n_equal_original"]
    filtered = notes.loc["captioned.a-1.v1"]
    assert filtered["keep_aligned"] == 1  # a cosine of -1 keeps all
    assert 0 < filtered["vendi"] < 1  # repeats take the place of different captions
    assert notes.loc["augmix.k1", "keep_diverse"] == pytest.approx(0.5, abs=0.1)
    assert pairs_notes(Study(study.profile, tmp_path)).empty


def test_options_of_pairs_are_part_of_a_models_identity(study: Study) -> None:
    hashes = {defended(study, run, 0).hash for run in (*TECHNIQUES, *SWEEPS)}
    assert len(hashes) == len(TECHNIQUES) + len(SWEEPS)
    shared = [study.get(coordinates(study, Run(defence="mat+", augmentation="eda", lr=lr)))
              for lr in (None, 0.01)]  # fmt: skip
    assert shared[0] == shared[1]
