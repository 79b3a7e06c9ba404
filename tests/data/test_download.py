"""Downloads resume, verify and never leave a half file under the final name."""

from __future__ import annotations

import errno
import hashlib
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from matlib.data import fetching as module
from matlib.data.fetching import DownloadError, require_space
from tests.data.local_server import Served, Server, serving

CONTENT = bytes(i * i % 251 for i in range(300_000))
SHA = hashlib.sha256(CONTENT).hexdigest()
download = partial(module.download, report=lambda line: None, wait_s=0)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "a.bin"


def only(target: Path) -> bool:
    return [p.name for p in target.parent.iterdir()] == [target.name]


def test_whole_file_arrives_and_nothing_else_is_left(server: Server, target: Path) -> None:
    url = server.add("a.bin", Served(CONTENT))
    lines: list[str] = []
    download(url, target, len(CONTENT), SHA, report=lines.append)
    assert target.read_bytes() == CONTENT and only(target)
    assert any("293.0 KiB of 293.0 KiB (100 %)" in line for line in lines)


def test_broken_connection_goes_on_where_it_stopped(server: Server, target: Path) -> None:
    served = Served(CONTENT, cut_after=[100_000, 50_000])
    download(server.add("cut.bin", served), target, len(CONTENT), SHA)
    assert target.read_bytes() == CONTENT and only(target)
    assert served.log == [None, "bytes=100000-", "bytes=150000-"]


def test_killed_call_is_resumed_by_the_next_call(server: Server, target: Path) -> None:
    served = Served(CONTENT, cut_after=[120_000])
    url = server.add("killed.bin", served)
    with pytest.raises(DownloadError, match=r"120,000 of 300,000.*goes on where it stopped"):
        download(url, target, n_attempts=1)
    assert not target.exists() and target.with_name("a.bin.part").stat().st_size == 120_000
    download(url, target)
    assert served.log == [None, "bytes=120000-"]
    assert target.read_bytes() == CONTENT and only(target)


def test_file_that_changed_on_the_server_is_fetched_anew(server: Server, target: Path) -> None:
    served = Served(CONTENT, cut_after=[120_000])
    url = server.add("changed.bin", served)
    with pytest.raises(DownloadError):
        download(url, target, n_attempts=1)
    served.content, served.etag = CONTENT[::-1], '"v2"'
    download(url, target)
    assert target.read_bytes() == CONTENT[::-1]


def test_server_without_ranges_sends_all_again(server: Server, target: Path) -> None:
    served = Served(CONTENT, has_ranges=False, cut_after=[120_000])
    download(server.add("noranges.bin", served), target, len(CONTENT), SHA)
    assert target.read_bytes() == CONTENT


def test_part_without_version_or_hash_is_never_trusted(server: Server, target: Path) -> None:
    served = Served(CONTENT, etag=None, cut_after=[120_000])
    download(server.add("noetag.bin", served), target)
    assert served.log == [None, None] and target.read_bytes() == CONTENT


def test_part_of_another_address_is_not_continued(server: Server, target: Path) -> None:
    first = Served(CONTENT[::-1], cut_after=[1000])
    with pytest.raises(DownloadError):
        download(server.add("first.bin", first), target, n_attempts=1)
    second = Served(CONTENT)
    download(server.add("second.bin", second), target)
    assert second.log == [None] and target.read_bytes() == CONTENT


def test_part_that_is_whole_already_is_not_asked_for(server: Server, target: Path) -> None:
    served = Served(CONTENT, cut_after=[120_000])
    url = server.add("whole.bin", served)
    with pytest.raises(DownloadError):
        download(url, target, len(CONTENT), SHA, n_attempts=1)
    target.with_name("a.bin.part").write_bytes(CONTENT)
    download(url, target, len(CONTENT), SHA)
    assert len(served.log) == 1 and target.read_bytes() == CONTENT


def test_part_longer_than_the_file_is_thrown_away(server: Server, target: Path) -> None:
    served = Served(CONTENT, cut_after=[120_000])
    url = server.add("long.bin", served)
    with pytest.raises(DownloadError):
        download(url, target, n_attempts=1)
    target.with_name("a.bin.part").write_bytes(CONTENT + b"more")
    download(url, target)
    assert target.read_bytes() == CONTENT and only(target)


