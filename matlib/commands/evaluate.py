"""`python -m matlib evaluate`: a row of one's own beside the study's defences."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd

from matlib.commands.batches import told_apart
from matlib.commands.models import SMALL, open_any
from matlib.commands.options import EvaluateOptions
from matlib.evaluation.robustness import Evaluation, evaluate
from matlib.evaluation.suite import ATTACKS, Key
from matlib.files import write_durably
from matlib.models.dual_encoder import DualEncoder, as_fusion
from matlib.models.encoder import VisionLanguageModel
from matlib.progress import Progress
from matlib.study.arithmetic import arithmetic
from matlib.study.identity.makers import makes
from matlib.study.made.base import base
from matlib.study.made.models import defended
from matlib.study.profile.model_checks import check_images, check_size
from matlib.study.profile.profile import load_profile
from matlib.study.store.provenance import named_weights
from matlib.study.store.store import ArtefactSpec
from matlib.study.study import Study, open_study
from matlib.study.tables.results import ROBUSTNESS_COLUMNS, recall_rows

SEED = 0
SELF = "self"
_TABLE = "table.csv"
KIND = "extra"
ROBUSTNESS = "robustness.csv"
LONGEST_NAME = 100
_LIMITED = ".limit-"
_MODEL = ["defence", "augmentation", "seed", "source_model"]
_NUMBERS = ("train_eps_255", "eps_255", "recall", "ci_low", "ci_high")
_COUNTS = ("n_words", "k", "n_queries", "n_gallery")
_CONDITIONS = [
    "dataset", "split", "attack", "text_threat", "eps_255", "n_words", "direction", "k",
    "n_queries", "n_gallery",
]  # fmt: skip
"""What two recalls must have in common to stand in one column."""


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
    encoder = open_any(
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
    options: EvaluateOptions, study: Study, name: str, encoder: VisionLanguageModel
) -> ArtefactSpec:
    inputs = {
        "weights": named_weights(options.checkpoint),
        "rest": named_weights(options.rest),
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
    moves = tuple(dict.fromkeys(row for row, _ in _rows(study, encoder) if row in ATTACKS))
    return ArtefactSpec(KIND, name, SEED, config, inputs, "evaluate", moves)


def _rows(study: Study, encoder: DualEncoder) -> list[Key]:
    """(attack, threat) of what the suite does to a model."""
    how = study.main_protocol("test")
    return study.suite(how).rows(how.threats, of_fusion=as_fusion(encoder) is not None)


def _source_identity(options: EvaluateOptions, study: Study) -> str:
    """`self`, or the row with the hash of its weights' making; unknown rows are refused."""
    if options.source == SELF:
        return SELF
    seed = study.profile.seeds[0]
    if options.source == "base":
        own = base(study)
        return f"base {own.hash if own else study.identified.model.pretrained}"
    return f"{options.source} {defended(study, study.run(options.source), seed).hash}"


def _judge(options: EvaluateOptions, study: Study, encoder: VisionLanguageModel) -> Evaluation:
    source = None
    if options.source != SELF:
        source = study.model(options.source, study.profile.seeds[0])
    how = study.main_protocol("test")
    tables = study.tables(how.gallery, how.threats)
    suite = study.suite(how)
    with Progress(f"attack {options.name}", len(_rows(study, source or encoder))) as progress:
        return evaluate(
            encoder, study.pairs(how.gallery), tables, suite, seed=SEED,
            on_attack=lambda attack: progress.advance(1, attack), source=source,
            parts=study.tables(how.gallery, how.parts) if how.parts else None,
        )  # fmt: skip


def _table(options: EvaluateOptions, study: Study, name: str, found: Evaluation) -> pd.DataFrame:
    """The columns and the order of the study's own table."""
    eps = math.nan if options.train_eps_255 is None else options.train_eps_255
    about = {"defence": name, "augmentation": "none", "seed": SEED, "train_eps_255": eps}
    rows = recall_rows(study, "test", found.outcomes, about, options.source)
    return pd.DataFrame(rows)[list(ROBUSTNESS_COLUMNS)]


