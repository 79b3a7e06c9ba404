"""What notebooks show of tables: the numbers of the tables, and nothing of an empty one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from matlib.analysis.prediction import prediction_errors
from matlib.study.profile.profile import load_profile
from matlib.study.publish import cells
from matlib.study.publish.answers import (
    dial_sentences,
    share_of_false,
    theory_sentences,
    under_sga,
)
from matlib.study.publish.full import COLUMNS, larger_study, of_published, published_study
from matlib.study.store.provenance import PACKAGE_ROOT
from matlib.study.study import Study

FULL, MANY = (published_study(PACKAGE_ROOT / "published" / name)
              for name in ("demo-full", "one-to-many"))  # fmt: skip
PAIRS = of_published(MANY)


def no_row(name: str) -> pd.DataFrame:
    return pd.DataFrame(columns=list(COLUMNS[name]))


def test_points_have_limits_where_they_are_known() -> None:
    nan = float("nan")
    table = pd.DataFrame(
        {"v": [0.012, 0.1, nan], "low": [-0.003, nan, nan], "high": [0.02, nan, nan]}
    )
    assert cells.in_points(table, "v", "low", "high") == ["+1.2 [-0.3, 2.0]", "+10.0", ""]


EMPTY: dict[str, Callable[[], pd.DataFrame]] = {
    "variations": lambda: cells.variation_cells(no_row("inside")),
    "held out": lambda: cells.held_out_cells(no_row("held_out")),
    "gains": lambda: cells.gain_cells(pd.DataFrame()),
    "curves": lambda: cells.curve_cells(no_row("curves")),
    "truth": lambda: cells.truth_cells(pd.DataFrame()),
    "ranking": lambda: cells.ranking_cells(no_row("ranking"), "own"),
    "tasks": lambda: cells.task_cells(no_row("other_tasks")),
    "ranked tasks": lambda: cells.ranked_by_task(no_row("other_tasks")),
    "contrasts": lambda: cells.contrast_cells({"demo": no_row("contrasts")}),
    "ranges": lambda: cells.range_cells(no_row("intervention"), pd.DataFrame()),
    "steps": lambda: cells.step_cells(no_row("intervention")),
    "correlations": lambda: cells.correlation_cells(pd.DataFrame()),
}


@pytest.mark.parametrize("name", EMPTY)
def test_of_an_empty_table_there_are_no_cells(name: str) -> None:
    assert EMPTY[name]().empty


def test_without_an_experiment_nothing_is_said_of_it(tmp_path: Path) -> None:
    demo = Study(load_profile("demo"), tmp_path)
    none = of_published(larger_study(demo, "techniques", published=tmp_path))
    for table in (cells.modality_cells(none), cells.error_cells(none)):
        assert table.empty
    assert dial_sentences(none) == [] and theory_sentences(none) == {}
    assert under_sga(none.gains) == "No technique was compared here."
    assert share_of_false(None).startswith("Truth is not counted here")


def test_the_defence_as_it_is_stands_above_its_variations() -> None:
    inside = FULL.table("inside")
    found = cells.variation_cells(inside)
    assert ("(as it is)", "mat-valid", "") in found.index
    first = inside.iloc[0]
    recall = found["recall", first["attack"]][first["choice"], first["value"], first["default"]]
    assert recall == f"{100 * first['recall']:.1f} %"


def test_known_kinds_stand_beside_held_out_ones() -> None:
    alone = FULL.table("held_out").query("attack == 'bert'")
    found = cells.held_out_cells(alone)
    assert list(found.index) == list(dict.fromkeys(alone["row"])) and found.shape[1] == 4
    assert found.iloc[0, 0] == pytest.approx(
        100 * alone.query("row == 'base' and text_threat == 'bert_true'")["recall"].item(), abs=0.05
    )


def test_gains_and_truth_are_those_of_the_techniques() -> None:
    gains, found = PAIRS.gains, cells.gain_cells(PAIRS.gains)
    best = gains.iloc[0]
    assert found.index[0] == best["row"]
    assert found["gain"].iloc[0] == cells.in_points(gains[:1], "gain", "low", "high")[0]
    assert found["worst"].iloc[0] == pytest.approx(100 * best["worst"], abs=0.05)
    truth = cells.truth_cells(gains)
    assert truth["similarity"].is_monotonic_decreasing and truth["true_fraction"].notna().all()
    text = under_sga(gains)
    assert f"{(gains[gains['modality'] != '']['sga_low'] > 0).sum()} gain over MAT" in text


def test_the_experiment_is_told_by_step_by_modality_and_by_what_it_foretells() -> None:
    steps = cells.step_cells(PAIRS.dialled)
    assert len(steps) == 3 * 2 * 2 and set(steps["added"]) == {"text", "image"}
    apart = cells.modality_cells(PAIRS)
    assert {"alignment", "diversity", "shift"} <= set(apart.index) and apart.shape[1] == 2
    errors, own = (
        cells.error_cells(PAIRS),
        prediction_errors(PAIRS.predictions()).set_index("model"),
    )
    assert errors.loc[("all", "theory"), "error"] == pytest.approx(
        100 * own.loc["theory", "error"], abs=0.005
    )
    assert errors.loc[("all", "theory"), "n"] == own.loc["theory", "n"]
    assert len(cells.correlation_cells(PAIRS.gains)) == 3
    assert len(cells.range_cells(PAIRS.dialled, PAIRS.gains)) == 2 * 3
    told = dial_sentences(PAIRS)
    assert sum(text.startswith("more ") for text in told) == 3
    assert set(theory_sentences(PAIRS)) <= {"within the range of the dials", "anywhere"}


def test_ranking_tasks_and_contrasts_keep_their_order() -> None:
    ranking = FULL.table("ranking")
    found = cells.ranking_cells(ranking, "own")
    assert found.index[0] == "undefended" and "own" in found
    rows = [("", "captioning", "mat", attack, "truth", 0.1 * i, 0.0, 1.0, 1)
            for i, attack in enumerate(("worst", "clean", "loss"))]  # fmt: skip
    tasks = pd.DataFrame(rows, columns=list(COLUMNS["other_tasks"]))
    assert cells.task_cells(tasks).index.get_level_values("attack").tolist()[-1] == "worst"
    assert cells.ranked_by_task(tasks)["attack"].tolist() == ["worst"]
    contrasts = {each.name: each.table("contrasts") for each in (FULL, MANY)}
    shown = cells.contrast_cells({"demo": pd.DataFrame(), **contrasts})
    assert set(shown.index.get_level_values("study")) == {"demo-full", "one-to-many"}
    assert shown.groupby(level=["study", "claim"]).size().min() > 1
