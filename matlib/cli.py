"""`python -m matlib`: run a study, attack or judge any model, fetch and verify data."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from matlib.commands.parsers import add_attack, add_evaluate, add_plan, count, positive
from matlib.data.fetching import DownloadError, fetch
from matlib.data.karpathy import read_karpathy
from matlib.data.manifest import manifest_names, verify
from matlib.launcher import forget_empty, n_processes
from matlib.progress import speak_utf8
from matlib.scenes.world import World
from matlib.study.profile.profile import load_profile, profile_names


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; 0 on success, 1 with one clear line on a known fault, 2 on bad usage."""
    speak_utf8()
    forget_empty()
    options = _parser().parse_args(arguments)
    try:
        if n_processes() > 1 and options.command is not _study:
            raise ValueError("of several processes only `study` makes use: start one, not torchrun")
        return int(options.command(options))
    except KeyboardInterrupt:
        print("stopped; the same command goes on where it was", file=sys.stderr)
        return 130
    except (ValueError, OSError, DownloadError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m matlib", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    study = commands.add_parser("study", help="run all notebooks of a profile and its report")
    study.add_argument("--profile", default="demo", help=f"one of {', '.join(profile_names())}")
    study.add_argument("--data", type=Path, help="folder of a data set on disk")
    study.add_argument("--results", type=Path, help="folder of all results")
    study.add_argument("--limit", type=positive, default=0, help="at most so many test images")
    study.add_argument("--shard", type=_shard, help="i/n: train and judge every n-th row only")
    study.add_argument(
        "--workers", type=count, default=0, help="runs at once on a CPU; 0: one for each core"
    )
    study.add_argument(
        "--publish", action="store_true",
        help="copy results into published/, and demo's outputs into notebooks/",
    )  # fmt: skip
    study.set_defaults(command=_study)

    report = commands.add_parser("report", help="write a report from executed notebooks")
    report.add_argument("--profile", default="demo")
    report.add_argument("--results", type=Path)
    report.set_defaults(command=_report)

    readme = commands.add_parser("readme", help="write the README's generated parts again")
    readme.set_defaults(command=_readme)

    calibrate = commands.add_parser("calibrate", help="try learning rates on another world")
    calibrate.add_argument("--profile", default="demo-full")
    calibrate.add_argument("--world-seed", type=count, default=0, help="not the profile's own")
    calibrate.add_argument("--lr", type=float, nargs="+", default=[2e-4, 5e-4, 1e-3])
    calibrate.add_argument("--results", type=Path)
    calibrate.add_argument("--workers", type=count, default=0)
    calibrate.set_defaults(command=_calibrate)

    add_attack(commands)
    add_evaluate(commands)
    add_plan(commands)

    data = commands.add_parser("data", help="fetch, verify or export data sets")
    actions = data.add_subparsers(required=True, metavar="ACTION")
    for name, action in (("fetch", _fetch), ("verify", _verify)):
        one = actions.add_parser(name)
        one.add_argument("name", choices=manifest_names())
        one.add_argument("--root", type=Path, help="folder of this data set (data/NAME)")
        one.set_defaults(command=action)
        if name == "fetch":
            one.add_argument("--accept-licence", action="store_true")
    export = actions.add_parser("export", help="write the embedded world in the Karpathy format")
    export.add_argument("folder", type=Path)
    export.add_argument("--seed", type=int, default=0)
    export.add_argument("--n-test", type=count, default=250)
    export.set_defaults(command=_export)
    return parser


def _shard(text: str) -> tuple[int, int]:
    first, _, second = text.partition("/")
    is_number = (first + second).isascii() and first.isdecimal() and second.isdecimal()
    if not is_number or not 1 <= int(first) <= int(second):
        raise argparse.ArgumentTypeError(f"expected i/n with 1 <= i <= n; got {text!r}")
    return int(first), int(second)


def _study(options: argparse.Namespace) -> int:
    # deferred: the study imports torch and JupyterLab's machinery, `data` needs neither
    from matlib.study.run.pipeline import launched, run_launched, run_shard, run_study
    from matlib.study.study import results_folder

    results = options.results or results_folder()
    if me := launched():
        if options.shard:
            raise ValueError("torchrun shares out the rows by itself: leave --shard away")
        run_launched(
            me, options.profile, results, options.data, options.limit,
            publish=options.publish, workers=options.workers,
        )  # fmt: skip
    elif options.shard:
        run_shard(
            options.profile, results, options.data, options.limit, options.shard,
            publish=options.publish, workers=options.workers,
        )  # fmt: skip
    else:
        run_study(
            options.profile, results, options.data, options.limit,
            publish=options.publish, workers=options.workers,
        )  # fmt: skip
    return 0


def _report(options: argparse.Namespace) -> int:
    from matlib.study.run.pipeline import write_report
    from matlib.study.study import results_folder

    profile = load_profile(options.profile)
    print(write_report(profile, (options.results or results_folder()) / profile.name))
    return 0


def _readme(options: argparse.Namespace) -> int:
    from matlib.study.publish.readme import update_readme
    from matlib.study.run.pipeline import PUBLISHED

    update_readme(PUBLISHED.parent / "README.md", PUBLISHED / "demo")
    return 0


def _calibrate(options: argparse.Namespace) -> int:
    from matlib.study.run.calibrate import calibrate
    from matlib.study.study import results_folder

    table = calibrate(
        load_profile(options.profile), options.results or results_folder(),
        options.world_seed, options.lr, options.workers,
    )  # fmt: skip
    print(table[["row", "lr", "value", "note"]].to_string(index=False))
    return 0


def _root(options: argparse.Namespace) -> Path:
    return options.root or Path("data") / options.name


def _fetch(options: argparse.Namespace) -> int:
    found = fetch(options.name, _root(options), options.accept_licence)
    print(found)
    return 0 if found.is_complete else 1


def _verify(options: argparse.Namespace) -> int:
    found = verify(options.name, _root(options))
    print(found)
    return 0 if found.is_complete else 1


def _export(options: argparse.Namespace) -> int:
    World(options.seed, n_test=options.n_test).export(options.folder)
    pairs = read_karpathy(options.folder, "scenes", "test", 64)
    print(f"wrote {options.folder}: {len(pairs)} test images, {pairs.n_captions} captions")
    return 0
