"""The studies of pairs: tables, claims, what filters and options do to the rows."""

from __future__ import annotations

import json
import math
from itertools import product
from pathlib import Path

import pandas as pd
import pytest

from matlib.analysis.experiment import DIALS
from matlib.evaluation.retrieval import Outcomes
from matlib.evaluation.robustness import worst_under
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
from matlib.study.publish.full import OF_DIALS, pair_study
from matlib.study.publish.report import read_claims
from matlib.study.recipes import as_run
from matlib.study.run.records import accept_records, write_records
from matlib.study.run.tasks import all_rows, is_done, make_rows, tasks_of
from matlib.study.study import Study
from matlib.study.tables.contrasts import turned
from matlib.study.tables.contrasts_of_pairs import (
    _equal_pairs,
    contrasts_of_pairs,
    curve_of_pairs,
    failed_checks,
)
from matlib.study.tables.ledger import CONTRAST_COLUMNS, ledger
from matlib.study.tables.recalls import of_pairs
from matlib.study.tables.results import write_results
from matlib.study.tables.techniques import (
    RUN_COLUMNS,
    gaps,
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
    same = worst_under(reference, e.primary_threat, INSIDE_ATTACKS)
    expected = primary_endpoint(own) - primary_endpoint(same)
    assert row["gain"] == pytest.approx(expected)
    true = table.set_index(list(DIALS))["true_fraction"]
    assert (true.xs(1.0, level="alignment") == 1).all()
    assert (true.xs(0.0, level="alignment") < 0.8).all()


def test_a_reference_on_few_pairs_is_no_rival_at_an_equal_number(tmp_path: Path) -> None:
    profile = pairs_profile()
    fewer = Run(defence="mat", n_train=8)
    few = profile.model_copy(update={
        "techniques": (fewer, *profile.techniques), "reference": fewer.row,
    })  # fmt: skip
    assert _equal_pairs(Study(few, tmp_path)) == []


def test_the_claims_on_pairs_are_decided_from_these_rows(study: Study) -> None:
    found = contrasts_of_pairs(study)
    names = {claim: [c.name for c in contrasts] for claim, contrasts in found.items()}
    assert names["C4"] == [
        "mat+.captions+renderings - mat", "mat+.captions+renderings - mat.regularised",
    ]  # fmt: skip
    assert {c.part for c in found["C4"]} == {"24 pairs"}  # no MAT has 8 pairs
    assert names["C4b"] == ["mat+.captions+renderings.t8 - mat"]
    assert names["C4c"] == ["mat+.restated - mat"]
    assert names["C6"] == ["mat+.captioned.a-1.v1 - mat+.rewritten.v1"]
    [c5] = names["C5"]
    assert c5.endswith(" - mat+.crop-flip-jitter") and c5.split(" - ")[0] in (
        "mat+.eda", "mat+.captioned",
    )  # fmt: skip
    assert {c.endpoint for claim in ("C5", "C6") for c in found[claim]} == {"MRR"}
    assert {c.endpoint for c in found["C4"]} == {"R@1"} and found["C4"][0].beside is not None
    claims = {claim["id"]: claim for claim in ledger(study)}
    assert claims["C4b"]["verdict"] != "not yet tested" == claims["C2"]["verdict"]


def test_over_fitting_is_the_gap_with_the_bases_taken_off(study: Study) -> None:
    [found] = contrasts_of_pairs(study)["C3"]
    assert found.part == "24 pairs" and found.name.startswith("(mat - base on training pairs)")
    assert found.estimate.value == pytest.approx(gaps(study, "mat", (0,))[0])
    assert found.estimate.low <= found.estimate.value <= found.estimate.high
    assert found.unit == "query" and found.estimate.n == len(study.pairs("test-1"))


def test_curves_hold_gap_and_gain_of_every_kind_at_every_number_of_pairs(study: Study) -> None:
    table = curve_of_pairs(study).set_index("row")
    assert set(table["n_train"]) == {8, 24} and set(table["weights"]) == {"best"}
    small = table.loc["mat+.captions+renderings.t8"]
    assert small["defence"] == "mat+.captions+renderings" and math.isnan(small["gain"])
    levels = of_pairs(study, (0,))
    one, mat = (levels.level(name, "worst") for name in ("mat+.eda", "mat"))
    assert table.loc["mat+.eda", "gain"] == pytest.approx(one - mat)
    assert table.loc["mat", "gap"] == pytest.approx(gaps(study, "mat", (0,))[0])
    assert "mat+.captioned.a-1.v1" not in table.index  # its pairs have other options


def test_each_step_of_a_dial_is_a_contrast_and_shift_counts_as_harm(study: Study) -> None:
    runs, found = intervention_table(study), contrasts_of_pairs(study)
    for claim, dial, sign in (("C7a", "alignment", 1), ("C7c", "shift", -1)):
        [step] = found[claim]
        means = runs.groupby(dial)["gain"].mean()
        assert step.estimate.value == pytest.approx(sign * (means[1.0] - means[0.0]))
        assert step.part == "added captions" and step.unit == "point"
    assert "shift 0 - at 1" in found["C7c"][0].name
    assert "alignment 1 - at 0" in found["C7a"][0].name


def test_a_turned_effect_has_a_p_value_that_no_number_of_resamples_makes_0() -> None:
    always_below = Estimate(-0.2, -0.3, -0.1, 54, 1.0)  # as `percentile_estimate` counts
    assert turned(always_below, 2000).p_below == pytest.approx(1 / 2001)
    mostly_above = Estimate(0.1, -0.1, 0.3, 54, 0.2)
    found = turned(mostly_above, 2000)
    assert found.p_below == pytest.approx(0.8 + 1 / 2001)
    assert (found.value, found.low, found.high) == (-0.1, -0.3, 0.1)


def dialled(shift_moves: float) -> pd.DataFrame:
    """An experiment with images of which shift also moves diversity, by that much of its range."""
    rows = [
        {"alignment": a, "diversity": d, "shift": s, "modality": modality, "true_fraction": a,
         "vendi": d + shift_moves * s * (modality == "image"), "mmd2": s}
        for modality in ("text", "image") for a, d, s in product((0.0, 1.0), repeat=3)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_a_dial_that_failed_its_check_gives_no_verdict_in_that_modality(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert failed_checks(dialled(0.05)) == {}
    assert set(failed_checks(dialled(0.3))) == {("shift", "image")}
    monkeypatch.setattr(
        "matlib.study.tables.contrasts_of_pairs.failed_checks",
        lambda _: {("shift", "text"): "the dial failed its check"},
    )
    claims = {claim["id"]: claim for claim in ledger(study)}
    assert claims["C7c"]["verdict"] == "no verdict (the dial failed its check)"
    assert "these weights" in claims["C7a"]["verdict"] and claims["C7a"]["void"] == ""


def test_every_contrast_is_written_beside_the_claims(study: Study) -> None:
    files = write_results(study)
    table = pd.read_csv(files["contrasts.csv"], keep_default_na=False)
    assert list(table.columns) == list(CONTRAST_COLUMNS)
    claims = {claim["id"]: claim for claim in read_claims(files["claims.json"])}
    c4 = table[(table["claim"] == "C4") & table["decides"]].set_index("contrast")
    weakest = c4.loc[claims["C4"]["contrast"]]
    assert weakest["ci_low"] == c4["ci_low"].min()
    assert weakest["estimate"] == pytest.approx(claims["C4"]["estimate"], abs=1e-4)
    assert claims["C4"]["p_below"] == pytest.approx(c4["p_below"].max(), rel=1e-2)
    assert len(pd.read_csv(files["curves.csv"])) == len(curve_of_pairs(study))
    assert claims["C4"]["figure"] == "notebooks/30_one_to_many.ipynb"
    assert claims["C7a"]["picture"] == "good_pairs.png"
    assert claims["C8b"]["figure"] == "notebooks/95_other_tasks.ipynb"


def test_the_tables_are_read_again_from_where_they_are_published(study: Study) -> None:
    own = pair_study(study)
    assert len(own.gains) == len(TECHNIQUES) - 1
    assert len(own.effects()) and own.reference == "mat"
    published = study.root.parent / "published"
    target = published / "one-to-many"
    target.mkdir(parents=True, exist_ok=True)
    for path in write_results(study).values():
        (target / path.name).write_bytes(path.read_bytes())
    demo = Study(study.profile.model_copy(update={"name": "demo", "techniques": ()}),
                 study.root.parent, source=study.source)  # fmt: skip
    read = pair_study(demo, published=published)
    assert "published/one-to-many" in read.origin
    dialled = pair_study(demo, "intervention", OF_DIALS, published)
    assert dialled.origin == read.origin and len(dialled.effects()) == len(own.effects())
    pd.testing.assert_frame_equal(
        read.gains[["row", "gain"]], own.gains[["row", "gain"]], check_exact=False, atol=1e-6
    )
    other = Study(demo.profile.model_copy(update={"name": "other"}), study.root.parent,
                  source=study.source)  # fmt: skip
    none = pair_study(other, published=published)
    assert none.origin == "Profile other shows its own rows only."
    for table, filled in ((none.techniques, own.techniques), (none.effects(), own.effects()),
                          (none.dialled, own.dialled), (none.sweeps, own.sweeps),
                          (none.curves, own.curves)):  # fmt: skip
        assert table.empty and list(table.columns) == list(filled.columns)
    assert none.gains.empty and none.responses().empty and none.predictions().empty


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
