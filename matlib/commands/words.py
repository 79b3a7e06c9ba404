"""The table of allowed word edits, from what a user has: a masked LM, synonyms, or a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matlib.attacks.budgets import check_count
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
from matlib.commands.user_data import read_mapping
from matlib.models.masked_lm import MaskedLM
from matlib.study.store.provenance import file_hash, named_weights


@dataclass(frozen=True)
class Words:
    """Where allowed word edits come from: one of the three.

    Attributes:
        candidates: JSON file: caption -> list of [position, replacement]; white space in the
            caption counts as one space, positions count the words between. Marks that touch a
            word stay: both "go" and "go." replace "chess." by "go.".
        synonyms: JSON file: word -> list of words; see `from_synonyms`.
        masked_lm: a folder, or a name on the hub.
        k: replacements per word.
    """

    candidates: Path | None = None
    synonyms: Path | None = None
    masked_lm: str = ""
    k: int = 10

    def __post_init__(self) -> None:
        given = [each for each in (self.candidates, self.synonyms, self.masked_lm) if each]
        if len(given) != 1:
            raise ValueError(
                "a text attack needs one source of words: --masked-lm, --synonyms or "
                f"--candidates; got {len(given)}"
            )
        check_count("k", self.k, 1)

    def identity(self) -> dict[str, Any]:
        """For the settings hash: content of files, never their place."""
        if self.candidates is not None:
            return {"candidates": file_hash(self.candidates)}
        if self.synonyms is not None:
            return {"synonyms": file_hash(self.synonyms), "k": self.k}
        return {"masked_lm": named_weights(self.masked_lm), "k": self.k}

    def meet(self, captions: Sequence[str], *, released: bool = False) -> tuple[str, ...]:
        """Find what is wrong before any long work, and what the file's keys miss, as notes.

        Raises:
            FileNotFoundError, ValueError: no such file, nothing in it, or a key that does not
                hold words; keys that miss a caption by capitals or marks alone, keys of none of
                the captions, positions outside a caption, or not one edit in all.
        """
        if self.masked_lm:
            folder = Path(self.masked_lm)
            needed = (*folder.glob("*.safetensors"), *folder.glob("tokenizer.json"))
            if folder.is_absolute() and not needed:
                raise FileNotFoundError(
                    f"no masked language model in {folder}: expected a folder with "
                    "model.safetensors and tokenizer.json"
                )
            return ()
        self.table(captions, "cpu", released=released)
        if self.candidates is None:
            return ()
        given = self._keyed(released)
        n_unused, n_bare = len(given.keys() - {*captions}), sum(c not in given for c in captions)
        if not n_unused and not n_bare:
            return ()
        return (
            f"{self.candidates.name}: {n_bare:,} captions have no key there and stay as they "
            f"are; {n_unused:,} keys are no caption here",
        )

    def table(self, captions: Sequence[str], device: str, *, released: bool = False) -> Table:
        """The allowed edits of every caption.

        Args:
            released: ask the masked LM as the field's code does (see `from_masked_lm`).

        Raises:
            ValueError: not one edit for all the captions.
        """
        if self.candidates is not None:
            given = self._keyed(released)
            self._check_keys(given, captions)
            table = from_table(captions, [given.get(caption, []) for caption in captions])
        elif self.synonyms is not None:
            table = from_synonyms(captions, _read_synonyms(self.synonyms), k=self.k)
        else:
            masked_lm = MaskedLM.load(self.masked_lm)
            masked_lm.model.to(device)
            table = from_masked_lm(captions, masked_lm, self.k, released=released)
        if not any(map(n_attackable_words, captions, table)):
            source = self.candidates or self.synonyms or self.masked_lm
            raise ValueError(
                f"{source} changes no word of the {len(captions):,} captions, so no text would "
                "be attacked: its words must occur in them, and stop words are left alone"
            )
        return table

    def _keyed(self, released: bool) -> dict[str, list[tuple[int, str]]]:
        """The file of candidates, its keys as captions are read."""
        assert self.candidates is not None
        found: dict[str, list[tuple[int, str]]] = {}
        for caption, rows in read_mapping(self.candidates, "candidates").items():
            where = f"{self.candidates}, {caption!r:.80}"
            _check_rows(where, rows)
            plain = " ".join(caption.split())
            key = normalise_caption(plain) or plain if released else plain
            if key.count(" ") != plain.count(" "):
                raise ValueError(
                    f"{where}: released conventions read it as {key!r:.80}, so positions would "
                    "shift; use that as the key, and its positions"
                )
            if key in found:
                raise ValueError(f"{where}: two keys read as this caption; join them")
            found[key] = [(position, word) for position, word in rows]
        return found

    def _check_keys(self, given: Mapping[str, Any], captions: Sequence[str]) -> None:
        """Refuse keys that are meant for a caption and miss it, and positions outside it."""
        wanted = dict.fromkeys(captions)
        missed = [caption for caption in wanted if caption not in given]
        unused = {_letters(key): key for key in given if key not in wanted}
        near = [(unused[_letters(c)], c) for c in missed if _letters(c) in unused]
        if near:
            key, caption = near[0]
            raise ValueError(
                f"{self.candidates}: {len(near):,} keys miss a caption by capitals or marks "
                f"alone, e.g. {key!r:.80} for {caption!r:.80}; write them as the captions are"
            )
        if len(missed) == len(wanted):
            raise ValueError(
                f"{self.candidates} has edits for none of the captions; its keys must be the "
                f"captions, e.g. {next(iter(wanted))!r:.80}"
            )
        for caption in wanted:
            n = caption.count(" ") + 1
            outside = [row for row in given.get(caption, ()) if not 0 <= row[0] < n]
            if outside:
                raise ValueError(
                    f"{self.candidates}, {caption!r:.80}: it has {n} words, numbered from 0; "
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
