"""What a process frees stays with it: the next step of a training asks for no fresh pages."""

import os
import platform
import subprocess
import sys

import pytest

ROUNDS = """
import resource
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
began = faults()
for n in range(10):
    block = bytes([n]) * (64 << 20)
    del block
print(faults() - began)
"""
KEPT = "from matlib.memory import keep_freed_memory; keep_freed_memory()"


def _faults(first: str) -> int:
    """Pages that the system hands out while a block of 64 MB is made and freed ten times."""
    run = [sys.executable, "-c", f"{first}\n{ROUNDS}"]
    own = {name: text for name, text in os.environ.items() if not name.startswith("MALLOC_")}
    said = subprocess.run(run, env=own, check=True, capture_output=True, text=True).stdout
    return int(said)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's mallopt")
def test_freed_blocks_are_used_again() -> None:
    assert 3 * _faults(KEPT) < _faults("")
