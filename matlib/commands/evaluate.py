"""`python -m matlib evaluate`: a row of one's own beside the study's defences."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd

from matlib.commands.batches import write_json
from matlib.commands.models import open_model, weights_identity
from matlib.commands.user_data import settings_hash
from matlib.evaluation.robustness import Evaluation, evaluate
from matlib.evaluation.statistics import recall_estimate
from matlib.models.open_clip import OpenClipEncoder
from matlib.progress import Progress
from matlib.study.durable import write_durably
from matlib.study.provenance import code_hash
from matlib.study.runs import Study
from matlib.study.session import open_study
from matlib.study.specs import JUDGE_CODE, TABLE_CODE
from matlib.study.tables import COLUMNS, DIRECTIONS, KS, about_attack

SEED = 0
SELF = "self"


@dataclass(frozen=True)
class EvaluateOptions:
    """Which model is judged, and by which study's suite.

    Attributes:
        model, checkpoint, rest: see `open_model`; a `small` model has the profile's shape
            where no model.json lies beside it.
        profile, data, results, limit: see `open_study`.
        name: of the row and of its file, `results/<profile>/extra/<name>.csv`.
        dataset: if given, must be the profile's.
        train_eps_255: image budget the model was trained with, if known; only recorded.
        source: the model that the attacks are made on: `self` (white box), or a row of the
            study such as `base` (transfer), with the first seed's weights.
    """

    model: str
    checkpoint: str
    profile: str
    name: str
    dataset: str = ""
    data: str = ""
    results: str = ""
    limit: int = 0
    rest: str = ""
    train_eps_255: float | None = None
    source: str = SELF


def run_evaluate(options: EvaluateOptions) -> Path:
    """Judge the model under the profile's whole suite on its test gallery.

    What was judged before under the same name, weights, settings and code is loaded.

    Returns:
        the path of the CSV.

    Raises:
        ValueError, FileNotFoundError: before any long work.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.+-]*", options.name):
        raise ValueError(
            "--name becomes a row and a file: letters, digits and _ . + - are expected; "
            f"got {options.name!r}"
        )
    study = open_study(options.profile, options.results, options.data, options.limit)
    wanted = study.profile.dataset
    if options.dataset and options.dataset != wanted.name:
        raise ValueError(
            f"profile {study.profile.name} is about {wanted.name}, not {options.dataset}: "
            "pass a profile of that data set"
        )
    encoder = open_model(
        options.model, options.checkpoint, study.device,
        profile=options.profile, rest=options.rest,
    )  # fmt: skip
    if encoder.image_size != wanted.image_size:
        raise ValueError(
            f"{options.model} takes images of {encoder.image_size} px, profile "
            f"{study.profile.name} has {wanted.image_size} px: pass a profile with image_size "
            f"{encoder.image_size} (a YAML file will do)"
        )
    path = study.root / "extra" / f"{options.name}.csv"
    settings = _settings(options, study)
    if not _is_done(path, settings):
        table = _table(options, study, _judge(options, study, encoder))
        path.parent.mkdir(parents=True, exist_ok=True)
        text = table.to_csv(index=False, float_format="%.6f", lineterminator="\n")
        write_durably(path, text)
        write_json(path.with_suffix(".json"), {"hash": settings_hash(settings), **settings})
    print(beside_the_study(study, path).to_string(index=False))
    return path


def _settings(options: EvaluateOptions, study: Study) -> dict[str, Any]:
    return {
        "model": options.model,
        "weights": weights_identity(options.checkpoint),
        "rest": weights_identity(options.rest) if options.rest else "",
        "train_eps_255": options.train_eps_255,
        "source": _source_identity(options, study),
        "profile": study.profile.model_dump(mode="json"),
        "data": study.source.identity(),
        "device": study.device,
        "code": code_hash((*JUDGE_CODE, *TABLE_CODE)),
    }


