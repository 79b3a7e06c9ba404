"""What a data set consists of (`data_manifests/<name>.yaml`), and whether it is on disk as said.

Presence, bytes, sha256 and file counts are compared; `matlib.data.fetching` gets what is missing.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from matlib.data.strict import UnreadableError, read_yaml
from matlib.files import file_hash

MANIFESTS = Path(__file__).resolve().parents[2] / "data_manifests"


class ManifestError(ValueError):
    """A manifest that is not of the form, or data that are not what their manifest says."""


def _below_root(path: str) -> str:
    parts = PurePosixPath(path)
    if not path or parts.is_absolute() or ".." in parts.parts or "\\" in path or ":" in path:
        raise ValueError(f"must be a relative path below the data set's folder, got {path!r}")
    return path


def _allowed_url(url: str) -> str:
    if urlsplit(url).scheme not in ("https", "http", "file"):
        raise ValueError(f"address must be https, http or file; got {url!r}")
    return url


RelativePath = Annotated[str, AfterValidator(_below_root)]
Url = Annotated[str, AfterValidator(_allowed_url)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Content(_Strict):
    """A file or folder that must exist once everything is in place.

    Attributes:
        path: below the data set's folder.
        alternatives: other places where the same thing may be found on disk.
        n_files: for a folder, the least number of files in it; None if unknown.
        bytes, sha256: for a file; None if unknown.
    """

    path: RelativePath
    alternatives: tuple[RelativePath, ...] = ()
    n_files: Count | None = None
    bytes: Count | None = None
    sha256: Sha256 | None = None


class RemoteFile(_Strict):
    """A file to download, or to bring by hand where `url` is null.

    Attributes:
        path: where it is saved, below the data set's folder.
        manual: what a person has to do where there is no address.
        extract: kind of archive, or `none`.
        provides: what of it is used; of an archive nothing else is unpacked.
    """

    path: RelativePath
    url: Url | None
    manual: str | None = None
    bytes: Count | None
    sha256: Sha256 | None
    extract: Literal["zip", "tar", "none"] = "none"
    provides: tuple[Content, ...] = ()

    @model_validator(mode="after")
    def _is_reachable(self) -> Self:
        if self.url is None and not self.manual:
            raise ValueError(f"{self.path}: a file without url needs `manual` instructions")
        if self.url is not None and (self.bytes is None or self.sha256 is None):
            raise ValueError(f"{self.path}: what is downloaded is checked by bytes and sha256")
        if (self.extract == "none") == bool(self.provides):
            raise ValueError(f"{self.path}: `provides` belongs to archives, and to each of them")
        return self

    @model_validator(mode="after")
    def _is_file_or_folder(self) -> Self:
        for content in self.provides:
            if content.n_files is not None and (content.bytes or content.sha256):
                raise ValueError(f"{content.path}: n_files is for folders, bytes for files")
        return self

    @property
    def contents(self) -> tuple[Content, ...]:
        """What must be on disk in the end: the unpacked parts, or the file itself."""
        if self.provides:
            return self.provides
        return (Content(path=self.path, bytes=self.bytes, sha256=self.sha256),)


class SplitSize(_Strict):
    images: Count
    captions: Count


class Manifest(_Strict):
    """One data set.

    Attributes:
        kind: `generated` data are made by the code and have no files to fetch.
        terms: what a user has to accept before anything is fetched; None if nothing.
        retrieved: day on which a maintainer last downloaded these very files; null = never.
        facts_from: where addresses, sizes, hashes and counts were taken from.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
    title: str
    kind: Literal["files", "generated"]
    homepage: Url | None
    licence: str
    terms: str | None
    citation: str
    splits: dict[str, SplitSize]
    files: tuple[RemoteFile, ...]
    retrieved: datetime.date | None
    facts_from: str
    notes: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _has_files_unless_generated(self) -> Self:
        if (self.kind == "files") != bool(self.files):
            raise ValueError("kind `files` needs files; kind `generated` has none")
        return self


def manifest_names(manifests: Path = MANIFESTS) -> tuple[str, ...]:
    """Names of the data sets that have a manifest."""
    return tuple(sorted(path.stem for path in manifests.glob("*.yaml")))


def load_manifest(name: str, manifests: Path = MANIFESTS) -> Manifest:
    """Read and check `<manifests>/<name>.yaml`.

    Raises:
        ManifestError: unknown name, or a file that is not a manifest.
    """
    if name not in manifest_names(manifests):
        raise ManifestError(
            f"no data set {name!r}; known are {', '.join(manifest_names(manifests)) or 'none'} "
            f"(the *.yaml in {manifests})"
        )
    path = manifests / f"{name}.yaml"
    try:
        manifest = Manifest.model_validate(read_yaml(path))
    except (UnreadableError, ValidationError) as error:
        raise ManifestError(f"{path}: not a valid manifest: {error}") from error
    if manifest.name != name:
        raise ManifestError(f"{path}: its name is {manifest.name!r}, expected {name!r}")
    return manifest


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
        A report with every part's status; it raises for no missing or wrong file.
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
    sha256 = file_hash(path)
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
