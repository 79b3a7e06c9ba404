"""The studies of pairs: tables, claims, what filters and options do to the rows."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from matlib.analysis.factorial import DIALS
from matlib.config import Run
from matlib.evaluation.retrieval import worst_of
from matlib.evaluation.statistics import primary_endpoint
from matlib.study.coordinates import coordinates
from matlib.study.good_pairs import pair_study
from matlib.study.intervention import intervention_table
from matlib.study.judgings import inside
from matlib.study.ledger import ledger
from matlib.study.pairs_claims import pairs_contrasts
from matlib.study.recipes import as_run
from matlib.study.records import accept_records, write_records
from matlib.study.runs import Study
from matlib.study.tables import write_results
from matlib.study.tasks import all_rows, do, is_done, stages
from matlib.study.techniques import RUN_COLUMNS, found_by, sweep_table, technique_table
from tests.study.pairs_profile import SWEEPS, TECHNIQUES, pairs_profile


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    found = Study(pairs_profile(), tmp_path_factory.mktemp("results"))
    for stage in stages(found.profile, all_rows(found.profile)):
        for task in stage:
            do(found, task)
            assert is_done(found, task), task
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
    assert pairs.set_index("level")["row"].to_dict() == {12.0: "mat.t12", 24.0: "mat"}
    assert set(table["attack"]) == {"clean", "pgd", "bert", "co-attack", "sga", "joint", "worst"}


def test_gains_of_the_experiment_are_under_the_same_attacks_as_the_reference(study: Study) -> None:
    table = intervention_table(study)
    assert len(table) == 8 and not table.duplicated(list(DIALS)).any()
    row, e = table.iloc[5], study.profile.evaluation
    [name] = [r.row for r in study.profile.intervention.runs()  # type: ignore[union-attr]
              if r.dials is not None
              and [getattr(r.dials, d) for d in DIALS] == [row[d] for d in DIALS]]  # fmt: skip
    own = found_by(study, name, 0, inside(e))
    reference = found_by(study, "mat", 0)
    same = worst_of([reference[a] for a in ("pgd", "bert", "sga", "joint")])
    expected = primary_endpoint(own["worst"]) - primary_endpoint(same)
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
    from matlib.analysis.factorial import fit_effects

    effect = fit_effects(intervention_table(study), n_boot=200).estimates["shift"]
    [harm] = pairs_contrasts(study)["C7c"]
    assert harm.estimate.value == pytest.approx(-effect.value)
    assert (harm.estimate.low, harm.estimate.high) == pytest.approx((-effect.high, -effect.low))


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
    spec = study.specs.pairs(as_run("captioned"), 0)
    assert spec is not None
    artefact = study.store.find(spec)
    assert artefact is not None and artefact.notes["n_asked"] == 2 * 24
    written = json.loads(artefact.file("captions.json").read_text())
    found = study.variants("captioned")
    assert [list(own[1:]) for own in found.captions] == written
    same = study.specs.pairs(Run(defence="mat+", augmentation="captioned", vendi=1.0), 0)
    assert same is not None and same.hash == spec.hash  # filters keep of the same captions


def test_options_of_pairs_are_part_of_a_models_identity(study: Study) -> None:
    hashes = {study.specs.defended(run, 0).hash for run in (*TECHNIQUES, *SWEEPS)}
    assert len(hashes) == len(TECHNIQUES) + len(SWEEPS)
    shared = [coordinates(study, Run(defence="mat+", augmentation="eda", lr=lr))
              for lr in (None, 0.01)]  # fmt: skip
    assert shared[0] == shared[1]
