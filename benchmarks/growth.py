"""`python -m benchmarks.growth`: what the study's machinery costs beside the work, as it grows.

Artefacts here hold a few bytes, so that all the time is the machinery's: processes, locks,
hashes, synced files, and records of a gallery as large as COCO's.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import pandas as pd
import typer
from joblib.externals.loky import get_reusable_executor

from benchmarks.machine import describe_machine
from benchmarks.run import table, write_found
from matlib.study.arithmetic import ONE_THREAD
from matlib.study.run.records import Expected, checked_files
from matlib.study.store.store import PROVENANCE, ArtefactSpec, Store

GALLERY = 5000, 25000
"""Images and captions of COCO's test split."""

RANKS_FILE = "ranks.csv"


def seconds_of(call: Callable[[], object]) -> float:
    """Wall seconds of one call."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def synthetic(seed: int) -> ArtefactSpec:
    """An artefact's identity; it is as long to hash as any."""
    return ArtefactSpec("model", "synthetic", seed, maker="base", chosen=("clean",))


def write_little(folder: Path) -> None:
    """A maker that does next to nothing."""
    (folder / "file").write_text("little")


_STORE: list[Store] = []


def open_store(root: Path) -> None:
    """Begin a worker."""
    _STORE[:] = [Store(root)]


def make_one(seed: int) -> None:
    """One artefact, in a worker."""
    _STORE[0].get_or_make(synthetic(seed), write_little)


def engine(n_rows: int, counts: tuple[int, ...]) -> dict[str, Any]:
    """Seconds until so many workers are ready, and for each of the rows they then share."""
    found: dict[str, Any] = {}
    for n in counts:
        with TemporaryDirectory(prefix="matlib-") as folder:
            pool = get_reusable_executor(
                n, reuse=False, env=ONE_THREAD, initializer=open_store, initargs=(Path(folder),)
            )
            warm = seconds_of(lambda p=pool, n=n: list(p.map(make_one, range(n))))  # type: ignore[misc]
            rows = range(n, n + n_rows)
            spent = seconds_of(lambda p=pool, r=rows: list(p.map(make_one, r)))  # type: ignore[misc]
            pool.shutdown(kill_workers=True)
        found[str(n)] = {"start_seconds": warm, "row_seconds": spent / n_rows}
    return found


def store(counts: tuple[int, ...]) -> dict[str, Any]:
    """Seconds to open a store of so many artefacts, to find one, and to read all provenances."""
    found: dict[str, Any] = {}
    for n in counts:
        with TemporaryDirectory(prefix="matlib-") as folder:
            root = Path(folder)
            filled = Store(root)
            first = filled.get_or_make(synthetic(0), write_little)
            for seed in range(1, n):  # as `get_or_make` leaves them, without its syncs
                spec = synthetic(seed)
                path = filled.runs / spec.folder
                path.mkdir()
                write_little(path)
                about = {**first.provenance, "seed": seed, "hash": spec.hash}
                (path / PROVENANCE).write_text(json.dumps(about), encoding="utf-8")
            opened = seconds_of(lambda root=root: Store(root))  # type: ignore[misc]
            again, last = Store(root), synthetic(n - 1)
            found[str(n)] = {
                "open_seconds": opened,
                "find_seconds": seconds_of(lambda s=again, x=last: s.find(x)),  # type: ignore[misc]
                "provenances_seconds": seconds_of(again.records),
            }
            assert len(again.records()) == n
    return found


def records(n_attacks: int, gallery: tuple[int, int] = GALLERY) -> dict[str, Any]:
    """Seconds to check and read one model's records."""
    n_images, n_captions = gallery
    names = tuple(f"attack{i}" for i in range(n_attacks))
    lines = [
        {
            "file": RANKS_FILE, "attack": name, "direction": direction,
            "content": " ".join(str(i % of) for i in range(n)),
        }
        for name in names
        for direction, n, of in (("TR", n_images, n_captions), ("IR", n_captions, n_images))
    ]  # fmt: skip
    expected = Expected(n_images, n_captions, ranks={RANKS_FILE: names})
    rows = pd.DataFrame(lines)
    spent = seconds_of(lambda: checked_files(rows, expected))
    return {"queries": n_attacks * (n_images + n_captions), "read_seconds": spent}


app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command(help=__doc__)
def main(
    out: Annotated[Path, typer.Option(help="JSON file")] = Path("results/growth.json"),
    tiny: Annotated[bool, typer.Option("--tiny", help="try it at toy size")] = False,
) -> None:
    found: dict[str, Any] = {"machine": describe_machine()}
    for name, call in (
        ("engine_by_workers", lambda: engine(2, (1, 2)) if tiny else engine(100, (1, 2, 4, 8))),
        ("store_by_artefacts", lambda: store((2, 5) if tiny else (100, 1000, 10_000))),
        ("records", lambda: records(1, (3, 6)) if tiny else records(34)),
    ):
        found[name] = call()
        write_found(out, found)
    print(table(found))
    print(f"wrote {out}")


if __name__ == "__main__":
    from benchmarks import growth  # by its name, as the workers know it

    growth.app()
