"""The one training loop: pre-training and every defence run through it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import torch

from matlib.data.pairs import OneToMany
from matlib.models.dual_encoder import DualEncoder
from matlib.models.open_clip import OpenClipEncoder
from matlib.training.accelerated import accelerated, agreed_processes
from matlib.training.batch import draw_batches, own_rows
from matlib.training.checkpoint import remove_checkpoints
from matlib.training.checks import check_inputs, check_processes
from matlib.training.defence import Defence
from matlib.training.feed import read_ahead
from matlib.training.identity import run_identity
from matlib.training.inner import Candidates, InnerAttack
from matlib.training.log import History, StepLog
from matlib.training.resume import Keeper
from matlib.training.schedule import Schedule
from matlib.training.selection import Validation
from matlib.training.step import Stepper
from matlib.training.warning_signs import HeldOut, collapse, overfitting


def train(
    encoder: OpenClipEncoder,
    data: OneToMany,
    how: Defence,
    schedule: Schedule,
    *,
    seed: int,
    inner: InnerAttack | None = None,
    candidates: Candidates | None = None,
    keep_in: Path | None = None,
    on_step: Callable[[int, float], None] | None = None,
    on_row: Callable[[Mapping[str, float]], None] | None = None,
    log_in: Path | None = None,
    reference: DualEncoder | None = None,
    validation: Validation | None = None,
    clean_recall_every: int = 0,
) -> History:
    """Fine-tune (or pre-train) `encoder` in place.

    Under torchrun each process calls it with equal arguments and takes its part of every
    batch. On a CPU, a run that was killed and is started again with the same arguments ends
    with the weights, bit by bit, that it would have had. Batch-norm layers normalise over a
    process's own part of a micro-batch; towers without them give one process's numbers on many.

    Args:
        data: originals with their variants; a 1:1 set is `OneToMany.from_pairs(pairs)`.
        how: which inputs are attacked, which loss, which tower learns.
        inner: the attack's budgets; needed when `how` attacks anything.
        candidates: allowed edits of every caption in `data`, [] for one that shall stay;
            needed when `how` draws edits.
        keep_in: folder for the last two checkpoints. Where it holds one of this same run,
            training goes on from there. They are removed when training is done.
        on_step: called with (step, loss), on the first process.
        on_row: called with each new row of the history, on the first process.
        log_in: folder for `steps.csv`, `warnings.txt` and TensorBoard's events.
        reference: the model before fine-tuning, for defences that need it; by default a copy
            of `encoder` as it comes in.
        validation: measures recall on held-out pairs beside training, and may choose the
            weights that training ends with.
        clean_recall_every: steps between clean passes made only to log clean recall where the
            loss embeds no clean pairs; 0: never.

    Raises:
        NonFiniteLossError: NaN or infinite loss or gradient; the last good weights are in
            `encoder`, and their checkpoint in `keep_in`.
        ValueError: arguments that cannot work together or would leave out an attack that
            `how` names, or a checkpoint of another run or another architecture in `keep_in`.
    """
    noted = check_inputs(encoder, data, how, schedule, inner, candidates)
    with _restored(encoder), accelerated(encoder.device, schedule) as accelerator:
        check_processes(schedule, accelerator.num_processes)
        processes = agreed_processes(accelerator)
        is_first = processes.rank == 0
        keeper = Keeper(
            keep_in if keep_in is None else Path(keep_in),
            {} if keep_in is None
            else run_identity(
                encoder, data, how, schedule, seed, inner, candidates, validation
            ),
            is_first,
        )  # fmt: skip
        stepper = Stepper(
            encoder, how, schedule, seed, accelerator, processes,
            inner, candidates or {}, reference, clean_recall_every,
        )  # fmt: skip
        history = keeper.resume(stepper)
        accelerator.wait_for_everyone()
        first = len(history.rows)
        order = draw_batches(data, schedule.batch_size, torch.Generator().manual_seed(seed))
        draws = islice(order, first, schedule.n_steps)
        size, n_parts = schedule.micro_batch_size, schedule.micro_batches
        parts = [own_rows(size, part, processes) for part in range(n_parts)]
        with (
            StepLog(log_in if is_first else None, schedule.batch_size, history) as log,
            read_ahead(draws, data, parts, encoder.device) as fed,
        ):
            for text in (*keeper.damaged, *(t for t in noted if t not in history.warnings)):
                _warn(text, history, log, is_first)
            for step, draw in enumerate(fed, start=first):
                row = stepper.step(step, draw, data, keeper.restore_last_good)
                history.add(**row)
                log.write(row)
                _watch(step, stepper, history, log, validation, is_first)
                keeper.keep(step, schedule, stepper, history)
                if is_first and on_step is not None:
                    on_step(step, row["loss"])
                if is_first and on_row is not None:
                    on_row(row)
        stepper.finish()
    if keep_in is not None and is_first:
        remove_checkpoints(Path(keep_in))
    return history


@contextmanager
def _restored(encoder: OpenClipEncoder) -> Iterator[None]:
    """Modes, flags and the global random state as they were before; weights in training mode."""
    modes = [(module, module.training) for module in encoder.modules()]
    flags = [(p, p.requires_grad) for p in encoder.parameters()]
    devices = [encoder.device] if encoder.device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        for module, mode in modes:
            module.training = mode
        for parameter, needed in flags:
            parameter.requires_grad_(needed)
            parameter.grad = None


def _watch(
    step: int,
    stepper: Stepper,
    history: History,
    log: StepLog,
    validation: Validation | None,
    is_first: bool,
) -> None:
    """Look for signs that training goes wrong."""
    found = [collapse(step, stepper.spread, history.warnings)]
    if validation is not None and (step + 1) % validation.every == 0:
        now, train_recall = stepper.measured(validation), history.mean_robust_recall()
        history.held_out.append(
            {"step": step, "held_out": now.robust, "clean": now.clean, "train": train_recall}
        )
        log.write_held_out(step, now.robust, now.clean)
        measured = [HeldOut(int(m["step"]), m["held_out"], m["train"]) for m in history.held_out]
        found.append(overfitting(measured, history.warnings))
    for text in found:
        if text is not None:
            _warn(text, history, log, is_first)


def _warn(text: str, history: History, log: StepLog, is_first: bool) -> None:
    history.warnings.append(text)
    if is_first:
        log.warn(text)
