"""Transferred pairs: each target sees what the plain evaluation with that source shows it."""

from __future__ import annotations

import pytest
import torch

from matlib.attacks.pgd import PGD
from matlib.attacks.word_substitution import WordSubstitution
from matlib.data.pairs import ImageTensor, ImageTextPairs
from matlib.evaluation.robustness import evaluate, transfer_from
from matlib.evaluation.suite import Suite
from matlib.models.open_clip import OpenClipEncoder
from tests.toys import generator, random_captions, random_edits, tiny_encoder

SUITE = Suite(PGD(8, 2), attacks=("clean", "pgd", "sga", "joint"))
KEYS = [("pgd", ""), ("sga", "t"), ("joint", "t")]


def toy_pairs() -> ImageTextPairs:
    captions, own = random_captions([1, 2, 3, 1, 2])
    images = torch.randint(256, (5, 3, 16, 16), generator=generator(3)).byte()
    return ImageTextPairs("toy", "test", ImageTensor(images), tuple(captions), own, tuple("abcde"))


PAIRS = toy_pairs()
TABLES = {"t": random_edits(list(PAIRS.captions))}
MODELS = {"a": tiny_encoder(1), "b": tiny_encoder(2), "c": tiny_encoder(3)}


def test_every_pair_of_models_equals_the_plain_evaluation_with_that_source() -> None:
    found = {n: transfer_from(MODELS[n], MODELS, PAIRS, TABLES, SUITE, seed=4) for n in "ab"}
    for source, by_target in found.items():
        for target, outcomes in by_target.items():
            plain = evaluate(MODELS[target], PAIRS, TABLES, SUITE, seed=4, source=MODELS[source])
            for key in KEYS:
                assert torch.equal(outcomes[key].tr_rank, plain.outcomes[key].tr_rank)
                assert torch.equal(outcomes[key].ir_rank, plain.outcomes[key].ir_rank)
    for key in KEYS:
        ranks = [torch.cat([found[n][target][key].ir_rank for target in MODELS]) for n in "ab"]
        assert not torch.equal(*ranks), "the toys cannot tell one source from another"


def test_an_attack_is_made_once_however_many_look_at_it(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    prepare = WordSubstitution.prepare

    def counted(self: WordSubstitution, *arguments: object) -> object:
        made.append(1)
        return prepare(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(WordSubstitution, "prepare", counted)
    transfer_from(MODELS["a"], MODELS, PAIRS, TABLES, SUITE, seed=0)
    assert len(made) == 1


def test_what_cannot_be_made_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one target"):
        transfer_from(MODELS["a"], {}, PAIRS, TABLES, SUITE, seed=0)
    training: OpenClipEncoder = tiny_encoder(1)
    training.train()
    with pytest.raises(ValueError, match="evaluation mode"):
        transfer_from(MODELS["a"], {"t": training}, PAIRS, TABLES, SUITE, seed=0)
