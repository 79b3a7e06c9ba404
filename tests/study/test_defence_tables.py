"""The table of all defences holds the numbers it is given; costs are those of the log."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest

from matlib.study.profile.profile import load_profile
from matlib.study.profile.rows import Run
from matlib.study.store.provenance import PACKAGE_ROOT
from matlib.study.store.store import Artefact
from matlib.study.study import Study
from matlib.study.tables.endpoints import endpoint_table
from matlib.study.tables.recall_left import ABSENT, RECALL_COLUMNS, recall_table
from matlib.study.tables.results import COSTS, cost_table, warnings_of
from tests.study.smoke_parts import NO_PAIRS

FULL = PACKAGE_ROOT / "published" / "demo-full" / "endpoints.csv"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    runs = (Run(defence="mat"), Run(defence="clean"))
    profile = load_profile("smoke").model_copy(update={"runs": runs, **NO_PAIRS})
    return Study(profile, tmp_path_factory.mktemp("defences"))


def test_each_cell_is_the_endpoint_with_its_interval() -> None:
    published = pd.read_csv(FULL)
    table = recall_table(published, "bert_true")
    assert list(table.columns) == list(RECALL_COLUMNS)
    assert list(table.index) == list(dict.fromkeys(published["row"]))
    judged = {attack for attack, _ in RECALL_COLUMNS.values()} & set(published["attack"])
    for heading, (attack, _) in RECALL_COLUMNS.items():
        assert (table[heading] != ABSENT).all() == (attack in judged)
    row = published[
        (published["row"] == "mat") & (published["attack"] == "sga")
        & (published["text_threat"] == "bert_true")
    ].iloc[0]  # fmt: skip
    low, high = 100 * row["low"], 100 * row["high"]
    assert table.loc["mat", "SGA"] == f"{100 * row['value']:.1f} [{low:.1f}, {high:.1f}]"


def test_another_threat_changes_the_attacks_with_words_alone() -> None:
    published = pd.read_csv(FULL, keep_default_na=False)
    true, typo = (recall_table(published, threat) for threat in ("bert_true", "typo"))
    assert (true["PGD"] == typo["PGD"]).all() and (true["Sep"] != typo["Sep"]).all()
    assert (typo["Co-Attack"] == ABSENT).all()  # it judged under true words alone


def test_what_was_measured_for_some_rows_only_is_absent_for_the_others() -> None:
    published = pd.read_csv(FULL)
    is_gone = (published["row"] == "base") & (published["attack"] == "sep")
    table = recall_table(published[~is_gone], "bert_true")
    assert table.loc["base", "Sep"] == ABSENT != table.loc["mat", "Sep"]


def test_this_studys_own_endpoints_fill_the_table(base_study: Study) -> None:
    table = recall_table(endpoint_table(base_study), base_study.profile.evaluation.primary_threat)
    assert list(table.index) == ["base"] and not (table == ABSENT).any(axis=None)


def test_costs_are_summed_over_the_steps_of_trained_rows(study: Study) -> None:
    names = ["base", "mat", "clean"]
    assert cost_table(study, names, 0).empty
    assert warnings_of(study, names, 0) == ["nothing was trained here"]
    study.model("mat")
    table, log = cost_table(study, names, 0), study.history("mat")
    assert list(table.index) == ["mat"] and list(table.columns) == list(COSTS)
    pairs, seconds, attacks, text = table.loc["mat"]
    assert pairs == 3 * 8 and seconds == pytest.approx(log["seconds"].sum(), abs=0.06)
    assert 0 < text <= attacks <= 100


def test_clean_recall_is_logged_where_the_loss_embeds_no_clean_pairs(study: Study) -> None:
    study.model("mat")
    recall = study.history("mat")["clean_recall"]
    assert [math.isnan(value) for value in recall] == [False, True, True]


def test_warnings_of_training_are_told_by_row(
    study: Study, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    study.model("mat")
    assert warnings_of(study, ["base", "mat", "clean"], 0) == ["no warnings"]
    troubled = Artefact(tmp_path, {"notes": {"warnings": ["step 3: collapsed"]}})
    monkeypatch.setattr(study.store, "find", lambda spec: troubled)
    assert warnings_of(study, ["base", "mat"], 0) == ["mat: step 3: collapsed"]
