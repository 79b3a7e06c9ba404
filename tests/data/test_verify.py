"""What lies on disk is compared with the manifest, part by part."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from matlib.data.manifest import Content, check, verify
from tests.data.test_manifest import save, with_file

TEXT = b"five words, no more, here"
SHA = hashlib.sha256(TEXT).hexdigest()
JSON = Content(path="a.json", alternatives=("sub/a.json",), bytes=len(TEXT), sha256=SHA)


def put(path: Path, content: bytes = TEXT) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def test_file_is_ok_only_if_every_byte_is_right(tmp_path: Path) -> None:
    assert check(tmp_path, JSON).state == "missing"
    put(tmp_path / "a.json")
    assert check(tmp_path, JSON).state == "ok"
    put(tmp_path / "a.json", TEXT[:-1])
    assert check(tmp_path, JSON).state == "wrong size"
    put(tmp_path / "a.json", b"F" + TEXT[1:])
    status = check(tmp_path, JSON)
    assert status.state == "wrong sha256" and not status.is_usable and SHA in status.detail


def test_alternative_place_counts(tmp_path: Path) -> None:
    put(tmp_path / "sub/a.json")
    status = check(tmp_path, JSON)
    assert (status.path, status.state) == ("sub/a.json", "ok")


def test_file_without_known_hash_is_called_unverified_and_not_ok(tmp_path: Path) -> None:
    put(tmp_path / "a.json")
    status = check(tmp_path, Content(path="a.json"))
    assert status.state == "unverified" and status.is_usable


@pytest.mark.parametrize(("n_present", "state"), [(2, "too few files"), (3, "ok"), (4, "ok")])
def test_folder_is_counted_without_what_a_desktop_leaves(
    tmp_path: Path, n_present: int, state: str
) -> None:
    for i in range(n_present):
        put(tmp_path / f"images/{i}.jpg")
    put(tmp_path / "images/.DS_Store")
    put(tmp_path / "images/Thumbs.db")
    assert check(tmp_path, Content(path="images", n_files=3)).state == state


def test_file_in_place_of_a_folder_and_the_reverse_are_wrong(tmp_path: Path) -> None:
    put(tmp_path / "images")
    assert check(tmp_path, Content(path="images", n_files=1)).state == "wrong kind"
    (tmp_path / "a.json").mkdir()
    assert check(tmp_path, JSON).state == "wrong kind"


def test_report_shows_every_part(tmp_path: Path) -> None:
    manifests = tmp_path / "m"
    manifests.mkdir()
    save(manifests, with_file(bytes=len(TEXT), sha256=SHA))
    report = verify("tiny", tmp_path / "data", manifests)
    assert not report.is_complete and "missing        a.json" in str(report)
    put(tmp_path / "data/a.json")
    assert verify("tiny", tmp_path / "data", manifests).is_complete
    put(tmp_path / "data/a.json", TEXT.upper())
    report = verify("tiny", tmp_path / "data", manifests)
    assert "NOT complete" in str(report) and "wrong sha256   a.json" in str(report)


def test_generated_data_are_always_complete(tmp_path: Path) -> None:
    assert verify("scenes", tmp_path).is_complete
