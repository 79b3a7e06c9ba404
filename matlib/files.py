"""Writing that survives a kill and a full disk, and whether a folder's locks can be trusted."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, SoftFileLock, Timeout

MIN_FREE_BYTES = 100 * 2**20
"""Less free space than this is refused before work starts rather than found out after it."""


class DiskFullError(OSError):
    """No space for an artefact; nothing half-written is left."""


@contextmanager
def whole_or_nothing(making: Path, name: str) -> Iterator[None]:
    """Remove `making` when the block fails, and say plainly when the disk is full."""
    try:
        yield
    except BaseException as error:
        shutil.rmtree(making, ignore_errors=True)
        if _is_disk_full(error) and not isinstance(error, DiskFullError):
            raise DiskFullError(
                errno.ENOSPC,
                f"no space left on disk while making {name}; nothing half-written is left. "
                "Free some space and run the same command again: what is finished is kept",
            ) from error
        raise


def _is_disk_full(error: BaseException | None) -> bool:
    """Also for writers in other languages (safetensors), which give a text and no number."""
    while error is not None:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            return True
        if "No space left on device" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def check_space(folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if free < MIN_FREE_BYTES:
        raise DiskFullError(
            errno.ENOSPC,
            f"at least {MIN_FREE_BYTES / 2**20:.0f} MB of free disk are expected before a run "
            f"starts, {free / 2**20:.0f} MB are left; free some space and run the command again",
        )


def write_durably(path: Path, content: str | bytes) -> None:
    """Write beside, sync, move into place; text as UTF-8.

    A file that holds the content already is left alone, so that a finished study can be shown
    from a disk that is only read.

    Raises:
        DiskFullError: no space; the file is as it was, and nothing is left beside it.
    """
    data = content.encode() if isinstance(content, str) else content
    if path.is_file() and path.read_bytes() == data:
        return
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with beside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except BaseException as error:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
        if _is_disk_full(error):
            raise DiskFullError(
                errno.ENOSPC,
                f"no space left on disk while writing {path.name}, which is as it was before. "
                "Free some space and run the same command again: what is finished is kept",
            ) from error
        raise


def file_hash(path: Path) -> str:
    """sha256 of a file's bytes, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_tree(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        else:
            sync_folder(path)
    sync_folder(folder)


def sync_folder(folder: Path) -> None:
    if os.name == "posix":  # elsewhere folders cannot be opened
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


LOCAL_LOCKS = {
    "nfs": ("nolock", "local_lock=all", "local_lock=flock"),
    "nfs4": ("local_lock=all", "local_lock=flock"),
    "lustre": ("localflock",),
    "cifs": ("nobrl",),
    "smb3": ("nobrl",),
    "fuse.sshfs": ("rw",),  # whatever its options
}
"""Options of shared file systems under which a lock is not seen by other machines."""


def lock_fault(folder: Path, mounts: Path = Path("/proc/self/mounts")) -> str:
    """What is wrong with file locks in a folder that exists; "" where they hold, as far as seen.

    Args:
        mounts: the system's table of mounted file systems; where it has none, other machines
            are not thought of.
    """
    path = folder / f".locks.{os.getpid()}"
    first, second = FileLock(path), FileLock(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it falls back is said below
            first.acquire(timeout=0)
        if isinstance(first, SoftFileLock):
            return "there is no flock here, and the lock of a killed process stays"
        with suppress(Timeout), second.acquire(timeout=0):
            return "two processes can hold one lock at the same time"
    except (OSError, NotImplementedError) as error:
        return f"a lock cannot be taken ({error})"
    finally:
        first.release(force=True)
        path.unlink(missing_ok=True)
    table = mounts.read_text(encoding="utf-8", errors="replace") if mounts.is_file() else ""
    kind, options = _mounted(folder.resolve(), table)
    if any(option in options for option in LOCAL_LOCKS.get(kind, ())):
        return f"this {kind} folder is mounted so that other machines do not see its locks"
    return ""


def _mounted(folder: Path, table: str) -> tuple[str, list[str]]:
    """Kind and options of the file system that a folder lies on; the last mounted counts."""
    found, depth = ("", [""]), -1
    for line in table.splitlines():
        _, place, kind, options, *_ = line.split(" ")
        place = re.sub(r"\\(\d{3})", lambda code: chr(int(code[1], 8)), place)
        if folder.is_relative_to(place) and len(Path(place).parts) >= depth:
            found, depth = (kind, options.split(",")), len(Path(place).parts)
    return found
