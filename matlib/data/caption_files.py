"""Captions as they are published: JSON, tables (Flickr30k's `results.csv`), Flickr's `.token`."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from matlib.data.strict import UnreadableError, read_json, read_text

_NAMES = ("image", "image_name", "image_file", "file_name", "filename", "file", "img")
_TEXTS = ("caption", "comment", "sentence", "text")
_NUMBERS = ("comment_number", "caption_number")
_TOKEN = re.compile(r"(.+)#(\d+)\t(.*)")
# Flickr30k's results.csv lacks a bar in one line: `2199200615.jpg| 4   A dog runs …`.
_GLUED = re.compile(r"\s*(\d+)\s+(\S.*)")


class _Row(NamedTuple):
    line: int
    name: str
    number: int | None
    text: str


def read_caption_file(path: Path) -> Any:
    """What a file of captions holds; of which kind it is, its content says.

    JSON (by its name, or because it begins with a bracket) is returned as it is, unchecked but
    for equal keys.
    Tables have a header with one column `image` (or `image_name`, `file` …), one `caption` (or
    `comment` …) and perhaps `comment_number`; columns are parted by `,`, `;` or tab and may be
    quoted, or by `|` and are not. `.token` files have lines `image.jpg#0<tab>caption`.

    Returns:
        the JSON's content; of other files a mapping from image to its captions, by number
        where they are numbered, else in the order of the lines.

    Raises:
        UnreadableError: a file that is none of these; the message names the line.
    """
    text = read_text(path)
    lines = text.split("\n")
    first = next((line for line in lines if line.strip()), "")
    if not first:
        raise UnreadableError(f"{path}: no captions: the file is empty")
    if first.lstrip()[0] in "{[" or path.suffix.lower() == ".json":
        return read_json(path, half_pairs=True)  # a caller names the image of half a pair
    is_token = _TOKEN.fullmatch(first)
    return _by_image(_token_rows(lines, path) if is_token else _table_rows(text, first, path), path)


def _token_rows(lines: list[str], path: Path) -> Iterator[_Row]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        found = _TOKEN.fullmatch(line)
        if found is None:
            raise UnreadableError(
                f"{path}, line {number}: expected image#number, a tab and a caption; "
                f"got {line!r:.60}"
            )
        yield _Row(number, found[1], int(found[2]), found[3])


def _table_rows(text: str, first: str, path: Path) -> Iterator[_Row]:
    mark = next((mark for mark in "|\t;," if mark in first), ",")
    table = _bars(text) if mark == "|" else _quoted(text, mark, path)
    _, header = next(table)
    keys = [key.strip().lower() for key in header]
    image, caption = _column(keys, _NAMES, path), _column(keys, _TEXTS, path)
    numbered = [i for i, key in enumerate(keys) if key in _NUMBERS]
    for line, fields in table:
        if len(fields) == 2 and len(keys) == 3 and (glued := _GLUED.fullmatch(fields[1])):
            fields = [fields[0], glued[1], glued[2]]
        if len(fields) != len(keys):
            raise UnreadableError(
                f"{path}, line {line}: expected {len(keys)} columns ({', '.join(keys)}), got "
                f'{len(fields)}; a caption with {mark!r} in it stands in quotes ("…")'
            )
        number = fields[numbered[0]].strip() if numbered else ""
        if numbered and not (number.isascii() and number.isdecimal()):
            raise UnreadableError(f"{path}, line {line}: expected a number; got {number!r:.60}")
        yield _Row(line, fields[image].strip(), int(number) if number else None, fields[caption])


def _bars(text: str) -> Iterator[tuple[int, list[str]]]:
    """Lines as they are: a caption may hold quotes, and the last column a bar."""
    n_columns = 0
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            n_columns = n_columns or line.count("|") + 1
            yield number, line.split("|", n_columns - 1)


def _quoted(text: str, mark: str, path: Path) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text), delimiter=mark, strict=True)
    try:
        for fields in reader:
            if any(field.strip() for field in fields):
                yield reader.line_num, fields
    except csv.Error as error:
        raise UnreadableError(f"{path}, line {reader.line_num}: no table ({error})") from error


def _column(keys: list[str], known: tuple[str, ...], path: Path) -> int:
    found = [i for i, key in enumerate(keys) if key in known]
    if len(found) != 1:
        raise UnreadableError(
            f"{path}: expected JSON, lines image#number<tab>caption, or a table whose first line "
            f"names one column out of {', '.join(known)}; got {', '.join(keys)!r:.80}"
        )
    return found[0]


def _by_image(rows: Iterator[_Row], path: Path) -> dict[str, list[str]]:
    found: dict[str, list[_Row]] = {}
    seen: dict[tuple[str, int], int] = {}
    for row in rows:
        if row.number is not None:
            before = seen.setdefault((row.name, row.number), row.line)
            if before != row.line:
                raise UnreadableError(
                    f"{path}: lines {before} and {row.line} are both caption {row.number} of "
                    f"{row.name}; keep one of them"
                )
        found.setdefault(row.name, []).append(row)
    if not found:
        raise UnreadableError(f"{path}: no captions below the first line")
    return {
        name: [row.text.strip() for row in sorted(own, key=lambda row: row.number or 0)]
        for name, own in found.items()
    }
