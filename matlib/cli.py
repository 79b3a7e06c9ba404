"""`python -m matlib`: run a study, attack or judge any model, fetch and verify data."""

import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from functools import wraps
from io import StringIO
from pathlib import Path
from typing import Annotated, ParamSpec

import typer
from typer import Argument, Option

from matlib.commands import options as of
from matlib.launcher import forget_empty, n_processes, place, share_of_array
from matlib.memory import keep_freed_memory
from matlib.progress import speak_utf8

# What a command imports waits until it is run: `--help` needs neither torch nor pandas.

app = typer.Typer(
    help=__doc__, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)  # fmt: skip
data_sets = typer.Typer(rich_markup_mode=None)
app.add_typer(data_sets, name="data", help="fetch, verify or export data sets")

RATES = [2e-4, 5e-4, 1e-3]
_Given = ParamSpec("_Given")
STOPPED = 130
"""Of a process that was interrupted, as shells have it."""

SHARD_HELP = "i/n: train and judge every n-th row only; in an array of Slurm or Kubernetes, its own"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; 0 on success, 1 with one clear line on a known fault, 2 on bad usage."""
    speak_utf8()
    keep_freed_memory()
    forget_empty()
    try:
        app(arguments)
    except SystemExit as ended:
        if ended.code == STOPPED:
            print("stopped; the same command goes on where it was", file=sys.stderr)
        return int(ended.code or 0)
    except (ValueError, OSError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


@app.callback()
def _before(about: typer.Context) -> None:
    if (n := n_processes()) > 1 and about.invoked_subcommand != "row":
        raise ValueError(
            f"torchrun started {n} of these: start one. It uses every GPU of its machine, and "
            "machines share a study by --shard i/n; only `row` splits a training's batches"
        )


def _of_checkout(run: Callable[_Given, None]) -> Callable[_Given, None]:
    """A command that needs what is not installed with the package."""

    @wraps(run)
    def command(*args: _Given.args, **options: _Given.kwargs) -> None:
        if not of.HAS_CHECKOUT:
            raise FileNotFoundError(of.NO_CHECKOUT)
        run(*args, **options)

    return command


@app.command("study", help="run all notebooks of a profile and its report")
@_of_checkout
def _study(
    profile: Annotated[str, Option(help=f"one of {', '.join(of.PROFILE_NAMES)}")] = "demo",
    data: of.DataFolder = None,
    results: of.ResultsFolder = None,
    limit: of.ImageLimit = None,
    shard: Annotated[
        of.Shard | None,
        Option(parser=of.read_shard, metavar="I/N", help=SHARD_HELP),
    ] = None,
    workers: of.WorkerCount = 0,
    executor: Annotated[
        str,
        Option(
            parser=of.one_of("local", "slurm"),
            metavar="local|slurm",
            help="where rows run: in processes of this machine, or in an array of Slurm",
        ),
    ] = "local",
    slurm: Annotated[
        list[str] | None,
        Option(metavar="NAME=VALUE", help="option of sbatch: partition=gpu; may be repeated"),
    ] = None,
    array: Annotated[
        int,
        Option(parser=of.at_least(0), help="jobs of Slurm's array; 0: one for each row"),
    ] = 0,
    publish: Annotated[
        bool,
        Option(
            "--publish", help="copy results into published/, and demo's outputs into notebooks/"
        ),
    ] = False,
) -> None:
    from matlib.study.run.pipeline import run_shard, run_study, submit_study
    from matlib.study.study import results_folder

    what = profile, results or results_folder(), data, limit or 0
    if executor == "slurm":
        if shard:
            raise typer.BadParameter("--shard is Slurm's to give; --array says how many there are")
        submit_study(*what, slurm or (), publish=publish, workers=workers, n=array)
    elif slurm or array:
        raise typer.BadParameter("--slurm and --array are for --executor slurm")
    elif share := shard or share_of_array():
        run_shard(*what, share, publish=publish, workers=workers)
    else:
        run_study(*what, publish=publish, workers=workers)


@app.command("row", help="train and judge one row of a study")
@_of_checkout
def _row(
    row: Annotated[str, Option(help="its name, such as mat or base")],
    study: Annotated[str, Option(help=f"one of {', '.join(of.PROFILE_NAMES)}")] = "demo",
    seed: Annotated[int, Option(parser=of.at_least(0), help="of the training")] = 0,
    world: Annotated[
        int | None, Option(parser=of.at_least(0), help="of the profile's further worlds")
    ] = None,
    data: of.DataFolder = None,
    results: of.ResultsFolder = None,
) -> None:
    from matlib.study.arithmetic import environment, open_group
    from matlib.study.run.row import join_row, make_row
    from matlib.study.study import open_study
    from matlib.study.tables.recall_left import recall_table

    open_group()
    if place() > 0:
        with environment(MATLIB_PROGRESS="off"), redirect_stdout(StringIO()):
            join_row(open_study(study, str(results or ""), str(data or "")), row, seed, world)
        return
    opened = open_study(study, str(results or ""), str(data or ""))
    left = make_row(opened, row, seed, world)
    for threat in opened.profile.evaluation.threats:
        table = recall_table(left, threat).T
        print(f"\nrecall left in %, words: {threat}\n{table.to_string(header=False)}")


@app.command("report", help="write a report from executed notebooks")
@_of_checkout
def _report(profile: str = "demo", results: of.ResultsFolder = None) -> None:
    from matlib.study.profile.profile import load_profile
    from matlib.study.run.pipeline import write_report
    from matlib.study.study import results_folder

    found = load_profile(profile)
    print(write_report(found, (results or results_folder()) / found.name))


@app.command("readme", help="write the README's generated parts again")
@_of_checkout
def _readme() -> None:
    from matlib.study.publish.readme import update_readme
    from matlib.study.run.pipeline import PUBLISHED

    update_readme(PUBLISHED.parent / "README.md", PUBLISHED)


@app.command("calibrate", help="try learning rates on another world")
@_of_checkout
def _calibrate(
    profile: str = "demo-full",
    world_seed: Annotated[int, Option(parser=of.at_least(0), help="not the profile's own")] = 0,
    lr: Annotated[
        list[float] | None,
        Option(metavar="LR ...", help="one or several", show_default=" ".join(map(str, RATES))),
    ] = None,
    more: Annotated[list[float] | None, Argument(hidden=True)] = None,
    results: of.ResultsFolder = None,
    workers: of.WorkerCount = 0,
) -> None:
    from matlib.study.profile.profile import load_profile
    from matlib.study.run.calibrate import calibrate
    from matlib.study.study import results_folder

    if more and not lr:
        raise typer.BadParameter(f"unrecognized arguments: {' '.join(map(str, more))}")
    rates = [*lr, *(more or ())] if lr else RATES
    found = load_profile(profile)
    table = calibrate(found, results or results_folder(), world_seed, rates, workers)
    print(table[["row", "lr", "value", "note"]].to_string(index=False))


@app.command("attack", help="attack any model on your own images and captions")
@of.takes(of.AttackOptions)
def _attack(options: of.AttackOptions) -> None:
    from matlib.commands.attack import run_attack, summary_text

    options.refuse_two_sources()
    print(summary_text(run_attack(options)))
    print(f"wrote {options.out / 'pairs.json'}")


@app.command("evaluate", help="judge any model on your own pairs, or beside the study's defences")
@of.takes(of.EvaluateOptions)
def _evaluate(options: of.EvaluateOptions) -> None:
    options.refuse_a_mixture()
    if options.images is None:
        _of_checkout(_evaluate_beside_study)(options)
        return
    from matlib.commands.benchmark import run_benchmark, table_text

    print(table_text(run_benchmark(options)))
    if options.out is not None:
        print(f"wrote {options.out}")


def _evaluate_beside_study(options: of.EvaluateOptions) -> None:
    from matlib.commands.evaluate import run_evaluate

    print(f"wrote {run_evaluate(options)}")


@app.command("ground", help="judge any model's grounding of RefCOCO's phrases under attack")
@of.takes(of.GroundOptions)
def _ground(options: of.GroundOptions) -> None:
    from matlib.commands.ground import ground_text, run_ground

    options.refuse_two_sources()
    print(ground_text(run_ground(options)))
    if options.out is not None:
        print(f"wrote {options.out}")


@app.command("board", help="one table of what `evaluate --out` wrote of several models")
def _board(
    folder: Annotated[Path, Argument(help="folder of the JSON files")],
) -> None:
    from matlib.commands.board import run_board

    print(run_board(folder))


@app.command("export", help="a study's model as a folder that opens anywhere, with its zoo")
@_of_checkout
def _export_model(
    row: Annotated[str, Argument(help="of the study, such as mat")],
    out: Annotated[Path, Argument(help="folder of the exported models")],
    profile: Annotated[str, Option(help=f"one of {', '.join(of.PROFILE_NAMES)}")] = "demo",
    seed: Annotated[int, Option(parser=of.at_least(0), help="of the training")] = 0,
    data: of.DataFolder = None,
    results: of.ResultsFolder = None,
) -> None:
    from matlib.commands.export import run_export
    from matlib.study.study import results_folder

    folder, name = run_export(
        profile, row, out, seed=seed, results=str(results or results_folder()),
        data=str(data or ""),
    )  # fmt: skip
    print(f"wrote {folder}\nin Python: models.open({str(folder)!r})")
    print(f"judge it: python -m matlib evaluate --zoo {name} --zoo-file {out / 'zoo.yaml'}")


@app.command("plan", help="what a study will cost: hours, memory, disk")
@_of_checkout
def _plan(
    profile: Annotated[str, Argument(help="name of a profile, or a YAML file")],
    data: of.DataFolder = None,
    results: of.ResultsFolder = None,
    limit: of.ImageLimit = None,
    workers: of.WorkerCount = 0,
) -> None:
    from matlib.study.profile.profile import load_profile
    from matlib.study.run.plan import plan
    from matlib.study.study import results_folder

    found = load_profile(profile, limit or 0)
    print(plan(found, results or results_folder(), data, workers).as_text())


@app.command("substitutions", help="draw word changes that a study allows, to be labelled by eye")
@_of_checkout
def _substitutions(
    out: Annotated[Path, Argument(help="CSV file to write; its column label is empty")],
    profile: str = "photos",
    data: of.DataFolder = None,
    results: of.ResultsFolder = None,
    n: Annotated[int, Option(parser=of.at_least(1), help="of each text threat")] = 60,
) -> None:
    from matlib.files import write_durably
    from matlib.study.made.substitutions import drawn_substitutions
    from matlib.study.study import open_study

    study = open_study(profile, str(results or ""), str(data or ""))
    table = drawn_substitutions(study, n)
    write_durably(out, table.to_csv(index=False, lineterminator="\n"))
    print(f"wrote {out}: {len(table)} changes; label each true, false or unclear")


@data_sets.command("fetch")
def _fetch(
    name: of.DataSetName,
    root: of.DataRoot = None,
    accept_licence: Annotated[bool, Option("--accept-licence")] = False,
) -> None:
    from matlib.data.fetching import fetch

    found = fetch(name, root or Path("data") / name, accept_licence)
    print(found)
    raise typer.Exit(0 if found.is_complete else 1)


@data_sets.command("verify")
def _verify(name: of.DataSetName, root: of.DataRoot = None) -> None:
    from matlib.data.manifest import verify

    found = verify(name, root or Path("data") / name)
    print(found)
    raise typer.Exit(0 if found.is_complete else 1)


@data_sets.command("export", help="write the embedded world in the Karpathy format")
def _export(
    folder: Annotated[Path, Argument()],
    seed: Annotated[int, Option()] = 0,
    n_test: Annotated[int, Option(parser=of.at_least(0))] = 250,
) -> None:
    from matlib.data.karpathy import read_karpathy
    from matlib.scenes.world import World

    World(seed, n_test=n_test).export(folder)
    pairs = read_karpathy(folder, "scenes", "test", 64)
    print(f"wrote {folder}: {len(pairs)} test images, {pairs.n_captions} captions")
