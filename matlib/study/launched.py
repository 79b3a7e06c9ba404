"""A study under torchrun: each process makes its own rows on its own GPU, the first reports.

The models of a study fit on one GPU and there are many of them, so rows are what processes
share: nothing is exchanged between them but finished artefacts, whose locks in the results
folder let one make what several need (the base model, the candidate words) while others wait.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass, replace
from pathlib import Path

from matlib.config.profile import load_profile
from matlib.launcher import GROUP_VARIABLES, n_processes
from matlib.study.pipeline import run_shard, run_study
from matlib.study.runs import Study
from matlib.study.tasks import all_rows, is_done, stages


@dataclass(frozen=True)
class Launched:
    """This process among those that torchrun started.

    Attributes:
        rank, count: over all machines.
        local_rank: on this machine; the number of its GPU.
    """

    rank: int
    count: int
    local_rank: int


def launched(variables: MutableMapping[str, str] = os.environ) -> Launched | None:
    """What torchrun says; None for a process that stands alone.

    Raises:
        ValueError: several processes without their numbers, or a variable that holds none.
    """
    count = n_processes(variables=variables)
    if count < 2:
        return None
    try:
        rank, local_rank = (int(variables[name]) for name in ("RANK", "LOCAL_RANK"))
    except KeyError as missing:
        raise ValueError(
            f"WORLD_SIZE is {count} but {missing} is not set: start with torchrun, which sets both"
        ) from None
    except ValueError as error:
        raise ValueError(f"RANK and LOCAL_RANK are numbers of processes: {error}") from error
    if not 0 <= local_rank <= rank < count:
        raise ValueError(
            f"RANK is expected below WORLD_SIZE {count} and LOCAL_RANK not above RANK; got "
            f"{rank} and {local_rank}: start with torchrun, which sets all three"
        )
    return Launched(rank, count, local_rank)


def stand_alone(me: Launched, variables: MutableMapping[str, str] = os.environ) -> None:
    """Train alone from here on, seeing one GPU only; before CUDA is touched."""
    for name in GROUP_VARIABLES:
        variables.pop(name, None)
    visible = variables.get("CUDA_VISIBLE_DEVICES", "")
    if visible:
        devices = visible.split(",")
        variables["CUDA_VISIBLE_DEVICES"] = devices[me.local_rank % len(devices)]
    else:  # without GPUs the number means nothing
        variables["CUDA_VISIBLE_DEVICES"] = str(me.local_rank)


def run_launched(
    me: Launched,
    profile: str,
    results: Path,
    data: Path | None = None,
    limit: int = 0,
    *,
    publish: bool = False,
    workers: int = 0,
    say: Callable[[str], None] = print,
    pause: float = 10.0,
) -> None:
    """This process's rows; the first process then waits for all, runs the notebooks and reports.

    A process that fails makes torchrun stop the others; the same command goes on afterwards.

    Args:
        results: a folder that all processes see, with working file locks.
        workers: runs at once in each process; 0: one.
        pause: seconds between two looks at what the others have finished.
    """
    stand_alone(me)
    shard = (me.rank + 1, me.count)
    run_shard(profile, results, data, limit, shard, workers=workers or 1, say=say)
    if me.rank:
        return
    study = Study(load_profile(profile, limit), results, data)
    shared = replace(all_rows(study.profile), sources=())  # left to the process that reports
    waiting = [task for stage in stages(study.profile, shared) for task in stage]
    while waiting := [task for task in waiting if not is_done(study, task)]:
        time.sleep(pause)
    run_study(profile, results, data, limit, publish=publish, workers=1, say=say)
