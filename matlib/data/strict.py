"""The one way to read JSON and YAML that a person wrote: nothing in them is lost or guessed.

The standard readers keep the last of two equal keys and say nothing; here they are refused, as
are NaN in JSON, several documents in YAML, and text that is no UTF-8.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import yaml

_MAYBE_HALF_PAIR = re.compile(r"\\u[dD][89a-fA-F]")


class UnreadableError(ValueError):
    """A file that cannot be read as what it should be; the message names it and the place."""


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, with or without a byte order mark; line ends become `\\n`.

    Raises:
        UnreadableError: bytes that are no UTF-8.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UnreadableError(
            f"{path}: expected text in UTF-8, byte {error.start} is not; save it again as UTF-8"
        ) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_json(path: Path, *, half_pairs: bool = False) -> Any:
    """The content of a JSON file.

    Args:
        half_pairs: accept strings with half a surrogate pair, legal in JSON, which no tokenizer
            and no file takes; for callers that mend them.

    Raises:
        UnreadableError: no JSON; an object with two equal keys; NaN or Infinity; half a pair.
    """
    text = read_text(path)
    try:
        content = json.loads(text, object_pairs_hook=_object, parse_constant=_constant)
    except (ValueError, RecursionError) as error:
        raise UnreadableError(f"{path}: not readable as JSON ({error})") from error
    if not half_pairs and _MAYBE_HALF_PAIR.search(text):
        for where, found in _strings(content, ""):
            check_whole(found, f"{path}{where and ', at '}{where}")
    return content


def check_whole(text: str, where: str) -> None:
    """Refuse text that UTF-8 cannot hold.

    Raises:
        UnreadableError: half a surrogate pair (part of an emoji that was cut).
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        half = f"\\u{ord(text[error.start]):x}"
        raise UnreadableError(
            f"{where}: {text!a:.80} holds half a surrogate pair ({half}), part of a character "
            "that was cut; write the whole character or remove it"
        ) from None


def read_yaml(path: Path) -> Any:
    """The content of a YAML file with one document of plain values.

    Raises:
        UnreadableError: no YAML; a mapping with two equal keys; several documents; a tag that
            asks for an object of Python; half a surrogate pair.
    """
    text = read_text(path)
    try:
        return yaml.load(text, Loader=_StrictLoader)  # a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}: " if mark else ""
        raise UnreadableError(
            f"{path}: not readable as YAML ({place}{error.problem or error.context})"
        ) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise UnreadableError(f"{path}: not readable as YAML ({reason})") from error


class _StrictLoader(yaml.SafeLoader):
    """A safe loader that refuses a key which is there twice, and half a surrogate pair."""

    def compose_scalar_node(self, anchor: Any) -> yaml.ScalarNode:
        node = super().compose_scalar_node(anchor)
        check_whole(node.value, f"line {node.start_mark.line + 1}")
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if (key.tag, key.value) in seen:
                    raise yaml.composer.ComposerError(
                        None, None, f"the key {key.value!r} is there twice; keep one of them",
                        key.start_mark,
                    )  # fmt: skip
                seen.add((key.tag, key.value))
        return node


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the key {twice!a} is there twice in one object; keep one of them")
    return found


def _constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number of JSON")


def _strings(value: Any, where: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield where, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield f"{where} key", key
            yield from _strings(item, f"{where}[{key!a}]")
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from _strings(item, f"{where}[{i}]")
