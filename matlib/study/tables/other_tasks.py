"""Captioning and grounding as tables, and claim C8b: do techniques rank alike in other tasks?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch

from matlib.analysis.agreement import MIN_ROWS, Totals, agreement_of_ratios
from matlib.analysis.figures.pictures import TaskPicture
from matlib.evaluation.crossed import interval, within_a_world
from matlib.evaluation.robustness import WORST
from matlib.evaluation.statistics import (
    MIN_SEEDS_FOR_INTERVAL,
    PRIMARY,
    Estimate,
    Stratum,
    bootstrap_mean,
)
from matlib.study.made.other_tasks import OTHER_TASKS, TaskName, shown_of
from matlib.study.study import Study
from matlib.study.tables.contrasts import Contrast, contrast, is_at_floor
from matlib.study.tables.recalls import in_short, shown

OTHER_TASK_COLUMNS = (
    "architecture", "task", "row", "attack", "measure", "value", "low", "high", "n_seeds",
)  # fmt: skip

RANKED_BY = {"captioning": "truth", "grounding": "pointing"}
"""The measure of each task by which C8b ranks techniques."""


def _values(study: Study, task: str, row: str, attack: str, measure: str) -> np.ndarray:
    """(S, N): a number for each image, with each training seed."""
    seeds = (0,) if row == "base" else study.profile.seeds
    found = [study.get(OTHER_TASKS[task](study, row, seed)) for seed in seeds]
    return np.array([each[attack][measure] for each in found])


def _estimate(study: Study, values: np.ndarray) -> Estimate:
    if len(values) >= MIN_SEEDS_FOR_INTERVAL:
        return interval(within_a_world(values), len(values))
    return bootstrap_mean(torch.from_numpy(values[0]), n_boot=study.profile.evaluation.n_boot)


def _first_seed(study: Study, row: str) -> int:
    return 0 if row == "base" else study.profile.seeds[0]


def other_tasks_table(study: Study) -> pd.DataFrame:
    """Every measure of both tasks under every attack, of the base and the rows that are judged.

    Returns:
        `OTHER_TASK_COLUMNS`; architecture "" is the study's own model; shares of 1
        (`similarity` is a cosine), with 95 % intervals over seeds and images, or over images
        where there are fewer than three seeds. Empty where the profile has no other tasks.
    """
    options, rows = study.profile.other_tasks, []
    if options is None:
        return pd.DataFrame(columns=list(OTHER_TASK_COLUMNS))
    every = [(name, task, row) for name in ("", *options.architectures) for task in OTHER_TASKS
             for row in ("base", *_judged(study.of_architecture(name)))]  # fmt: skip
    for architecture, task, row in every:
        here = study.of_architecture(architecture)
        first = here.get(OTHER_TASKS[task](here, row, _first_seed(here, row)))
        for attack, measures in first.items():
            for measure in measures:
                found = _estimate(here, _values(here, task, row, attack, measure))
                about = {
                    "architecture": architecture,
                    "task": task,
                    "row": row,
                    "attack": attack,
                    "measure": measure,
                }
                rows.append({**about, **shown(found)})
    return pd.DataFrame(rows, columns=list(OTHER_TASK_COLUMNS))


def _judged(study: Study) -> tuple[str, ...]:
    options = study.profile.other_tasks
    return options.rows if options else ()


def transfer_to_tasks(study: Study) -> list[Contrast]:
    """C8b: mean rank correlation of the techniques' robustness between retrieval and other tasks.

    Retrieval by the worst of the attacks that C8a counts, captioning by the truth of captions and
    grounding by the pointing game, each under the worst of its attacks, on the same images. Empty
    without other tasks and with fewer than three techniques in them.
    """
    options = study.profile.other_tasks
    if options is None or len(options.rows) < MIN_ROWS:
        return []
    retrieval = in_short(study, "")
    totals: list[list[Sequence[Totals]]] = [[
        [Stratum(((1.0, each),), retrieval.images).totals(PRIMARY)
         for each in retrieval.found(row, WORST)]
        for row in options.rows
    ]]  # fmt: skip
    for task, measure in RANKED_BY.items():
        totals.append([
            [_of_images(own) for own in _values(study, task, row, WORST, measure)]
            for row in options.rows
        ])  # fmt: skip
    estimate = agreement_of_ratios(totals, n_boot=study.profile.evaluation.n_boot)
    label = (
        f"rank correlation (100: the same order) of the robustness of {len(options.rows)} "
        "techniques between retrieval, captioning and grounding"
    )
    floor = is_at_floor(retrieval, options.rows) or _writes_blindly(study, options.rows)
    return [contrast(label, estimate, at_floor=floor)]


def _of_images(values: np.ndarray) -> Totals:
    column = torch.from_numpy(values)[:, None]  # (N,) -> (N, 1)
    return column, torch.ones_like(column)


def _writes_blindly(study: Study, rows: Sequence[str]) -> bool:
    """Whether no technique's attacked captions are truer than captions of other images."""
    measure = RANKED_BY["captioning"]

    def gain(row: str) -> float:
        left, blind = (_values(study, "captioning", row, a, measure) for a in (WORST, "shuffled"))
        return _estimate(study, left - blind).high

    return all(gain(row) <= 0 for row in rows)


STRONGEST = {"captioning": "caption-loss", "grounding": "both"}
"""The attack of each task that pictures show."""


def task_pictures(study: Study, task: TaskName) -> dict[str, list[TaskPicture]]:
    """The first test images as the base sees them, clean and attacked, and as a defended row does.

    Returns:
        label of a line -> its pictures, for `task_strip`; the defended row is the last one that
        is judged by other tasks. Empty where none is.
    """
    if not _judged(study):
        return {}
    attack, row = STRONGEST[task], _judged(study)[-1]
    lines = {"clean": ("base", "clean"), "attacked": ("base", attack),
             f"attacked,\n{row}": (row, attack)}  # fmt: skip
    found = {}
    for label, (name, how) in lines.items():
        tensors, texts = shown_of(study, task, name, _first_seed(study, name))
        heat, boxes = tensors.get(f"heat/{how}"), tensors.get("boxes")
        found[label] = [
            TaskPicture(
                pixels, text,
                None if heat is None else heat[i], None if boxes is None else boxes[i],
            )
            for i, (pixels, text) in enumerate(
                zip(tensors[f"pixels/{how}"], texts[how], strict=False)
            )
        ]  # fmt: skip
    return found
