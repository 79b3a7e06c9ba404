"""The whole study in one call: notebooks in order, results, report, and copies to publish.

The models of a study fit on one GPU and there are many of them, so rows are what machines
share: nothing is exchanged between them but finished artefacts, whose locks in the results
folder let one make what several need (the base model, the candidate words) while others wait.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matlib.files import lock_fault, write_durably
from matlib.study.profile.profile import Profile, load_profile, profile_names
from matlib.study.publish.full import ledgers_of_now
from matlib.study.publish.notebooks import find_notebooks, refuse_unfit, run_notebooks
from matlib.study.publish.published import publish_outputs
from matlib.study.publish.readme import update_readme
from matlib.study.publish.report import Figure, FrontPage, build_report, claims_text, read_claims
from matlib.study.publish.shown import (
    FIGURES,
    PROFILE,
    RESULTS,
    SHOW_IMAGES,
    is_writable,
    keep_profile,
    kept_profile,
    made_in_words,
)
from matlib.study.run.records import (
    RECORDS_FILE as RECORDS,
    accept_records,
    keep_seconds,
    write_records,
)
from matlib.study.run.slurm import Job, Queue
from matlib.study.run.tasks import (
    Say,
    all_rows,
    is_done,
    label,
    make_rows,
    missing_by_share,
    n_workers,
    needed_by_all,
    tasks_of,
)
from matlib.study.sources.karpathy import KarpathySource
from matlib.study.store.provenance import PACKAGE_ROOT
from matlib.study.study import Study, open_study
from matlib.study.tables.results import write_results

QUESTION = (
    "An attacker changes a few pixels of an image and one word of its caption. How much of "
    "the retrieval of a CLIP-like model survives, which way of adversarial training defends "
    "it, and does it help to train with several captions per image and several images per "
    "caption?"
)
NOTEBOOKS = PACKAGE_ROOT / "notebooks"
PUBLISHED = PACKAGE_ROOT / "published"

NOTEBOOKS_AT_ONCE = 2
"""Each has a kernel with torch in memory, and most of its time is imports and drawing."""

CLAIMS_NOTEBOOK = "90"
"""Begins the name of the notebook that writes the results."""


def run_study(
    profile: str,
    results: Path,
    data: Path | None = None,
    limit: int = 0,
    *,
    publish: bool = False,
    workers: int = 0,
    say: Say = print,
) -> Path:
    """Run all notebooks of a profile and write its report; what is finished is not redone.

    Args:
        publish: copy results into `published/<profile>/`, and for `demo` the outputs into
            `notebooks/`. Of photographs, tables and records alone: no image is published.
        workers: runs at the same time on a CPU; 0: as many as there are cores.

    Returns:
        path of the report's front page.

    Raises:
        ProfileError, ValueError, FileNotFoundError: bad profile or data, before any work.
        NotebookError: a notebook failed.
    """
    checked, sources, parameters = _checked(profile, results, data, limit)
    folder = results / checked.name
    study = Study(checked, results, data)  # missing data and foreign results are found here
    say(f"study {checked.name}: {checked.about}")
    if not is_writable(folder):
        return _show(study, say)
    _look_around(study, say)
    keep_profile(checked, folder)
    say(f"about {checked.minutes:g} minutes; results in {folder}")
    at_once = n_workers(checked, workers)
    _take_records(study, say)
    if at_once > 1:
        make_rows(study, data, all_rows(checked), at_once, say)
    done = run_notebooks(
        sources, folder / "notebooks", parameters, at_once=min(at_once, NOTEBOOKS_AT_ONCE), say=say
    )
    if not any(source.name.startswith(CLAIMS_NOTEBOOK) for source in sources):
        write_results(study)  # which that notebook does
    page = write_report(checked, folder)
    if publish:
        if checked.name == "demo":
            for notebook in done:
                publish_outputs(notebook.executed, notebook.source)
        _publish(folder, PUBLISHED / checked.name, figures_of(checked))
        if checked.name != "demo":
            write_records(study, PUBLISHED / checked.name)  # names its hash in the provenance
        update_readme(PACKAGE_ROOT / "README.md", PUBLISHED)
    claims = read_claims(folder / "claims.json")
    say(f"\n{claims_text(claims)}\n\nreport: {page}")
    return page


def _checked(
    profile: str, results: Path, data: Path | None, limit: int
) -> tuple[Profile, list[Path], dict[str, Any]]:
    """The profile, its notebooks, and what these are told; faults are found before long work."""
    checked = load_profile(profile, limit)
    sources = wanted_notebooks(checked, find_notebooks(NOTEBOOKS))
    kept = results / checked.name / PROFILE
    parameters = {
        # a path would be another one where notebooks run, and the file may be edited meanwhile
        "profile": profile if profile in profile_names() else str(kept.resolve()),
        "results": str(results.resolve()),
        "data": str(data.resolve()) if data else "",
        "limit": limit,
    }
    refuse_unfit(sources, parameters)  # before the long work, not after it
    return checked, sources, parameters


def _look_around(study: Study, say: Say) -> None:
    """Refuse missing data, and warn of a folder that several processes must not share."""
    if isinstance(study.source, KarpathySource):
        study.source.require_files()
    if fault := lock_fault(study.root):
        say(
            f"file locks cannot be trusted in {study.root}: {fault}. Let one process work there "
            "at a time (--workers 1, no --shard), or give --results on another file system"
        )


def _show(study: Study, say: Say) -> Path:
    """A finished study in a folder that cannot be written, as it was made.

    Raises:
        OSError: it is not finished.
    """
    folder, profile = study.root, study.profile
    left = [task for task in tasks_of(profile, all_rows(profile)) if not is_done(study, task)]
    page = folder / "report" / "index.html"
    if left or not page.is_file():
        raise OSError(
            f"{folder} cannot be written, and the study is not finished ("
            f"{len(left)} of its runs are missing); give another --results, or make it writable"
        )
    kept_profile(profile, folder)
    say(f"{folder} cannot be written: shown as it was made")
    say(f"\n{claims_text(read_claims(folder / 'claims.json'))}\n\nreport: {page}")
    return page


def wanted_notebooks(profile: Profile, found: list[Path]) -> list[Path]:
    """The notebooks that a profile runs: those it names by their beginnings, or all.

    Raises:
        ValueError: a name that no notebook begins with.
    """
    if not profile.notebooks:
        return found
    for name in profile.notebooks:
        if not any(path.name.startswith(name) for path in found):
            raise ValueError(f"profile {profile.name} names a notebook {name!r} that is not there")
    return [path for path in found if path.name.startswith(profile.notebooks)]


def write_report(profile: Profile, folder: Path) -> Path:
    """The report of executed notebooks in `folder` (`results/<profile>`).

    Only what the last study of this very profile has shown goes in. In a folder that cannot be
    written the report is the one that is there.

    Raises:
        FileNotFoundError, ProfileError: no study was run, or with another version of the profile.
    """
    profile = kept_profile(profile, folder)
    if not is_writable(folder) and (folder / "report" / "index.html").is_file():
        return folder / "report" / "index.html"
    wanted = wanted_notebooks(profile, find_notebooks(NOTEBOOKS))
    executed = [folder / "notebooks" / source.name for source in wanted]
    notes = []
    if profile.limit:
        notes.append(f"Partial study: at most {profile.limit} test images.")
    if len(profile.seeds) < 3:
        notes.append("One training seed: every verdict holds for these weights only.")
    front = FrontPage(
        title=f"Multimodal adversarial robustness: {profile.name}",
        question=QUESTION,
        profile=profile.name,
        claims=read_claims(folder / "claims.json"),
        published=_larger(profile),
        made=made_in_words(folder),
        figures=[
            Figure(folder / "figures" / f"{name}.png", caption)
            for name, caption in FIGURES.items()
            if (folder / "figures" / f"{name}.png").is_file()
        ],
        provenance=_summary(profile, folder),
        notes=notes,
    )
    return build_report(folder, front, [path for path in executed if path.is_file()])


def _larger(profile: Profile) -> dict[str, list[dict[str, Any]]]:
    """Ledgers of the published studies that go on from this one, which is the demo's alone."""
    if profile.name != "demo":
        return {}
    return {name: claims for name, claims in ledgers_of_now(PUBLISHED).items() if name != "demo"}


