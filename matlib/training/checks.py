"""What can be wrong with a training, found before it starts."""

from __future__ import annotations

from matlib.data.pairs import OneToMany
from matlib.models.open_clip import OpenClipEncoder
from matlib.training.defence import Defence
from matlib.training.inner import Candidates, InnerAttack
from matlib.training.schedule import Schedule
from matlib.training.towers import learning_part


def check_inputs(
    encoder: OpenClipEncoder,
    data: OneToMany,
    how: Defence,
    schedule: Schedule,
    inner: InnerAttack | None,
    candidates: Candidates | None,
) -> None:
    """Refuse what would fail later.

    Raises:
        ValueError: an attack without its budget or its candidates, a tower that the model has
            not, fewer pairs than a batch, or half-precision floats on a CPU.
    """
    if (how.attacks_image or how.attacks_text) and inner is None:
        raise ValueError(f"{how.name} attacks its inputs: pass the inner attack")
    if how.needs_candidates and candidates is None:
        raise ValueError(f"{how.name} attacks captions: pass their candidate edits")
    if len(data) < schedule.batch_size:
        raise ValueError(
            f"a batch of {schedule.batch_size} needs as many pairs; the data has {len(data)}"
        )
    for name in how.towers:
        learning_part(encoder, how, name)
    if schedule.mixed_precision == "fp16" and encoder.device.type == "cpu":
        raise ValueError("fp16 needs a GPU; on a CPU use mixed_precision bf16 or no")


def check_processes(schedule: Schedule, n_processes: int) -> None:
    """Refuse a batch that processes cannot share equally.

    Raises:
        ValueError: more processes than pairs, or parts of unequal size.
    """
    size = schedule.micro_batch_size
    if n_processes > size:
        raise ValueError(
            f"{n_processes} processes are more than the {size} pairs of a micro-batch: use "
            f"fewer processes, or a batch_size of at least {n_processes * schedule.micro_batches}"
        )
    if size % n_processes:
        raise ValueError(
            f"{size} pairs of a micro-batch do not divide into {n_processes} equal parts: use a "
            f"batch_size that is a multiple of {n_processes * schedule.micro_batches}"
        )
