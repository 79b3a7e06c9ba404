"""One row of a study made by itself: trained, judged, and its recall under each attack."""

from __future__ import annotations

import pandas as pd

from matlib.evaluation.statistics import primary_difference
from matlib.study.made.protocols import protocols_of
from matlib.study.run.tasks import TRAINED, Task, all_rows, artefacts_of, missing, tasks_of
from matlib.study.study import Study
from matlib.study.tables.endpoints import ENDPOINT_COLUMNS


def tasks_of_row(study: Study, row: str, seed: int, world: int | None = None) -> list[Task]:
    """How a study trains and judges one of its rows; the check of its gradients is left out.

    Args:
        row: by name.
        seed: of its training; 0 for `base`.
        world: of `profile.worlds`; None for the study's own.

    Raises:
        ValueError: the study has no such row, or not with that seed in that world.
    """
    every = [task for task in tasks_of(study.profile, all_rows(study.profile))
             if task.what in TRAINED and not task.architecture]  # fmt: skip
    found = [task for task in every if (task.name, task.seed, task.world) == (row, seed, world)]
    if found:
        return found
    at = [task for task in every if task.name == row]
    if not at:
        known = ", ".join(sorted({task.name for task in every}))
        raise ValueError(f"study {study.profile.name} has no row {row!r}; it has: {known}")
    seeds, worlds = (", ".join(map(str, dict.fromkeys(values))) for values in (
        [task.seed for task in at],
        [task.world or study.profile.dataset.world_seed for task in at],
    ))  # fmt: skip
    raise ValueError(
        f"row {row} has the training seeds {seeds} in the worlds {worlds}; got seed {seed}"
        + ("" if world is None else f" in world {world}")
    )


def make_row(study: Study, row: str, seed: int, world: int | None = None) -> pd.DataFrame:
    """Make one row with all that it needs; what is there already is not made again.

    Args:
        row, seed, world: as of `tasks_of_row`.

    Returns:
        `ENDPOINT_COLUMNS`: what each attack leaves on the test gallery, of these weights alone,
        with intervals over images.

    Raises:
        ValueError: as `tasks_of_row`.
    """
    tasks = tasks_of_row(study, row, seed, world)
    for node in missing(study, tasks).values():
        study.make(node)
    here = tasks[0].at(study)
    own, n_boot = here.pairs("test").image_of, here.profile.evaluation.n_boot
    rows = []
    judged = protocols_of(here.profile.evaluation, tasks[0].what)[0]
    for (attack, threat), found in here.outcomes(row, seed, judged).items():
        e = primary_difference(found, None, own, n_boot=n_boot)
        rows.append((row, attack, threat, e.value, e.low, e.high, 1))
    return pd.DataFrame(rows, columns=list(ENDPOINT_COLUMNS))


def join_row(study: Study, row: str, seed: int, world: int | None = None) -> None:
    """Take part in the training of a row that the first process of torchrun makes and judges.

    Args:
        row, seed, world: as of `tasks_of_row`.

    Raises:
        ValueError: as `tasks_of_row`.
    """
    for node in missing(study, tasks_of_row(study, row, seed, world)).values():
        if node.spec.kind == "model":
            study.join(node)


def hashes_of_row(study: Study, row: str, seed: int) -> list[str]:
    """The identities of what judges a row, without making it."""
    return [node.hash for task in tasks_of_row(study, row, seed)
            for node in artefacts_of(study, task)]  # fmt: skip
