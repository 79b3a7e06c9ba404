"""What torchrun, Slurm and Kubernetes say in environment variables; an empty one says nothing."""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping

GROUP_VARIABLES = (
    "RANK", "WORLD_SIZE", "LOCAL_RANK", "GROUP_RANK", "ROLE_RANK", "ROLE_WORLD_SIZE",
    "GROUP_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT",
)  # fmt: skip
"""What makes accelerate open a process group. LOCAL_WORLD_SIZE stays: it shares out memory."""


def n_processes(name: str = "WORLD_SIZE", variables: Mapping[str, str] = os.environ) -> int:
    """Processes that were started together: in all, or (`LOCAL_WORLD_SIZE`) on this machine.

    Raises:
        ValueError: the variable holds no count.
    """
    text = variables.get(name, "").strip() or "1"
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"{name} is the number of processes, 1 or more; got {text!r}: unset it")
    return int(text)


def place(name: str = "RANK", variables: Mapping[str, str] = os.environ) -> int:
    """This process's number among them, from 0: of all, or (`LOCAL_RANK`) of this machine's."""
    return int(variables.get(name, "").strip() or "0")


def forget_empty(variables: MutableMapping[str, str] = os.environ) -> None:
    """Remove variables that are set to nothing: accelerate would read them as numbers."""
    for name in (*GROUP_VARIABLES, "LOCAL_WORLD_SIZE"):
        if not variables.get(name, "unset").strip():
            del variables[name]


SLURM = ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_MIN")
KUBERNETES = ("JOB_COMPLETION_INDEX", "JOB_COMPLETIONS")
"""The first is set in each pod of an indexed job, the second by the job's manifest: Kubernetes
itself tells no pod how many there are."""


def share_of_array(variables: Mapping[str, str] = os.environ) -> tuple[int, int] | None:
    """This process's share (i of n, from 1) in an array of Slurm or Kubernetes; None outside one.

    Raises:
        ValueError: half of an array's variables are set, or they hold no number of an array.
    """
    for names in (SLURM, KUBERNETES):
        told = {name: text for name in names if (text := variables.get(name, "").strip())}
        if not told:
            continue
        if missing := [name for name in names if name not in told]:
            raise ValueError(
                f"{', '.join(told)} is set but {' and '.join(missing)} is not: set it to the "
                "array's, or give --shard i/n"
            )
        index, count, first = [*told.values(), "0"][:3]
        step = variables.get("SLURM_ARRAY_TASK_STEP", "").strip() if names is SLURM else ""
        try:
            number, rest = divmod(int(index) - int(first), int(step or "1"))
            if rest == 0 and 0 <= number < int(count):
                return number + 1, int(count)
        except (ValueError, ZeroDivisionError):  # no numbers
            pass
        raise ValueError(
            f"{', '.join(map('='.join, told.items()))} is no place in an array whose numbers "
            "follow one another, such as --array=1-4: give --shard i/n"
        )
    return None
