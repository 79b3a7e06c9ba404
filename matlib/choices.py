"""Tables of which one entry is chosen by name: techniques, filters, defences, attacks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, TypeVar


class _Named(Protocol):
    @property
    def name(self) -> str: ...


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
