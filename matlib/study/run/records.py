"""Per-query outcomes without weights, so that a long study can go on on another machine.

A record is one line: what was judged (the content hash of its artefact, which follows from
profile, data and code) and the rank of every query. A study that needs an artefact of that hash
takes the ranks from the record, with the provenance of the run that made them. Where the code or
the profile is another one, so is the hash, and the run is made anew.

`provenance.json` beside the records names their sha256, and nothing is taken from other ones.

What a record may hold: known files, every row that a study expects, ranks of its gallery.

Records are data from elsewhere. Nothing that they say becomes the name of a file, and nothing is
taken that the study could not have found itself.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import math
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import TypeAdapter, ValidationError

from matlib.analysis.technique import COORDINATE_NAMES
from matlib.evaluation.retrieval import DIRECTIONS
from matlib.evaluation.sanity_subject import Check
from matlib.files import write_durably
from matlib.study.context import Node
from matlib.study.made import protocols
from matlib.study.made.evaluated import CURVE, RANKS
from matlib.study.made.measures import COORDINATES_FILE as COORDINATES
from matlib.study.made.other_tasks import OTHER_TASKS, SCORES_FILE as SCORES, Scores
from matlib.study.made.protocols import EvaluationProtocol
from matlib.study.made.sanity import CHECKS_FILE as CHECKS
from matlib.study.made.transfer import subjects
from matlib.study.run.tasks import (
    Task,
    all_rows,
    artefacts_of,
    protocols as protocols_of_task,
    tasks_of,
)
from matlib.study.store.shared_json import read_shared, write_shared
from matlib.study.store.store import MADE, PROVENANCE
from matlib.study.study import Study

RECORDS_FILE = "records.csv.gz"
RECORD_COLUMNS = ("hash", "kind", "name", "seed", "file", "attack", "direction", "content")


def recorded_tasks(study: Study) -> Iterator[tuple[Task, list[Node[Any]]]]:
    """What a whole study judges, with the artefacts that hold it."""
    for task in tasks_of(study.profile, all_rows(study.profile)):
        if task.what != "base":
            yield task, artefacts_of(study, task)


def write_records(study: Study, folder: Path) -> Path:
    """Everything that the study has judged so far, as one compressed table.

    The folder's `provenance.json` then names their hash; a folder without one gets one.

    Returns:
        path of `records.csv.gz` in the folder; equal outcomes give an equal file.
    """
    rows: dict[tuple[str, ...], dict[str, Any]] = {}
    for _, nodes in recorded_tasks(study):
        for spec, found in ((node.spec, study.find(node)) for node in nodes):
            if found is None:
                continue
            about = {"hash": spec.hash, "kind": spec.kind, "name": spec.name, "seed": spec.seed}
            for file in (RANKS, CURVE, CHECKS, COORDINATES, SCORES):
                if file in found.provenance["outputs"]:
                    for part in _parts(found.file(file)):
                        key = (spec.hash, file, part["attack"], part["direction"])
                        rows[key] = {**about, "file": file, **part}
    text = pd.DataFrame(rows.values(), columns=list(RECORD_COLUMNS)).to_csv(index=False)
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", mtime=0) as file_:
        file_.write(text.encode())
    folder.mkdir(parents=True, exist_ok=True)
    write_durably(folder / RECORDS_FILE, packed.getvalue())
    _tie(study, folder, packed.getvalue())
    return folder / RECORDS_FILE


def _tie(study: Study, folder: Path, packed: bytes) -> None:
    """Name the records' hash in the provenance beside them."""
    path = folder / PROVENANCE
    found = _provenance(folder) if path.is_file() else {
        "profile": study.identified.model_dump(mode="json"), "rows": [], "partial": True,
        "artefacts": [],
    }  # fmt: skip
    named = {**found, "records": hashlib.sha256(packed).hexdigest()}
    write_shared(path, named)


