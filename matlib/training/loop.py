"""The one training loop: pre-training and every defence run through it.

What can be wrong with a training is found before it starts (`check_inputs`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import Any

import torch

from matlib.attacks.characters import as_clip_reads
from matlib.attacks.edits import check_table, n_attackable_words
from matlib.data.pairs import OneToMany
from matlib.defences.batch import draw_batches, own_rows, read_ahead
from matlib.defences.defence import Defence
from matlib.defences.inner_attack import Candidates, InnerAttack
from matlib.models.dual_encoder import DualEncoder, TrainableEncoder
from matlib.training.checkpoint import Keeper, remove_checkpoints, run_identity
from matlib.training.log import Bookkeeping, History, StepLog
from matlib.training.schedule import Schedule
from matlib.training.seen import HeldOut, collapse, overfitting
from matlib.training.selection import Validation
from matlib.training.step import Stepper, accelerated, agreed_processes, learning_part


def train(
    encoder: TrainableEncoder,
    data: OneToMany,
    how: Defence,
    schedule: Schedule,
    *,
    seed: int,
    inner: InnerAttack | None = None,
    candidates: Candidates | None = None,
    reference: DualEncoder | None = None,
    validation: Validation | None = None,
    books: Bookkeeping | None = None,
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
        reference: the model before fine-tuning, for defences that need it; by default a copy
            of `encoder` as it comes in.
        validation: measures recall on held-out pairs beside training, and may choose the
            weights that training ends with.
        books: where checkpoints and the log go; nowhere by default.

    Raises:
        NonFiniteLossError: NaN or infinite loss or gradient; the last good weights are in
            `encoder`, and their checkpoint in `books.keep_in`.
        ValueError: arguments that cannot work together or would leave out an attack that
            `how` names, or a checkpoint of another run or another architecture in
            `books.keep_in`.
    """
    books = books or Bookkeeping()
    noted = check_inputs(encoder, data, how, schedule, inner, candidates)
    with _restored(encoder), accelerated(encoder.device, schedule) as accelerator:
        check_processes(schedule, accelerator.num_processes)
        processes = agreed_processes(accelerator)
        is_first = processes.rank == 0
        identity: Mapping[str, Any] = {}
        if books.keep_in is not None:
            identity = run_identity(
                encoder, data, how, schedule, seed, inner, candidates, validation
            )
        keeper = Keeper(books.keep_in, identity, is_first)
        stepper = Stepper(
            encoder, how, schedule, seed, accelerator, processes,
            inner, candidates or {}, reference, books.clean_recall_every,
        )  # fmt: skip
        history = keeper.resume(stepper)
        accelerator.wait_for_everyone()
        first = len(history.rows)
        order = draw_batches(data, schedule.batch_size, torch.Generator().manual_seed(seed))
        draws = islice(order, first, schedule.n_steps)
        size, n_parts = schedule.micro_batch_size, schedule.micro_batches
        parts = [own_rows(size, part, processes) for part in range(n_parts)]
        with (
            StepLog(books.log_in if is_first else None, schedule.batch_size, history) as log,
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
                if is_first and books.on_row is not None:
                    books.on_row(row)
        stepper.finish()
    if books.keep_in is not None and is_first:
        remove_checkpoints(books.keep_in)
    return history


@contextmanager
def _restored(encoder: TrainableEncoder) -> Iterator[None]:
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


def check_inputs(
    encoder: TrainableEncoder,
    data: OneToMany,
    how: Defence,
    schedule: Schedule,
    inner: InnerAttack | None,
    candidates: Candidates | None,
) -> list[str]:
    """Refuse what would fail later, or train something else than its name says.

    Returns:
        what is no error but should be known, as sentences.

    Raises:
        ValueError: an attack without its budget or its candidates, one-to-many training on
            one-to-one pairs, a tower that the model has not, fewer pairs than a batch, or
            half-precision floats on a CPU.
    """
    if (how.attacks_image or how.attacks_text) and inner is None:
        raise ValueError(f"{how.name} attacks its inputs: pass the inner attack")
    if how.needs_candidates and candidates is None:
        raise ValueError(f"{how.name} attacks captions: pass their candidate edits")
    if len(data) < schedule.batch_size:
        raise ValueError(
            f"a batch of {schedule.batch_size} needs as many pairs; the data has {len(data)}"
        )
    if not isinstance(encoder, TrainableEncoder):
        raise ValueError(
            f"{type(encoder).__name__} cannot be trained: expected a torch.nn.Module with "
            "`towers` and `heads` (matlib.models.TrainableEncoder); matlib.models.open gives one "
            "of any model that it knows"
        )
    for name in how.towers:
        learning_part(encoder, how, name)
    if schedule.mixed_precision == "fp16" and encoder.device.type == "cpu":
        raise ValueError("fp16 needs a GPU; on a CPU use mixed_precision bf16 or no")
    if inner is not None:
        _check_budgets(how, inner)
    if how.uses_one_to_many and data.images.shape[1] == 1 and max(map(len, data.captions)) == 1:
        raise ValueError(
            f"{how.name} draws among several captions or images of a pair, but each of the "
            f"{len(data):,} pairs has one of both: that is mat. Pass an augmented OneToMany, or "
            "take the defence mat"
        )
    if how.needs_candidates and candidates is not None:
        return _check_candidates(how, data, candidates)
    return []


def _check_budgets(how: Defence, inner: InnerAttack) -> None:
    """Refuse an attack of size zero, which would leave its inputs clean without a word."""
    budgets = []
    if how.attacks_image:
        budgets += [("image.eps_255", inner.image.eps_255), ("image.n_steps", inner.image.n_steps)]
    if how.needs_candidates:
        budgets.append(("text.n_words", inner.text.n_words))
    elif how.text == "characters":
        budgets.append(("characters.n_edits", inner.characters.n_edits))
    zero = [name for name, value in budgets if not value > 0]
    if zero:
        raise ValueError(
            f"{how.name} attacks its inputs, but the inner attack has {' and '.join(zero)} 0: "
            "give it a budget above 0, or train a defence without this attack"
        )


def _check_candidates(how: Defence, data: OneToMany, candidates: Candidates) -> list[str]:
    """Refuse captions without a key, edits that do not fit, and tables that change nothing."""
    captions = list(dict.fromkeys(c for own in data.captions for c in own))
    missing = [caption for caption in captions if caption not in candidates]
    if missing:
        wanted = set(captions)
        unused = sum(key not in wanted for key in candidates)
        alike = {as_clip_reads(key): key for key in candidates}
        near = next((alike[r] for r in map(as_clip_reads, missing) if r in alike), None)
        hint = "" if near is None else f"; the key {near!r:.80} differs in spaces or capitals alone"
        raise ValueError(
            f"{how.name} attacks words, but {len(missing):,} of the {len(captions):,} captions "
            f"have no key in candidates, e.g. {missing[0]!r:.80}, and {unused:,} keys are no "
            f"caption of the data{hint}. Keys are the captions as the data has them; give [] for "
            "a caption that shall stay as it is"
        )
    rows = [candidates[caption] for caption in captions]
    check_table(captions, rows)
    n_bare = sum(not n_attackable_words(c, row) for c, row in zip(captions, rows, strict=True))
    if n_bare == len(captions):
        raise ValueError(
            f"{how.name} attacks words, but candidates change none of the {n_bare:,} captions: "
            "it would train without a text attack. Make them from these captions, by a masked "
            "LM, synonyms or typos (matlib.attacks)"
        )
    if 2 * n_bare <= len(captions):
        return []
    share = f"{n_bare:,} of {len(captions):,}"
    return [f"{share} captions have no edit that changes them: no text attack meets these"]


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
