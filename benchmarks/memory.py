"""Peak memory of the text attack against its chunk and against the number of captions.

Each figure comes from a process of its own: `python -m benchmarks.memory CHUNK CAPTIONS`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import torch

from benchmarks.load import Load, edit_table, scenes_load
from matlib.attacks.word_substitution import WordSubstitution
from matlib.models.small import SmallModel

MIB = 2**20
TOY = SmallModel(
    image_size=32,
    patch_size=16,
    image_width=32,
    image_layers=1,
    text_width=32,
    text_layers=1,
    head_width=16,
    embed_dim=16,
)


def peak_mib() -> float:
    """Highest resident memory of this process so far, in MiB.

    From Linux's VmHWM where there is one: `getrusage` would count what the parent process held
    when it started this one.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (MIB if sys.platform == "darwin" else 1024)  # bytes there, KiB elsewhere


def forget_peak() -> None:
    """Let the peak start from what is resident now, where the system can (Linux)."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


def growth(chunk: int, n_captions: int, load: Load) -> float:
    """MiB that a text attack adds to the peak, after a small one has loaded everything.

    The captions and the table of their edits are there before and do not count.
    """
    captions = [load.captions[i % len(load.captions)] for i in range(n_captions)]
    table = edit_table(captions)
    attack = WordSubstitution(chunk=chunk)
    attack(load.encoder, captions[:2], table[:2])
    forget_peak()
    before = peak_mib()
    attack(load.encoder, captions, table)
    return peak_mib() - before


def bench_memory(
    chunks: tuple[int, ...], n_captions: tuple[int, ...], *, toy: bool = False
) -> dict[str, dict[str, float]]:
    """MiB by chunk (at the most captions) and by captions (at the middle chunk).

    Args:
        toy: on a tiny model, for tests.
    """
    most, middle = max(n_captions), sorted(chunks)[len(chunks) // 2]
    measured = {
        pair: _in_a_process(*pair, toy)
        for pair in [(c, most) for c in chunks] + [(middle, n) for n in n_captions]
    }
    return {
        f"by_chunk_at_{most}_captions": {str(c): measured[c, most] for c in chunks},
        f"by_captions_at_chunk_{middle}": {str(n): measured[middle, n] for n in n_captions},
    }


def _in_a_process(chunk: int, n_captions: int, toy: bool) -> float:
    command = [sys.executable, "-m", "benchmarks.memory", str(chunk), str(n_captions)]
    # glibc keeps freed blocks for later, by luck of their sizes 0 to 150 MiB; larger ones than
    # this limit it gives back at once, so that what is measured is what was in use
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    found = subprocess.run(
        [*command, *(["toy"] if toy else [])],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    if found.returncode:
        raise RuntimeError(f"{' '.join(command[1:])} failed:\n{found.stderr[-2000:]}")
    return float(found.stdout.split()[-1])


def main(arguments: list[str]) -> None:
    """Print MiB; arguments: chunk, captions and, for a tiny model, `toy`."""
    torch.set_flush_denormal(True)
    load = scenes_load(4, 1, TOY) if "toy" in arguments else scenes_load(40, 5)
    print(f"{growth(int(arguments[0]), int(arguments[1]), load):.1f}")


if __name__ == "__main__":
    main(sys.argv[1:])
