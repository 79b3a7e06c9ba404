"""Downloads resume, verify and never leave a half file under the final name."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from matlib.data import fetching as module
from matlib.data.fetching import DownloadError, require_space
from tests.data.local_server import Served, Server, serving

CONTENT = bytes(i * i % 251 for i in range(300_000))
SHA = hashlib.sha256(CONTENT).hexdigest()


def download(url: str, target: Path, n_bytes: int = len(CONTENT), **options: Any) -> list[str]:
    lines: list[str] = []
    module.download(url, target, n_bytes, SHA, lines.append, **{"wait_s": 0, **options})
    return lines


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "a.bin"


def only(target: Path) -> bool:
    return [p.name for p in target.parent.iterdir()] == [target.name]


def test_broken_connection_goes_on_where_it_stopped(server: Server, target: Path) -> None:
    served = Served(CONTENT, cut_after=[100_000, 50_000])
    lines = download(server.add("cut.bin", served), target)
    assert target.read_bytes() == CONTENT and only(target)
    assert served.log == [None, "bytes=100000-", "bytes=150000-"]
    assert any("going on at 97.7 KiB" in line for line in lines)


def test_killed_call_is_resumed_by_the_next_call(server: Server, target: Path) -> None:
    served = Served(CONTENT, cut_after=[120_000])
    url = server.add("killed.bin", served)
    with pytest.raises(DownloadError, match="goes on where it stopped"):
        download(url, target, n_attempts=1)
    assert not target.exists() and target.with_name("a.bin.part").stat().st_size == 120_000
    download(url, target)
    assert served.log == [None, "bytes=120000-"]
    assert target.read_bytes() == CONTENT and only(target)


def test_server_without_ranges_sends_all_again(server: Server, target: Path) -> None:
    served = Served(CONTENT, has_ranges=False, cut_after=[120_000])
    download(server.add("noranges.bin", served), target)
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize("part", [bytes(120_000), bytes(300_000), CONTENT + b"more"])
def test_part_of_another_file_is_found_out_and_thrown_away(
    server: Server, target: Path, part: bytes
) -> None:
    target.with_name("a.bin.part").write_bytes(part)
    download(server.add("other.bin", Served(CONTENT)), target)
    assert target.read_bytes() == CONTENT and only(target)


def test_part_that_is_whole_already_is_not_asked_for(server: Server, target: Path) -> None:
    served = Served(CONTENT)
    target.with_name("a.bin.part").write_bytes(CONTENT)
    download(server.add("whole.bin", served), target)
    assert served.log == [] and target.read_bytes() == CONTENT and only(target)


@pytest.mark.parametrize("content", [CONTENT[:-1] + b"\0", b"<html>error page</html>"])
def test_another_file_is_refused_and_nothing_is_kept(
    server: Server, target: Path, content: bytes
) -> None:
    served = Served(content)
    with pytest.raises(DownloadError, match=r"(sha256 is|23 bytes came).*expected.*Nothing was"):
        download(server.add("sha.bin", served), target)
    assert list(target.parent.iterdir()) == [] and len(served.log) == 1


def test_larger_file_is_refused_before_its_body_is_fetched(server: Server, target: Path) -> None:
    url = server.add("size.bin", Served(CONTENT))
    with pytest.raises(DownloadError, match="offers more than the expected 299,999 bytes"):
        download(url, target, len(CONTENT) - 1)
    assert not target.exists()


def test_body_of_unknown_length_is_bounded(server: Server, target: Path) -> None:
    url = server.add("endless.bin", Served(CONTENT, is_sized=False))
    with pytest.raises(DownloadError, match=r"300,000 bytes came, expected 1,000|more than the"):
        download(url, target, 1000)
    assert list(target.parent.iterdir()) == []
    download(url, target)
    assert target.read_bytes() == CONTENT


def test_busy_server_is_asked_again_and_a_missing_file_is_not(server: Server, target: Path) -> None:
    busy = Served(CONTENT, statuses=[503, 429])
    download(server.add("busy.bin", busy), target)
    assert len(busy.log) == 3 and target.read_bytes() == CONTENT
    target.unlink()
    for status, n in ((404, 1), (503, 3)):
        gone = Served(CONTENT, statuses=[status] * 9)
        with pytest.raises(DownloadError, match=rf"{status}.*by hand and save it as .*a\.bin"):
            download(server.add("gone.bin", gone), target, n_attempts=3)
        assert len(gone.log) == n


def test_redirect_is_followed_to_http_and_refused_elsewhere(
    server: Server, target: Path, tmp_path: Path
) -> None:
    good = server.add("real.bin", Served(CONTENT))
    download(server.add("moved.bin", Served(b"", location=good)), target)
    assert target.read_bytes() == CONTENT
    secret = tmp_path / "secret"
    secret.write_bytes(CONTENT)
    for location in (secret.as_uri(), "ftp://127.0.0.1/a"):
        url = server.add("bad.bin", Served(b"", location=location))
        with pytest.raises(DownloadError, match="rotocol"):
            download(url, tmp_path / "b.bin")
        assert not (tmp_path / "b.bin").exists()


def test_file_address_is_copied_and_other_schemes_are_refused(tmp_path: Path, target: Path) -> None:
    source = tmp_path / "mirror" / "x"
    source.parent.mkdir()
    source.write_bytes(CONTENT)
    download(source.as_uri(), target)
    assert target.read_bytes() == CONTENT
    with pytest.raises(DownloadError, match="by hand"):
        download((tmp_path / "none").as_uri(), tmp_path / "b.bin")
    for url in ("ftp://example.org/a", "data:text/plain,a", "/etc/passwd", "-o/tmp/x"):
        with pytest.raises(DownloadError, match="only https, http and file"):
            download(url, tmp_path / "b.bin")


def test_a_host_that_is_not_there_is_said(target: Path) -> None:
    with pytest.raises(DownloadError, match=r"curl: .*Check the connection"):
        download("http://127.0.0.1:1/a.bin", target, n_attempts=2)


def test_no_space_is_said_before_the_body_is_fetched(
    server: Server, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage, served = shutil.disk_usage(target.parent)._replace(free=310_000), Served(CONTENT)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(DownloadError, match=r"no space on disk: a\.bin needs 307\.6 KiB"):
        download(server.add("space.bin", served), target)
    assert served.log == []
    require_space(target.parent / "not/made/yet", 295_000, "less")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a disk that is always full")
def test_disk_that_fills_up_is_named_and_not_tried_again(server: Server, target: Path) -> None:
    served = Served(CONTENT)
    target.with_name("a.bin.part").symlink_to("/dev/full")
    with pytest.raises(DownloadError, match=r"no space left on disk.*a\.bin\.part"):
        download(server.add("full.bin", served), target)
    assert len(served.log) == 1


def test_without_curl_its_name_is_said(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(target.parent))
    with pytest.raises(DownloadError, match=r"program curl.*install it.*by hand"):
        download("http://127.0.0.1:1/a.bin", target)


def test_who_waits_is_told_how_far_it_is(
    server: Server, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TELL_EVERY_S", 1e-4)
    lines = download(server.add("told.bin", Served(CONTENT)), target)
    assert any("B of 293.0 KiB (" in line and "s left" in line for line in lines)