def check_name(name: str) -> None:
    """Whether a row may have this name, as far as the name alone tells.

    Raises:
        ValueError: it may not.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.+-]*", name) or len(name) > LONGEST_NAME:
        raise ValueError(
            f"--name becomes a row and a file: at most {LONGEST_NAME} letters, digits and "
            f"_ . + - are expected; got {name!r:.120}"
        )
    if _LIMITED in name:
        raise ValueError(f"{_LIMITED!r} in a name is for rows on fewer images; got {name!r}")


def new_row_name(name: str, study: Study) -> str:
    """The row's name: what was asked for, with the number of images where they are fewer.

    Raises:
        ValueError: the study has a row of that name, or had one when its table was written.
    """
    profile = study.profile
    taken = {"base", "self", "mean", *profile.architectures}
    for run in profile.every_run:
        taken |= {run.row, run.defence, run.label or run.row}
    with suppress(ValueError, OSError):  # a table that cannot be read is not shown either
        taken |= {*read_rows(study.root / ROBUSTNESS)["defence"]}
    if name.casefold() in {each.casefold() for each in taken}:
        raise ValueError(
            f"the study has {name!r} itself, and two models would be read as one; choose another "
            f"--name, such as {name}-own"
        )
    return f"{name}{_LIMITED}{profile.dataset.n_test}" if profile.limit else name


def refuse_other_model(study: Study, spec: ArtefactSpec) -> None:
    """Let a name stand for one model under one attack.

    Raises:
        ValueError: the name is taken.
    """
    mine = _owner(spec.config, spec.inputs)
    for record in study.store.records():
        name = str(record.get("name"))
        if record.get("kind") != KIND or name.casefold() != spec.name.casefold():
            continue
        different = told_apart(_owner(record.get("config"), record.get("inputs")), mine)
        if different or name != spec.name:
            about = different or f"its name is {name}"
            raise ValueError(
                f"{study.root / 'extra' / name}.csv is the row of another model or of another "
                f"attack ({about}); choose another --name, or delete "
                f"{study.store.runs / f'{KIND}-{name}-*'}"
            )


def _owner(config: Any, inputs: Any) -> dict[str, str]:
    """What a name stands for; code, profile and data may change under it."""
    both = [(config, "model"), (config, "source"), (inputs, "weights"), (inputs, "rest")]
    return {key: str(part.get(key) if isinstance(part, dict) else None) for part, key in both}


def read_rows(path: Path) -> pd.DataFrame:
    """A table of recalls (`COLUMNS`), checked.

    Names such as `NA` or `007` stay text.

    Raises:
        ValueError: cut, damaged, or of other columns.
    """
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        if tuple(table.columns) != ROBUSTNESS_COLUMNS or not len(table):
            raise ValueError("its columns are other ones, or it has no rows")
        for column in (*_NUMBERS, *_COUNTS):
            table[column] = pd.to_numeric(table[column].mask(table[column] == ""))
        needed = table[[*_COUNTS, "recall"]]
        if needed.isna().any().any() or not table["recall"].between(0, 1).all():
            raise ValueError("a row is cut, or a recall is not in [0, 1]")
    except (ValueError, pd.errors.ParserError) as error:
        raise ValueError(
            f"{path} is not a whole table of recalls ({error}); make it again: run the study, or "
            "move the file away"
        ) from error
    return table


def _evaluated_alike(theirs: pd.DataFrame, own: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """The rows of models that have all of `own`'s conditions, and how many models have not."""
    conditions = own[_CONDITIONS].drop_duplicates()
    alike = theirs.merge(conditions, on=_CONDITIONS)
    alike = alike.groupby(_MODEL, sort=False).filter(lambda rows: len(rows) == len(conditions))
    return alike, len(theirs[_MODEL].drop_duplicates()) - len(alike[_MODEL].drop_duplicates())


def beside_the_study(study: Study, own: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Mean of TR@1 and IR@1 (percent), clean and under the deciding attack, per model.

    The deciding attack is the worst of the suite under the profile's primary threat. The
    study's rows are there once its `robustness.csv` is; only those judged as the own one was
    (gallery, budget) and whole.

    Returns:
        the table, and lines that say what is left out and why.
    """
    threat, notes = study.profile.evaluation.primary_threat, []
    endpoints = {("clean", ""): "clean", ("worst", threat): f"worst of {threat}"}
    asked = pd.MultiIndex.from_frame(own[["attack", "text_threat"]]).isin(endpoints)
    rows = own = own[(own["split"] == "test") & (own["k"] == 1) & asked]
    if (study.root / ROBUSTNESS).is_file():
        try:
            theirs, n_left_out = _evaluated_alike(read_rows(study.root / ROBUSTNESS), own)
        except ValueError as error:
            notes.append(f"without the study's rows: {error}")
        else:
            rows = pd.concat([theirs, own], ignore_index=True)
            if n_left_out:
                notes.append(
                    f"{n_left_out} rows of the study are left out: they were judged on another "
                    "gallery, within another budget, or not to the end"
                )
    labels = [endpoints[key] for key in zip(rows["attack"], rows["text_threat"], strict=True)]
    found = rows.assign(label=labels).pivot_table("recall", _MODEL, "label", sort=False)
    shown = 100 * found.round(4)[[*endpoints.values()]]
    return shown.rename_axis(columns=None).reset_index(), notes
