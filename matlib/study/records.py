"""Per-query outcomes without weights, so that a long study can go on on another machine.

A record is one line: what was judged (the content hash of its artefact, which follows from
profile, data and code) and the rank of every query. A study that needs an artefact of that hash
takes the ranks from the record, with the provenance of the run that made them. Where the code or
the profile is another one, so is the hash, and the run is made anew.

`provenance.json` beside the records names their sha256, and nothing is taken from other ones.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import zlib
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from matlib.study.artefacts import PROVENANCE, ArtefactSpec
from matlib.study.coordinates import COORDINATES_FILE as COORDINATES
from matlib.study.durable import write_durably
from matlib.study.judged import CURVE, RANKS
from matlib.study.record_checks import RecordsError, checked, expected_of
from matlib.study.runs import Study
from matlib.study.sanity import CHECKS_FILE as CHECKS
from matlib.study.tasks import Task, all_rows, specs_of, stages

RECORDS_FILE = "records.csv.gz"
MADE = "made"
"""Note of an artefact that was taken from records: the provenance that was published for it."""

RECORD_COLUMNS = ("hash", "kind", "name", "seed", "file", "attack", "direction", "content")


def recorded_tasks(study: Study) -> Iterator[tuple[Task, list[ArtefactSpec]]]:
    """What a whole study judges, with the artefacts that hold it."""
    for stage in stages(study.profile, all_rows(study.profile)):
        for task in stage:
            if task.what not in ("base", "words"):
                yield task, specs_of(study, task)


def write_records(study: Study, folder: Path) -> Path:
    """Everything that the study has judged so far, as one compressed table.

    The folder's `provenance.json` then names their hash; a folder without one gets one.

    Returns:
        path of `records.csv.gz` in the folder; equal outcomes give an equal file.
    """
    rows: dict[tuple[str, ...], dict[str, Any]] = {}
    for _, specs in recorded_tasks(study):
        for spec in specs:
            found = study.store.find(spec)
            if found is None:
                continue
            about = {"hash": spec.hash, "kind": spec.kind, "name": spec.name, "seed": spec.seed}
            for file in (RANKS, CURVE, CHECKS, COORDINATES):
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
        "profile": study.specs.profile.model_dump(mode="json"), "rows": [], "partial": True,
        "artefacts": [],
    }  # fmt: skip
    named = {**found, "records": hashlib.sha256(packed).hexdigest()}
    write_durably(path, json.dumps(named, indent=1) + "\n")


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

    The first seed's rows of the table are judged here all the same: notebooks show their
    captions and images, which records do not hold.

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
    for task, specs in recorded_tasks(study):
        is_shown = task.what == "judged" and (task.seed == first or task.name == "base")
        wanted = [spec.hash in by_hash for spec in specs]
        if (is_shown and not whole) or not any(wanted):
            continue
        for spec, expected, is_there in zip(specs, expected_of(study, task), wanted, strict=True):
            if is_there and study.store.find(spec) is None:
                try:
                    files = checked(by_hash[spec.hash], expected)
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
        found = json.loads(path.read_text(encoding="utf-8"))
        if all(isinstance(artefact["hash"], str) for artefact in found["artefacts"]):
            return dict(found)
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    raise RecordsError(
        f"published/{folder.name}/{PROVENANCE} is damaged: an object with `artefacts` is expected; "
        "restore it (git checkout), or delete it with the records beside it"
    )


def as_made(provenance: dict[str, Any]) -> dict[str, Any]:
    """Provenance of the run that made an artefact, also where it was taken from records."""
    original: dict[str, Any] = provenance["notes"].get(MADE, provenance)
    return original


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
