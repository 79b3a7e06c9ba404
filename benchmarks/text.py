"""SGA's text attack, both passes, against the released order of operations."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from statistics import median
from typing import Any

from benchmarks.load import Load
from benchmarks.peers import counting, peer_both_passes
from benchmarks.timing import in_turns, seconds
from matlib.attacks.objectives import TextObjective
from matlib.attacks.word_substitution import WordSubstitution

COMPARED_IMAGES = 16
"""Images whose captions are compared: double precision takes its time."""


class UnequalOutputs(RuntimeError):
    """The two contenders did not find the same; their times must not be compared."""


def both_passes(load: Load, guides: Sequence[TextObjective]) -> list[list[str]]:
    """Ours: the captions prepared once, then one search per guide."""
    prepared = WordSubstitution().prepare(load.encoder, load.captions, load.table)
    return [prepared(guide) for guide in guides]


def peers_passes(load: Load, guides: Sequence[TextObjective]) -> list[list[str]]:
    """The released order, one caption at a time."""
    return peer_both_passes(load.encoder, load.captions, load.table, guides)


def check_equal_captions(load: Load) -> int:
    """Number of adversarial captions compared, all of them equal.

    Compared in double precision: in single precision two edits may differ by less than the
    rounding of a forward of another batch, and the order would be decided by that.

    Raises:
        UnequalOutputs: a caption differs.
    """
    exact = load.in_double()
    guides = exact.guides()
    ours, peers = both_passes(exact, guides), peers_passes(exact, guides)
    for number, (mine, theirs) in enumerate(zip(ours, peers, strict=True), start=1):
        different = [i for i, pair in enumerate(zip(mine, theirs, strict=True)) if len({*pair}) > 1]
        if different:
            i = different[0]
            raise UnequalOutputs(
                f"text attack, pass {number}: {len(different)} of {len(mine)} captions differ, "
                f"e.g. {mine[i]!r} and {theirs[i]!r}"
            )
    return sum(map(len, ours))


def bench_text(load: Load, n_repeats: int) -> dict[str, Any]:
    """Captions per second, speedup and work per caption, at equal outputs."""
    n_equal = check_equal_captions(load.first(COMPARED_IMAGES))
    device, n, guides = load.encoder.device, len(load.captions), load.guides()
    timed = in_turns(
        lambda: both_passes(load, guides), lambda: peers_passes(load, guides), device, n_repeats
    )
    with counting(load.encoder) as ours:
        both_passes(load, guides)
    with counting(load.encoder) as peers:
        peers_passes(load, guides)
    both = {"ours": ours, "peer": peers}
    return {
        "text_attack_speedup": timed.speedup,
        "text_captions_per_second": timed.rates(n),
        "text_captions_equal": n_equal,
        "text_edits_per_caption": sum(map(len, load.table)) / n,
        "text_forwards_per_caption": {who: c.n_forwards / n for who, c in both.items()},
        "text_rows_per_caption": {who: c.n_rows / n for who, c in both.items()},
        "padded_tokens_per_caption": {who: c.n_positions / n for who, c in both.items()},
        "sga_second_pass_share": second_pass_share(load, n_repeats),
    }


def second_pass_share(load: Load, n_repeats: int) -> float:
    """Seconds of SGA's second text pass over those of its first (1 in the released code)."""
    guides, device = load.guides(), load.encoder.device
    shares = []
    for _ in range(n_repeats):
        prepared = WordSubstitution().prepare(load.encoder, load.captions, load.table)
        first, second = (seconds(partial(prepared, guide), device) for guide in guides)
        shares.append(second / first)
    return median(shares)
