from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from matlib.evaluation.retrieval import worst_of
from matlib.evaluation.statistics import primary_endpoint
from matlib.study.profile.profile import load_profile
from matlib.study.profile.rows import Run
from matlib.study.publish.full import (
    COLUMNS,
    OLDER_JUDGE,
    continuing,
    larger_study,
    ledgers_of_now,
    own_or_larger,
    seeds_in_words,
)
from matlib.study.store.provenance import PACKAGE_ROOT
from matlib.study.study import Study
from matlib.study.tables.endpoints import (
    HELD_OUT_COLUMNS,
    INSIDE_COLUMNS,
    described,
    held_out_table,
    inside_table,
    plain_levels,
)

SMOKE = load_profile("smoke").model_copy(
    update={
        "runs": (Run(defence="mat"),),
        "inside": (
            Run(defence="mat", label="independent", order="independent"),
            Run(defence="mat", label="same", pgd_steps=1),  # what the profile has anyway
        ),
    }
)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return Study(SMOKE, tmp_path_factory.mktemp("inside"))


def test_variations_stand_beside_the_defence_under_the_same_attacks(study: Study) -> None:
    table = inside_table(study)
    assert list(table.columns) == list(INSIDE_COLUMNS) and len(table) == 2 * 4
    first = table[(table["row"] == "mat.independent") & (table["attack"] == "worst")].iloc[0]
    assert (first["choice"], first["value"]) == ("order of the attacks", "independent")
    varied = study.evaluated("mat.independent", 0, study.inside_protocol()).outcomes
    plain = study.evaluated("mat", 0).outcomes
    threat = SMOKE.evaluation.primary_threat
    keys = [("clean", ""), ("pgd", ""), *((a, threat) for a in ("bert", "sga", "joint"))]
    levels = [primary_endpoint(worst_of([found[k] for k in keys])) for found in (varied, plain)]
    assert first["recall"] == pytest.approx(levels[0])
    assert first["difference"] == pytest.approx(levels[0] - levels[1])


def test_a_variation_that_is_the_default_differs_by_nothing(study: Study) -> None:
    table = inside_table(study)
    same = table[table["row"] == "mat.same"]
    assert (same["difference"] == 0).all() and (same["difference_low"] == 0).all()


def test_the_unvaried_defence_stands_beside_its_variations(study: Study) -> None:
    levels = plain_levels(inside_table(study)).set_index(["row", "attack"])["recall"]
    assert len(levels) == 4 and set(levels.index.get_level_values("row")) == {"mat"}
    outcomes = study.evaluated("mat", 0).outcomes
    assert levels["mat", "clean"] == pytest.approx(primary_endpoint(outcomes["clean", ""]))
    assert levels["mat", "pgd"] == pytest.approx(primary_endpoint(outcomes["pgd", ""]))


def test_published_variations_agree_on_the_level_of_the_defence_that_they_vary() -> None:
    table = pd.read_csv(PACKAGE_ROOT / "published" / "demo-full" / "inside.csv")
    plain = (table["recall"] - table["difference"]).groupby(table["attack"])
    assert (plain.max() - plain.min()).max() < 1e-5
    levels = plain_levels(table)
    assert set(levels["row"]) == {"mat-valid"} and len(levels) == 4
    assert plain_levels(table.iloc[:0]).empty


def test_a_variation_of_two_choices_or_none_is_refused(study: Study) -> None:
    for run in (
        Run(defence="mat", label="x"),
        Run(defence="mat", label="x", order="independent", ema_decay=0.9),
    ):
        with pytest.raises(ValueError, match="one choice is to change"):
            described(study, run)


def test_held_out_kinds_stand_beside_the_known_ones(study: Study) -> None:
    table = held_out_table(study)
    assert list(table.columns) == list(HELD_OUT_COLUMNS)
    counts = table.groupby(["row", "attack"])["text_threat"].apply(set)
    four = {"true_held_out", "typo_held_out", "bert_true", "typo"}
    assert len(counts) == 4 and all(found == four for found in counts)
    one = table[
        (table["row"] == "mat") & (table["attack"] == "bert")
        & (table["text_threat"] == "typo_held_out")
    ]  # fmt: skip
    outcomes = study.evaluated("mat", 0, study.held_out_protocol()).outcomes
    assert one["recall"].item() == pytest.approx(
        primary_endpoint(outcomes["bert", "typo_held_out"])
    )


def publish(folder: Path, profile: str, **tables: pd.DataFrame) -> None:
    """A published study with these tables."""
    target = folder / profile
    target.mkdir()
    dumped = load_profile(profile).model_dump(mode="json")
    (target / "provenance.json").write_text(json.dumps({"profile": dumped, "artefacts": []}))
    for name, table in tables.items():
        table.to_csv(target / f"{name}.csv", index=False)


