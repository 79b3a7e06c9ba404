"""A data set is fetched whole, resumed, verified, and nothing of the user's is touched."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from matlib.data import fetching as module
from matlib.data.extract import ArchiveError
from matlib.data.fetching import DownloadError, LicenceNotAccepted, fetch
from matlib.data.manifest import ManifestError, VerifyReport
from tests.data.local_server import Served, Server, serving
from tests.data.test_extract import make_tar, make_zip
from tests.data.test_manifest import GOOD, save

JSON = b'{"images": []}'
IMAGES = [(f"images/{i}.jpg", bytes([i]) * 100) for i in range(3)]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Tiny:
    """A data set of a caption archive (zip, by address) and photographs (tar, by hand or not)."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.folder, self.root = folder, folder / "data"
        self.captions = self._archive("captions.zip", make_zip, [("d.json", JSON), ("e", b"")])
        self.photos = self._archive("photos.tar.gz", make_tar, IMAGES)
        self.served = {
            "captions.zip": Served(self.captions),
            "photos.tar.gz": Served(self.photos),
        }
        self.urls = {name: server.add(name, served) for name, served in self.served.items()}
        self.lines: list[str] = []
        self.manifest = {**GOOD, "files": [self._captions_entry(), self._photos_entry()]}

    def _archive(self, name: str, make: Callable[..., Path], members: Any) -> bytes:
        path = make(self.folder / name, members)
        data = path.read_bytes()
        path.unlink()
        return data

    def _captions_entry(self) -> dict[str, Any]:
        content = {"path": "d.json", "bytes": len(JSON), "sha256": sha256(JSON)}
        return {
            "path": "captions.zip",
            "url": self.urls["captions.zip"],
            "bytes": len(self.captions),
            "sha256": sha256(self.captions),
            "extract": "zip",
            "provides": [content],
        }

    def _photos_entry(self) -> dict[str, Any]:
        return {
            "path": "photos.tar.gz",
            "url": self.urls["photos.tar.gz"],
            "bytes": len(self.photos),
            "sha256": sha256(self.photos),
            "extract": "tar",
            "provides": [{"path": "images", "alternatives": ["Images"], "n_files": 3}],
        }

    def by_hand(self) -> None:
        self.manifest["files"][1] |= {"url": None, "manual": "fill in the form"}

    def fetch(self, **options: Any) -> VerifyReport:
        manifests = self.folder / "manifests"
        manifests.mkdir(exist_ok=True)
        save(manifests, self.manifest)
        return fetch("tiny", self.root, report=self.lines.append, manifests=manifests, **options)

    def names(self) -> list[str]:
        return sorted(p.name for p in self.root.iterdir() if p.name != ".fetch.lock")


@pytest.fixture
def tiny(server: Server, tmp_path: Path) -> Tiny:
    return Tiny(server, tmp_path)


def test_everything_is_downloaded_verified_and_unpacked(tiny: Tiny) -> None:
    status = tiny.fetch()
    assert status.is_complete and [s.state for s in status.statuses] == ["ok", "ok"]
    assert tiny.names() == ["d.json", "images"]  # no archive, no part, nothing unwanted
    for name, content in IMAGES:
        assert (tiny.root / name).read_bytes() == content
    assert "complete" in tiny.lines[-1]


def test_complete_data_set_downloads_nothing(tiny: Tiny) -> None:
    tiny.fetch()
    assert tiny.fetch().is_complete
    assert [len(served.log) for served in tiny.served.values()] == [1, 1]


def test_data_set_that_is_on_disk_elsewhere_is_used_by_pointing_at_it(tiny: Tiny) -> None:
    (tiny.root / "Images").mkdir(parents=True)
    for name, content in IMAGES:
        (tiny.root / name.replace("images", "Images")).write_bytes(content)
    (tiny.root / "d.json").write_bytes(JSON)
    assert tiny.fetch().is_complete and tiny.names() == ["Images", "d.json"]
    assert not any(served.log for served in tiny.served.values())


def test_archives_are_kept_if_asked(tiny: Tiny) -> None:
    tiny.fetch(keep_archives=True)
    assert tiny.names() == ["captions.zip", "d.json", "images", "photos.tar.gz"]


def test_only_what_is_lacking_is_fetched(tiny: Tiny) -> None:
    tiny.root.mkdir()
    (tiny.root / "d.json").write_bytes(JSON)
    assert tiny.fetch().is_complete
    assert not tiny.served["captions.zip"].log and len(tiny.served["photos.tar.gz"].log) == 1


