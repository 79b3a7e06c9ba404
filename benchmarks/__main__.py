"""`python -m benchmarks`: measure, print and write the figures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command(help=__doc__)
def main(
    out: Annotated[Path | None, typer.Option(help="JSON file (results/bench.json)")] = None,
) -> None:
    from benchmarks.run import write_bench  # imports torch, which `--help` does not need
    from matlib.study.study import results_folder

    path = out or results_folder() / "bench.json"
    write_bench(path)
    print(f"wrote {path}")


if __name__ == "__main__":
    app()
