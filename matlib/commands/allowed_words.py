"""The table of allowed word edits, from what a user has: a masked LM, synonyms, or a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matlib.attacks.characters import as_clip_reads
from matlib.attacks.edits import (
    Table,
    check_replacement,
    checked_synonyms,
    from_masked_lm,
    from_synonyms,
    from_table,
    n_attackable_words,
    normalise_caption,
)
from matlib.commands.options import ThreatOptions
from matlib.commands.user_data import read_mapping
from matlib.files import file_hash
from matlib.models.masked_lm import MaskedLM
from matlib.study.store.provenance import named_weights


def words_identity(options: ThreatOptions) -> dict[str, Any]:
    """For the settings hash: content of files, never their place."""
    o = options
    if o.candidates is not None:
        return {"candidates": file_hash(o.candidates)}
    if o.synonyms is not None:
        return {"synonyms": file_hash(o.synonyms), "k": o.k}
    return {"masked_lm": named_weights(o.masked_lm), "k": o.k}


def meet(options: ThreatOptions, captions: Sequence[str]) -> tuple[str, ...]:
    """Find what is wrong before any long work, and what the file's keys miss, as notes.

    Raises:
        FileNotFoundError, ValueError: no such file, nothing in it, or a key that does not
            hold words; keys that miss a caption by capitals or marks alone, keys of none of
            the captions, positions outside a caption, or not one edit in all.
    """
    if options.masked_lm:
        folder = Path(options.masked_lm)
        needed = (*folder.glob("*.safetensors"), *folder.glob("tokenizer.json"))
        if folder.is_absolute() and not needed:
            raise FileNotFoundError(
                f"no masked language model in {folder}: expected a folder with "
                "model.safetensors and tokenizer.json"
            )
        return ()
    allowed_edits(options, captions, "cpu")
    if options.candidates is None:
        return ()
    given = _read_candidates(options.candidates, options.is_released)
    n_unused, n_bare = len(given.keys() - {*captions}), sum(c not in given for c in captions)
    if not n_unused and not n_bare:
        return ()
    return (
        f"{options.candidates.name}: {n_bare:,} captions have no key there and stay as they "
        f"are; {n_unused:,} keys are no caption here",
    )


def allowed_edits(options: ThreatOptions, captions: Sequence[str], device: str) -> Table:
    """The allowed edits of every caption, from the one source of words that is given.

    Of candidates, white space in a key counts as one space, positions count the words between,
    and marks that touch a word stay: both "go" and "go." replace "chess." by "go.".

    Raises:
        ValueError: not one edit for all the captions.
    """
    o = options
    if o.candidates is not None:
        given = _read_candidates(o.candidates, o.is_released)
        _check_keys(o.candidates, given, captions)
        table = from_table(captions, [given.get(caption, []) for caption in captions])
    elif o.synonyms is not None:
        table = from_synonyms(captions, _read_synonyms(o.synonyms), k=o.k)
    else:
        masked_lm = MaskedLM.load(o.masked_lm)
        masked_lm.model.to(device)
        table = from_masked_lm(captions, masked_lm, o.k, released=o.is_released)
    if not any(map(n_attackable_words, captions, table)):
        source = o.candidates or o.synonyms or o.masked_lm
        raise ValueError(
            f"{source} changes no word of the {len(captions):,} captions, so no text would "
            "be attacked: its words must occur in them, and stop words are left alone"
        )
    return table


def _read_candidates(path: Path, is_released: bool) -> dict[str, list[tuple[int, str]]]:
    """The file of candidates, its keys as captions are read."""
    found: dict[str, list[tuple[int, str]]] = {}
    for caption, rows in read_mapping(path, "candidates").items():
        where = f"{path}, {caption!r:.80}"
        _check_rows(where, rows)
        plain = " ".join(caption.split())
        key = normalise_caption(plain) or plain if is_released else plain
        if key.count(" ") != plain.count(" "):
            raise ValueError(
                f"{where}: released conventions read it as {key!r:.80}, so positions would "
                "shift; use that as the key, and its positions"
            )
        if key in found:
            raise ValueError(f"{where}: two keys read as this caption; join them")
        found[key] = [(position, word) for position, word in rows]
    return found


def _check_keys(path: Path, given: Mapping[str, Any], captions: Sequence[str]) -> None:
    """Refuse keys that are meant for a caption and miss it, and positions outside it."""
    wanted = dict.fromkeys(captions)
    missed = [caption for caption in wanted if caption not in given]
    unused = {_letters(key): key for key in given if key not in wanted}
    near = [(unused[_letters(c)], c) for c in missed if _letters(c) in unused]
    if near:
        key, caption = near[0]
        raise ValueError(
            f"{path}: {len(near):,} keys miss a caption by capitals or marks "
            f"alone, e.g. {key!r:.80} for {caption!r:.80}; write them as the captions are"
        )
    if len(missed) == len(wanted):
        raise ValueError(
            f"{path} has edits for none of the captions; its keys must be the "
            f"captions, e.g. {next(iter(wanted))!r:.80}"
        )
    for caption in wanted:
        n = caption.count(" ") + 1
        outside = [row for row in given.get(caption, ()) if not 0 <= row[0] < n]
        if outside:
            raise ValueError(
                f"{path}, {caption!r:.80}: it has {n} words, numbered from 0; "
                f"{list(outside[0])} lies outside it"
            )


def _read_synonyms(path: Path) -> dict[str, list[str]]:
    content = read_mapping(path, "synonyms")
    try:
        return checked_synonyms(content)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _letters(caption: str) -> str:
    """What is left of a caption without its capitals and marks."""
    return as_clip_reads(normalise_caption(caption, len(caption) + 1))


def _check_rows(where: str, rows: Any) -> None:
    if not isinstance(rows, list):
        raise ValueError(f"{where}: expected a list of [position, replacement]; got {rows!r:.60}")
    for row in rows:
        is_pair = isinstance(row, list) and len(row) == 2
        if not is_pair or isinstance(row[0], bool) or not isinstance(row[0], int):
            raise ValueError(f"{where}: expected [position, replacement]; got {row!r:.60}")
        check_replacement(row[1], f"{where}, position {row[0]}")


def attackable(captions: Sequence[str], table: Table) -> dict[str, Any]:
    """How much of the captions an attack may change, for its summary."""
    counts = list(map(n_attackable_words, captions, table))
    return {
        "n_unattackable_captions": counts.count(0),
        "attackable_words_per_caption": round(sum(counts) / max(len(counts), 1), 4),
    }
