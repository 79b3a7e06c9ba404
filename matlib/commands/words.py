"""The table of allowed word edits, from what a user has: a masked LM, synonyms, or a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matlib.attacks.candidates import (
    Table,
    english_stop_words,
    free_edits,
    from_synonyms,
    from_table,
)
from matlib.attacks.edits import by_position
from matlib.commands.user_data import read_mapping
from matlib.models.masked_lm import MaskedLM
from matlib.study.provenance import file_hash


@dataclass(frozen=True)
class Words:
    """Where allowed word edits come from: one of the three.

    Attributes:
        candidates: JSON file: caption -> list of [position, replacement].
        synonyms: JSON file: word -> list of words.
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
        if self.k < 1:
            raise ValueError(f"expected k of 1 or more; got {self.k}")

    def identity(self) -> dict[str, Any]:
        """For the settings hash: content of files, never their place."""
        if self.candidates is not None:
            return {"candidates": file_hash(self.candidates)}
        if self.synonyms is not None:
            return {"synonyms": file_hash(self.synonyms), "k": self.k}
        files = _model_files(self.masked_lm)
        name = [file_hash(path) for path in files] or self.masked_lm
        return {"masked_lm": name, "k": self.k}

    def check(self) -> None:
        """Find a missing or empty file before any long work.

        Raises:
            FileNotFoundError, ValueError: no such file, or nothing in it.
        """
        for path, what in ((self.candidates, "candidates"), (self.synonyms, "synonyms")):
            if path is not None:
                read_mapping(path, what)
        if Path(self.masked_lm).is_absolute() and not _model_files(self.masked_lm):
            raise FileNotFoundError(
                f"no masked language model in {self.masked_lm}: expected a folder with "
                "model.safetensors and tokenizer.json"
            )

    def table(self, captions: Sequence[str], device: str, *, released: bool = False) -> Table:
        """The allowed edits of every caption.

        Args:
            released: ask the masked LM as the field's code does (see `MaskedLM.candidates`).
        """
        if self.candidates is not None:
            given = read_mapping(self.candidates, "candidates")
            if not any(caption in given for caption in captions):
                raise ValueError(f"{self.candidates} has edits for none of the captions")
            return from_table(captions, [_rows(given, caption) for caption in captions])
        if self.synonyms is not None:
            return from_synonyms(captions, read_mapping(self.synonyms, "synonyms"), k=self.k)
        masked_lm = MaskedLM.load(self.masked_lm)
        masked_lm.model.to(device)
        if released:
            words = masked_lm.candidates(
                captions, self.k,
                alignment="as_released", multi_token="as_released", k_counts="predicted",
            )  # fmt: skip
        else:
            words = masked_lm.candidates(captions, self.k)
        return free_edits(captions, words, english_stop_words(), self.k)


def _rows(given: Mapping[str, Any], caption: str) -> list[tuple[int, str]]:
    rows = given.get(caption, [])
    is_sound = isinstance(rows, list) and all(
        isinstance(row, list) and len(row) == 2 and isinstance(row[0], int) for row in rows
    )
    if not is_sound:
        raise ValueError(f"expected a list of [position, replacement] for {caption!r}")
    return [(position, str(word)) for position, word in rows]


def _model_files(masked_lm: str) -> list[Path]:
    """Weights and tokenizer of a model in a folder; empty for a name on the hub."""
    folder = Path(masked_lm)
    if not masked_lm or not folder.is_dir():
        return []
    return sorted([*folder.glob("*.safetensors"), *folder.glob("tokenizer.json")])


def n_unattackable(captions: Sequence[str], table: Table) -> int:
    """Captions that no edit changes."""
    return sum(not by_position(c, row) for c, row in zip(captions, table, strict=True))
