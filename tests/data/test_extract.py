"""Archives are unpacked exactly, and never outside their folder."""

from __future__ import annotations

import contextlib
import io
import stat
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given, strategies as st

from matlib.data.extract import ArchiveError, extract

Kind = Literal["zip", "tar"]
Members = Sequence[tuple[str, bytes]]
KINDS: tuple[Kind, ...] = ("zip", "tar")


def make_zip(path: Path, members: Members) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return path


def make_tar(path: Path, members: Members) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def make(kind: Kind, path: Path, members: Members) -> Path:
    return make_zip(path, members) if kind == "zip" else make_tar(path, members)


def files_below(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("kind", KINDS)
def test_all_members_come_out_byte_for_byte(tmp_path: Path, kind: Kind) -> None:
    members = [("a.txt", b"a"), ("images/1.jpg", bytes(range(256))), ("./images/é.jpg", b"")]
    archive = make(kind, tmp_path / "x", members)
    assert extract(archive, kind, tmp_path / "out") == 3
    expected = {"a.txt": b"a", "images/1.jpg": bytes(range(256)), "images/é.jpg": b""}
    assert files_below(tmp_path / "out") == expected


@pytest.mark.parametrize("kind", KINDS)
def test_only_what_is_wanted_comes_out(tmp_path: Path, kind: Kind) -> None:
    members = [("im/1", b"1"), ("im/2", b"2"), ("imx/3", b"3"), ("c.json", b"4"), ("d", b"5")]
    archive = make(kind, tmp_path / "x", members)
    assert extract(archive, kind, tmp_path / "out", ["im", "c.json"]) == 3
    assert set(files_below(tmp_path / "out")) == {"im/1", "im/2", "c.json"}


EVIL = ["../evil", "/evil", "a/../../evil", "..", "a\\..\\evil", "C:/evil", "a\nb", "/"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", EVIL)
def test_member_that_points_outside_refuses_the_archive(
    tmp_path: Path, kind: Kind, name: str
) -> None:
    archive = make(kind, tmp_path / "in.archive", [(name, b"evil")])
    with pytest.raises(ArchiveError, match=r"in\.archive: member .* outside its folder"):
        extract(archive, kind, tmp_path / "below/out", ["wanted"])
    assert files_below(tmp_path) == {"in.archive": archive.read_bytes()}


@given(name=st.text(st.sampled_from("ab./\\: \x00\n~é"), min_size=1, max_size=12))
def test_no_name_escapes(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    for kind in KINDS:
        base = tmp_path_factory.mktemp("escape")
        archive = make(kind, base / "x", [(name, b"content")])
        with contextlib.suppress(ArchiveError):
            extract(archive, kind, base / "in/out")
        written = {p for p in base.rglob("*") if p.is_file()} - {archive}
        assert all(p.is_relative_to(base / "in/out") for p in written)


@pytest.mark.parametrize(
    "type_",
    [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE],
)
def test_tar_links_and_devices_are_refused(tmp_path: Path, type_: bytes) -> None:
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as archive:
        info = tarfile.TarInfo("images")
        info.type = type_
        info.linkname = "../../etc"
        archive.addfile(info)
    with pytest.raises(ArchiveError, match="link or device"):
        extract(path, "tar", tmp_path / "out")


@pytest.mark.parametrize("mode", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO])
def test_zip_links_and_devices_are_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "x.zip"
    info = zipfile.ZipInfo("images")
    info.external_attr = (mode | 0o777) << 16
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(info, "../../etc")
    with pytest.raises(ArchiveError, match="link or device"):
        extract(path, "zip", tmp_path / "out")


def test_no_special_mode_of_the_archive_is_applied(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as archive:
        info = tarfile.TarInfo("run.sh")
        info.mode = 0o4777
        archive.addfile(info, io.BytesIO(b""))
    extract(path, "tar", tmp_path / "out")
    assert (tmp_path / "out/run.sh").stat().st_mode & 0o7022 == 0


@pytest.mark.parametrize("kind", KINDS)
def test_member_that_is_there_twice_is_refused(tmp_path: Path, kind: Kind) -> None:
    twice = make(kind, tmp_path / "x", [("a", b"1"), ("./a", b"2")])
    with pytest.raises(ArchiveError, match="there twice"):
        extract(twice, kind, tmp_path / "out")
    below_a_file = make(kind, tmp_path / "y", [("a", b"1"), ("a/b", b"2")])
    with pytest.raises(ArchiveError, match="there twice"):
        extract(below_a_file, kind, tmp_path / "out2")


@pytest.mark.parametrize("kind", KINDS)
def test_decompression_bomb_stops_at_the_bound(tmp_path: Path, kind: Kind) -> None:
    archive = make(kind, tmp_path / "x", [("a", bytes(3000)), ("b", bytes(3000))])
    with pytest.raises(ArchiveError, match="decompression bomb"):
        extract(archive, kind, tmp_path / "out", max_bytes=5999)
    assert files_below(tmp_path / "out") == {}
    assert extract(archive, kind, tmp_path / "fits", max_bytes=6000) == 2


def test_ratio_bounds_what_a_small_archive_may_become_by_default(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "x", [("zeros", bytes(80 << 20))])
    assert archive.stat().st_size < 100_000
    with pytest.raises(ArchiveError, match="decompression bomb"):
        extract(archive, "zip", tmp_path / "out")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("keep", [0, 10, 60, -30])
def test_truncated_archive_is_refused_by_name(tmp_path: Path, kind: Kind, keep: int) -> None:
    content = bytes(i * i % 251 for i in range(5000))
    archive = make(kind, tmp_path / "cut.archive", [("a", content), ("b", content)])
    archive.write_bytes(archive.read_bytes()[:keep])
    with pytest.raises(ArchiveError, match=r"cut\.archive: damaged"):
        extract(archive, kind, tmp_path / "out")


def test_flipped_bit_is_caught_by_the_checksum(tmp_path: Path) -> None:
    content = bytes(i * i % 251 for i in range(5000))
    archive = tmp_path / "x.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as opened:
        opened.writestr("a", content)
    data = bytearray(archive.read_bytes())
    data[2000] ^= 1
    archive.write_bytes(data)
    with pytest.raises(ArchiveError, match="damaged"):
        extract(archive, "zip", tmp_path / "out")


def test_html_page_in_place_of_an_archive_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "x.zip"
    page.write_text("<html>404</html>")
    for kind in KINDS:
        with pytest.raises(ArchiveError, match="damaged archive"):
            extract(page, kind, tmp_path / f"out-{kind}")
