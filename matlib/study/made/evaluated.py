"""A model judged: per-query ranks, adversarial captions, a few images, kept on disk."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from matlib.evaluation.retrieval import Outcomes
from matlib.evaluation.robustness import Evaluation, evaluate, strength_curve
from matlib.evaluation.suite import Key
from matlib.progress import Progress
from matlib.study.context import Context, Node
from matlib.study.identity.makers import makes
from matlib.study.made.candidates import tables
from matlib.study.made.models import model, open_model
from matlib.study.made.protocols import (
    EvaluationProtocol,
    judged_rows,
    make_suite,
    moves_of,
    protocol_config,
)
from matlib.study.store.store import Artefact

RANKS, _CAPTIONS, SHOWN, CURVE = "ranks.csv", "captions.json", "shown.safetensors", "curve.csv"


@dataclass(frozen=True)
class EvaluatedModel:
    """What the suite found about one model.

    Attributes:
        outcomes: per (attack, threat) the rank of every query.
        captions: per (attack, threat) the adversarial captions; empty from a record.
        shown: per (attack, threat) float (n_shown, 3, H, W), the first adversarial images.
        curve: per eps in 1/255 the outcomes under PGD; may be empty.
        hash: of the artefact, for provenance.
    """

    outcomes: dict[Key, Outcomes]
    captions: dict[Key, list[str]]
    shown: dict[Key, Tensor]
    curve: dict[float, Outcomes]
    hash: str


def _name(key: Key) -> str:
    return "/".join(key)


def _key(name: str) -> Key:
    attack, _, threat = name.partition("/")
    return attack, threat


def save_ranks(outcomes: Mapping[str, Outcomes], path: Path) -> None:
    """Write the rank of every query, by name of what was judged (column `attack`)."""
    _frame(outcomes).to_csv(path, index=False)


def _frame(outcomes: Mapping[str, Outcomes]) -> pd.DataFrame:
    """One row per query: attack, direction, query, rank."""
    parts = []
    for name, found in outcomes.items():
        for direction, ranks in (("TR", found.tr_rank), ("IR", found.ir_rank)):
            parts.append(
                pd.DataFrame(
                    {
                        "attack": name,
                        "direction": direction,
                        "query": range(len(ranks)),
                        "rank": ranks.numpy(),
                    }
                )
            )
    return pd.concat(parts)


def load_ranks(path: Path) -> dict[str, Outcomes]:
    """What `save_ranks` wrote, names in the same order."""
    table = pd.read_csv(path, dtype={"attack": str})
    found = {}
    for name, part in table.groupby("attack", sort=False):
        ranks = {
            direction: torch.tensor(rows.sort_values("query")["rank"].to_list())
            for direction, rows in part.groupby("direction")
        }
        found[str(name)] = Outcomes(ranks["TR"], ranks["IR"])
    return found


def save_evaluation(found: Evaluation, folder: Path) -> None:
    """Write ranks (CSV), adversarial captions (JSON) and shown images (safetensors)."""
    ranks = {_name(key): outcomes for key, outcomes in found.outcomes.items()}
    save_ranks(ranks, folder / RANKS)
    captions = {_name(key): texts for key, texts in found.captions.items()}
    (folder / _CAPTIONS).write_text(json.dumps(captions, ensure_ascii=False), encoding="utf-8")
    shown = {_name(key): pixels.contiguous().cpu() for key, pixels in found.shown.items()}
    save_file(shown, str(folder / SHOWN))


def save_curve(curve: Mapping[float, Outcomes], folder: Path) -> None:
    """Write the strength curve: `attack` holds eps in 1/255."""
    save_ranks({str(eps): outcomes for eps, outcomes in curve.items()}, folder / CURVE)


def _read(path: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = json.loads(path.read_text(encoding="utf-8"))
    return found


def load_evaluation(artefact: Artefact) -> EvaluatedModel:
    """What `save_evaluation` (and `save_curve`) wrote."""
    has = artefact.provenance["outputs"]  # ranks alone, where they come from a record
    captions = _read(artefact.file(_CAPTIONS)) if _CAPTIONS in has else {}
    shown = load_file(str(artefact.file(SHOWN))) if SHOWN in has else {}
    curve = load_ranks(artefact.file(CURVE)) if CURVE in has else {}
    return EvaluatedModel(
        {_key(name): found for name, found in load_ranks(artefact.file(RANKS)).items()},
        {_key(name): texts for name, texts in captions.items()},
        {_key(name): pixels for name, pixels in shown.items()},
        {float(eps): found for eps, found in curve.items()},
        artefact.hash,
    )


@makes("judged")
def evaluated(
    study: Context, name: str, seed: int, how: EvaluationProtocol
) -> Node[EvaluatedModel]:
    """Per-query outcomes, adversarial captions and a few images of one model.

    The same attacks for every defence: one that ascends a defence's own loss is no part of them,
    or `worst` would be the minimum over more attacks for some rows than for others. It is a check
    of the sanity battery instead.
    """
    profile = study.identified
    words = tables(study, how.gallery, how.threats)
    parts = tables(study, how.gallery, how.parts) if how.parts else None

    def make(folder: Path) -> dict[str, Any]:
        encoder, pairs = open_model(study, name, seed), study.pairs(how.gallery)
        suite = make_suite(profile.evaluation, how)
        total = len(judged_rows(profile.evaluation, how, profile.model))
        with Progress(f"attack {name} s{seed} ({how.gallery})", total) as progress:
            found = evaluate(
                encoder, pairs, study.get(words), suite, seed=0,
                parts=study.get(parts) if parts else None,
                on_attack=lambda attack: progress.advance(1, attack),
            )  # fmt: skip
        save_evaluation(found, folder)
        if how.with_curve:
            eps = profile.evaluation.curve_eps_255
            save_curve(strength_curve(encoder, pairs, suite, eps, seed=0), folder)
        vanished = {"/".join(key): n for key, n in found.n_vanished.items() if n}
        return {
            "n_embedded": found.n_embedded,
            "n_edits": found.n_edits,
            **found.about_words(),
            "n_images_with_vanished_gradient": vanished,
        }

    inputs: dict[str, Node[Any] | None] = {
        "model": model(study, name, seed),
        "tables": words,
        "parts": parts,
    }
    config = {**protocol_config(profile.evaluation, how), "model": profile.model.model_dump()}
    return study.node(
        "judged",
        name,
        seed,
        config,
        inputs,
        make,
        load_evaluation,
        chosen=moves_of(how, profile.model),
    )
