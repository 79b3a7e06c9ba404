"""Unpack an archive from the internet without letting it write anywhere else.

`zipfile` and `tarfile` (with its filter for data) write; before they do, every member is looked
at: no absolute paths, no `..`, no links, no devices, no encrypted or sparse members, no member
twice, and a bound on what comes out.
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
from typing import Any, Literal

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
    UnicodeError,
    OSError,
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

    Every member is checked, wanted or not, before the first is written: one bad member refuses
    the archive. What a damaged one has given until then stays for the caller to delete.

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
    try:
        if kind == "zip":
            with zipfile.ZipFile(archive) as opened:
                chosen = _chosen(archive, _zip_members(opened), wanted, max_bytes)
                opened.extractall(into, chosen)
        else:
            with tarfile.open(archive) as opened_tar:
                chosen = _chosen(archive, _tar_members(opened_tar), wanted, max_bytes)
                opened_tar.extractall(into, chosen, filter="data")
    except (FileExistsError, NotADirectoryError) as error:
        raise ArchiveError(f"{archive}: member {error.filename!r} is there twice") from error
    except _DAMAGE as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk's trouble; decompressors raise OSError without a number
        raise ArchiveError(
            f"{archive}: damaged archive ({error}); delete it and fetch it again"
        ) from error
    return len(chosen)


Listed = Iterator[tuple[Any, str, int, str]]
"""Members with their names, their sizes unpacked (no more is ever written), and what they are."""


def _zip_members(opened: zipfile.ZipFile) -> Listed:
    for info in opened.infolist():
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            what = "a link or device"
        elif info.flag_bits & 0x1:
            what = "encrypted"
        else:
            what = "folder" if info.orig_filename.endswith("/") else "file"
        yield info, info.orig_filename, info.file_size, what


def _tar_members(opened: tarfile.TarFile) -> Listed:
    for member in opened:
        is_plain = (member.isreg() or member.isdir()) and not member.issparse()
        what = "folder" if member.isdir() else "file"
        yield member, member.name, member.size, what if is_plain else "a link or device"


def _chosen(archive: Path, members: Listed, wanted: Sequence[str], max_bytes: int) -> list[Any]:
    """The wanted files, once all members are found to be harmless."""
    found: dict[str, Any] = {}
    left = max_bytes
    for count, (member, raw, size, what) in enumerate(members):
        if count == _MAX_MEMBERS:
            raise ArchiveError(f"{archive}: more than {_MAX_MEMBERS:,} members; refused")
        name = _safe_name(raw, archive)
        if what not in ("file", "folder"):
            raise ArchiveError(f"{archive}: member {name!r} is {what}; refused")
        is_wanted = not wanted or any(name == w or name.startswith(f"{w}/") for w in wanted)
        if what == "folder" or not is_wanted:
            continue
        if name in found or name == ".":
            raise ArchiveError(f"{archive}: member {name!r} is there twice")
        found[name], left = member, left - max(size, 0)
        if left < 0:
            raise ArchiveError(
                f"{archive}: unpacks to more than allowed (a decompression bomb?); "
                "get the file from its official source again"
            )
    return list(found.values())


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
