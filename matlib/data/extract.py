"""Unpack an archive from the internet without letting it write anywhere else.

Own checks on top of the standard library's: no absolute paths, no `..`, no links, no devices,
no encrypted or sparse members, no member twice, and a bound on what comes out. Files are
written by us from the member's bytes, so no owner, mode or time of the archive is applied.
"""

from __future__ import annotations

import lzma
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, Literal

_CHUNK_BYTES = 1 << 20
_MAX_MEMBERS = 2_000_000
# JSON shrinks about 5 to 1 and photographs not at all; 100 to 1 is not data.
_MAX_RATIO = 100
_SMALL_BYTES = 1 << 26
_DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    NotImplementedError,
    RuntimeError,
    UnicodeError,
)


class ArchiveError(ValueError):
    """An archive that is damaged or tries what no data set needs; the message names it."""


def extract(
    archive: Path,
    kind: Literal["zip", "tar"],
    into: Path,
    wanted: Sequence[str] = (),
    max_bytes: int | None = None,
) -> int:
    """Unpack the files of `archive` into the new folder `into`.

    Every member is checked, wanted or not: one bad member refuses the archive. What was
    unpacked until then stays for the caller to delete.

    Args:
        archive: zip, or tar with any compression that `tarfile` knows.
        kind: `zip` or `tar`.
        into: folder to create; must not exist.
        wanted: paths inside the archive, files or folders, to unpack; all if empty.
        max_bytes: most that may come out; by default 100 times the archive (and 64 MiB).

    Returns:
        Number of files written.

    Raises:
        ArchiveError: damaged, too large unpacked, or unsafe.
    """
    if max_bytes is None:
        max_bytes = _MAX_RATIO * archive.stat().st_size + _SMALL_BYTES
    into.mkdir(parents=True)
    members = _zip_members(archive) if kind == "zip" else _tar_members(archive, into)
    n_files = 0
    left = max_bytes
    try:
        for name, source in members:
            if wanted and not any(name == w or name.startswith(f"{w}/") for w in wanted):
                continue
            with source:
                left -= _write(source, into, name, left, archive)
            n_files += 1
    except (*_DAMAGE, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk's trouble; decompressors raise OSError without a number
        raise ArchiveError(
            f"{archive}: damaged archive ({error}); delete it and fetch it again"
        ) from error
    return n_files


def _write(source: IO[bytes], into: Path, name: str, left: int, archive: Path) -> int:
    target = into / name
    if not target.resolve().is_relative_to(into.resolve()):
        raise ArchiveError(f"{archive}: member {name!r} would be written outside its folder")
    n_bytes = 0
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        output = target.open("xb")
    except (FileExistsError, NotADirectoryError) as error:
        raise ArchiveError(f"{archive}: member {name!r} is there twice") from error
    with output:
        while chunk := source.read(_CHUNK_BYTES):
            n_bytes += len(chunk)
            if n_bytes > left:
                raise ArchiveError(
                    f"{archive}: unpacks to more than allowed (a decompression bomb?); "
                    "get the file from its official source again"
                )
            output.write(chunk)
    return n_bytes


def _zip_members(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    with zipfile.ZipFile(archive) as opened:
        infos = opened.infolist()
        _check_count(len(infos), archive)
        for info in infos:
            name = _safe_name(info.orig_filename, archive)
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise ArchiveError(f"{archive}: member {name!r} is a link or device; refused")
            if info.flag_bits & 0x1:
                raise ArchiveError(f"{archive}: member {name!r} is encrypted; refused")
            if not info.is_dir():
                yield name, opened.open(info)


def _tar_members(archive: Path, into: Path) -> Iterator[tuple[str, IO[bytes]]]:
    with tarfile.open(archive) as opened:
        for count, member in enumerate(opened):
            _check_count(count, archive)
            name = _safe_name(member.name, archive)
            if not (member.isreg() or member.isdir()) or member.issparse():
                raise ArchiveError(f"{archive}: member {name!r} is a link or device; refused")
            try:
                tarfile.data_filter(member, str(into))
            except tarfile.FilterError as error:
                raise ArchiveError(f"{archive}: member {name!r} refused: {error}") from error
            source = opened.extractfile(member)
            if source is not None:
                yield name, source


def _check_count(n_members: int, archive: Path) -> None:
    if n_members > _MAX_MEMBERS:
        raise ArchiveError(f"{archive}: more than {_MAX_MEMBERS:,} members; refused")


def _safe_name(raw: str, archive: Path) -> str:
    """The member's path in plain form, or ArchiveError."""
    path = PurePosixPath(raw)
    if (
        not raw
        or path.is_absolute()
        or ".." in path.parts
        or "\\" in raw
        or re.match(r"[A-Za-z]:", raw)
        or not raw.isprintable()
    ):
        raise ArchiveError(f"{archive}: member {raw!r} would be written outside its folder")
    return str(path)