def _parts(path: Path) -> Iterator[dict[str, str]]:
    if path.suffix == ".json":
        content = json.dumps(json.loads(path.read_text(encoding="utf-8")), separators=(",", ":"))
        yield {"attack": "", "direction": "", "content": content}
        return
    table = pd.read_csv(path, dtype={"attack": str})
    for (attack, direction), part in table.groupby(["attack", "direction"], sort=False):
        ranks = part.sort_values("query")["rank"].astype(str)
        yield {"attack": str(attack), "direction": str(direction), "content": " ".join(ranks)}


def accept_records(study: Study, folder: Path, *, whole: bool = False) -> int:
    """Take from `folder` what the study needs and has not judged.

    The first seed's rows of the table, in the study's own world, are judged here all the same:
    notebooks show their captions and images, which records do not hold.

    Args:
        whole: take these too, where tables are all that is wanted.

    Returns:
        how many artefacts were taken.

    Raises:
        RecordsError: the records are not those that their provenance names, or hold what the
            study cannot have found; nothing of what is wrong is taken.
    """
    if not (folder / RECORDS_FILE).is_file():
        return 0
    table, made = _tied_table(folder)
    by_hash = dict(list(table.groupby("hash", sort=False)))
    n_taken, first = 0, study.profile.seeds[0]
    for task, nodes in recorded_tasks(study):
        is_shown = (
            task.what == "judged" and task.world is None
            and (task.seed == first or task.name == "base")
        )  # fmt: skip
        wanted = [node.hash in by_hash for node in nodes]
        if (is_shown and not whole) or not any(wanted):
            continue
        for node, expected, is_there in zip(nodes, expected_of(study, task), wanted, strict=True):
            if is_there and study.find(node) is None:
                spec = node.spec
                try:
                    files = checked_files(by_hash[spec.hash], expected)
                except RecordsError as error:
                    raise RecordsError(_refused(folder, f"{spec.folder}: {error}")) from None
                study.store.get_or_make(spec, partial(_restore, files, made.get(spec.hash)))
                n_taken += 1
    return n_taken


def _refused(folder: Path, why: str) -> str:
    place = f"published/{folder.name}"
    return (
        f"{place}/{RECORDS_FILE} is not taken: {why}. Restore it and its {PROVENANCE} (git "
        f"checkout {place}), or delete {RECORDS_FILE} to compute everything anew"
    )


def _tied_table(folder: Path) -> tuple[pd.DataFrame, dict[str, dict[str, Any]]]:
    """The records, and hash -> provenance of every artefact published with them.

    Raises:
        RecordsError: not the file that the provenance names, or not a table of records.
    """
    packed = (folder / RECORDS_FILE).read_bytes()
    provenance = _provenance(folder)
    named, found = provenance.get("records"), hashlib.sha256(packed).hexdigest()
    if named != found:
        raise RecordsError(_refused(
            folder, f"its sha256 is {found}, {PROVENANCE} names {named or 'none'}"
        ))  # fmt: skip
    try:
        text = gzip.decompress(packed).decode()
        table = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False)
    except (OSError, EOFError, zlib.error, ValueError) as error:  # pandas' errors are ValueErrors
        why = str(error).splitlines()[0]
        raise RecordsError(_refused(folder, f"it cannot be read ({why})")) from None
    if tuple(table.columns) != RECORD_COLUMNS:
        raise RecordsError(
            _refused(folder, f"the columns {', '.join(RECORD_COLUMNS)} are expected")
        )
    return table, {artefact["hash"]: artefact for artefact in provenance["artefacts"]}


def _provenance(folder: Path) -> dict[str, Any]:
    """The provenance beside the records; without artefacts where there is none."""
    path = folder / PROVENANCE
    if not path.is_file():
        return {"artefacts": []}
    try:
        found = read_shared(path)
        if all(isinstance(artefact["hash"], str) for artefact in found["artefacts"]):
            return dict(found)
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    raise RecordsError(
        f"published/{folder.name}/{PROVENANCE} is damaged: an object with `artefacts` is expected; "
        "restore it (git checkout), or delete it with the records beside it"
    )


def _restore(
    files: Mapping[str, str | pd.DataFrame], made: dict[str, Any] | None, folder: Path
) -> dict[str, Any]:
    """Write checked files, whose names are the study's own."""
    for name, content in files.items():
        if isinstance(content, str):
            (folder / name).write_text(content, encoding="utf-8")
        else:
            content.to_csv(folder / name, index=False)
    return {"taken from": RECORDS_FILE, **({MADE: made} if made else {})}


