from __future__ import annotations

import json
from pathlib import Path

import pytest

from matlib.data.strict import UnreadableError, read_json, read_yaml


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1, "b": 2, "a": 3}', "the key 'a' is there twice"),
        ('[{"deep": {"k": 1, "k": 1}}]', "the key 'k' is there twice"),
        ('{"a": NaN}', "NaN is no number"),
        ('{"a": [-Infinity]}', "-Infinity is no number"),
        ('{"a": ["ok", "cut \\ud83d"]}', r"at \['a'\]\[1\].*half a surrogate pair \(\\ud83d\)"),
        ('{"\\udc00": 1}', "half a surrogate pair"),
        ("{", "not readable as JSON"),
        ("[" * 100_000, "not readable as JSON"),
        ("", "not readable as JSON"),
    ],
)
def test_json_that_would_lose_something_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "x.json").write_text(text, encoding="utf-8")
    with pytest.raises(UnreadableError, match=rf"x\.json.*{message}"):
        read_json(tmp_path / "x.json")


def test_whole_emoji_and_a_byte_order_mark_are_read(tmp_path: Path) -> None:
    content = {"a": ["dog 🐕", "«ü»"], "b": {"a": 1}}
    (tmp_path / "x.json").write_text(json.dumps(content), encoding="utf-8-sig")
    assert read_json(tmp_path / "x.json") == content
    (tmp_path / "y.json").write_text('["\\ud83d"]', encoding="utf-8")
    assert read_json(tmp_path / "y.json", half_pairs=True) == ["\ud83d"]


@pytest.mark.parametrize("read", [read_json, read_yaml])
def test_text_in_another_encoding_is_refused_with_the_remedy(tmp_path: Path, read: object) -> None:
    for encoding in ("utf-16", "latin-1"):
        (tmp_path / "x").write_text('{"a": "ü"}', encoding=encoding)
        with pytest.raises(UnreadableError, match="save it again as UTF-8"):
            read(tmp_path / "x")  # type: ignore[operator]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", "line 3: the key 'a' is there twice"),
        ("x: {k: 1, k: 2}\n", "line 1: the key 'k' is there twice"),
        ('a: 1\nb: "\\ud83d"\n', "line 2: .* half a surrogate pair"),
        ('a: 1\n"\\ud83d": 2\n', "line 2: .* half a surrogate pair"),
        ("a: 1\n---\nb: 2\n", "line 2: but found another document"),
        ("a:\n\t- 1\n", "line 2: found character '\\\\t'"),
        ("a: !!python/object/apply:os.getcwd []\n", "could not determine a constructor"),
        ("a: [1\n", "not readable as YAML"),
        ("a: \x00\n", "not readable as YAML"),
        ("[" * 5_000, "not readable as YAML"),
    ],
)
def test_yaml_that_would_lose_something_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "x.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(UnreadableError, match=rf"x\.yaml.*{message}"):
        read_yaml(tmp_path / "x.yaml")


def test_yaml_may_reuse_and_merge_what_it_named(tmp_path: Path) -> None:
    text = "base: &b {x: 1, y: 2}\nown: {<<: *b, y: 3}\nname: ü\n"
    (tmp_path / "x.yaml").write_text(text, encoding="utf-8")
    assert read_yaml(tmp_path / "x.yaml")["own"] == {"x": 1, "y": 3}
