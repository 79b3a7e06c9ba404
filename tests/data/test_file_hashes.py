"""Hashes that are kept are those of the content, whatever a file's times say."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from matlib.data import file_hashes
from matlib.data.file_hashes import FileHashes

OLD_NS = 10**18


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.jpg"
    path.write_bytes(b"white")
    return path


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def settled(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """As if files had lain for long; the list receives every file that is read."""
    read: list[Path] = []

    def counted(path: Path) -> str:
        read.append(path)
        return sha(path.read_bytes())

    monkeypatch.setattr(file_hashes, "RACY_NS", -(10**18))
    monkeypatch.setattr(file_hashes, "file_hash", counted)
    return read


def test_a_file_is_read_again_only_when_it_has_changed(
    photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, kept = settled(monkeypatch), tmp_path / "kept" / "f.json"
    for _ in range(2):
        assert FileHashes(kept).of([photo]) == [sha(b"white")]
    assert read == [photo]
    photo.write_bytes(b"black")
    assert FileHashes(kept).of([photo]) == [sha(b"black")]
    assert read == [photo, photo]


def test_an_old_time_on_a_new_content_is_seen_through(
    photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settled(monkeypatch)
    os.utime(photo, ns=(OLD_NS, OLD_NS))
    FileHashes(tmp_path / "f.json").of([photo])
    other = tmp_path / "other.jpg"
    other.write_bytes(b"black")
    other.replace(photo)
    os.utime(photo, ns=(OLD_NS, OLD_NS))
    assert FileHashes(tmp_path / "f.json").of([photo]) == [sha(b"black")]


def test_the_hash_of_a_file_that_was_just_written_is_not_kept(photo: Path, tmp_path: Path) -> None:
    """It may change again within the same tick of the clock."""
    FileHashes(tmp_path / "f.json").of([photo])
    assert not (tmp_path / "f.json").exists()


@pytest.mark.parametrize("harm", ["", "[", "[]", '{"a": 1}', '{"a": [1, 2, 3]}', "[" * 100_000])
def test_a_damaged_list_of_hashes_is_made_again(
    photo: Path, tmp_path: Path, harm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settled(monkeypatch)
    (tmp_path / "f.json").write_text(harm)
    assert FileHashes(tmp_path / "f.json").of([photo]) == [sha(b"white")]
    assert str(photo) in json.loads((tmp_path / "f.json").read_text())


def test_where_nothing_can_be_kept_hashes_are_right_all_the_same(
    photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settled(monkeypatch)
    (tmp_path / "file").write_text("in the way of a folder")
    assert FileHashes(tmp_path / "file" / "f.json").of([photo]) == [sha(b"white")]
    assert FileHashes(None).of([photo]) == [sha(b"white")]
