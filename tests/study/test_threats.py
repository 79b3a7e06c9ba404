from __future__ import annotations

from pathlib import Path
from typing import Any

from matlib.attacks.edits import Edit, content_words, free_edits
from matlib.study.made.candidates import load_tables, make_tables, save_tables, true_edits
from matlib.study.profile.profile import load_profile
from matlib.study.sources.scenes import ScenesSource

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


class Sizes:
    k_free, k_true, typos_per_word = 5, 5, 4


class Proposing:
    """Stands for a masked language model: the same words at every place."""

    def candidates(self, captions: list[str], k: int, **how: object) -> list[list[list[str]]]:
        return [[["tiny", "disc", "crimson"][:k] for _ in c.split(" ")] for c in captions]


def tables_of(source: ScenesSource, threats: tuple[str, ...], **more: Any) -> dict[str, Any]:
    captions = ["a small red circle", "a large blue star"]
    return make_tables(
        captions, threats, Proposing(), Sizes(), stop_words=source.stop_words,  # type: ignore[arg-type]
        typos=source.typos, seed=0, is_valid=lambda i, text: "crimson" not in text,
        held_out_words=source.held_out_words, **more,
    )  # fmt: skip


def test_what_is_held_out_is_judged_apart_and_never_trained_on() -> None:
    source = ScenesSource(load_profile("smoke").dataset)
    evaluated = tables_of(source, ("bert_true", "true_held_out", "bert_free"))
    words = {name: {e.replacement for row in t for e in row} for name, t in evaluated.items()}
    assert words["bert_true"] == {"tiny", "disc"} and words["true_held_out"] == {"tiny"}
    trained = tables_of(source, ("bert_true", "bert_free"), for_training=True)
    words = {name: {e.replacement for row in t for e in row} for name, t in trained.items()}
    assert words == {"bert_true": {"disc"}, "bert_free": {"disc", "crimson"}}


def test_the_held_out_typo_rule_transposes_and_the_others_never_do() -> None:
    source = ScenesSource(load_profile("smoke").dataset)
    tables = tables_of(source, ("typo", "typo_held_out"))
    captions = ["a small red circle", "a large blue star"]
    for threat, is_transposed in (("typo", False), ("typo_held_out", True)):
        pairs = [
            (sorted(c.split(" ")[e.position]) == sorted(e.replacement))
            for c, row in zip(captions, tables[threat], strict=True)
            for e in row
        ]
        assert pairs and all(same_letters == is_transposed for same_letters in pairs)
