"""`worst`: the clean query is inside, other threats are not, and there is one definition."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

import matlib
from matlib.evaluation.retrieval import Outcomes
from matlib.evaluation.robustness import worst_under


def ranks(*values: int) -> Outcomes:
    return Outcomes(torch.tensor(values), torch.tensor(values))


FOUND = {
    ("clean", ""): ranks(5, 0, 0, 0, 0),
    ("pgd", ""): ranks(0, 4, 0, 0, 0),
    ("joint", "typo"): ranks(0, 0, 3, 0, 0),
    ("gallery-tr", "typo"): ranks(0, 0, 0, 2, 0),
    ("joint", "bert_true"): ranks(9, 9, 9, 9, 9),
    ("worst", "typo"): ranks(9, 9, 9, 9, 9),
}


def test_everything_legal_counts_the_clean_query_among_it() -> None:
    assert worst_under(FOUND, "typo").tr_rank.tolist() == [5, 4, 3, 2, 0]


@pytest.mark.parametrize(
    "attacks, expected",
    [
        (("joint",), [5, 0, 3, 0, 0]),
        (("pgd", "gallery-tr"), [5, 4, 0, 2, 0]),
        ((), [5, 0, 0, 0, 0]),
    ],
)
def test_some_attacks_and_the_clean_query(attacks: tuple[str, ...], expected: list[int]) -> None:
    assert worst_under(FOUND, "typo", attacks).ir_rank.tolist() == expected


def test_nothing_legal_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        worst_under({("joint", "typo"): ranks(0)}, "bert_free")


def test_nobody_else_takes_the_minimum_over_attacks() -> None:
    package = Path(matlib.__file__).parent
    users = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if re.search(r"\bworst_of\(", path.read_text())
    }
    assert users == {"evaluation/retrieval.py", "evaluation/robustness.py"}
