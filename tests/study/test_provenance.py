"""The hash of code: what changes it and what does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from matlib.study.provenance import canonical_json, code_hash, named_weights, stale_kinds

ATTACK = '''"""Docstring."""
from pkg.models import base  # why


def attack(x: int) -> int:
    """What it does."""
    return x + 1
'''


@pytest.fixture
def package(tmp_path: Path) -> Path:
    for folder in ("pkg", "pkg/models"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "__init__.py").touch()
    (tmp_path / "pkg/attack.py").write_text(ATTACK)
    (tmp_path / "pkg/models/base.py").write_text("from . import deep\nN = 1\n")
    (tmp_path / "pkg/models/deep.py").write_text("import torch\nM = 1\n")
    (tmp_path / "pkg/figures.py").write_text("from pkg import attack\n")
    return tmp_path


@pytest.mark.parametrize(
    ("old", "new"),
    [('"""What it does."""', '"""Otherwise."""'), ("  # why", ""), ("x + 1", "(x  +  1)")],
)
def test_comments_docstrings_and_layout_do_not_change_the_hash(
    package: Path, old: str, new: str
) -> None:
    before = code_hash(["pkg.attack"], package)
    (package / "pkg/attack.py").write_text(ATTACK.replace(old, new))
    assert code_hash(["pkg.attack"], package) == before


@pytest.mark.parametrize(("old", "new"), [("+ 1", "+ 2"), ("+ 1", "+ 1.0"), ("x: int", "y: int")])
def test_a_changed_line_changes_the_hash(package: Path, old: str, new: str) -> None:
    before = code_hash(["pkg.attack"], package)
    (package / "pkg/attack.py").write_text(ATTACK.replace(old, new))
    assert code_hash(["pkg.attack"], package) != before


def test_a_docstring_that_is_used_as_a_value_counts(package: Path) -> None:
    (package / "pkg/attack.py").write_text('NAME = "a"\n')
    before = code_hash(["pkg.attack"], package)
    (package / "pkg/attack.py").write_text('NAME = "b"\n')
    assert code_hash(["pkg.attack"], package) != before


@pytest.mark.parametrize("imported", ["pkg/models/base.py", "pkg/models/deep.py"])
def test_what_a_module_imports_counts_relative_imports_included(
    package: Path, imported: str
) -> None:
    before = code_hash(["pkg.attack"], package)
    (package / imported).write_text((package / imported).read_text() + "MORE = 2\n")
    assert code_hash(["pkg.attack"], package) != before


def test_a_module_that_is_not_imported_does_not_count(package: Path) -> None:
    before = code_hash(["pkg.attack"], package)
    (package / "pkg/figures.py").write_text("COLOUR = 'red'\n")
    assert code_hash(["pkg.attack"], package) == before


def test_a_package_stands_for_its_files(package: Path) -> None:
    before = code_hash(["pkg.models"], package)
    (package / "pkg/models/new.py").write_text("X = 1\n")
    assert code_hash(["pkg.models"], package) != before


def test_an_unknown_module_is_refused(package: Path) -> None:
    with pytest.raises(ValueError, match=r"pkg\.nosuch"):
        code_hash(["pkg.nosuch"], package)


def test_published_records_of_changed_code_are_found(package: Path) -> None:
    records = [
        {"kind": kind, "modules": [module], "code": code_hash([module], package)}
        for kind, module in (("model", "pkg.models"), ("robustness", "pkg.attack"))
    ]
    assert stale_kinds(records, package) == []
    (package / "pkg/attack.py").write_text(ATTACK.replace("+ 1", "- 1"))
    assert stale_kinds(records, package) == ["robustness"]


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
