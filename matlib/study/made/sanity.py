"""The sanity battery on the models of a study, computed once, and the claim that rests on it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from matlib.attacks.pgd import PGD
from matlib.defences.own_loss import OWN_ATTACKS, own_attack
from matlib.evaluation.sanity_checks import CHECKS, sanity
from matlib.evaluation.sanity_subject import BOUNDS_LEVEL, TOLERANCE_POINTS, Check
from matlib.evaluation.statistics import MIN_SEEDS_FOR_INTERVAL, Estimate, t_interval, verdict
from matlib.progress import Progress
from matlib.study.context import Context, Node
from matlib.study.identity.makers import makes
from matlib.study.made.base import base, open_base
from matlib.study.made.candidates import tables
from matlib.study.made.models import model, open_model
from matlib.study.made.protocols import full, make_suite, protocol_config
from matlib.study.recipes import defence_of, examined_rows
from matlib.study.store.store import Artefact

CHECKS_FILE = "checks.json"


def battery(study: Context) -> dict[str, list[Check]]:
    """Every check on every defended model of the study.

    Returns:
        by model, `name` or `name s<seed>` where there are several seeds; models trained without
        an attack are not examined, because they claim no robustness. Empty if there are none.
    """
    several = len(study.profile.seeds) > 1
    return {
        f"{name} s{seed}" if several else name: study.get(checks(study, name, seed))
        for name, seed in examined_rows(study.profile)
    }


def battery_by_row(study: Context) -> dict[str, list[list[Check]]]:
    """The same by row: the checks of each of its seeds."""
    found: dict[str, list[list[Check]]] = {}
    for name, seed in examined_rows(study.profile):
        found.setdefault(name, []).append(study.get(checks(study, name, seed)))
    return found


@makes("sanity")
def checks(study: Context, name: str, seed: int) -> Node[list[Check]]:
    """The battery on one model: the first `analysis_images` of the test gallery.

    Transferred images are made on the undefended model, by which an attacker would begin.
    """
    e, n_images = study.identified.evaluation, study.profile.analysis_images
    how = full(study.profile.evaluation, "test")
    words = tables(study, "test", how.threats)
    trained = defence_of(study.run(name))

    def make(folder: Path) -> None:
        encoder, pairs = open_model(study, name, seed), study.pairs("test")
        threat = e.primary_threat
        with Progress(f"sanity {name} s{seed}", len(CHECKS)) as progress:
            results = sanity(
                encoder,
                pairs,
                {threat: study.get(words)[threat]},
                image=PGD(e.eps_255, e.pgd_steps, e.step_255),
                source=open_base(study),
                seed=0,
                n_images=n_images,
                word_search=make_suite(study.profile.evaluation, how).text,
                n_restarts=e.n_restarts,
                own=own_attack(trained, open_base(study) if trained.needs_reference else None),
                train=study.pairs("train").subset(range(min(n_images, len(study.pairs("train"))))),
                on_check=lambda check: progress.advance(1, str(check)),
            )
        text = json.dumps([asdict(check) for check in results], ensure_ascii=False, indent=1)
        (folder / CHECKS_FILE).write_text(text, encoding="utf-8")

    config = {
        **protocol_config(e, how),
        "model": study.identified.model.model_dump(),
        "n_images": n_images,
    }
    inputs = {"model": model(study, name, seed), "base": base(study), "tables": words}
    chosen = tuple(OWN_ATTACKS.keys() & {trained.kind})
    return study.node("sanity", name, seed, config, inputs, make, _checks_in, chosen=chosen)


def _checks_in(artefact: Artefact) -> list[Check]:
    found = json.loads(artefact.file(CHECKS_FILE).read_text(encoding="utf-8"))
    return [Check(**check) for check in found]


@dataclass(frozen=True)
class Gain:
    """What one comparison of the battery shows about one row, in points.

    Attributes:
        name: of the check.
        found: over seeds (t-interval, from three on), or over the images of the first seed; its
            ends are one-sided 95 % bounds.
    """

    row: str
    name: str
    found: Estimate


def pooled(by_row: Mapping[str, Sequence[Sequence[Check]]]) -> list[Gain]:
    """Every comparison of every row, its seeds together.

    Args:
        by_row: the checks of each seed, the same ones for all.
    """
    gains = []
    for row, seeds in by_row.items():
        for at, check in enumerate(seeds[0]):
            for comparison, first in check.gains.items():
                values = [each[at].gains[comparison][0] for each in seeds]
                if check.exact:
                    found = Estimate(max(values), max(values), max(values), check.n_images)
                elif len(seeds) >= MIN_SEEDS_FOR_INTERVAL:
                    found = t_interval(values, level=BOUNDS_LEVEL)
                else:
                    value, low, high = first
                    found = Estimate(value, low, high, check.n_images)
                gains.append(Gain(row, check.name, found))
    return gains


def masked_gradients_entry(
    by_row: Mapping[str, Sequence[Sequence[Check]]], scope: str
) -> dict[str, Any]:
    """Claim C9 for the ledger: nothing that should be no stronger gains 2 points, on any row.

    An equivalence claim: *supported* only where the upper bound of every gain of every row stays
    below 2 points, refuted where the lower bound of one lies above, open between. Each bound is
    one-sided at 95 % and corrected for nothing: all must hold for support, and a correction of
    refutations would help the defender. `estimate` and its bounds are of the gain whose upper
    bound is highest.

    Args:
        by_row: what the battery found, the checks of each seed.
    """
    gains = pooled(by_row)
    n_seeds = min(map(len, by_row.values()))
    beyond = [each for each in gains if each.found.low > TOLERANCE_POINTS]
    differs = [check.name for seeds in by_row.values() for checks in seeds for check in checks
               if check.exact and check.verdict == "violated"]  # fmt: skip
    within = sum(each.found.high < TOLERANCE_POINTS for each in gains)
    highest = max(gains, key=lambda each: each.found.high)
    lowest = max([each.found.low for each in gains] + [math.inf for _ in differs])
    named = [f"{each.name} of {each.row}" for each in beyond] + differs
    return {
        "id": "C9",
        "claim": "the robustness is not masked gradients",
        "contrast": (
            f"{within} of {len(gains)} gains surely below {TOLERANCE_POINTS:g} points, "
            f"{len(named)} surely above{': ' + ', '.join(named) if named else ''}; highest: "
            f"{highest.name} of {highest.row}"
        ),
        "scope": scope,
        "estimate": round(highest.found.value / 100, 4),
        "ci_low": round(highest.found.low / 100, 4),
        "ci_high": round(highest.found.high / 100, 4),
        "n": highest.found.n,
        "unit": highest.found.unit,
        "n_seeds": n_seeds,
        "verdict": verdict(
            TOLERANCE_POINTS - max(highest.found.high, lowest), TOLERANCE_POINTS - lowest,
            n_seeds=n_seeds, unit="seed" if n_seeds >= MIN_SEEDS_FOR_INTERVAL else "query",
        ),
    }  # fmt: skip
