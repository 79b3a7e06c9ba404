"""Is a data set on disk what its manifest says? Presence, bytes, sha256 and file counts."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from matlib.data.manifest import MANIFESTS, Content, ManifestError, load_manifest

_CHUNK_BYTES = 1 << 20

State = Literal[
    "ok", "unverified", "missing", "wrong kind", "wrong size", "wrong sha256", "too few files"
]


@dataclass(frozen=True)
class FileStatus:
    """One file or folder: `unverified` is there, but nothing is known to check it by."""

    path: str
    state: State
    detail: str = ""

    @property
    def is_usable(self) -> bool:
        return self.state in ("ok", "unverified")

    def __str__(self) -> str:
        return f"{self.state:<13}  {self.path}" + (f"  ({self.detail})" if self.detail else "")


@dataclass(frozen=True)
class VerifyReport:
    """Status of every part of a data set below `root`."""

    name: str
    root: Path
    statuses: tuple[FileStatus, ...]

    @property
    def is_complete(self) -> bool:
        return all(status.is_usable for status in self.statuses)

    def require_complete(self) -> None:
        """Raises ManifestError with every status if anything is missing or wrong."""
        if not self.is_complete:
            raise ManifestError(
                f"{self}\n`python -m matlib data fetch {self.name}` gets what is missing; "
                "delete what is wrong first"
            )

    def __str__(self) -> str:
        verdict = "complete" if self.is_complete else "NOT complete"
        lines = [f"{self.name} in {self.root}: {verdict}", *map(str, self.statuses)]
        return "\n  ".join(lines)


def verify(name: str, root: Path, manifests: Path = MANIFESTS) -> VerifyReport:
    """Compare what lies in `root` with the manifest: presence, bytes, sha256, file counts.

    Args:
        name: data set.
        root: folder of this data set.

    Returns:
        A report with every part's status; it raises for no missing or wrong file (call
        `require_complete()` for that).
    """
    manifest = load_manifest(name, manifests)
    wanted = [content for file in manifest.files for content in file.contents]
    return VerifyReport(name, Path(root), tuple(check(Path(root), c) for c in wanted))


def check(root: Path, content: Content) -> FileStatus:
    """Status of one file or folder, at its path or at the first alternative that exists."""
    places = (content.path, *content.alternatives)
    place = next((p for p in places if (root / p).exists()), None)
    if place is None:
        return FileStatus(content.path, "missing")
    path = root / place
    if path.is_dir() and content.bytes is None and content.sha256 is None:
        return _check_folder(path, place, content)
    if path.is_dir() or content.n_files is not None:
        kind = "folder" if path.is_dir() else "file"
        return FileStatus(place, "wrong kind", f"it is a {kind}")
    n_bytes = path.stat().st_size
    if content.bytes is not None and n_bytes != content.bytes:
        return FileStatus(place, "wrong size", f"{n_bytes:,} bytes, expected {content.bytes:,}")
    if content.sha256 is None:
        return FileStatus(place, "unverified", f"{n_bytes:,} bytes, no sha256 known")
    sha256 = sha256_of(path)
    if sha256 != content.sha256:
        return FileStatus(place, "wrong sha256", f"{sha256}, expected {content.sha256}")
    return FileStatus(place, "ok", f"{n_bytes:,} bytes")


def _check_folder(path: Path, place: str, content: Content) -> FileStatus:
    n_files = sum(1 for _ in _visible_files(path))
    if content.n_files is None:
        return FileStatus(place, "unverified", f"{n_files:,} files, expected number unknown")
    if n_files < content.n_files:
        return FileStatus(
            place, "too few files", f"{n_files:,} files, expected at least {content.n_files:,}"
        )
    return FileStatus(place, "ok", f"{n_files:,} files")


def _visible_files(folder: Path) -> Iterator[Path]:
    # Thumbs and .DS_Store that a desktop adds are no part of the data.
    return (p for p in folder.iterdir() if p.is_file() and not re.match(r"\.|Thumbs\.db$", p.name))


def sha256_of(path: Path) -> str:
    """Hex digest of a file of any size."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
