"""`python -m benchmarks`: measure, print and write the figures."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.run import write_bench
from matlib.study.study import results_folder


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--out", type=Path, help="JSON file (results/bench.json)")
    path = parser.parse_args(arguments).out or results_folder() / "bench.json"
    write_bench(path)
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
