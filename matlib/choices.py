"""Tables of which one entry is chosen by name: techniques, filters, defences, attacks."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar


class _Named(Protocol):
    @property
    def name(self) -> str: ...


@dataclass(frozen=True)
class Shown:
    """How an entry is called in figures.

    It decides no result, so what is written in it is no part of the hash of code.

    Attributes:
        label: a few words; empty: the entry's name.
    """

    label: str = ""


UNNAMED = Shown()
"""Called by its name."""

Entry = TypeVar("Entry")
NamedEntry = TypeVar("NamedEntry", bound=_Named)


class Choices(dict[str, Entry]):
    """Entries by name.

    What is made with one entry does not depend on the others: the hash of its code follows the
    chosen one alone (`matlib.study.identity.reached`), which reads the table from the text. So it
    is written in one piece, with every name in quotes.

    Args:
        entries: by name.
        what: an entry is, for the message about an unknown name.
    """

    def __init__(self, entries: Mapping[str, Entry], what: str = "entry") -> None:
        super().__init__(entries)
        self.what = what

    @classmethod
    def named(cls, *entries: NamedEntry, what: str = "entry") -> Choices[NamedEntry]:
        """Entries that know their name, which is the first thing written in each."""
        return Choices({entry.name: entry for entry in entries}, what)

    def choose(self, name: str) -> Entry:
        """The entry of that name.

        Raises:
            ValueError: there is none.
        """
        if name not in self:
            raise ValueError(f"unknown {self.what} {name!r}; known: {', '.join(self)}")
        return self[name]


def entries_in(value: ast.expr | None) -> list[tuple[str | None, ast.expr]] | None:
    """The entries of a table as its text has them; None for what is no table.

    `Choices({"name": …})`, or `Choices.named(f("name", …), …)`. The name is None where it does
    not stand there in quotes.
    """
    if not isinstance(value, ast.Call):
        return None
    if ast.unparse(value.func).removesuffix(".named").rpartition(".")[2] != Choices.__name__:
        return None
    first = value.args[0] if value.args else None
    pairs: list[tuple[ast.expr | None, ast.expr]]
    if isinstance(first, ast.Dict):
        pairs = list(zip(first.keys, first.values, strict=True))
    else:
        pairs = [(e.args[0] if isinstance(e, ast.Call) and e.args else None, e)
                 for e in value.args]  # fmt: skip
    return [(str(k.value) if isinstance(k, ast.Constant) else None, v) for k, v in pairs]


def names_in(path: Path, table: str) -> tuple[str, ...]:
    """The names in a table, read from its module's file: nothing that it imports is loaded.

    Raises:
        ValueError: no such table there.
    """
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        targets = [node.target] if isinstance(node, ast.AnnAssign) else getattr(node, "targets", ())
        if isinstance(node, ast.Assign | ast.AnnAssign) and table in map(ast.unparse, targets):
            return tuple(name for name, _ in entries_in(node.value) or () if name)
    raise ValueError(f"{path} defines no table {table}")
