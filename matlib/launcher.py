"""What a launcher such as torchrun says in environment variables; an empty one says nothing."""

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


def forget_empty(variables: MutableMapping[str, str] = os.environ) -> None:
    """Remove variables that are set to nothing: accelerate would read them as numbers."""
    for name in (*GROUP_VARIABLES, "LOCAL_WORLD_SIZE"):
        if not variables.get(name, "unset").strip():
            del variables[name]
