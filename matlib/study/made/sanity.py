"""The sanity battery on the models of a study, computed once, and the claim that rests on it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from matlib.attacks.pgd import PGD
from matlib.evaluation.sanity_checks import sanity, verdicts
from matlib.evaluation.sanity_subject import Check
from matlib.evaluation.statistics import MIN_SEEDS_FOR_CLAIM
from matlib.progress import Progress
from matlib.study.context import Node
from matlib.study.identity.makers import makes
from matlib.study.made.base import base
from matlib.study.made.candidates import tables
from matlib.study.made.judgings import judging_config
from matlib.study.made.models import model
from matlib.study.recipes import attacks_anything
from matlib.study.store.store import Artefact
from matlib.study.study import Study
from matlib.study.tables.findings import NO_VIOLATION

N_CHECKS = 11
N_BOOT, N_BOOT_PER_MODEL, N_BOOT_STEP = 20_000, 500, 16_000
"""Bootstrap samples at least, per examined model, and by how many they grow. Holm over M models
multiplies a p-value by 10 M checks, and of a check with two rules the smallest is 2 / (n_boot + 1):
below 0.05 only from 400 M samples on. A quarter more leaves room to tell p-values apart, and steps
let a study grow by a few rows without making every battery anew."""
CHECKS_FILE = "checks.json"


def battery(study: Study) -> dict[str, list[Check]]:
    """Every check on every defended model of the study, corrected over all of them.

    Returns:
        by model, `name` or `name s<seed>` where there are several seeds; models trained without
        an attack are not examined, because they claim no robustness. Empty if there are none.
    """
    several = len(study.profile.seeds) > 1
    found = {
        f"{name} s{seed}" if several else name: study.get(checks(study, name, seed))
        for name, seed in examined(study)
    }
    return verdicts(found) if found else {}


def examined(study: Study) -> list[tuple[str, int]]:
    """The rows, name and seed, of which robustness is claimed: trained against an attack."""
    return [
        (name, seed)
        for name, seed in study.rows()
        if name != "base" and attacks_anything(study.run(name))
    ]


def n_boot_for(n_models: int) -> int:
    """Bootstrap samples with which a check can still be violated among those of all models."""
    wanted = N_BOOT_PER_MODEL * n_models
    return N_BOOT if wanted <= N_BOOT else -(-wanted // N_BOOT_STEP) * N_BOOT_STEP


@makes("sanity")
def checks(study: Study, name: str, seed: int) -> Node[list[Check]]:
    """The battery on one model: the first `analysis_images` of the test gallery.

    Transferred images are made on the undefended model, by which an attacker would begin.
    """
    e = study.identified.evaluation
    how = study.main_judging("test")
    words = tables(study, "test", how.threats)
    n_boot = n_boot_for(len(examined(study)))

    def make(folder: Path) -> None:
        encoder, pairs = study.model(name, seed), study.pairs("test")
        threat = e.primary_threat
        with Progress(f"sanity {name} s{seed}", N_CHECKS) as progress:
            results = sanity(
                encoder,
                pairs,
                {threat: study.get(words)[threat]},
                image=PGD(e.eps_255, e.pgd_steps, e.step_255),
                source=study.model("base"),
                seed=0,
                n_images=study.profile.analysis_images,
                word_search=study.suite(how).text,
                n_boot=n_boot,
                on_check=lambda check: progress.advance(1, str(check)),
            )
        text = json.dumps([asdict(check) for check in results], ensure_ascii=False, indent=1)
        (folder / CHECKS_FILE).write_text(text, encoding="utf-8")

    config = {
        **judging_config(e, how),
        "model": study.identified.model.model_dump(),
        "n_images": study.profile.analysis_images,
        # the least number is no part of the identity: small studies keep what they have computed
        **({"n_boot": n_boot} if n_boot > N_BOOT else {}),
    }
    inputs = {"model": model(study, name, seed), "base": base(study), "tables": words}
    return study.node("sanity", name, seed, config, inputs, make, _checks_in)


def _checks_in(artefact: Artefact) -> list[Check]:
    found = json.loads(artefact.file(CHECKS_FILE).read_text(encoding="utf-8"))
    return [Check(**check) for check in found]


def masked_gradients_entry(
    found: Mapping[str, Sequence[Check]], n_seeds: int, scope: str
) -> dict[str, Any]:
    """Claim C9 for the ledger: the most suspicious check of any model.

    `estimate` is by how much an assertion fails there, `ci_low` its one-sided 95 % lower
    bound; there is no upper one. The claim is refuted by one violated check; that none is
    violated is said as that and supports nothing: small differences go unseen.
    """
    statistical = [(m, c) for m, each in found.items() for c in each if not c.exact]
    model, worst = max(statistical, key=lambda pair: pair[1].lower_points)
    violated = [f"{c.name} of {m}" for m, each in found.items() for c in each
                if c.verdict == "violated"]  # fmt: skip
    n_all = sum(map(len, found.values()))
    if n_seeds >= MIN_SEEDS_FOR_CLAIM:
        word = "not supported" if violated else NO_VIOLATION
    else:
        word = f"{'unfavourable' if violated else NO_VIOLATION}, for these weights only"
    return {
        "id": "C9",
        "claim": "the robustness is not masked gradients",
        "contrast": (
            f"{len(violated)} of {n_all} sanity checks violated"
            f"{': ' + ', '.join(violated) if violated else ''}; most suspicious: "
            f"{worst.name} of {model} (violated above 2 points, corrected for all checks)"
        ),
        "scope": scope,
        "estimate": round(worst.estimate_points / 100, 4),
        "ci_low": round(worst.lower_points / 100, 4),
        "ci_high": None,
        "n": worst.n_images,
        "unit": "query",
        "n_seeds": n_seeds,
        "verdict": word,
    }
