"""Per-query outcomes without weights, so that a long study can go on on another machine.

A record is one line: what was judged (the content hash of its artefact, which follows from
profile, data and code) and the rank of every query. A study that needs an artefact of that hash
takes the ranks from the record, with the provenance of the run that made them. Where the code or
the profile is another one, so is the hash, and the run is made anew.
"""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from matlib.study.artefacts import ArtefactSpec
from matlib.study.coordinates import FILE as COORDINATES
from matlib.study.durable import write_durably
from matlib.study.judged import CURVE, RANKS
from matlib.study.runs import Study
from matlib.study.sanity import FILE as CHECKS
from matlib.study.tasks import Task, all_rows, specs_of, stages

FILE = "records.csv.gz"
MADE = "made"
"""Note of an artefact that was taken from records: the provenance that was published for it."""

COLUMNS = ("hash", "kind", "name", "seed", "file", "attack", "direction", "content")


def recorded_tasks(study: Study) -> Iterator[tuple[Task, list[ArtefactSpec]]]:
    """What a whole study judges, with the artefacts that hold it."""
    for stage in stages(study.profile, all_rows(study.profile)):
        for task in stage:
            if task.what not in ("base", "words"):
                yield task, specs_of(study, task)


def write_records(study: Study, folder: Path) -> Path:
    """Everything that the study has judged so far, as one compressed table.

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
    text = pd.DataFrame(rows.values(), columns=list(COLUMNS)).to_csv(index=False)
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", mtime=0) as file_:
        file_.write(text.encode())
    folder.mkdir(parents=True, exist_ok=True)
    write_durably(folder / FILE, packed.getvalue())
    return folder / FILE


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
    """
    if not (folder / FILE).is_file():
        return 0
    table = pd.read_csv(folder / FILE, dtype=str, keep_default_na=False)
    by_hash, made = dict(list(table.groupby("hash", sort=False))), _published(folder)
    n_taken, first = 0, study.profile.seeds[0]
    for task, specs in recorded_tasks(study):
        is_shown = task.what == "judged" and (task.seed == first or task.name == "base")
        if is_shown and not whole:
            continue
        for spec in specs:
            if spec.hash in by_hash and study.store.find(spec) is None:
                rows = by_hash[spec.hash]
                study.store.get_or_make(spec, partial(_restore, rows, made.get(spec.hash)))
                n_taken += 1
    return n_taken


def _published(folder: Path) -> dict[str, dict[str, Any]]:
    """Hash -> provenance of every artefact that was published with the records."""
    path = folder / "provenance.json"
    if not path.is_file():
        return {}
    artefacts = json.loads(path.read_text(encoding="utf-8"))["artefacts"]
    return {artefact["hash"]: artefact for artefact in artefacts}


def as_made(provenance: dict[str, Any]) -> dict[str, Any]:
    """Provenance of the run that made an artefact, also where it was taken from records."""
    original: dict[str, Any] = provenance["notes"].get(MADE, provenance)
    return original


def _restore(rows: pd.DataFrame, made: dict[str, Any] | None, folder: Path) -> dict[str, Any]:
    for file, part in rows.groupby("file", sort=False):
        path = folder / str(file)
        if path.suffix == ".json":
            path.write_text(part["content"].iloc[0], encoding="utf-8")
            continue
        columns = zip(part["attack"], part["direction"], part["content"], strict=True)
        frames = [_ranks(attack, direction, content) for attack, direction, content in columns]
        pd.concat(frames).to_csv(path, index=False)
    return {"taken from": FILE, **({MADE: made} if made else {})}


def _ranks(attack: str, direction: str, content: str) -> pd.DataFrame:
    """The lines of `ranks.csv` that one line of the records stands for."""
    ranks = [int(rank) for rank in content.split(" ")]
    about = {"attack": attack, "direction": direction}
    return pd.DataFrame({**about, "query": range(len(ranks)), "rank": ranks})


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
