"""Adversarial pairs made on one model and shown to others: does a stranger's attack harm?

An attacker without the weights of the attacked model makes the pairs on a model of their own.
`evaluate(target, ..., source=...)` judges one such pair of models; here the attack is made once
per source and only embedded anew by every target, which is where the cost lies.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from matlib.attacks.edits import CandidateTable
from matlib.data.pairs import ImageTextPairs
from matlib.evaluation.retrieval import Outcomes
from matlib.evaluation.robustness import Attacks, Judge, gallery_of
from matlib.evaluation.suite import OWN, Key, Suite
from matlib.models.dual_encoder import DualEncoder

SourceAndTarget = tuple[str, str]


def transfer_from(
    source: DualEncoder,
    targets: Mapping[str, DualEncoder],
    pairs: ImageTextPairs,
    tables: Mapping[str, CandidateTable],
    suite: Suite,
    *,
    seed: int,
    on_attack: Callable[[str], None] | None = None,
) -> dict[str, dict[Key, Outcomes]]:
    """Make the suite's attacks on one model and judge every target by them.

    Args:
        source: the model that the attacks are made on, in evaluation mode.
        targets: name -> judged model, in evaluation mode; the source may be among them.
        pairs, tables, suite, seed, on_attack: as of `evaluate`.

    Returns:
        per target and (attack, threat) the rank of every query, as `evaluate` with this
        `source` gives them; without `worst`.

    Raises:
        ValueError: no targets, a model in training mode, a table that does not fit.
    """
    if not targets:
        raise ValueError("transfer needs at least one target to judge; got none")
    gallery, ranks_only = gallery_of(pairs), replace(suite, n_shown=0)
    judges = {name: Judge(target, gallery, ranks_only) for name, target in targets.items()}
    attacks = Attacks(source, gallery, tables, suite, seed)
    for attack, threat in suite.rows(tables):
        pixels, captions, _ = attacks.run(attack, threat)
        for judge in judges.values():
            judge.record((attack, threat), pixels, captions)
        if on_attack is not None:
            on_attack(f"{attack} {threat}".strip())
    return {name: judge.found.outcomes for name, judge in judges.items()}


def judge_transfer(
    sources: Mapping[str, DualEncoder],
    targets: Mapping[str, DualEncoder],
    pairs: ImageTextPairs,
    tables: Mapping[str, CandidateTable],
    suite: Suite,
    *,
    seed: int,
    key: Key,
) -> dict[SourceAndTarget, Outcomes]:
    """One attack of the suite from every source to every target.

    Args:
        sources, targets: name -> model, in evaluation mode; a model that is both is attacked
            with its own weights there (white-box).
        key: (attack, threat), e.g. `("sga", "bert_true")`, `("pgd", "")` or
            `("joint", "bert_true")`; one of `suite.rows(tables)`, and the only one
            that is made.
        pairs, tables, suite, seed: as of `evaluate`.

    Returns:
        (source, target) -> the rank of every query.

    Raises:
        ValueError: an attack that the suite has not; else as `transfer_from`.
    """
    known = suite.rows(tables)
    if key not in known:
        raise ValueError(f"the suite has no attack {key!r} with these tables; it has: {known}")
    attack, threat = key
    alone = replace(suite, attacks=(attack,), own=suite.own if attack == OWN else None)
    edits = {threat: tables[threat]} if threat else {}
    found = {}
    for name, source in sources.items():
        outcomes = transfer_from(source, targets, pairs, edits, alone, seed=seed)
        found.update({(name, target): each[key] for target, each in outcomes.items()})
    return found