def keep_seconds(text: str, published: Path) -> str:
    """A table with the training seconds that were published for its rows and are unknown here.

    Records hold no histories. A row that is trained anew knows its own seconds, so that what is
    empty belongs to a row whose outcomes were taken from the records beside the old table.

    Args:
        text: CSV; one without columns `row`, `seed` and `seconds` is returned as it is.
        published: the same table as it was published before; need not exist.
    """
    key = ["row", "seed"]
    if not {*key, "seconds"} <= set(text.split("\n", 1)[0].split(",")) or not published.is_file():
        return text
    new, old = (pd.read_csv(each, dtype=str, keep_default_na=False)
                for each in (io.StringIO(text), published))  # fmt: skip
    known = old.set_index(key)["seconds"].to_dict()
    missing = new["seconds"] == ""
    new.loc[missing, "seconds"] = [
        known.get(each, "") for each in new.loc[missing, key].itertuples(index=False, name=None)
    ]
    return new.to_csv(index=False, lineterminator="\n")


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
    """What the artefacts of a task hold, in the order of `tasks.artefacts_of`."""
    e = study.profile.evaluation
    if task.what == "transfer":
        rows = study.suite(protocols.between_models(e)).rows(protocols.between_models(e).threats)
        targets = map(str, subjects(study.profile))
        names = tuple("/".join((t, *key)) for t, key in product(targets, rows))
        return [_of_gallery(study, "test", ranks={RANKS: names})]
    if task.what == "sanity":
        n = min(study.profile.analysis_images, len(study.pairs("test")))
        return [_of_gallery(study, "test", texts=(CHECKS,), n_checked=n)]
    if task.what == "coordinates":
        return [_of_gallery(study, "test", texts=(COORDINATES,))]
    if task.what in OTHER_TASKS:
        return [_of_gallery(study, "test", texts=(SCORES,))]
    own = task.at(study)
    return [
        _of_gallery(own, how.gallery, ranks=_evaluated_files(own, task.name, how))
        for how in protocols_of_task(own, task)
    ]


def _of_gallery(study: Study, gallery: protocols.GalleryName, **content: Any) -> Expected:
    pairs = study.pairs(gallery)
    return Expected(len(pairs), pairs.n_captions, **content)


def _evaluated_files(
    study: Study, name: str, how: EvaluationProtocol
) -> dict[str, tuple[str, ...]]:
    """The tables of one judged model -> the attacks in each."""
    rows = protocols.judged_rows(study.profile.evaluation, how, study.profile.model)
    rows += [("worst", threat) for threat in how.threats]
    files = {RANKS: tuple("/".join(key) for key in rows)}
    if how.with_curve:
        files[CURVE] = tuple(str(eps) for eps in study.profile.evaluation.curve_eps_255)
    return files


def checked_files(rows: pd.DataFrame, expected: Expected) -> dict[str, str | pd.DataFrame]:
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
        elif file == SCORES:
            _check_scores(TypeAdapter(Scores).validate_json(content, strict=True), expected)
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
        ends = [end for gain in check.gains.values() for end in gain] or [math.nan]
        if (
            not all(map(math.isfinite, (*ends, *check.numbers.values())))
            or max(map(abs, ends)) > 100
        ):
            raise RecordsError(f"{check.name}: finite numbers in points are expected")
        if not all(len(g) == 3 and g[1] <= g[2] for g in check.gains.values()):
            raise RecordsError(
                f"{check.name}: gains are an estimate and its bounds, got {check.gains}"
            )
        if check.n_images != expected.n_checked:
            raise RecordsError(
                f"{check.name}: {expected.n_checked} images are expected, got {check.n_images}"
            )


def _check_scores(found: Scores, expected: Expected) -> None:
    for attack, measures in found.items():
        for measure, values in measures.items():
            if len(values) != expected.n_images or not all(-1 <= value <= 1 for value in values):
                raise RecordsError(
                    f"{attack} {measure}: {expected.n_images} numbers from -1 to 1 are expected"
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