def _summary(profile: Profile, folder: Path) -> dict[str, Any]:
    from matlib.study.store.provenance import checkout_state, versions

    state = checkout_state()
    return {
        "profile": profile.name,
        "about": profile.about,
        "commit": f"{state['commit'] or 'none'}{' (changed since)' if state['dirty'] else ''}",
        "seeds": ", ".join(map(str, profile.seeds)),
        "gallery": f"{profile.dataset.n_test} images",
        **versions(),
    }


def _take_records(study: Study, say: Say, *, whole: bool = False) -> None:
    """What another machine has judged for this very study and this very code."""
    taken = accept_records(study, PUBLISHED / study.profile.name, whole=whole)
    if taken:
        say(f"{taken} evaluations were taken from published/{study.profile.name}/{RECORDS}")


def figures_of(profile: Profile) -> tuple[str, ...]:
    """The figures that may be published: none that shows a photograph."""
    hidden = SHOW_IMAGES if profile.dataset.data == "disk" else frozenset()
    return tuple(figure for figure in FIGURES if figure not in hidden)


def _publish(folder: Path, target: Path, figures: Sequence[str]) -> None:
    """Copy the tables and the figures of a finished study."""
    target.mkdir(parents=True, exist_ok=True)
    for name in RESULTS:
        if (folder / name).is_file():
            text = (folder / name).read_text(encoding="utf-8")
            write_durably(target / name, keep_seconds(text, target / name))
    for figure in figures:
        made = folder / "figures" / f"{figure}.png"
        if made.is_file():
            shutil.copyfile(made, target / f"{figure}.png")


