"""What is published is whole, in the promised form, and tied to what made it."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from matlib.study.made.substitutions import (
    PER_THREAT,
    SUBSTITUTIONS_FILE,
    false_shares,
    read_substitutions,
)
from matlib.study.profile.profile import load_profile
from matlib.study.publish.design import design_of
from matlib.study.store.shared_json import read_shared
from matlib.study.tables.results import ROBUSTNESS_COLUMNS

PUBLISHED = Path(__file__).resolve().parents[1] / "published"
DEMO = PUBLISHED / "demo"


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return pd.read_csv(DEMO / "robustness.csv", keep_default_na=False)


def recall(table: pd.DataFrame, defence: str, attack: str, threat: str = "") -> float:
    one = table[
        (table["defence"] == defence)
        & (table["attack"] == attack)
        & (table["text_threat"] == threat)
        & (table["k"] == 1)
        & (table["direction"] == "TR")
    ]
    assert len(one) == 1
    return float(one["recall"].iloc[0])


def test_table_is_tidy_and_complete(table: pd.DataFrame) -> None:
    assert list(table.columns) == list(ROBUSTNESS_COLUMNS)
    rows = {"base", "image-at", "text-at-valid", "mat", "mat-valid", "mat+"}
    assert set(table["defence"]) == rows
    assert {"clean", "pgd", "words", "sep", "sga", "gallery", "worst"} <= set(table["attack"])
    keys = [c for c in ROBUSTNESS_COLUMNS if c not in ("recall", "ci_low", "ci_high")]
    assert not table.duplicated(keys).any()
    assert table["recall"].between(0, 1).all()


def test_demo_world_is_neither_too_easy_nor_at_the_floor(table: pd.DataFrame) -> None:
    assert table["n_gallery"].min() >= 250
    assert recall(table, "base", "clean") >= 0.70
    assert recall(table, "base", "worst", "bert_true") <= 0.10


def test_text_alone_costs_the_undefended_model_twenty_points(table: pd.DataFrame) -> None:
    assert recall(table, "base", "clean") - recall(table, "base", "bert", "bert_true") >= 0.20


def test_mat_on_true_words_is_five_points_above_no_defence() -> None:
    """What shows that the world can tell a defence from none; the paper's MAT need not pass."""
    [known] = [c for c in json.loads((DEMO / "claims.json").read_text())
               if (c["id"], c.get("part")) == ("C0", "known words")]  # fmt: skip
    assert known["contrast"] == "mat-valid - base" and known["ci_low"] > 0.05


def test_the_world_of_the_report_was_calibrated_on_another() -> None:
    profile = read_shared(DEMO / "provenance.json")["profile"]
    tried = pd.read_csv(PUBLISHED / "calibration.csv")
    assert profile["dataset"]["world_seed"] not in set(tried["world_seed"])


def test_claims_agree_with_the_table(table: pd.DataFrame) -> None:
    claims = {(c["id"], c["part"]): c for c in json.loads((DEMO / "claims.json").read_text())
              if "part" in c}  # fmt: skip
    worst = table[
        (table["attack"] == "worst") & (table["text_threat"] == "bert_true") & (table["k"] == 1)
    ]
    endpoint = worst.groupby("defence")["recall"].mean()
    expected = {
        ("C0", "known words"): endpoint["mat-valid"] - endpoint["base"],
        ("C4", "500 pairs"): endpoint["mat+"] - endpoint["mat-valid"],
    }
    for claim, value in expected.items():
        assert claims[claim]["estimate"] == pytest.approx(value, abs=2e-4)
    assert all(c["n_seeds"] >= 5 or c["verdict"] != "supported" for c in claims.values())


def test_cross_and_intra_modal_captions_were_compared_at_equal_diversity() -> None:
    """C6's control in the study's design: Vendi scores of added captions equal within 5 %."""
    runs = pd.read_csv(PUBLISHED / "one-to-many" / "techniques.csv")
    thinned = runs[runs["technique"].str.contains(".v", regex=False)].groupby("technique")
    scores = thinned["vendi"].mean()
    assert {"captioned", "rewritten"} == {name.partition(".")[0] for name in scores.index}
    assert scores.max() / scores.min() <= 1.05


def test_provenance_names_every_judged_model_and_no_machine_path() -> None:
    text = (DEMO / "provenance.json").read_text()
    evaluated = {
        a["name"]
        for a in read_shared(DEMO / "provenance.json")["artefacts"]
        if a["kind"] == "judged"
    }
    assert {"base", "mat", "mat+.captions+renderings"} <= evaluated
    assert '"/' not in text


def test_what_is_common_in_provenance_is_stated_once() -> None:
    for path in PUBLISHED.glob("*/provenance.json"):
        assert path.stat().st_size < 300_000, path
        assert all(each["commit"] and each["versions"] for each in read_shared(path)["artefacts"])


def test_every_setting_tried_is_a_row() -> None:
    tried = pd.read_csv(PUBLISHED / "calibration.csv")
    assert len(tried) >= 20
    first, later = (
        0,
        design_of(PUBLISHED, "replication.yaml")["worlds"]["replication"][0],
    )  # the second after it was published
    assert {*tried["world_seed"]} == {first, later}
    of_later = {*tried[tried["world_seed"] == later]["subject"]}
    assert of_later == {"base", "models", "other tasks"}  # no budget, rate or defence of a study


def test_bench_compares_equal_outputs() -> None:
    found = json.loads((PUBLISHED / "bench.json").read_text())
    assert found["text_captions_equal"] == found["n_captions"]
    assert found["text_attack_speedup"] >= 10
    assert found["sga_image_speedup_released_order"] > 1  # one forward of all views, as SGA does
    assert found["host_synchronisations_per_step"]["pgd"] == 0
    assert found["machine"]["n_cores"] >= 1


def test_labelled_changes_are_sixty_per_threat_and_docs_tell_their_shares() -> None:
    drawn = read_substitutions(PUBLISHED / "photos" / SUBSTITUTIONS_FILE)
    threats = load_profile("photos").evaluation.threats
    assert drawn["threat"].value_counts().to_dict() == dict.fromkeys(threats, PER_THREAT)
    assert (drawn["caption"] != drawn["changed"]).all() and drawn["label"].ne("").all()
    docs = (PUBLISHED.parent / "docs" / "data_and_gpus.md").read_text()
    for row in false_shares(drawn).itertuples():
        assert f"| `{row.threat}` | {row.n_false} of {row.n} | {row.n_unclear} |" in docs


NOT_TUNED = {"advflyp", "mava", "image-at+random-valid", "mmcoa-valid", "fare+leaf-valid"}
"""Rows whose rates are still to be tried on another world, before the study is run again."""


@pytest.mark.parametrize("name", ["demo", "demo-full", "report"])
def test_every_row_trains_at_the_rate_that_was_best_for_it_on_another_world(name: str) -> None:
    profile = load_profile(name)
    tried = pd.read_csv(PUBLISHED / "calibration.csv")
    tried = tried[tried["subject"] == "learning rate"]
    best = tried[tried["note"].str.startswith("best")].set_index("row")["lr"].astype(float)
    assert (tried.groupby("row").size() >= 3).all() and best.index.is_unique
    assert profile.finetune is not None
    untried = set()
    for run in profile.runs:
        row = "mat+.captions+renderings" if run.defence == "mat+" else run.defence
        if row not in best:
            untried.add(row)
        else:
            assert (run.lr or profile.finetune.lr) == best[row], run
    known = {"demo": set(), "demo-full": NOT_TUNED, "report": {"image-at+random-valid"}}
    assert untried == known[name]
