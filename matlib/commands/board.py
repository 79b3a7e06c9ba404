"""`python -m matlib board`: what `evaluate --out` wrote of several models, side by side."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from matlib.commands.record import Record, read_record
from matlib.files import write_durably

CSV, PAGE = "board.csv", "board.html"
NO_ROW = "–"
"""An attack that a model has nothing for."""

_TOLD_APART = ("attacks", "eps_255", "n_words", "words")
"""Of a threat: what has columns of its own in the CSV."""

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { border-bottom: 1px solid #ccc; padding: .3rem .7rem }
th, td { text-align: right; white-space: nowrap }
th:first-child, td:first-child { text-align: left }
"""


def run_board(folder: Path) -> str:
    """One table for each set of pairs and threat, best `worst` first; also as CSV and as a page.

    `board.csv` (a line per file and attack) and `board.html` (which loads nothing from elsewhere)
    are written into the folder.

    Returns:
        the tables for people, and what was left out.

    Raises:
        FileNotFoundError, ValueError: no folder, no evaluation in it, or a damaged one.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}; `evaluate --out` writes the files of a board")
    read = {path.name: read_record(path) for path in sorted(folder.glob("*.json"))}
    found = {name: record for name, record in read.items() if record is not None}
    if not found:
        raise ValueError(
            f"no evaluation among the {len(read)} JSON files of {folder}: `python -m matlib "
            "evaluate --images … --captions … --out FILE.json` writes one"
        )
    tables = _tables(found)
    write_durably(folder / CSV, _lines(tables).to_csv(index=False, lineterminator="\n"))
    write_durably(folder / PAGE, _page(tables))
    others = [name for name, record in read.items() if record is None]
    left_out = [f"left out, no evaluation: {', '.join(others)}"] if others else []
    ends = [*left_out, f"wrote {folder / CSV} and {PAGE}"]
    return "\n\n".join([*map(_as_text, tables), "\n".join(ends)])


def _as_text(records: Mapping[str, Record]) -> str:
    table = _shown(records).to_string(na_rep=NO_ROW)
    return "\n".join([_heading(records), _settings(records), table, *_notes(records)])


def _tables(found: Mapping[str, Record]) -> list[dict[str, Record]]:
    """Records that may stand in one table: the same pairs, under the same threat."""
    alike: dict[str, dict[str, Record]] = {}
    for name, record in found.items():
        about = {"data": record.data.identity, "threat": record.threat.model_dump(mode="json")}
        alike.setdefault(json.dumps(about, sort_keys=True), {})[name] = record
    return [
        dict(sorted(records.items(), key=lambda each: -_worst(each[1])))
        for records in alike.values()
    ]


def _worst(record: Record) -> float:
    return min(row.recall["mean"].value for row in record.rows)


def _shown(records: Mapping[str, Record]) -> pd.DataFrame:
    """The mean of TR@1 and IR@1 of every model under every attack, in percent."""
    return pd.DataFrame(
        {attack: cells["mean"] for attack, cells in record.cells.items()}
        for record in records.values()
    ).set_axis([f"{r.model.name} ({r.model.short})" for r in records.values()])


def _heading(records: Mapping[str, Record]) -> str:
    data = next(iter(records.values())).data
    return f"{data.name}, {data.split}: {data.n_images:,} images, {data.n_captions:,} captions"


def _settings(records: Mapping[str, Record]) -> str:
    threat = next(iter(records.values())).threat
    return f"mean of TR@1 and IR@1 in %, 95 % intervals over images; {threat}"


def _notes(records: Mapping[str, Record]) -> list[str]:
    n_codes = len({record.code for record in records.values()})
    several = f"judged by {n_codes} states of the code, whose attacks may differ in strength"
    about = [
        f"{record.model.name}: " + "; ".join(f"{k}: {v}" for k, v in record.model.about.items())
        for record in records.values() if record.model.about
    ]  # fmt: skip
    notes = [f"{name}: {note}" for name, record in records.items() for note in record.notes]
    return [*([several] if n_codes > 1 else []), *about, *notes]


def _lines(tables: Sequence[Mapping[str, Record]]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "table": number, "file": name, "model": record.model.name,
            "weights": record.model.weights,
            "trained_for": record.model.about.get("trained for", ""), "data": record.data.identity,
            **record.threat.model_dump(mode="json", exclude={*_TOLD_APART}),
            "words": json.dumps(record.threat.words),
            "attack": row.attack, "eps_255": row.eps_255, "n_words": row.n_words,
            **_numbers(row.recall.items()),
        }
        for number, records in enumerate(tables, start=1)
        for name, record in records.items()
        for row in record.rows
    )  # fmt: skip


def _numbers(recalls: Iterable[tuple[str, Any]]) -> dict[str, float]:
    return {
        label: value
        for name, e in recalls
        for label, value in ((name, e.value), (f"{name} low", e.low), (f"{name} high", e.high))
    }


def _page(tables: Sequence[Mapping[str, Record]]) -> str:
    parts = [
        f"<h2>{html.escape(_heading(records))}</h2>\n<p>{html.escape(_settings(records))}</p>\n"
        f'<div class="wide">{_shown(records).to_html(border=0, na_rep=NO_ROW)}</div>\n'
        + "".join(f"<p>{html.escape(note)}</p>\n" for note in _notes(records))
        for records in tables
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Recall under attack</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        "<h1>Recall under attack</h1>\n<p>A table for each set of pairs and each threat: numbers "
        f"of different tables are not to be compared.</p>\n{''.join(parts)}</body>\n</html>\n"
    )