def test_wrong_sha256_keeps_nothing(server: Server, target: Path) -> None:
    url = server.add("sha.bin", Served(CONTENT[:-1] + b"\0"))
    with pytest.raises(DownloadError, match=f"sha256 is .*expected {SHA}"):
        download(url, target, len(CONTENT), SHA)
    assert list(target.parent.iterdir()) == []


def test_damaged_part_is_caught_by_the_hash_and_the_next_call_is_clean(
    server: Server, target: Path
) -> None:
    url = server.add("damaged.bin", Served(CONTENT, cut_after=[120_000]))
    with pytest.raises(DownloadError):
        download(url, target, len(CONTENT), SHA, n_attempts=1)
    target.with_name("a.bin.part").write_bytes(bytes(120_000))
    with pytest.raises(DownloadError, match="sha256"):
        download(url, target, len(CONTENT), SHA)
    download(url, target, len(CONTENT), SHA)
    assert target.read_bytes() == CONTENT


def test_wrong_size_is_refused_before_the_body_is_fetched(server: Server, target: Path) -> None:
    url = server.add("size.bin", Served(CONTENT))
    with pytest.raises(DownloadError, match=r"offers 300,000 bytes, expected 299,999"):
        download(url, target, len(CONTENT) - 1)
    assert list(target.parent.iterdir()) == []


def test_body_of_unknown_length_is_bounded_by_the_manifest(server: Server, target: Path) -> None:
    url = server.add("endless.bin", Served(CONTENT, is_sized=False))
    with pytest.raises(DownloadError, match="sends more than 1,000 bytes"):
        download(url, target, 1000)
    download(url, target, len(CONTENT))
    assert target.read_bytes() == CONTENT


def test_busy_server_is_asked_again_and_a_missing_file_is_not(server: Server, target: Path) -> None:
    busy = Served(CONTENT, statuses=[503, 429])
    download(server.add("busy.bin", busy), target)
    assert len(busy.log) == 3 and target.read_bytes() == CONTENT
    gone = Served(CONTENT, statuses=[404])
    with pytest.raises(DownloadError, match=r"404.*by hand and save it as .*a\.bin"):
        download(server.add("gone.bin", gone), target)
    assert len(gone.log) == 1


def test_server_that_stays_busy_is_given_up(server: Server, target: Path) -> None:
    busy = Served(CONTENT, statuses=[503] * 9)
    with pytest.raises(DownloadError, match="503"):
        download(server.add("down.bin", busy), target, n_attempts=3)
    assert len(busy.log) == 3


def test_redirect_is_followed_to_http_and_refused_elsewhere(
    server: Server, target: Path, tmp_path: Path
) -> None:
    good = server.add("real.bin", Served(CONTENT))
    download(server.add("moved.bin", Served(b"", location=good)), target)
    assert target.read_bytes() == CONTENT
    secret = tmp_path / "secret"
    secret.write_text("mine")
    for location in (secret.as_uri(), "ftp://127.0.0.1/a"):
        url = server.add("bad.bin", Served(b"", location=location))
        with pytest.raises(DownloadError):
            download(url, tmp_path / "b.bin")
        assert not (tmp_path / "b.bin").exists()


def test_file_address_is_copied_and_other_schemes_are_refused(tmp_path: Path, target: Path) -> None:
    source = tmp_path / "mirror" / "x"
    source.parent.mkdir()
    source.write_bytes(CONTENT)
    download(source.as_uri(), target, len(CONTENT), SHA)
    assert target.read_bytes() == CONTENT
    with pytest.raises(DownloadError, match="by hand"):
        download((tmp_path / "none").as_uri(), tmp_path / "b.bin")
    for url in ("ftp://example.org/a", "data:text/plain,a", "/etc/passwd"):
        with pytest.raises(DownloadError, match="only https, http and file"):
            download(url, tmp_path / "b.bin")


def test_no_space_is_said_before_the_body_is_fetched(
    server: Server, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(target.parent)._replace(free=310_000)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(DownloadError, match=r"no space on disk: a\.bin needs 307\.6 KiB"):
        download(server.add("space.bin", Served(CONTENT)), target)
    assert not target.with_name("a.bin.part").exists()
    require_space(target.parent / "not/made/yet", 295_000, "less")


def test_disk_that_fills_up_is_named_and_not_tried_again(
    server: Server, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    served = Served(CONTENT)
    monkeypatch.setattr(module, "_append", full)
    with pytest.raises(DownloadError, match=r"no space left on disk.*a\.bin\.part"):
        download(server.add("full.bin", served), target)
    assert len(served.log) == 1
