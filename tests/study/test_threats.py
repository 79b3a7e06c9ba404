from __future__ import annotations

from pathlib import Path

from matlib.attacks.text import Edit
from matlib.study.inputs import content_words
from matlib.study.threats import free_edits, load_tables, save_tables, true_edits

CAPTIONS = ["a red circle", "the star", ""]
WORDS = [
    [["the"], ["blue", "a", "green"], ["square"]],
    [["a"], ["circle", "cross", "moon"]],
    [[]],
]
STOP = frozenset({"a", "the"})


def test_stop_words_are_neither_replaced_nor_used_and_k_counts_the_rest() -> None:
    table = free_edits(CAPTIONS, WORDS, STOP, k=2)
    assert table == [
        [Edit(1, "blue"), Edit(1, "green"), Edit(2, "square")],
        [Edit(1, "circle"), Edit(1, "cross")],
        [],
    ]


def test_true_edits_are_the_free_ones_that_pass_the_check() -> None:
    table = true_edits(CAPTIONS, WORDS, STOP, lambda i, text: "green" in text or i == 1, k=3)
    assert table[0] == [Edit(1, "green")] and len(table[1]) == 3


def test_tables_survive_the_disk(tmp_path: Path) -> None:
    tables = {"bert_free": [[Edit(0, "größe")], []]}
    save_tables(tables, tmp_path / "t.json")
    assert load_tables(tmp_path / "t.json") == tables


def test_content_words_leave_out_stop_words_digits_and_marks() -> None:
    assert content_words("the 2 dogs , running !", frozenset({"the"})) == [2, 4]