def test_interrupted_fetch_goes_on(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("matlib.data.fetching.time.sleep", lambda seconds: None)
    tiny.served["photos.tar.gz"].cut_after = [10] * 5
    with pytest.raises(DownloadError):
        tiny.fetch()
    assert "images" not in tiny.names() and "d.json" in tiny.names()
    assert tiny.fetch().is_complete and tiny.names() == ["d.json", "images"]
    assert len(tiny.served["captions.zip"].log) == 1


def test_terms_come_first_and_nothing_is_fetched_before_they_are_accepted(tiny: Tiny) -> None:
    tiny.manifest["terms"] = "for research only"
    with pytest.raises(LicenceNotAccepted, match=r"for research only(.|\n)*--accept-licence"):
        tiny.fetch()
    assert not tiny.root.exists() and not tiny.served["captions.zip"].log
    assert tiny.fetch(accept_licence=True).is_complete
    assert tiny.fetch().is_complete  # nothing to download, so nothing to accept


def test_what_must_be_brought_by_hand_is_said(tiny: Tiny) -> None:
    tiny.by_hand()
    status = tiny.fetch()
    assert [s.state for s in status.statuses] == ["ok", "missing"] and not status.is_complete
    assert tiny.lines[-1] == f"by hand, into {tiny.root}: fill in the form"


def test_archive_brought_by_hand_is_unpacked_and_kept(tiny: Tiny) -> None:
    tiny.by_hand()
    tiny.root.mkdir()
    (tiny.root / "photos.tar.gz").write_bytes(tiny.photos)
    assert tiny.fetch().is_complete
    assert tiny.names() == ["d.json", "images", "photos.tar.gz"]


def test_archive_brought_by_hand_that_is_wrong_is_refused(tiny: Tiny) -> None:
    tiny.by_hand()
    tiny.root.mkdir()
    (tiny.root / "photos.tar.gz").write_bytes(tiny.photos[:-1] + b"\xff")
    with pytest.raises(ManifestError, match=r"wrong sha256 +photos\.tar\.gz"):
        tiny.fetch()
    assert "images" not in tiny.names()


@pytest.mark.parametrize("content", [b"mine", b"x" * len(JSON)])
def test_wrong_file_of_the_user_is_never_overwritten(tiny: Tiny, content: bytes) -> None:
    tiny.root.mkdir()
    (tiny.root / "d.json").write_bytes(content)
    with pytest.raises(ManifestError, match=r"d\.json.*Nothing of yours is overwritten"):
        tiny.fetch()
    assert (tiny.root / "d.json").read_bytes() == content
    assert not tiny.served["captions.zip"].log


def test_incomplete_folder_of_the_user_is_left_alone(tiny: Tiny) -> None:
    (tiny.root / "images").mkdir(parents=True)
    (tiny.root / "images/0.jpg").write_bytes(b"mine")
    with pytest.raises(ManifestError, match="1 files, expected at least 3"):
        tiny.fetch()
    assert (tiny.root / "images/0.jpg").read_bytes() == b"mine"


def test_archive_that_lacks_what_it_promises_leaves_nothing_half_unpacked(tiny: Tiny) -> None:
    tiny.manifest["files"][1]["provides"][0]["n_files"] = 4
    with pytest.raises(ManifestError, match=r"unpacked, but too few files.*at least 4"):
        tiny.fetch()
    assert tiny.names() == ["d.json", "photos.tar.gz"]


def test_archive_that_escapes_is_refused_and_leaves_nothing(tiny: Tiny, server: Server) -> None:
    evil = tiny._archive("evil.tar.gz", make_tar, [*IMAGES, ("../../evil", b"evil")])
    tiny.manifest["files"][1] |= {
        "url": server.add("evil.tar.gz", Served(evil)),
        "bytes": len(evil),
        "sha256": sha256(evil),
    }
    with pytest.raises(ArchiveError, match="outside its folder"):
        tiny.fetch()
    assert tiny.names() == ["d.json", "photos.tar.gz"]
    assert not list(tiny.folder.parent.rglob("evil"))


def test_leftovers_of_a_killed_call_are_cleared(tiny: Tiny) -> None:
    (tiny.root / ".unpack/images").mkdir(parents=True)
    assert tiny.fetch().is_complete and tiny.names() == ["d.json", "images"]


def test_disk_space_is_checked_before_anything_starts(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(module, "require_space", lambda root, n_bytes, what: asked.append(n_bytes))
    tiny.manifest["files"][1]["bytes"] = 10**6
    monkeypatch.setattr(module, "_obtain", lambda *_: None)
    tiny.fetch()
    # Each archive once as it is and once unpacked.
    assert asked == [2 * (len(tiny.captions) + 10**6)]


def test_second_fetch_into_the_same_folder_waits_for_a_person(tiny: Tiny) -> None:
    tiny.root.mkdir()
    with (
        FileLock(tiny.root / ".fetch.lock"),
        pytest.raises(ManifestError, match="another fetch is at work"),
    ):
        tiny.fetch()


def test_generated_data_set_has_nothing_to_fetch(tmp_path: Path) -> None:
    lines: list[str] = []
    assert fetch("scenes", tmp_path / "scenes", report=lines.append).is_complete
    assert "nothing to fetch" in lines[0] and not (tmp_path / "scenes").exists()