def _source_identity(options: EvaluateOptions, study: Study) -> str:
    """`self`, or the row with the hash of its weights' making; unknown rows are refused."""
    if options.source == SELF:
        return SELF
    seed = study.profile.seeds[0]
    if options.source == "base":
        spec = study.specs.base()
        return f"base {spec.hash if spec else study.profile.model.pretrained}"
    return f"{options.source} {study.specs.defended(study.specs.run(options.source), seed).hash}"


def _is_done(path: Path, settings: Mapping[str, Any]) -> bool:
    """Whether the row is there, from the same settings.

    Raises:
        ValueError: it is another model's.
    """
    record = path.with_suffix(".json")
    if not (path.is_file() and record.is_file()):
        return False
    found = json.loads(record.read_text(encoding="utf-8"))
    if any(found.get(key) != settings[key] for key in ("model", "weights", "rest")):
        raise ValueError(
            f"{path} is the row of another model ({found.get('model')}); choose another --name, "
            "or delete the file"
        )
    return bool(found.get("hash") == settings_hash(settings))


def _judge(options: EvaluateOptions, study: Study, encoder: OpenClipEncoder) -> Evaluation:
    source = None
    if options.source != SELF:
        source = study.model(options.source, study.profile.seeds[0])
    how = study.main_judging("test")
    tables = study.tables(how.gallery, how.threats)
    suite = study.suite(how)
    with Progress(f"attack {options.name}", len(suite.rows(how.threats))) as progress:
        return evaluate(
            encoder, study.pairs(how.gallery), tables, suite, seed=SEED,
            on_attack=lambda attack: progress.advance(1, attack), source=source,
        )  # fmt: skip


def _table(options: EvaluateOptions, study: Study, found: Evaluation) -> pd.DataFrame:
    """The columns and the order of the study's own table."""
    pairs, budget = study.pairs("test"), study.profile.evaluation
    sizes = {"TR": (len(pairs), pairs.n_captions), "IR": (pairs.n_captions, len(pairs))}
    rows = []
    for key, direction, k in product(found.outcomes, DIRECTIONS, KS):
        estimate = recall_estimate(
            found.outcomes[key], pairs.image_of, direction, k, n_boot=budget.n_boot
        )
        train_eps = math.nan if options.train_eps_255 is None else options.train_eps_255
        rows.append(
            {
                "dataset": pairs.name,
                "split": "test",
                "defence": options.name,
                "augmentation": "none",
                "seed": SEED,
                "train_eps_255": train_eps,
                **about_attack(study, key, options.source),
                "direction": direction,
                "k": k,
                "recall": estimate.value,
                "ci_low": estimate.low,
                "ci_high": estimate.high,
                "n_queries": sizes[direction][0],
                "n_gallery": sizes[direction][1],
            }
        )
    return pd.DataFrame(rows)[list(COLUMNS)]


def beside_the_study(study: Study, own: Path) -> pd.DataFrame:
    """Mean of TR@1 and IR@1 (percent), clean and under the deciding attack, per model.

    The deciding attack is the worst of the suite under the profile's primary threat. The
    study's rows are there once its `robustness.csv` is.
    """
    whole = study.root / "robustness.csv"
    tables = [pd.read_csv(path) for path in (whole, own) if path.is_file()]
    rows = pd.concat(tables, ignore_index=True)
    threat = study.profile.evaluation.primary_threat
    split = rows["split"] == "test"
    clean = split & (rows["attack"] == "clean")
    worst = split & (rows["attack"] == "worst") & (rows["text_threat"] == threat)
    model = ["defence", "augmentation", "seed", "source_model"]
    rows["seed"] = rows["seed"].astype(str)

    def endpoint(chosen: pd.Series) -> pd.Series:
        top = rows[chosen & (rows["k"] == 1)]
        return 100 * top.groupby(model, sort=False)["recall"].mean().round(4)

    found = pd.DataFrame({"clean": endpoint(clean), f"worst of {threat}": endpoint(worst)})
    return found.reset_index()
