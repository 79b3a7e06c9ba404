"""The sentences that notebooks and README begin with follow the tables they are computed from."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from matlib.analysis.figures.style import label_of
from matlib.study.publish import answers
from matlib.study.publish.full import of_published, published_study
from matlib.study.publish.notebooks import code_cells, find_notebooks, read_notebook

ROOT = Path(__file__).resolve().parents[2]
DEMO, FULL, MANY = (
    published_study(ROOT / "published" / name) for name in ("demo", "demo-full", "one-to-many")
)
OF_ITSELF = "05_your_own_model"
"""It has no study whose tables could answer before its cells have run."""


def recall(table: pd.DataFrame, row: str, attack: str, threat: str = "") -> str:
    found = table[(table.row == row) & (table.attack == attack) & (table.text_threat == threat)]
    return f"{100 * found['value'].item():.1f} %"


def test_every_notebook_begins_with_its_answer() -> None:
    for path in find_notebooks(ROOT / "notebooks"):
        if path.stem != OF_ITSELF:
            _, _, (_, cell) = code_cells(read_notebook(path))[:3]  # after parameters and study
            [asked] = {name for name in vars(answers) if f"import {name}\n" in cell.source}
            assert asked == f"{cell.source.rpartition('print(')[2].partition('(')[0]}"
            assert asked.endswith("_answer"), path.stem


def test_00_says_which_captions_are_shared_and_what_that_costs() -> None:
    relevant = torch.tensor([[True, True, False, False], [False, True, True, False]])
    text = answers.data_answer(relevant, 0.5, 0.25)
    assert text.startswith("25.0 % of the captions") and "TR@1 50.0 % and IR@1 25.0 %" in text


def test_10_and_20_say_what_is_left_of_published_rows() -> None:
    table = DEMO.table("endpoints")
    text = answers.threat_answer(table, "bert_true")
    for attack, threat in (("clean", ""), ("pgd", ""), ("words", "bert_true"),
                           ("worst", "bert_true")):  # fmt: skip
        assert recall(table, "base", attack, threat) in text
    text = answers.defences_answer(table, "bert_true")
    worst = table[(table.attack == "worst") & (table.text_threat == "bert_true")]
    best = worst.loc[worst["value"].idxmax(), "row"]
    for row in ("base", "mat", best):
        assert recall(table, row, "worst", "bert_true") in text
    alone = answers.defences_answer(table[table.row == "base"], "bert_true")
    assert alone.endswith(
        f"keeps {recall(table, 'base', 'worst', 'bert_true')}; no defence was judged."
    )


def test_25_counts_variations_on_either_side_of_no_difference() -> None:
    table = FULL.table("inside")
    worst = table[table.attack == "worst"]
    up, down = (worst.difference_low > 0).sum(), (worst.difference_high < 0).sum()
    text = answers.inside_answer(table)
    assert f"Of {len(worst)} variations of MAT, {up} gain robustness and {down} cost" in text
    assert answers.inside_answer(pd.DataFrame()) == "No variation of MAT is at hand."


def test_30_sets_more_pairs_beside_one_with_the_verdict() -> None:
    table, claims = FULL.table("endpoints"), MANY.claims()
    text = answers.pairs_answer(table, "bert_true", claims)
    for row in ("mat+.captions+renderings", "mat-valid"):
        assert recall(table, row, "worst", "bert_true") in text
    [c4] = [each for each in claims if each["id"] == "C4"]
    assert f"{c4['verdict']} (C4, {c4['contrast']}: {100 * c4['estimate']:+.1f} points" in text


def test_few_pairs_are_told_in_absolute_numbers_with_both_verdicts() -> None:
    again = published_study(ROOT / "published" / "replication")
    curve, claims = again.table("curves"), again.claims()
    text = answers.few_pairs_answer(curve, claims)
    best = curve[curve["weights"] == "best"].set_index("defence")
    for defence in ("mat-valid", "mat+.captions+renderings"):
        assert f"{100 * best.loc[defence, 'worst']:.1f} %" in text
        assert f" {100 * best.loc[defence, 'gap']:.1f}" in text
    for claim in ("C3", "C4"):
        [row] = [each for each in claims if each["id"] == claim]
        assert f"is {row['verdict']} ({claim} 500 pairs: " in text


def test_mat_is_told_beside_no_defence_and_under_what_no_training_met() -> None:
    report = published_study(ROOT / "published" / "report")
    table, claims = report.table("endpoints"), report.claims()
    text = answers.what_mat_keeps(table, "true_known", claims, claims)
    again = [{**each, "verdict": "supported"} for each in claims]
    both = answers.what_mat_keeps(table, "true_known", again, claims)
    assert both.count("is inconclusive in these worlds, and in others supported (C") == 2
    for row in ("base", "mat", "mat-valid", "tecoa"):
        assert recall(table, row, "worst", "true_known") in text
    for name in ("C0", "C2"):
        first = next(each for each in claims if each["id"] == name)
        numbers = f"{100 * first['estimate']:+.1f} points"
        assert f"{first['verdict']} ({name} known words: {numbers}" in text
    text = answers.what_it_never_met(table, claims)
    for row, threat in product(("base", "mat", "mat-valid"), ("typo", "true_held_out")):
        assert recall(table, row, "worst", threat) in text
    for each in claims:
        is_further = each["id"] == "C0" and each["part"] != "known words"
        assert not is_further or f"{each['part']}: {each['verdict']}" in text


def test_what_makes_a_good_pair_is_told_step_by_step_with_the_verdicts_on_both() -> None:
    again = published_study(ROOT / "published" / "replication-pairs")
    table, claims = again.table("contrasts"), again.claims()
    runs = of_published(again).dialled
    text = answers.good_pairs_answer(table, runs, claims, "6 worlds")
    assert text.startswith("What makes an added pair good (6 worlds), in points ")
    settings = runs.groupby(["alignment", "diversity", "shift", "modality"])["gain"].mean()
    assert f"{sum(settings < 0)} of {len(settings)} settings keep less than MAT" in text
    dials = table[table["claim"].str.startswith("C7") & table["decides"]]
    assert len(dials) == 12
    for value in dials["estimate"]:
        assert f"{100 * value:+.1f}" in text
    rows = [each for each in claims if each["id"].startswith("C7")]
    assert len(rows) == 6 and text.count(" captions +") == text.count(" images +") == 3
    for row in rows:
        assert f"({row['verdict']})" in text
    [c5] = [each for each in claims if each["id"] == "C5"]
    assert text.endswith(f"{answers.verdict_of([c5], 'C5', in_short=True)}.")


def test_photographs_are_told_by_row_and_by_the_most_that_the_worst_leaves() -> None:
    table = published_study(ROOT / "published" / "photos").table("endpoints")
    text = answers.photographs_answer(table, "bert_similar", "0.5/255")
    for row in table["row"].unique():
        clean, pixels = (recall(table, row, attack, "") for attack in ("clean", "pgd"))
        assert f"{label_of(row)} {clean} and {pixels}" in text
    worst = table[(table.attack == "worst") & (table.text_threat == "bert_similar")]
    assert text.endswith(f"leaves no row more than {100 * worst['value'].max():.1f} %.")


def measured(measure: str, modality: str, **values: float) -> pd.DataFrame:
    return pd.DataFrame([
        {"measure": measure, "modality": modality, "technique": name, "value": value,
         "low": value - 0.1, "high": value + 0.1}
        for name, value in values.items()
    ])  # fmt: skip


def test_40_and_50_name_the_two_ends() -> None:
    truth = measured("true_fraction", "text", none=1.0, eda=0.6, mismatched=0.2, captions=0.9)
    alike = measured("similarity", "pair", none=0.9, eda=0.31, mismatched=0.21)
    text = answers.alignment_answer(pd.concat([truth, alike]))
    assert text.startswith("Truth of added captions goes from 0.20 (") and "to 0.90 (" in text
    text = answers.alignment_answer(alike)
    assert text.startswith("Similarity of added pairs goes from 0.21 (") and "to 0.31 (" in text
    text = answers.diversity_answer(measured("vendi", "text", eda=1.5, captions=3.25))
    assert "from 1.50 (" in text and "to 3.25 (" in text
    nothing = answers.diversity_answer(measured("distance", "text", eda=1.5))
    assert nothing.endswith("was not measured.")


def test_60_counts_techniques_that_are_told_apart_in_either_modality() -> None:
    text = measured("accuracy", "text", none=0.9, eda=0.7, captions=0.55)
    image = measured("accuracy", "image", randaugment=0.8)
    joint = measured("accuracy", "joint", captions=0.9)
    found = answers.shift_answer(pd.concat([text, image, joint]))
    assert found.startswith("2 of 3 augmentations can be told from test data: ")
    assert answers.shift_answer(text[text.technique == "captions"]).startswith("0 of 1 ")


def test_70_says_what_each_dial_does() -> None:
    table = of_published(MANY).effects()
    text = answers.dials_answer(table)
    for dial in ("alignment", "diversity", "shift"):
        value = table[table.term == dial]["value"].item()
        assert f"{dial} {100 * value:+.1f} [" in text
    assert answers.dials_answer(pd.DataFrame()) == "No experiment is at hand."


def test_80_counts_checks_by_verdict() -> None:
    checks = pd.DataFrame({"model": ["mat", "mat", "fare"],
                           "verdict": ["passed", "violated", "open"]})  # fmt: skip
    assert answers.sanity_answer(checks) == (
        "Of 3 checks of 2 models, 1 are violated and 1 passed; 1 stay open."
    )
    assert answers.sanity_answer(checks.iloc[:0]) == "No defence was examined."


def test_85_sets_own_attacks_beside_those_of_others() -> None:
    table = FULL.table("transfer")
    sga = table[table.attack == "sga"]
    own = sga[sga.source == sga.target]["value"].mean()
    foreign = sga[sga.source != sga.target]["value"].mean()
    text = answers.transfer_answer(table)
    assert f"leaves {100 * own:.1f} % of the queries" in text
    assert f"another model {100 * foreign:.1f} %" in text and own < foreign


def test_90_counts_verdicts() -> None:
    claims = FULL.claims()
    n_open = sum(claim["verdict"] == "not yet tested" for claim in claims)
    text = answers.claims_answer(claims)
    assert text.startswith(f"Of {len(claims)} claims: ") and f"{n_open} not yet tested" in text


def test_95_says_what_is_left_of_each_task() -> None:
    def row(task: str, name: str, measure: str, value: float) -> dict[str, Any]:
        return {"task": task, "row": name, "attack": "worst", "measure": measure, "value": value}

    table = pd.DataFrame([
        row("captioning", "base", "truth", 0.2), row("captioning", "mat", "truth", 0.3),
        row("captioning", "mat", "similarity", 0.9), row("grounding", "base", "pointing", 0.5),
        row("grounding", "mat", "pointing", 0.4),
    ])  # fmt: skip
    text = answers.tasks_answer(table)
    assert "keeps 20.0 % of captioning (truth), MAT 30.0 %" in text
    assert text.endswith("50.0 % of grounding (pointing), the most.")
    assert answers.tasks_answer(pd.DataFrame()).startswith("No row")


@pytest.mark.parametrize("name", ["C2", "C4", "C9"])
def test_a_verdict_tells_the_first_part_of_its_claim_in_numbers(name: str) -> None:
    claim = {
        "id": name,
        "claim": "",
        "contrast": "a - b",
        "estimate": 0.01,
        "ci_low": -0.01,
        "ci_high": None,
        "verdict": "supported",
        "n": 5,
        "unit": "seed",
        "n_seeds": 5,
    }
    primary = claim | {"part": "known words", "ci_high": 0.02}
    text = answers.verdict_of([primary, claim | {"part": "typo", "verdict": "inconclusive"}], name)
    assert text == (
        f"supported ({name} known words, a - b: +1.0 points [-1.0, 2.0]); typo: inconclusive"
    )
    assert answers.verdict_of([claim], name) == f"supported ({name}, a - b: +1.0 points [≥ -1.0])"
    untested = claim | {"estimate": None, "verdict": "not yet tested"}
    assert answers.verdict_of([untested], name) == f"not yet tested ({name})"
    assert answers.verdict_of([], name) == f"not yet tested ({name})"


def test_what_was_published_before_claims_had_parts_is_read() -> None:
    claims = json.loads((FULL.folder / "claims.json").read_text())
    assert not any(claim.get("part") for claim in claims)
    assert answers.verdict_of(claims, "C2").startswith("inconclusive (C2, ")
