"""What can be wrong with a training, found before it starts."""

from __future__ import annotations

from matlib.attacks.edits import check_table, n_attackable_words
from matlib.attacks.slots import as_clip_reads
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
