"""The study's results as tidy tables, and on disk.

What each training cost.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from matlib.evaluation.retrieval import DIRECTIONS, KS, Outcomes
from matlib.evaluation.statistics import Estimate, over_seeds, recall_estimate
from matlib.evaluation.suite import Key
from matlib.evaluation.threat import allowed
from matlib.files import write_durably
from matlib.study.made.models import model
from matlib.study.made.substitutions import labelled_shares
from matlib.study.profile.rows import Run, row_defence
from matlib.study.store.shared_json import write_shared
from matlib.study.store.store import PROVENANCE, as_made
from matlib.study.study import Study
from matlib.study.tables.contrasts_of_pairs import curve_of_pairs
from matlib.study.tables.endpoints import (
    endpoint_table,
    held_out_table,
    inside_table,
    ranking_table,
    transfer_table,
)
from matlib.study.tables.ledger import contrast_table, contrasts_of, ledger
from matlib.study.tables.other_tasks import other_tasks_table
from matlib.study.tables.techniques import intervention_table, sweep_table, technique_table

ROBUSTNESS_COLUMNS = (
    "dataset", "split", "defence", "augmentation", "seed", "train_eps_255", "attack",
    "text_threat", "eps_255", "n_words", "source_model", "direction", "k", "recall", "ci_low",
    "ci_high", "n_queries", "n_gallery",
)  # fmt: skip


def robustness_table(study: Study, split: Literal["test", "val"] = "test") -> pd.DataFrame:
    """One row per model, seed, attack, threat, direction and k; recall in [0, 1].

    `text_threat` is empty where no text is attacked; `eps_255` and `n_words` are what the
    attack may use. Intervals resample images. Rows with seed `mean` average over seeds, with
    a t-interval from three seeds on. `worst` is a per-query minimum: a pessimistic bound.
    """
    rows: list[dict[str, Any]] = []
    for name, seed in study.rows():
        about = _about_model(study, None if name == "base" else study.run(name))
        found = study.outcomes(name, seed, study.main_protocol(split))
        rows += recall_rows(study, split, found, {**about, "seed": seed})
    return _with_means(pd.DataFrame(rows)[list(ROBUSTNESS_COLUMNS)])


def recall_rows(
    study: Study,
    split: Literal["test", "val"],
    outcomes: Mapping[Key, Outcomes],
    about: Mapping[str, Any],
    source_model: str = "self",
) -> Iterator[dict[str, Any]]:
    """The rows of one judged model: every attack, direction and k.

    Args:
        about: the columns that say which model it is.
        source_model: the row that the attacks were made on; `self` for the judged model.
    """
    pairs, e = study.pairs(split), study.profile.evaluation
    for (attack, threat), direction, k in product(outcomes, DIRECTIONS, KS):
        ranks = outcomes[attack, threat]
        estimate = recall_estimate(ranks, pairs.image_of, direction, k, n_boot=e.n_boot)
        sizes = (len(pairs), pairs.n_captions)
        queries, gallery = sizes if direction == "TR" else sizes[::-1]
        yield {
            "dataset": pairs.name,
            "split": split,
            **about,
            "attack": attack,
            "text_threat": threat,
            **allowed((attack, threat), e.eps_255, e.n_words),
            "source_model": source_model,
            "direction": direction,
            "k": k,
            "recall": estimate.value,
            "ci_low": estimate.low,
            "ci_high": estimate.high,
            "n_queries": queries,
            "n_gallery": gallery,
        }


def _about_model(study: Study, run: Run | None) -> dict[str, Any]:
    if run is None:
        return {"defence": "base", "augmentation": "none", "train_eps_255": 0.0}
    attacked = row_defence(run.defence).attacks_image
    eps = study.profile.train_attack.eps_255 if attacked else 0.0
    return {"defence": run.defence, "augmentation": run.augmentation, "train_eps_255": eps}


def _with_means(table: pd.DataFrame) -> pd.DataFrame:
    """Rows averaged over seeds beside the single ones, where there are several seeds."""
    table = table.astype({"seed": object})
    per_model = [c for c in ROBUSTNESS_COLUMNS if c not in ("seed", "recall", "ci_low", "ci_high")]
    means = []
    for values, part in table.groupby(per_model, sort=False):
        if len(part) < 2:
            continue
        recalls = part["recall"].to_list()
        mean = sum(recalls) / len(recalls)
        found = over_seeds(recalls, partial(Estimate, mean, math.nan, math.nan, 1))
        low, high = np.clip((found.low, found.high), 0.0, 1.0)
        row = dict(zip(per_model, values, strict=True))
        means.append({**row, "seed": "mean", "recall": mean, "ci_low": low, "ci_high": high})
    if not means:
        return table
    return pd.concat([table, pd.DataFrame(means)], ignore_index=True)


def write_results(study: Study) -> dict[str, Path]:
    """Write the tables, `claims.json` and `provenance.json` of the whole study.

    `robustness.csv` (every recall of every model), `endpoints.csv` (the primary endpoint, over
    seeds); `contrasts.csv` (all contrasts behind the claims), `held_out.csv`, `inside.csv`,
    `transfer.csv`, `ranking.csv`, `other_tasks.csv`, `techniques.csv`, `sweeps.csv`,
    `intervention.csv`, `curves.csv` (gap and gain by training pairs), `false_words.csv` (which
    share of a threat's word changes a reader labelled false) where there is something.

    Returns:
        name -> path of each file; each is written whole or not at all. A table of an earlier
        profile for which there is nothing now is removed.
    """
    table = robustness_table(study)
    contrasts = contrasts_of(study)
    claims, behind = ledger(study, contrasts), contrast_table(contrasts)
    extra = {
        "endpoints.csv": endpoint_table(study),
        "held_out.csv": held_out_table(study),
        "inside.csv": inside_table(study),
        "transfer.csv": transfer_table(study),
        "ranking.csv": ranking_table(study),
        "other_tasks.csv": other_tasks_table(study),
        "techniques.csv": technique_table(study),
        "sweeps.csv": sweep_table(study),
        "intervention.csv": intervention_table(study),
        "curves.csv": curve_of_pairs(study),
        "false_words.csv": labelled_shares(study.profile.name),
    }
    files = {
        "robustness.csv": _csv(table),
        **{name: _csv(found) for name, found in extra.items() if len(found)},
        **({"contrasts.csv": _csv(behind, "%.6g")} if len(behind) else {}),  # p-values are small
        "claims.json": json.dumps(claims, indent=1, ensure_ascii=False) + "\n",
    }
    for name in {*extra, "contrasts.csv"} - files.keys():
        (study.root / name).unlink(missing_ok=True)  # of a profile that had something there
    for name, text in files.items():
        write_durably(study.root / name, text)
    write_shared(study.root / PROVENANCE, _provenance(study))
    return {name: study.root / name for name in (*files, PROVENANCE)}


def _csv(table: pd.DataFrame, float_format: str = "%.6f") -> str:
    return table.to_csv(index=False, float_format=float_format, lineterminator="\n")


def _provenance(study: Study) -> dict[str, Any]:
    records = study.store.records()
    return {
        "profile": study.identified.model_dump(mode="json"),
        "rows": [f"{name} s{seed}" for name, seed in study.rows()],
        "partial": study.profile.limit > 0,
        "artefacts": [as_made(record) for record in records if record["hash"] in study.used],
    }


COSTS = ("pairs seen", "seconds", "attacks, % of them", "text attack, % of them")


def cost_table(study: Study, names: Sequence[str], seed: int) -> pd.DataFrame:
    """What training each row took, from the log of its steps.

    Seconds are those of the optimiser steps with their attacks; finding the candidate words and
    measuring on validation pairs are not in them. They depend on the machine and on what runs
    beside; pairs do not.

    Args:
        names: rows of the study; those whose weights are not here are left out.
        seed: of the training.

    Returns:
        index: the rows; columns `COSTS`, shares in percent of the seconds.
    """
    finetune, found = study.profile.finetune, {}
    for name in names:
        history = study.history(name, seed)
        if finetune is None or name == "base" or history.empty:
            continue
        seconds = history["seconds"].sum()
        found[name] = (
            len(history) * finetune.batch_size,
            round(seconds, 1),
            round(100 * history["attack_seconds"].sum() / seconds, 1),
            round(100 * history["text_attack_seconds"].sum() / seconds, 1),
        )
    table = pd.DataFrame.from_dict(found, orient="index", columns=list(COSTS))
    return table.rename_axis("defence")


def warnings_of(study: Study, names: Sequence[str], seed: int) -> list[str]:
    """What looked wrong while the rows were trained, a line each; `no warnings` for none.

    Args:
        names: rows of the study; those whose weights are not here are left out, and where no
            weights are here that is said.
        seed: of the training.
    """
    weights = {name: study.find(model(study, name, seed)) for name in names if name != "base"}
    here = {name: artefact.notes for name, artefact in weights.items() if artefact is not None}
    if not here:
        return ["nothing was trained here"]
    found = [f"{name}: {text}" for name, notes in here.items() for text in notes["warnings"]]
    return found or ["no warnings"]