def run_shard(
    profile: str,
    results: Path,
    data: Path | None,
    limit: int,
    shard: tuple[int, int],
    *,
    publish: bool = False,
    workers: int = 0,
    say: Say = print,
) -> None:
    """Train and judge every n-th row of a profile, counted from i; no notebooks.

    Args:
        shard: (i, n), 1 <= i <= n.
        publish: write what is judged so far as records into `published/<profile>/`, where a
            later run on any machine takes it from.
        workers: runs at the same time on a CPU; 0: as many as there are cores.
    """
    study = open_study(profile, str(results), str(data) if data else "", limit)
    _look_around(study, say)
    _take_records(study, say, whole=True)
    i, n = shard
    say(f"shard {i}/{n} of study {study.profile.name}; results in {study.root}")
    mine = all_rows(study.profile).share(i, n)
    make_rows(study, data, mine, n_workers(study.profile, workers), say)
    if n == 1:
        write_results(study)
    if publish:
        target = PUBLISHED / study.profile.name
        if n == 1:
            _publish(study.root, target, figures_of(study.profile))
        say(f"records: {write_records(study, target)}")
    say(f"shard {i}/{n} is finished; run without --shard when all are")


def run_common(
    profile: str, results: Path, data: Path | None, limit: int, n: int, say: Say = print
) -> None:
    """Make what every one of `n` shares needs, so that none waits for another."""
    study = open_study(profile, str(results), str(data) if data else "", limit)
    shares = missing_by_share(study, n)
    for node in needed_by_all(shares.values()).values() if shares else ():
        say(label(node))
        study.make(node)


def submit_study(
    profile: str,
    results: Path,
    data: Path | None,
    limit: int,
    options: Sequence[str],
    *,
    publish: bool = False,
    workers: int = 0,
    n: int = 0,
    say: Say = print,
) -> None:
    """Give a study to Slurm: what all rows need, an array of the rows, notebooks and report.

    Each job waits for the one before it. Its own work is that of this machine: `run_common`,
    `run_shard` and `run_study`. What is finished is not submitted again.

    Args:
        results: seen by all nodes, with working file locks.
        options: `NAME=VALUE` of sbatch (`matlib.study.run.slurm.Queue`).
        workers: runs at once in each job; 0: one for each of its GPUs, or cores.
        n: shares of the array; 0: one for each row of a kind.

    Raises:
        ProfileError, ValueError, FileNotFoundError: bad profile, data or options, before any work.
        RuntimeError: no Slurm, or it refuses the jobs.
    """
    checked, _, told = _checked(profile, results, data, limit)
    study = Study(checked, results, data)
    queue = Queue(study.root / "slurm", options)
    _look_around(study, say)
    keep_profile(checked, study.root)
    n = n or all_rows(checked).longest
    shares = missing_by_share(study, n)
    what = told["profile"], results.resolve(), data.resolve() if data else None, limit
    if len(shares) > 1 and needed_by_all(shares.values()):
        queue.submit(f"{checked.name}-common", [Job(run_common, (*what, n))])
    if shares:
        rows = [Job(run_shard, (*what, (i, n)), {"workers": workers}) for i in shares]
        queue.submit(f"{checked.name}-rows", rows)
    queue.submit(
        f"{checked.name}-report", [Job(run_study, what, {"publish": publish, "workers": workers})]
    )
    for line in queue.submitted:
        say(line)
    say(
        f"logs in {queue.folder}; each job waits for the one before, and is cancelled where that "
        "fails: mend the cause and run the same command again, which submits what is missing"
    )
