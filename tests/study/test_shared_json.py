"""JSON that states once what is common: nothing is lost, and little is said twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from matlib.study.store.shared_json import (
    COMMON,
    read_shared,
    with_common_stated_once,
    with_references_resolved,
    write_shared,
)

TEXTS = st.sampled_from(["", "@", "@0", "@:0", "@@1", "a text that is long enough", "größe"])
PLAIN = st.none() | st.booleans() | st.integers(-5, 5) | TEXTS
KEYS = st.sampled_from(["a", "configuration", "common", "hash of an input"])


def nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4)


@given(st.dictionaries(st.sampled_from(["artefacts", "rows"]), st.recursive(PLAIN, nested)))
@settings(max_examples=200, deadline=None)
def test_every_content_is_read_as_it_was_written(content: dict[str, Any]) -> None:
    written = json.loads(json.dumps(with_common_stated_once(content)))
    assert with_references_resolved(written) == content


def test_values_and_keys_that_repeat_are_written_once(tmp_path: Path) -> None:
    same = {"image_size": 64, "patch_size": 32, "text_tower": "causal"}
    content = {"artefacts": [{"configuration": same, "number": i} for i in range(100)]}
    write_shared(tmp_path / "a.json", content)
    text = (tmp_path / "a.json").read_text()
    assert text.count("image_size") == text.count("configuration") == 1
    assert len(text) < len(json.dumps(content)) / 5 and text.count("\n") > 100
    assert read_shared(tmp_path / "a.json") == content


def test_a_plain_object_is_read_and_what_is_damaged_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"rows": ["@ home"]}')
    assert read_shared(path) == {"rows": ["@ home"]}  # of before anything was shared
    for wrong in ("@7", "@x", "@-1"):
        path.write_text(json.dumps({COMMON: [], "rows": wrong}))
        with pytest.raises(ValueError, match="refers to nothing"):
            read_shared(path)
    path.write_text("[]")
    with pytest.raises(ValueError, match="an object is expected"):
        read_shared(path)
