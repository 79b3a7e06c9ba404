"""What a row of the comparison trains: the defence with the choices that its run makes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from matlib.augmentations.table import TECHNIQUES
from matlib.defences.defence import Contrastive, Defence, PairWeights
from matlib.evaluation.statistics import MIN_SEEDS_FOR_INTERVAL
from matlib.study.profile.parts import TrainAttack, Training
from matlib.study.profile.profile import Profile
from matlib.study.profile.rows import Run, row_defence
from matlib.training.schedule import Schedule


def row_name(run: Run) -> str:
    """Name of a row: the defence, for mat+ its augmentation, and the label of a variation."""
    return run.row


def rows_of(profile: Profile) -> list[tuple[str, int]]:
    """(row name, seed) of every model of the comparison, the undefended one first."""
    names = [row_name(run) for run in profile.runs]
    return [("base", 0), *((name, seed) for seed in profile.seeds for name in names)]


def inside_rows_of(profile: Profile) -> list[tuple[str, int]]:
    """(row name, seed) of the variations of one defence (`profile.inside`)."""
    names = [row_name(run) for run in profile.inside]
    return [(name, seed) for seed in inside_seeds_of(profile) for name in names]


def inside_seeds_of(profile: Profile) -> tuple[int, ...]:
    """Training seeds of the variations."""
    return profile.inside_seeds or profile.seeds


def technique_rows_of(profile: Profile) -> list[tuple[str, int]]:
    """(row name, seed) of the compared techniques, seed by seed."""
    return [(run.row, seed) for seed in profile.seeds_of_techniques for run in profile.techniques]


def sweep_rows_of(profile: Profile) -> list[tuple[str, int]]:
    """(row name, seed) of further amounts and strengths that are no row of the comparison."""
    compared = {run.row for run in profile.techniques}
    seed = profile.seeds_of_techniques[0]
    return [(run.row, seed) for run in profile.sweeps if run.row not in compared]


def dialled_rows_of(profile: Profile) -> list[tuple[str, int]]:
    """(row name, seed) of the controlled experiment, seed by seed."""
    experiment = profile.intervention
    if experiment is None:
        return []
    return [(run.row, seed) for seed in experiment.seeds for run in experiment.trained()]


def undefended_rows(profile: Profile) -> list[tuple[str, int]]:
    """The models that claim C1 is about: clean fine-tunings if there are enough, else the base."""
    if len(profile.seeds) >= MIN_SEEDS_FOR_INTERVAL and any(r.row == "clean" for r in profile.runs):
        return [("clean", seed) for seed in profile.seeds]
    return [("base", 0)]


def run_named(profile: Profile, name: str) -> Run:
    """The run of that row name, of the comparison or of the variations.

    Raises:
        ValueError: the profile has no such row.
    """
    runs = profile.every_run
    for run in runs:
        if row_name(run) == name:
            return run
    known = ", ".join(["base", *dict.fromkeys(map(row_name, runs))])
    raise ValueError(f"profile {profile.name} has no row {name!r}; it has: {known}")


def n_variants_of(profile: Profile, run: Run) -> int:
    """Captions and images per pair, the original among them."""
    return profile.n_variants if run.n_variants is None else run.n_variants


FILTERS = ("keep_aligned", "keep_diverse", "vendi")
"""Options that leave out added pairs, in the order in which they do."""


def filters_of(run: Run) -> tuple[str, ...]:
    """The filters of a row's pairs, in their order."""
    return tuple(name for name in FILTERS if name in run.options)


def defence_of(run: Run) -> Defence:
    """The run's defence with its order of attacks and its pairs.

    Raises:
        ValueError: shares of pairs for a defence whose loss is not on pairs, or an image step
            for one that does not ascend CLIP's loss.
    """
    how = row_defence(run.defence)
    if run.order is not None:
        how = replace(how, order=run.order)
    if run.image_step is not None:
        if how.image not in ("symmetric", "caption_set"):
            raise ValueError(
                f"{run.defence}'s image step is {how.image or 'none'}, not CLIP's loss: it takes "
                f"no image_step {run.image_step!r}"
            )
        how = replace(how, image=run.image_step)
    if run.mixed_pairs is None and run.clean_pairs is None:
        return how
    if not isinstance(how, Contrastive):
        raise ValueError(f"{run.defence}'s loss is not on pairs: it takes no shares of them")
    mixed, clean = run.mixed_pairs or 0.0, run.clean_pairs or 0.0
    return replace(how, pairs=PairWeights(1 - mixed - clean, mixed / 2, mixed / 2, clean))


def examined_rows(profile: Profile) -> list[tuple[str, int]]:
    """(row name, seed) of what the sanity battery examines: rows trained against an attack."""
    chosen = {
        run.row for run in profile.runs
        if attacks_anything(run) and run.row in (profile.battery_rows or {run.row})
    }  # fmt: skip
    return [row for row in rows_of(profile) if row[0] in chosen]


def attacks_anything(run: Run) -> bool:
    """Whether training under this run needs an inner attack."""
    how = row_defence(run.defence)
    return how.attacks_image or how.attacks_text


def schedule_of(phase: Training, run: Run | None = None) -> Schedule:
    """How long and how fast to train, with the run's own learning rate and averaging."""
    options = ("lr", "ema_decay", "weight_decay")
    own = {name: value for name in options if (value := getattr(run, name, None)) is not None}
    return phase.schedule(**own)


def train_attack_of(profile: Profile, run: Run) -> TrainAttack:
    """The attack inside this run's training: the profile's, with the run's words and steps."""
    own: dict[str, Any] = {"threats": run.threats} if run.threats else {}
    if run.pgd_steps is not None:
        own["pgd_steps"] = run.pgd_steps
    return profile.train_attack.model_copy(update=own)


def profile_of_architecture(profile: Profile, name: str) -> Profile:
    """The profile with another model and with the rows that every architecture is trained as.

    Raises:
        ValueError: the profile has no such architecture.
    """
    if name not in profile.architectures:
        known = ", ".join(profile.architectures) or "none"
        raise ValueError(f"profile {profile.name} has no architecture {name!r}; it has: {known}")
    runs = tuple(run for run in profile.runs if run.row in profile.transfer_rows)
    options = profile.other_tasks
    if options is not None:
        rows = tuple(row for row in options.rows if row in profile.transfer_rows)
        is_judged = name in options.architectures
        changed = {"rows": rows, "architectures": ()}
        options = options.model_copy(update=changed) if is_judged else None
    changes = {"model": profile.architectures[name], "runs": runs, "other_tasks": options}
    others = {"inside": (), "techniques": (), "sweeps": (), "intervention": None}
    return profile.model_copy(update={**changes, **others, "architectures": {}, "worlds": ()})


def profile_of_world(profile: Profile, seed: int) -> Profile:
    """The profile in another of its worlds.

    Raises:
        ValueError: the profile has no such world.
    """
    if seed not in profile.worlds:
        known = ", ".join(map(str, profile.worlds)) or "none"
        raise ValueError(f"profile {profile.name} has no further world {seed}; it has: {known}")
    dataset = profile.dataset.model_copy(update={"world_seed": seed})
    return profile.model_copy(update={"dataset": dataset, "worlds": ()})


def as_run(technique: str | Run) -> Run:
    """A row that trains on a technique's pairs, with the usual options.

    Raises:
        ValueError: unknown augmentation.
    """
    if isinstance(technique, Run):
        return technique
    name = TECHNIQUES.choose(technique).name
    return Run(defence="clean" if name == "none" else "mat+", augmentation=name)
