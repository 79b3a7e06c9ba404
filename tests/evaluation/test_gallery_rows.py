"""The gallery attacker as rows of the evaluation."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings, strategies as st

from matlib.attacks.attacked_gallery import Attacked
from matlib.attacks.edits import n_changed_words
from matlib.attacks.multimodal import sep_attack
from matlib.attacks.pgd import PGD
from matlib.attacks.whole_gallery import aimed_at_rest
from matlib.data.pairs import ImageTensor, ImageTextPairs
from matlib.evaluation import suite
from matlib.evaluation.robustness import evaluate, strength_curve, worst_under
from matlib.evaluation.statistics import primary_endpoint
from matlib.evaluation.suite import ATTACKS, Suite
from tests.toys import generator, random_captions, random_edits, tiny_encoder

ROWS = ("bert", "words-pairwise", "words", "gallery", "gallery-tr", "gallery-ir", "gallery-rest")
SUITE = Suite(PGD(4.0, 2), attacks=("clean", *ROWS))


def toy_pairs() -> ImageTextPairs:
    captions, own = random_captions([1, 2, 3, 1, 2, 2])
    images = torch.randint(256, (6, 3, 16, 16), generator=generator(3)).byte()
    return ImageTextPairs("toy", "test", ImageTensor(images), tuple(captions), own, tuple("abcdef"))


PAIRS = toy_pairs()
TABLES = {"t": random_edits(list(PAIRS.captions)), "u": random_edits(list(PAIRS.captions), 1)}
ALL = {"both": [[*a, *b] for a, b in zip(*TABLES.values(), strict=True)], **TABLES}


def test_every_row_is_there_and_worst_leaves_no_more_than_any() -> None:
    found = evaluate(tiny_encoder(), PAIRS, TABLES, SUITE, seed=0)
    for threat in TABLES:
        worst = found.outcomes["worst", threat]
        for key in [("clean", ""), *((row, threat) for row in ROWS)]:
            assert bool((worst.ir_rank >= found.outcomes[key].ir_rank).all()), key
            assert bool((worst.tr_rank >= found.outcomes[key].tr_rank).all()), key
        for row in ROWS:
            moved = found.captions[row, threat]
            assert max(map(n_changed_words, PAIRS.captions, moved)) <= 1
            assert ((row, threat) in found.shown) == ATTACKS[row].moves_images


def test_no_sentence_is_embedded_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, embedded = tiny_encoder(), list[str]()
    real = encoder._text_features
    monkeypatch.setattr(encoder, "_text_features", lambda own: embedded.extend(own) or real(own))
    found = evaluate(encoder, PAIRS, ALL, SUITE, seed=0)
    assert len(embedded) == len(set(embedded))
    assert {text for own in found.captions.values() for text in own} <= set(embedded)


@pytest.mark.parametrize("row", ROWS)
def test_a_row_does_not_depend_on_the_others(row: str) -> None:
    together = evaluate(tiny_encoder(), PAIRS, ALL, SUITE, seed=5).outcomes
    alone = evaluate(tiny_encoder(), PAIRS, ALL, replace(SUITE, attacks=(row,)), seed=5)
    for threat in ALL:
        assert torch.equal(together[row, threat].tr_rank, alone.outcomes[row, threat].tr_rank)
        assert torch.equal(together[row, threat].ir_rank, alone.outcomes[row, threat].ir_rank)


def test_the_gallery_attacker_runs_where_the_suite_is_slow() -> None:
    rows = replace(SUITE, slow_under=("t",)).rows(TABLES)
    assert {row for row, threat in rows if threat == "u"} == {"bert", "words"}


NESTED = [
    name for name, each in ATTACKS.items()
    if each.moves_words and not each.at_rest and not each.of_fusion
]  # fmt: skip


def own_loss(encoder, gallery, candidates, image, text, generator, report):  # type: ignore[no-untyped-def]
    """Stands for a defence's own loss; a poor attack, of which more edits may well leave more."""
    return sep_attack(encoder, gallery, candidates, image, text, generator=generator)


def test_each_gallery_aimed_at_the_rest_knows_all_those_before_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def aimed(*given, target: str, earlier: list[Attacked], **more):  # type: ignore[no-untyped-def]
        asked.append((target, len(earlier)))
        return aimed_at_rest(*given, target=target, earlier=earlier, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(suite, "aimed_at_rest", aimed)
    found = evaluate(tiny_encoder(), PAIRS, {"t": TABLES["t"]}, SUITE, seed=0).outcomes
    assert asked == [("tr", 1), ("ir", 2), ("both", 3)]  # each is made once
    rows = ("gallery", "gallery-tr", "gallery-ir", "gallery-rest")
    left = [primary_endpoint(worst_under(found, "t", rows[:n])) for n in range(1, 5)]
    assert left == sorted(left, reverse=True)


@settings(max_examples=3)
@given(seed=st.integers(0, 10_000), order=st.permutations(["some", "more", "all"]))
def test_of_nested_threats_the_larger_never_leaves_more(seed: int, order: list[str]) -> None:
    """In every row; whichever is named first, and whether the smaller is judged elsewhere."""
    every = random_edits(list(PAIRS.captions), seed, per_word=4)
    tables = {"all": every, "more": [row[::2] for row in every], "some": [r[::4] for r in every]}
    named = tuple(name for name in NESTED if name != "own")
    every_row = replace(SUITE, image=PGD(2.0, 1), attacks=("clean", *named), own=own_loss)
    found = evaluate(
        tiny_encoder(), PAIRS, {name: tables[name] for name in order}, every_row, seed=seed
    ).outcomes
    for row in (*NESTED, "worst"):
        left = [primary_endpoint(found[row, threat]) for threat in ("some", "more", "all")]
        assert left == sorted(left, reverse=True), row
    worst = [found["worst", threat].ir_rank for threat in ("some", "more", "all")]
    assert bool((worst[0] <= worst[1]).all() and (worst[1] <= worst[2]).all())
    parts = {name: tables[name] for name in order if name != "all"}
    again = evaluate(
        tiny_encoder(), PAIRS, {"all": every}, every_row, seed=seed, parts=parts
    ).outcomes
    for row in NESTED:
        assert torch.equal(again[row, "all"].ir_rank, found[row, "all"].ir_rank), row


@settings(max_examples=3)
@given(seed=st.integers(0, 10_000))
def test_a_larger_eps_never_leaves_more_on_the_strength_curve(seed: int) -> None:
    eps = (8.0, 0.0, 1.0, 2.0, 0.5)
    curve = strength_curve(tiny_encoder(), PAIRS, Suite(PGD(1.0, 1)), eps, seed=seed)
    assert tuple(curve) == eps
    left = [primary_endpoint(curve[each]) for each in sorted(eps)]
    assert left == sorted(left, reverse=True)
