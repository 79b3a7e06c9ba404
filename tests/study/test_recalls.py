"""One home for recalls: seeds, galleries, `worst`, references, against plain arithmetic."""

from __future__ import annotations

from itertools import product
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from matlib.evaluation.retrieval import Outcomes
from matlib.evaluation.statistics import primary_difference
from matlib.study.made.protocols import INSIDE_ATTACKS, EvaluationProtocol, full, inside
from matlib.study.profile.profile import load_profile
from matlib.study.profile.rows import Run
from matlib.study.study import Study
from matlib.study.tables.recalls import Recalls, in_short, shown
from tests.toys import generator

OWN = torch.arange(30).repeat_interleave(2)
KEYS = [("clean", ""), ("pgd", ""), *product(("bert", "sga", "worst"), ("bert_true", "typo"))]


class EvaluatedModel:
    """A study whose models have random ranks; it says what was asked of it."""

    def __init__(self, seeds: tuple[int, ...]) -> None:
        plain = load_profile("smoke")
        runs = {"runs": (Run(defence="mat"),), "inside": (Run(defence="mat", label="x"),)}
        self.profile = plain.model_copy(update={**runs, "seeds": seeds})
        self.asked: list[tuple[str, int, EvaluationProtocol]] = []
        self.further: list[EvaluatedModel] = []

    def outcomes(
        self, row: str, seed: int, how: EvaluationProtocol
    ) -> dict[tuple[str, str], Outcomes]:
        self.asked.append((row, seed, how))
        g = generator(len(row) + 100 * seed)
        return {key: Outcomes(torch.randint(3, (30,), generator=g),
                              torch.randint(3, (60,), generator=g)) for key in KEYS}  # fmt: skip

    def pairs(self, gallery: str) -> Any:
        return SimpleNamespace(image_of=OWN, gallery=gallery)

    def main_protocol(self, gallery: Any) -> EvaluationProtocol:
        return full(self.profile.evaluation, gallery)

    def inside_protocol(self) -> EvaluationProtocol:
        return inside(self.profile.evaluation)

    def inside_rows(self) -> list[tuple[str, int]]:
        return [("mat.x", seed) for seed in self.profile.seeds]

    def of_architecture(self, name: str) -> EvaluatedModel:
        return self

    def worlds(self) -> list[EvaluatedModel]:
        return [self, *self.further]


def study(n_seeds: int) -> Study:
    return cast(Study, EvaluatedModel(tuple(range(n_seeds))))


def endpoint(found: Outcomes) -> float:
    return (found.recall("TR", 1) + found.recall("IR", 1)) / 2


def plainly_worst(found: dict[tuple[str, str], Outcomes], threat: str) -> Outcomes:
    legal = [each for (a, own), each in found.items() if own in ("", threat) and a != "worst"]
    ranks = [[max(int(getattr(each, side)[q]) for each in legal) for q in range(n)]
             for side, n in (("tr_rank", 30), ("ir_rank", 60))]  # fmt: skip
    return Outcomes(*map(torch.tensor, ranks))


@pytest.mark.parametrize("n_seeds", [1, 2, 3, 5])
@pytest.mark.parametrize("threat", ["bert_true", "typo"])
def test_worst_is_per_query_over_what_the_threat_allows(n_seeds: int, threat: str) -> None:
    made = study(n_seeds)
    evaluated = Recalls(made, attacks=("pgd", "bert", "sga"))
    found = evaluated.recall("mat", "worst", threat)
    by_seed = [dict(made.outcomes("mat", s, made.main_protocol("test"))) for s in range(n_seeds)]
    wanted = [endpoint(plainly_worst(each, threat)) for each in by_seed]
    counted = n_seeds if n_seeds >= 3 else 1
    assert found.value == pytest.approx(sum(wanted[:counted]) / counted)
    assert found.n_seeds == counted
    assert all(found.value <= evaluated.recall("mat", a, threat).value for a in ("clean", "bert"))


@pytest.mark.parametrize("n_seeds", [1, 3])
def test_a_difference_is_paired_by_query_and_the_base_stands_beside_each_seed(n_seeds: int) -> None:
    made = study(n_seeds)
    evaluated = Recalls(made)
    gain = evaluated.recall("mat", "sga", reference="base")
    own, base = evaluated.found("mat", "sga"), evaluated.found("base", "sga")
    assert len(own) == n_seeds and len(base) == 1
    wanted = [endpoint(each) - endpoint(base[0]) for each in own]
    assert gain.value == pytest.approx(sum(wanted) / n_seeds)
    assert evaluated.level("mat", "sga") == pytest.approx(sum(map(endpoint, own)) / n_seeds)
    n_boot = made.profile.evaluation.n_boot
    paired = primary_difference(own[0], base[0], OWN, n_boot=n_boot)
    assert (gain == paired) == (n_seeds == 1)
    same = evaluated.recall("mat", "sga", reference="mat")
    assert same.value == 0 and same.low == pytest.approx(-same.high)
    assert (same.high == 0) == (n_seeds == 1)  # seeds are not paired: they could have differed


def test_worlds_are_averaged_and_their_trainings_counted() -> None:
    made = EvaluatedModel((0, 1, 2))
    made.further = [EvaluatedModel((3, 4, 5))]
    evaluated = Recalls(cast(Study, made), endpoint="MRR")
    found = evaluated.recall("mat", "sga", reference="base")
    each = [here.recall("mat", "sga", reference="base") for here in (
        Recalls(cast(Study, EvaluatedModel(seeds)), endpoint="MRR")
        for seeds in ((0, 1, 2), (3, 4, 5)))]  # fmt: skip
    assert found.value == pytest.approx(sum(e.value for e in each) / 2)
    assert found.n_seeds == 6


def test_every_row_is_read_as_it_was_judged() -> None:
    made = EvaluatedModel((4, 5))
    e = made.profile.evaluation
    short = in_short(cast(Study, made), "", (4,))
    short.recall("mat.x", "worst", reference="mat")
    assert made.asked == [("mat.x", 4, inside(e)), ("mat", 4, full(e, "test"))]
    assert short.attacks == INSIDE_ATTACKS
    made.asked.clear()
    in_short(cast(Study, made), "wider").found("base", "clean")
    assert made.asked == [("base", 0, inside(e))]
    own = made.outcomes("mat", 4, short.otherwise["mat.x"])["worst", "bert_true"]
    full_suite = Recalls(cast(Study, made), seeds=(4,)).recall("mat", "worst")
    assert full_suite.value == pytest.approx(endpoint(own))  # the suite's, without a choice
    clean = Recalls(cast(Study, made), attacks=()).recall("mat", "worst")
    assert clean.value == short.recall("mat", "clean").value  # a query may be left as it is


def test_what_is_shown_is_a_share_of_one() -> None:
    made = study(3)
    estimate = Recalls(made).recall("mat", "clean")
    far = type(estimate)(0.5, -0.2, 1.4, 3, unit="seed")
    assert shown(far, "recall") == {"recall": 0.5, "low": 0.0, "high": 1.0, "n_seeds": 3}
