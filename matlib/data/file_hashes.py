"""sha256 of many files, computed again only for those that may have changed.

Which photographs a number was measured on is known by their content alone, and reading tens of
thousands of files for every command would take minutes. So hashes are kept with the size, the
times and the inode that a file had; any write changes its times.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from matlib.files import file_hash

RACY_NS = 2 * 10**9
"""A file that was written less than this before it was read may be written again within the same
tick of its file system's clock (2 s on FAT), and would look unchanged: its hash is not kept."""

Signature = tuple[int, int, int, int]


class FileHashes:
    """Hashes of files, kept in a JSON file from one process to the next.

    Args:
        kept_in: the file, made if missing; None keeps nothing. One that is damaged is made
            again, one that cannot be written (a read-only disk) costs time only.
    """

    def __init__(self, kept_in: Path | None) -> None:
        self._kept_in = kept_in
        self._known = _read(kept_in) if kept_in is not None else {}

    def of(self, paths: Sequence[Path]) -> list[str]:
        """sha256 of each file, hexadecimal.

        Raises:
            OSError: a file cannot be read.
        """
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            found = list(pool.map(self._one, paths))
        fresh = {
            str(path.absolute()): (signature, sha256)
            for path, (signature, sha256, is_settled) in zip(paths, found, strict=True)
            if is_settled and self._known.get(str(path.absolute())) != (signature, sha256)
        }
        if fresh:
            self._known.update(fresh)
            self._keep()
        return [sha256 for _, sha256, _ in found]

    def _one(self, path: Path) -> tuple[Signature, str, bool]:
        """Signature, hash, and whether a later change is sure to change the signature."""
        began, signature = time.time_ns(), _signature(path)
        known = self._known.get(str(path.absolute()))
        if known is not None and known[0] == signature:
            return *known, True
        is_settled = max(signature[1:3]) + RACY_NS < began
        return signature, file_hash(path), is_settled

    def _keep(self) -> None:
        if self._kept_in is None:
            return
        beside = self._kept_in.with_name(f".{self._kept_in.name}.{os.getpid()}")
        content = {path: [*signature, sha] for path, (signature, sha) in self._known.items()}
        try:
            self._kept_in.parent.mkdir(parents=True, exist_ok=True)
            beside.write_text(json.dumps(content), encoding="utf-8")
            beside.replace(self._kept_in)
        except OSError:  # no room, or no right to write
            with contextlib.suppress(OSError):
                beside.unlink(missing_ok=True)


def _signature(path: Path) -> Signature:
    """Size, time of the last change of content and of anything, inode.

    The second time cannot be set by hand, so that copying an old time onto a new file shows.
    """
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino


def _read(path: Path) -> dict[str, tuple[Signature, str]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {
            name: ((int(size), int(changed), int(touched), int(inode)), str(sha256))
            for name, (size, changed, touched, inode, sha256) in content.items()
        }
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return {}
