"""Jobs of Slurm, one after the other, by submitit.

submitit hands a job its function and arguments as a pickle in the queue's folder, which only its
owner can write to; here they are names, paths and numbers.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

DAY = 24 * 60
DEFAULTS = {"gpus-per-node": "1", "time": str(DAY), "requeue": True, "kill-on-invalid-dep": "yes"}
"""Of sbatch. Slurm puts a job whose node fails, or that is preempted, into the queue again."""

MAX_TIMEOUTS = 100
"""So often a job that reaches its time limit goes on where it was."""


@dataclass(frozen=True)
class Job:
    """A call as a job of Slurm, which may begin again at any time: what is finished is kept."""

    run: Callable[..., object]
    arguments: tuple[Any, ...]
    options: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self) -> None:
        # where Slurm binds no process to its cores, they are not all this job's
        os.environ.setdefault("LOKY_MAX_CPU_COUNT", os.environ.get("SLURM_CPUS_PER_TASK", "1"))
        self.run(*self.arguments, **self.options)

    def checkpoint(self) -> Any:
        """What submitit puts into the queue when the time limit comes near: the same."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


class Queue:
    """Submits jobs of which each waits for the one before.

    Args:
        folder: for scripts and logs; made if missing, seen by all nodes.
        options: of sbatch, each `NAME=VALUE`, where they differ from `DEFAULTS`; `time` in
            minutes, `gpus-per-node=0` on a cluster without GPUs.

    Attributes:
        submitted: a line for each job.

    Raises:
        ValueError: an option of another form.
        RuntimeError: no Slurm on this machine, or no submitit.
    """

    def __init__(self, folder: Path, options: Sequence[str] = ()) -> None:
        self.folder, self.submitted = folder.resolve(), list[str]()
        self._options: dict[str, Any] = {**DEFAULTS, **dict(map(_option, options))}
        minutes = self._options.pop("time")
        if not minutes.isdecimal() or int(minutes) < 1:
            raise ValueError(f"--slurm time is a number of minutes; got {minutes!r}")
        try:
            from submitit import SlurmExecutor
        except ImportError as error:
            raise RuntimeError(
                "--executor slurm needs submitit: pip install -e '.[slurm]' in this project's "
                "folder"
            ) from error
        self._executor = SlurmExecutor(self.folder, max_num_timeout=MAX_TIMEOUTS)
        self._executor.update_parameters(time=int(minutes))
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._last = ""

    def submit(self, name: str, jobs: Sequence[Job]) -> None:
        """One job, or an array of several, after what was submitted before it has ended well.

        Raises:
            RuntimeError: Slurm refuses it.
        """
        after = {"dependency": f"afterok:{self._last}"} if self._last else {}
        self._executor.update_parameters(
            job_name=name, additional_parameters={**self._options, **after}
        )
        with self._executor.batch():
            given = [self._executor.submit(job) for job in jobs]
        self._last = given[0].job_id.partition("_")[0]
        of_array = f", an array of {len(jobs)}" if len(jobs) > 1 else ""
        self.submitted.append(f"job {self._last}: {name}{of_array}")


def _option(text: str) -> tuple[str, str]:
    found = re.fullmatch(r"(?:--)?([a-z][a-z-]*)=(\S+)", text)
    if found is None:
        raise ValueError(
            f"an option of sbatch is expected as NAME=VALUE, such as partition=gpu; got {text!r}"
        )
    return found[1], found[2]
