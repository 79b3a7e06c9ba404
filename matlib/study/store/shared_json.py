"""JSON that states once what is the same in many places."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from matlib.files import write_durably

COMMON = "common"
"""The key of what is stated once."""

_MARK, _KEYS = "@", "@:"
_WORTH = 16
"""Characters from which on a value is worth a reference."""


def with_common_stated_once(content: dict[str, Any]) -> dict[str, Any]:
    """The same with what occurs several times in a list `common`, and a reference for it.

    A text such as `@3` stands for a value, the one at this place; a list that begins with such as
    `@:3` for an object with the keys at this place and the values that follow. A text that begins
    with `@` itself has another one before it.

    Args:
        content: JSON types.
    """
    every = list(_subtrees(content))
    counts = Counter(map(_text, every))
    counts.update(_text([*each]) for each in every if isinstance(each, dict))
    places: dict[str, int] = {}
    common: list[Any] = []

    def place(text: str, value: Any) -> int:
        if text not in places:
            common.append(shortened(value))  # after what it refers to itself
            places[text] = len(common) - 1
        return places[text]

    def shortened(value: Any, *, is_top: bool = False) -> Any:
        if isinstance(value, dict):
            inner = {key: referred(each) for key, each in value.items()}
            keys = _text([*value])
            if is_top or len(keys) < _WORTH or counts[keys] < 2:
                return inner
            return [f"{_KEYS}{place(keys, [*value])}", *inner.values()]
        if isinstance(value, list):
            return [referred(each) for each in value]
        return f"{_MARK}{value}" if isinstance(value, str) and value[:1] == _MARK else value

    def referred(value: Any) -> Any:
        text = _text(value)
        if len(text) < _WORTH or counts[text] < 2:
            return shortened(value)
        return f"{_MARK}{place(text, value)}"

    found = shortened(content, is_top=True)
    return {**found, COMMON: common}


def with_references_resolved(content: dict[str, Any]) -> dict[str, Any]:
    """What `with_common_stated_once` was given; other content is returned as it is.

    Raises:
        ValueError: a reference to nothing.
    """
    if not isinstance(content.get(COMMON), list):
        return content
    common: list[Any] = []

    def resolved(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: resolved(each) for key, each in value.items()}
        if isinstance(value, list):
            first = value[0] if value else None
            if isinstance(first, str) and first.startswith(_KEYS):
                return dict(zip(at(first, _KEYS), map(resolved, value[1:]), strict=True))
            return [resolved(each) for each in value]
        if not isinstance(value, str) or value[:1] != _MARK:
            return value
        return value[1:] if value[1:2] == _MARK else at(value, _MARK)

    def at(reference: str, mark: str) -> Any:
        number = reference.removeprefix(mark)
        if not number.isdecimal() or int(number) >= len(common):
            raise ValueError(
                f"{reference!r} refers to nothing; expected {mark} and a place before {len(common)}"
            )
        return common[int(number)]

    for each in content[COMMON]:
        common.append(resolved(each))
    return {key: resolved(each) for key, each in content.items() if key != COMMON}


def write_shared(path: Path, content: dict[str, Any]) -> None:
    """Write JSON in which what is common is stated once, a line for each entry of a list at the
    top."""
    parts = []
    for key, value in with_common_stated_once(content).items():
        if isinstance(value, list) and value:
            text = "[\n" + ",\n".join(_text(each) for each in value) + "\n]"
        else:
            text = _text(value)
        parts.append(f"{json.dumps(key)}: {text}")
    write_durably(path, "{\n" + ",\n".join(parts) + "\n}\n")


def read_shared(path: Path) -> dict[str, Any]:
    """What `write_shared` has written, or any other JSON object.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no JSON object, or a reference to nothing.
    """
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError(f"{path.name}: an object is expected; got {type(content).__name__}")
    return with_references_resolved(content)


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _subtrees(value: Any) -> Iterator[Any]:
    yield value
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for each in inner:
        yield from _subtrees(each)
