"""`plan`: what a study will cost, before it starts."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matlib.commands.parsers import count, positive

if TYPE_CHECKING:
    from matlib.study.plan import Plan


def add_plan(commands: Any) -> None:
    """`plan`: a short probe, and the cost that follows from it."""
    plan = commands.add_parser("plan", help="what a study will cost: hours, memory, disk")
    plan.add_argument("profile", help="name of a profile, or a YAML file")
    plan.add_argument("--data", type=Path, help="folder of a data set on disk")
    plan.add_argument("--results", type=Path, help="folder of all results")
    plan.add_argument("--limit", type=positive, default=0, help="at most so many test images")
    plan.add_argument("--workers", type=count, default=0, help="runs at once on a CPU; 0: per core")
    plan.set_defaults(command=_plan)


def _plan(options: argparse.Namespace) -> int:
    from matlib.config.profile import load_profile
    from matlib.study.plan import plan
    from matlib.study.session import results_folder

    profile = load_profile(options.profile, options.limit)
    results = options.results or results_folder()
    print(plan_text(plan(profile, results, options.data, options.workers)))
    return 0


def plan_text(found: Plan) -> str:
    """The plan as lines for a person."""
    share = round(100 * found.error)
    rows = [
        ("profile", found.profile),
        ("device", f"{found.device}, {found.n_workers} at a time"),
        ("parameters", ", ".join(f"{n} {c:,}" for n, c in found.parameters.items())),
        ("models", f"{found.n_models}, of which {found.n_left} are left"),
        ("training passes", _passes(found.training_rows)),
        ("judging passes", _passes(found.judging_rows)),
        ("time", f"{_time(found.hours)} ± {share} % (error of the probe)"),
        ("time left", f"{_time(found.hours_left)} ± {share} %"),
        *((f"  {what}", _time(s / 3600 / found.n_workers)) for what, s in found.seconds.items()),
        *((f"memory: {what}", f"{g:.2f} GiB") for what, g in found.memory_gib.items()),
        *((f"disk: {what}", f"{g:.2f} GiB") for what, g in found.disk_gib.items()),
    ]
    width = max(len(name) for name, _ in rows)
    lines = [f"{name.ljust(width)}  {value}" for name, value in rows]
    return "\n".join([*lines, *(f"note: {note}" for note in found.notes)])


def _passes(rows: dict[str, float]) -> str:
    parts = {tower: sum(n for k, n in rows.items() if k.startswith(tower)) for tower in _TOWERS}
    return ", ".join(f"{n:.3g} {_TOWERS[tower]}" for tower, n in parts.items())


_TOWERS = {"image": "images", "text": "captions"}


def _time(hours: float) -> str:
    if hours < 1 / 60:
        return f"{hours * 3600:.0f} s"
    return f"{hours * 60:.1f} min" if hours < 2 else f"{hours:.1f} h"
