"""What of a machine a number can depend on: device, settings of libraries, threads."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed

from matlib.launcher import n_processes, place

ARITHMETIC = (
    "NVIDIA_TF32_OVERRIDE", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "ONEDNN_DEFAULT_FPMATH_MODE",
    "DNNL_DEFAULT_FPMATH_MODE",
)  # fmt: skip
"""Variables by which libraries compute float32 with fewer digits."""


def arithmetic(device: str, variables: Mapping[str, str] = os.environ) -> str:
    """The device and what makes it compute with fewer digits, for the identity of results.

    Args:
        device: `cpu` or `cuda`; returned as it is where no such variable is set.
    """
    return ", ".join([device, *(f"{n}={variables[n]}" for n in ARITHMETIC if variables.get(n))])


def open_group() -> None:
    """Open the group of torchrun's processes, where it started several, each on its own GPU.

    They wait for one another as long as it takes: one makes what all of them train with.
    """
    if n_processes() == 1:
        return
    has_gpu = torch.cuda.is_available()
    if has_gpu:
        torch.cuda.set_device(place("LOCAL_RANK"))
    backend = "nccl" if has_gpu else "gloo"
    torch.distributed.init_process_group(backend, timeout=timedelta(days=30))


@contextmanager
def environment(**values: str) -> Iterator[None]:
    """Set variables for the processes started in the block; put them back afterwards."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
"""Variables of processes that run side by side: each library would take every core otherwise."""


@contextmanager
def one_thread(wanted: bool = True) -> Iterator[None]:
    """One thread in the block, where wanted: sums are then taken in the same order everywhere."""
    before = torch.get_num_threads()
    torch.set_num_threads(1 if wanted else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
