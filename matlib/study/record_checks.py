"""What a record may hold: known files, every row that a study expects, ranks of its gallery.

Records are data from elsewhere. Nothing that they say becomes the name of a file, and nothing is
taken that the study could not have found itself.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import pandas as pd
from pydantic import TypeAdapter, ValidationError

from matlib.analysis.coordinates import COORDINATE_NAMES
from matlib.evaluation.sanity_subject import Check
from matlib.study import judgings
from matlib.study.coordinates import COORDINATES_FILE as COORDINATES
from matlib.study.judged import CURVE, RANKS
from matlib.study.judgings import Judging
from matlib.study.recipes import defence_of
from matlib.study.runs import Study
from matlib.study.sanity import CHECKS_FILE as CHECKS
from matlib.study.subjects import subjects
from matlib.study.tasks import Task
from matlib.study.tasks import judgings as judgings_of_task

DIRECTIONS = ("TR", "IR")


class RecordsError(ValueError):
    """Records that are damaged, foreign, or not what their provenance says."""


@dataclass(frozen=True)
class Expected:
    """What one artefact of a study holds.

    Attributes:
        ranks: file -> names of the attacks in it.
        n_images, n_captions: of the gallery.
        texts: other files.
        n_checked: images of the sanity battery.
    """

    n_images: int
    n_captions: int
    ranks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    texts: tuple[str, ...] = ()
    n_checked: int = 0


def expected_of(study: Study, task: Task) -> list[Expected]:
    """What the artefacts of a task hold, in the order of `tasks.specs_of`."""
    e = study.profile.evaluation
    if task.what == "transfer":
        rows = study.suite(judgings.transfer(e)).rows(judgings.transfer(e).threats)
        targets = map(str, subjects(study.profile))
        names = tuple("/".join((t, *key)) for t, key in product(targets, rows))
        return [_of_gallery(study, "test", ranks={RANKS: names})]
    if task.what == "sanity":
        n = min(study.profile.analysis_images, len(study.pairs("test")))
        return [_of_gallery(study, "test", texts=(CHECKS,), n_checked=n)]
    if task.what == "coordinates":
        return [_of_gallery(study, "test", texts=(COORDINATES,))]
    own = study.of_architecture(task.architecture)
    return [
        _of_gallery(own, how.gallery, ranks=_judged_files(own, task.name, how))
        for how in judgings_of_task(own, task)
    ]


def _of_gallery(study: Study, gallery: judgings.GalleryName, **content: Any) -> Expected:
    pairs = study.pairs(gallery)
    return Expected(len(pairs), pairs.n_captions, **content)


def _judged_files(study: Study, name: str, how: Judging) -> dict[str, tuple[str, ...]]:
    """The tables of one judged model -> the attacks in each."""
    suite = study.suite(how)
    rows = suite.rows(how.threats)
    if name != "base" and defence_of(study.specs.run(name)).kind == "reference-distance":
        slow = suite.slow_under
        rows += [("own", threat) for threat in how.threats if slow is None or threat in slow]
    rows += [("worst", threat) for threat in how.threats]
    files = {RANKS: tuple("/".join(key) for key in rows)}
    if how.with_curve:
        files[CURVE] = tuple(str(eps) for eps in study.profile.evaluation.curve_eps_255)
    return files


def checked(rows: pd.DataFrame, expected: Expected) -> dict[str, str | pd.DataFrame]:
    """The files of one artefact, by their known names.

    Args:
        rows: its lines of the records: `file`, `attack`, `direction`, `content`.

    Returns:
        file -> text, or the ranks as columns `attack`, `direction`, `query`, `rank`.

    Raises:
        RecordsError: another file than expected; a row that is missing, there twice or not
            expected; a rank that is no whole number or not one of its gallery.
    """
    known = {*expected.ranks, *expected.texts}
    if set(rows["file"]) != known:
        raise RecordsError(
            f"the files {', '.join(sorted(known))} are expected, got "
            f"{', '.join(sorted(f'{name!r:.60}' for name in set(rows['file'])))}"
        )
    found: dict[str, str | pd.DataFrame] = {}
    for file in expected.texts:
        contents = rows.loc[rows["file"] == file, "content"].to_list()
        if len(contents) != 1:
            raise RecordsError(f"one row of {file} is expected, got {len(contents)}")
        _check_text(file, contents[0], expected)
        found[file] = contents[0]
    for file, attacks in expected.ranks.items():
        found[file] = _ranks_of(file, rows[rows["file"] == file], attacks, expected)
    return found


def _ranks_of(
    file: str, rows: pd.DataFrame, attacks: tuple[str, ...], expected: Expected
) -> pd.DataFrame:
    keys = list(zip(rows["attack"], rows["direction"], strict=True))
    wanted = list(product(attacks, DIRECTIONS))
    if sorted(keys) != sorted(wanted):
        twice = [key for key in keys if keys.count(key) > 1]
        odd = " ".join([*sorted(set(keys) ^ set(wanted)), *twice][0])
        raise RecordsError(
            f"{file}: one row of each attack and direction of the suite is expected; "
            f"missing, twice or not expected: {odd!r:.80}"
        )
    sizes = {"TR": (expected.n_images, expected.n_captions)}
    sizes["IR"] = sizes["TR"][::-1]
    parts = []
    for (attack, direction), content in zip(keys, rows["content"], strict=True):
        n_queries, n_gallery = sizes[direction]
        ranks = _ranks(content, n_queries, n_gallery, f"{file}, {attack} {direction}")
        about = {"attack": attack, "direction": direction}
        parts.append(pd.DataFrame({**about, "query": range(n_queries), "rank": ranks}))
    return pd.concat(parts)


def _ranks(content: str, n_queries: int, n_gallery: int, where: str) -> list[int]:
    words = content.split(" ")
    if len(words) != n_queries:
        raise RecordsError(f"{where}: {n_queries} ranks are expected, got {len(words)}")
    for word in words:
        if not re.fullmatch("[0-9]{1,9}", word) or int(word) >= n_gallery:
            raise RecordsError(
                f"{where}: a rank is a whole number from 0 to {n_gallery - 1} here, "
                f"got {word!r:.20}"
            )
    return [int(word) for word in words]


def _check_text(file: str, content: str, expected: Expected) -> None:
    try:
        if file == CHECKS:
            _check_battery(TypeAdapter(list[Check]).validate_json(content, strict=True), expected)
        else:
            _check_coordinates(json.loads(content))
    except (ValidationError, ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0] if not isinstance(error, RecordsError) else str(error)
        raise RecordsError(f"{file} is not what the study writes: {reason:.160}") from None


def _check_battery(found: list[Check], expected: Expected) -> None:
    names = [check.name for check in found]
    if not names or len(set(names)) < len(names):
        raise RecordsError(f"each check once is expected, got {names}")
    for check in found:
        numbers = (check.estimate_points, check.lower_points, *check.numbers.values())
        shares = [p for p in (check.p_value, check.p_smallest) if p is not None]
        is_exact = check.exact and not shares
        if not all(map(math.isfinite, numbers)) or abs(check.estimate_points) > 100:
            raise RecordsError(f"{check.name}: finite numbers in points are expected")
        if not (is_exact or (len(shares) == 2 and all(0 <= p <= 1 for p in shares))):
            raise RecordsError(f"{check.name}: p-values from 0 to 1 are expected, got {shares}")
        if check.n_images != expected.n_checked:
            raise RecordsError(
                f"{check.name}: {expected.n_checked} images are expected, got {check.n_images}"
            )


def _check_coordinates(found: Any) -> None:
    known = {*COORDINATE_NAMES, "true_fraction"}
    is_whole = isinstance(found, dict) and set(COORDINATE_NAMES) <= set(found) <= known
    if not is_whole or not all(_is_finite(value) for value in found.values()):
        raise RecordsError(f"finite numbers named {', '.join(COORDINATE_NAMES)} are expected")
    if not -1 <= found["similarity"] <= 1 or not 0 <= found.get("true_fraction", 0) <= 1:
        raise RecordsError("a similarity is from -1 to 1 and a true_fraction from 0 to 1")
    if found["vendi"] < 1 - 1e-3:
        raise RecordsError(f"a Vendi score is 1 or more, got {found['vendi']}")


def _is_finite(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value)
