"""`python -m matlib evaluate`: a row of one's own beside the study's defences."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd

from matlib.commands.models import SMALL, open_model, weights_identity
from matlib.commands.options import EvaluateOptions
from matlib.commands.user_data import (
    KIND,
    beside_the_study,
    check_name,
    new_row_name,
    read_rows,
    refuse_other_model,
)
from matlib.evaluation.retrieval import DIRECTIONS, KS
from matlib.evaluation.robustness import Evaluation, evaluate
from matlib.evaluation.statistics import recall_estimate
from matlib.evaluation.suite import MOVES
from matlib.files import write_durably
from matlib.models.open_clip import OpenClipEncoder
from matlib.progress import Progress
from matlib.study.arithmetic import arithmetic
from matlib.study.identity.makers import makes
from matlib.study.made.base import base
from matlib.study.made.models import defended
from matlib.study.profile.model_checks import check_images, check_size
from matlib.study.profile.profile import load_profile
from matlib.study.store.store import ArtefactSpec
from matlib.study.study import Study, open_study
from matlib.study.tables.results import ROBUSTNESS_COLUMNS, about_attack

SEED = 0
SELF = "self"
_TABLE = "table.csv"


@makes("evaluate")
def run_evaluate(options: EvaluateOptions) -> Path:
    """Judge the model under the profile's whole suite on its test gallery.

    What was judged before (same name, weights, settings, data and code) is loaded from the
    study's store, verified; what is damaged there is made again, and the CSV is always written
    from it.

    Returns:
        the path of the CSV.

    Raises:
        ValueError, OSError: before any long work.
    """
    check_name(options.name)
    eps = options.train_eps_255
    if eps is not None and not 0 <= eps < math.inf:
        raise ValueError(f"--train-eps is a budget in 1/255, 0 or more; got {eps}")
    limit = options.limit or 0
    if limit >= load_profile(options.profile).dataset.n_test:
        limit = 0
    study = open_study(options.profile, options.results, options.data, limit)
    name = new_row_name(options.name, study)
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
    check_size(study.profile, options.model, encoder.image_size)
    if options.model != SMALL:  # whose images are the profile's
        check_images(wanted, encoder.settings, f"{options.model} / {options.checkpoint}")
    spec = _spec(options, study, name, encoder)
    refuse_other_model(study, spec)
    path = study.root / "extra" / f"{name}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)

    def make(folder: Path) -> Mapping[str, Any]:
        found = _judge(options, study, encoder)
        table = _table(options, study, name, found)
        text = table.to_csv(index=False, float_format="%.6f", lineterminator="\n")
        write_durably(folder / _TABLE, text)
        return found.about_words()

    kept = study.store.get_or_make(spec, make).file(_TABLE)
    write_durably(path, kept.read_bytes())
    shown, notes = beside_the_study(study, read_rows(kept))
    print("\n".join([shown.to_string(index=False), *notes]))
    return path


def _spec(
    options: EvaluateOptions, study: Study, name: str, encoder: OpenClipEncoder
) -> ArtefactSpec:
    inputs = {
        "weights": weights_identity(options.checkpoint),
        "rest": weights_identity(options.rest) if options.rest else "",
        "source": _source_identity(options, study),
    }
    config = {
        "model": options.model,
        "trained_with": encoder.settings.as_json(),
        "source": options.source,
        "train_eps_255": options.train_eps_255,
        "profile": study.identified.model_dump(mode="json"),
        "data": study.source.identity(),
        "device": arithmetic(study.device),
    }
    moves = tuple(attack for attack in study.main_judging("test").attacks if attack in MOVES)
    return ArtefactSpec(KIND, name, SEED, config, inputs, "evaluate", moves)


def _source_identity(options: EvaluateOptions, study: Study) -> str:
    """`self`, or the row with the hash of its weights' making; unknown rows are refused."""
    if options.source == SELF:
        return SELF
    seed = study.profile.seeds[0]
    if options.source == "base":
        own = base(study)
        return f"base {own.hash if own else study.identified.model.pretrained}"
    return f"{options.source} {defended(study, study.run(options.source), seed).hash}"


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


def _table(options: EvaluateOptions, study: Study, name: str, found: Evaluation) -> pd.DataFrame:
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
                "defence": name,
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
    return pd.DataFrame(rows)[list(ROBUSTNESS_COLUMNS)]
