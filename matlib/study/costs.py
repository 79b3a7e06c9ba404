"""Seconds of a step and of an attacked image, measured where that is quick, else predicted."""

from __future__ import annotations

from dataclasses import replace

from matlib.config.profile import Profile
from matlib.config.rows import Run
from matlib.models.open_clip import OpenClipEncoder
from matlib.study.judgings import Judging
from matlib.study.probe import KINDS, Timed, counting_encoder, judging, pass_seconds, training_steps
from matlib.study.recipes import defence_of, train_attack_of

PROBE_SECONDS = 40.0
"""Trainings, and attacks, that take longer than this in a probe are predicted from passes."""

LARGE_BATCH_SECONDS = 0.25
"""A training pass of two pairs that takes longer is probed with two pairs."""


class Costs:
    """Seconds of a step of each row and of an image of each judging."""

    def __init__(self, profile: Profile, encoder: OpenClipEncoder) -> None:
        self.profile, self.encoder, self.notes = profile, encoder, list[str]()
        self.counting = counting_encoder()
        phase = profile.finetune or profile.base
        self.precision = "no" if phase is None else phase.mixed_precision
        first = pass_seconds(encoder, 2, 1)
        slow = 2 * (first["image_train"].seconds + first["text_train"].seconds)
        self.is_large = slow > LARGE_BATCH_SECONDS
        wanted = phase.batch_size if phase else 32
        self.batch = 2 if self.is_large else min(wanted, 64)
        repeats = 2 if self.is_large else 5
        self.passes = pass_seconds(
            encoder, self.batch, repeats, self.precision, is_warm=self.is_large
        )
        is_half = self.precision != "no"
        if self.is_large and is_half:
            self.judge_passes = first
        else:
            self.judge_passes = (
                pass_seconds(encoder, self.batch, repeats) if is_half else self.passes
            )
        self._steps: dict[tuple[object, ...], tuple[Timed, dict[str, float]]] = {}
        self._judged: dict[Judging, tuple[Timed, dict[str, float]]] = {}
        self._ratio: Timed | None = None
        self._probed = 0.0

    def step(self, run: Run, batch: int) -> tuple[Timed, dict[str, float]]:
        """Seconds of one optimiser step of a row, and rows per pair by kind."""
        how, attack = defence_of(run), train_attack_of(self.profile, run)
        words = None if how.text == "random" else how.text  # drawn at random they cost no pass
        versions = (run.mixed_pairs, run.clean_pairs)
        family = (
            how.image, words, how.kind, how.towers, attack.threats if words else (),
            attack.pgd_steps, versions, batch,
        )  # fmt: skip
        if family not in self._steps:
            self._steps[family] = self._probe(run, batch)
        return self._steps[family]

    def _probe(self, run: Run, batch: int) -> tuple[Timed, dict[str, float]]:
        _, rows = training_steps(self.counting, self.profile, run, min(batch, 8), 1)
        expected = batch * _seconds(rows, self.passes)
        if not self.is_large and self._probed + 4 * expected < PROBE_SECONDS:
            self._probed += 4 * expected
            timed, _ = training_steps(self.encoder, self.profile, run, batch, 3)
            return timed, rows
        ratio = self.ratio(run, rows)
        spread = _spread(rows, self.passes) + abs(ratio.seconds - 1) / 2
        return Timed(expected * ratio.seconds, spread), rows

    def ratio(self, run: Run, rows: dict[str, float]) -> Timed:
        """A measured small step over its passes, from the first row that asks."""
        if self._ratio is None:
            timed, _ = training_steps(self.encoder, self.profile, run, self.batch, 1)
            expected = self.batch * _seconds(rows, self.passes)
            self._ratio = Timed(timed.seconds / expected, 0.0)
            self.notes.append(
                f"a step of {self.batch} pairs of {run.defence} was measured; the others follow "
                f"from the passes that they make (measured over predicted: "
                f"{self._ratio.seconds:.2f})"
            )
        return self._ratio

    def judge(self, how: Judging) -> tuple[Timed, dict[str, float]]:
        """Seconds of one image with its captions under a judging, and its rows by kind."""
        how = replace(how, gallery="test")  # which images they are costs nothing
        if how not in self._judged:
            self._judged[how] = self._judge(how)
        return self._judged[how]

    def _judge(self, how: Judging) -> tuple[Timed, dict[str, float]]:
        _, rows = judging(self.counting, self.profile, how, 4)
        expected = _seconds(rows, self.judge_passes)
        n = min(16, self.profile.dataset.n_test)
        if n * expected < PROBE_SECONDS:
            times = [judging(self.encoder, self.profile, how, n)[0] / n for _ in range(2)]
            return Timed.of(times), rows
        self.notes.append("attacks take too long here to be tried: predicted from their passes")
        return Timed(expected, _spread(rows, self.judge_passes)), rows


def _seconds(rows: dict[str, float], passes: dict[str, Timed]) -> float:
    return sum(rows[kind] * passes[kind].seconds for kind in KINDS)


def _spread(rows: dict[str, float], passes: dict[str, Timed]) -> float:
    total = _seconds(rows, passes)
    parts = (rows[kind] * passes[kind].seconds * passes[kind].spread for kind in KINDS)
    return sum(parts) / total if total else 0.0
