"""What is left of a study's models under attack: seeds, galleries, `worst` and intervals in one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from torch import Tensor

from matlib.evaluation.crossed import EndpointName, OutcomesOfWorld, crossed_estimate
from matlib.evaluation.retrieval import Outcomes
from matlib.evaluation.robustness import WORST, key_of, worst_under
from matlib.evaluation.statistics import Estimate, primary_endpoint
from matlib.evaluation.suite import Key
from matlib.study.made import protocols
from matlib.study.made.protocols import INSIDE_ATTACKS, PAIRS_ATTACKS, EvaluationProtocol
from matlib.study.study import Study


@dataclass(frozen=True)
class Recalls:
    """The endpoints of the rows of a study, with the rule of intervals.

    From three trained weights on an estimate is a mean over seeds and worlds, with an interval
    over seeds, images and worlds (`crossed_estimate`); below, the first seed's with an interval
    over images. The undefended model (`base`) has one seed in each world, 0.

    Attributes:
        study: whose rows.
        how: how they were judged; by the full suite on the test gallery if None.
        seeds: training seeds that are read; those of the study's defences if None.
        endpoint: of `recall` and `estimate`; the study's primary one by default.
        attacks: those that `worst` counts beside the clean query, so that rows judged by
            different suites are compared under the same attacks; if None, `worst` is as the
            protocol has it.
        otherwise: rows that were judged otherwise, on the same gallery, and how.
    """

    study: Study
    how: EvaluationProtocol | None = None
    seeds: Sequence[int] | None = None
    attacks: Sequence[str] | None = None
    otherwise: Mapping[str, EvaluationProtocol] = field(default_factory=dict)
    endpoint: EndpointName = "R@1"

    def recall(
        self, row: str, attack: str, threat: str | None = None, *, reference: str | None = None
    ) -> Estimate:
        """What an attack leaves of a row, or by how much that is more than of another row.

        Args:
            row: by name.
            attack: of the protocol, or `worst`.
            threat: of the attack's words; the study's primary one if None.
            reference: the other row; without one the estimate is the row's own recall.

        Returns:
            a share of 1, or a difference in [-1, 1].
        """
        asked = (attack, threat)
        worlds: list[OutcomesOfWorld] = [
            (here.found(row, *asked), here.found(reference, *asked) if reference else None,
             here.images)
            for here in self.everywhere
        ]  # fmt: skip
        return crossed_estimate(worlds, self.endpoint, n_boot=self._n_boot)

    @cached_property
    def everywhere(self) -> list[Recalls]:
        """The same in each of the study's worlds."""
        return [replace(self, study=study) for study in self.study.worlds()]

    def level(self, row: str, attack: str) -> float:
        """The mean over seeds of what an attack with the primary threat leaves, in [0, 1], in the
        study's own world."""
        found = self.found(row, attack)
        return sum(map(primary_endpoint, found)) / len(found)

    def found(self, row: str, attack: str, threat: str | None = None) -> list[Outcomes]:
        """The rank of every query with each seed; arguments as for `recall`."""
        words = self.study.profile.evaluation.primary_threat if threat is None else threat
        evaluated = [self.study.outcomes(row, seed, self._how(row)) for seed in self._seeds(row)]
        if attack == WORST and self.attacks is not None:
            return [worst_under(each, words, self.attacks) for each in evaluated]
        return [each[key_of(attack, words)] for each in evaluated]

    def keys(self, row: str) -> list[Key]:
        """(attack, text threat) of all that a row was judged by, `worst` among them."""
        return list(self.study.outcomes(row, self._seeds(row)[0], self._how(row)))

    def curves(self, row: str) -> list[dict[float, Outcomes]]:
        """With each seed, eps in 1/255 -> the rank of every query under PGD; clean at 0."""
        evaluated = [self.study.evaluated(row, seed, self._how(row)) for seed in self._seeds(row)]
        return [{0.0: each.outcomes["clean", ""], **each.curve} for each in evaluated]

    def estimate(
        self, first: Sequence[Outcomes], second: Sequence[Outcomes] | None = None
    ) -> Estimate:
        """The endpoint of outcomes by seed in one world, or their difference from other ones."""
        return crossed_estimate([(first, second, self.images)], self.endpoint, n_boot=self._n_boot)

    @property
    def _n_boot(self) -> int:
        return self.study.profile.evaluation.n_boot

    @cached_property
    def images(self) -> Tensor:
        """int64 (M,): the image of each caption of the gallery."""
        return self.study.pairs("test" if self.how is None else self.how.gallery).image_of

    def _how(self, row: str) -> EvaluationProtocol:
        return self.otherwise.get(row) or self.how or self.study.main_protocol("test")

    def _seeds(self, row: str) -> Sequence[int]:
        if row == "base":
            return (0,)
        return self.study.profile.seeds if self.seeds is None else self.seeds


def of_pairs(study: Study, seeds: Sequence[int]) -> Recalls:
    """Rows of the comparison of techniques and of its sweeps."""
    return Recalls(study, protocols.pairs(study.profile.evaluation), seeds, PAIRS_ATTACKS)


def in_short(study: Study, architecture: str, seeds: Sequence[int] | None = None) -> Recalls:
    """Rows of one architecture ("" is the study's own model) under `INSIDE_ATTACKS`.

    The study's own rows were judged by the full suite, its variations of a defence and all of
    another architecture by these attacks alone. Each attack has a generator of its own, so that
    its numbers do not depend on the others.
    """
    own = study.of_architecture(architecture)
    if architecture:
        return Recalls(own, own.inside_protocol(), seeds, INSIDE_ATTACKS)
    varied = dict.fromkeys((row for row, _ in own.inside_rows()), own.inside_protocol())
    return Recalls(own, None, seeds, INSIDE_ATTACKS, varied)


def shown(estimate: Estimate, value: str = "value") -> dict[str, Any]:
    """Columns of a recall: `value`, `low`, `high` (a t-interval cut to shares of 1), `n_seeds`."""
    return {
        value: estimate.value,
        "low": max(0.0, estimate.low),
        "high": min(1.0, estimate.high),
        "n_seeds": estimate.n_seeds,
    }
