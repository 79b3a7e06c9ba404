"""Rows of one's own beside a study's: their names, whose they are, and one table of both."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd

from matlib.study.artefacts import ArtefactSpec
from matlib.study.runs import Study
from matlib.study.tables import ROBUSTNESS_COLUMNS

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


def row_name(name: str, study: Study) -> str:
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
        different = [
            f"{key}: {value:.12} there, {mine[key]:.12} now"
            for key, value in _owner(record.get("config"), record.get("inputs")).items()
            if value != mine[key]
        ]
        if different or name != spec.name:
            about = "; ".join(different) or f"its name is {name}"
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


def _judged_alike(theirs: pd.DataFrame, own: pd.DataFrame) -> tuple[pd.DataFrame, int]:
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
    endpoints = {"clean": ("clean", ""), f"worst of {threat}": ("worst", threat)}
    top = (own["split"] == "test") & (own["k"] == 1)
    asked = pd.MultiIndex.from_frame(own[["attack", "text_threat"]]).isin(endpoints.values())
    own = own[top & asked]
    rows = own
    if (study.root / ROBUSTNESS).is_file():
        try:
            theirs, n_left_out = _judged_alike(read_rows(study.root / ROBUSTNESS), own)
        except ValueError as error:
            notes.append(f"without the study's rows: {error}")
        else:
            rows = pd.concat([theirs, own], ignore_index=True)
            if n_left_out:
                notes.append(
                    f"{n_left_out} rows of the study are left out: they were judged on another "
                    "gallery, within another budget, or not to the end"
                )
    found = {
        label: 100
        * rows[(rows["attack"] == attack) & (rows["text_threat"] == text_threat)]
        .groupby(_MODEL, sort=False)["recall"]
        .mean()
        .round(4)
        for label, (attack, text_threat) in endpoints.items()
    }
    return pd.DataFrame(found).reset_index(), notes
