"""Writing that survives a kill and a full disk."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

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
