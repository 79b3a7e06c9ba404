"""How much memory images may take."""

from __future__ import annotations

import os
from pathlib import Path

from matlib.launcher import n_processes

GIBIBYTE = 2**30
BUDGET_VARIABLE = "MATLIB_IMAGE_GIB"
SHARE = 0.5
"""Of the memory that is free. The rest is for models, activations and the system's file cache,
from which images that do not fit are read again and again. Source: ours."""


def image_budget() -> int:
    """Bytes that images held in memory may take in this process.

    `MATLIB_IMAGE_GIB` where it is set (0: decode everything when it is needed); else half of
    what is free, shared with the other processes that torchrun started here.

    Raises:
        ValueError: the variable is no number of 0 or more; LOCAL_WORLD_SIZE is no count.
    """
    asked = os.environ.get(BUDGET_VARIABLE, "")
    if asked:
        try:
            gibibytes = float(asked)
        except ValueError:
            gibibytes = -1.0
        if not 0 <= gibibytes < float("inf"):
            raise ValueError(f"{BUDGET_VARIABLE} is a number of GiB, 0 or more; got {asked!r}")
        return int(gibibytes * GIBIBYTE)
    return int(SHARE * free_memory() / n_processes("LOCAL_WORLD_SIZE"))


def free_memory() -> int:
    """Bytes this process could still take: of the machine, or of its container if that is less."""
    return min(_free_on_machine(), _free_in_container())


def _free_on_machine() -> int:
    info = Path("/proc/meminfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    try:  # elsewhere half of what there is: what is free is not told everywhere
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    except (AttributeError, ValueError, OSError):
        return 4 * GIBIBYTE


def _free_in_container(group: Path = Path("/sys/fs/cgroup")) -> int:
    """Limit less use of cgroup v2; without a limit, more than any machine has.

    Its use counts the file cache, which is given back on demand and is taken off.
    """
    try:
        limit, used = (
            (group / f"memory.{name}").read_text(encoding="utf-8") for name in ("max", "current")
        )
        lines = (group / "memory.stat").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 2**62
    if limit.strip() == "max":
        return 2**62
    cache = sum(int(line.split()[1]) for line in lines if line.startswith("inactive_file "))
    return max(0, int(limit) - int(used) + cache)