ROW = pd.DataFrame({"row": ["mat"]})


def test_the_demo_shows_the_larger_study_with_its_origin(tmp_path: Path) -> None:
    demo = Study(load_profile("demo"), tmp_path)
    publish(tmp_path, "demo-full", inside=ROW)
    full = larger_study(demo, "inside", published=tmp_path)
    assert full.name == "demo-full" and "not computed here" in full.origin
    assert "5 for each defence" in full.origin and "3 for each variation" in full.origin
    assert full.origin_of("inside").count(" for each ") == 1
    assert "3 for each variation" in full.origin_of("inside")
    assert "only the first" in full.origin_of("transfer")
    assert full.gallery == "250 images, 750 captions"
    assert full.table("inside")["row"].tolist() == ["mat"] and full.table("endpoints").empty


def test_a_table_comes_from_the_first_study_that_has_it(tmp_path: Path) -> None:
    demo = Study(load_profile("demo"), tmp_path)
    publish(tmp_path, "report")
    publish(tmp_path, "demo-full", endpoints=ROW.assign(attack="sga"), inside=ROW)
    older = larger_study(demo, "endpoints", published=tmp_path)
    assert older.name == "demo-full" and OLDER_JUDGE in older.origin_of("endpoints")
    ROW.assign(attack="gallery").to_csv(tmp_path / "report" / "endpoints.csv", index=False)
    (tmp_path / "report" / "claims.json").write_text("[]")
    report = larger_study(demo, "endpoints", published=tmp_path)
    told = report.origin_of("endpoints")
    assert report.name == "report" and OLDER_JUDGE not in told
    assert "world seeds 11, 12, 13; training seeds: 2 for each defence in each world" in told
    assert larger_study(demo, "inside", published=tmp_path).name == "demo-full"
    assert larger_study(demo, "claims", published=tmp_path).name == "report"


def test_a_study_of_a_world_that_was_looked_at_before_decides_no_claim(tmp_path: Path) -> None:
    for name in ("inside-mat", "report"):
        publish(tmp_path, name, endpoints=ROW.assign(attack="gallery"), inside=ROW)
        (tmp_path / name / "claims.json").write_text("[]")
    assert list(ledgers_of_now(tmp_path)) == ["report"]
    demo = Study(load_profile("demo"), tmp_path)
    assert larger_study(demo, "inside", published=tmp_path).name == "report"
    shutil.rmtree(tmp_path / "report")
    assert larger_study(demo, "inside", published=tmp_path).name == "inside-mat"


def test_where_nothing_is_published_tables_are_empty_and_say_what_makes_them(
    tmp_path: Path,
) -> None:
    none = larger_study(Study(load_profile("demo"), tmp_path), "inside", published=tmp_path)
    assert none.origin == none.origin_of("inside") and "--profile demo-full" in none.origin
    assert none.claims() == [] and none.gallery == "250 images, 750 captions"
    for name, columns in COLUMNS.items():
        assert none.table(name).empty and list(none.table(name)) == list(columns)


def test_claims_of_every_continuing_study_stand_once_beside_the_demos(tmp_path: Path) -> None:
    demo = Study(load_profile("demo"), tmp_path)
    [none] = continuing(demo, tmp_path)
    assert not none.claims()
    shown = continuing(demo)
    assert len({each.name for each in shown}) == len(shown) and all(e.claims() for e in shown)


def test_seeds_are_told_table_by_table() -> None:
    told = seeds_in_words(load_profile("one-to-many").model_dump(mode="json"))
    assert told["techniques"].startswith("5") and told["intervention"].startswith("2")
    assert told["sweeps"].startswith("only the first") and "endpoints" not in told
    told = seeds_in_words(load_profile("demo-full").model_dump(mode="json"))
    published = PACKAGE_ROOT / "published" / "demo-full"
    for name in ("endpoints", "held_out", "inside", "ranking"):
        n_seeds = pd.read_csv(published / f"{name}.csv")["n_seeds"].max()
        assert told[name].startswith(f"{n_seeds} for each"), name


def test_other_profiles_show_their_own_rows_only(study: Study) -> None:
    other = larger_study(study, "inside")
    assert other.table("inside").empty and "smoke" in other.origin
    own = inside_table(study)
    table, origin = own_or_larger(study, "inside", own)
    assert table is own and origin == "Computed here; training seeds: 1."
    assert own_or_larger(study, "inside", own[:0])[1] == other.origin
