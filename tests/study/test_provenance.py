"""What is written beside an artefact; the hash of its code is tested in test_reached."""

from __future__ import annotations

from pathlib import Path

from matlib.study.store.provenance import canonical_json, code_hash, named_weights, stale_kinds

MAKER = """
def makes(name):
    return lambda function: function


@makes("model")
def train():
    return 1


@makes("robustness")
def judge():
    return 2
"""


def test_published_records_of_changed_code_are_found(tmp_path: Path) -> None:
    first, other = tmp_path / "first", tmp_path / "other"
    for folder, text in ((first, MAKER), (other, MAKER.replace("return 2", "return 3"))):
        folder.mkdir()
        (folder / "maker.py").write_text(text)
    records = [
        {"kind": kind, "maker": kind, "chosen": [], "code": code_hash(kind, (), first)}
        for kind in ("model", "robustness")
    ]
    assert stale_kinds(records, first) == []
    assert stale_kinds(records, other) == ["robustness"]
    gone = [{**records[0], "maker": "nosuch"}]
    older = [{"kind": "captioner", "modules": ["first.maker"], "code": "0" * 64}]
    assert stale_kinds([*gone, *older], first) == ["captioner", "model"]


def test_equal_values_have_one_text() -> None:
    assert canonical_json({"b": (1, 2), "a": 1.0}) == '{"a":1.0,"b":[1,2]}'


def test_pretrained_weights_are_known_by_name_or_by_content(tmp_path: Path) -> None:
    assert named_weights("") == "" and named_weights("bert-base-uncased") == "bert-base-uncased"
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "model.safetensors").write_bytes(b"weights")
    same = named_weights(str(tmp_path / "a"))
    assert same == named_weights(str(tmp_path / "b")) and "/" not in same
    (tmp_path / "b" / "model.safetensors").write_bytes(b"other weights")
    assert named_weights(str(tmp_path / "b")) != same
