"""The hash of the code that makes an artefact: every definition that its maker reaches.

Reached is what a definition names, wherever it was imported from; of a class its head, its bases
and the methods that are called; and one entry of each table of choices. Nothing is imported to
find out. A definition that moves to another file keeps its hash.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from matlib.study.identity.definitions import Package, Unit
from matlib.study.identity.reading import ANY, Access, Definition, Reader, is_mark

INERT = (
    "matlib.progress",  # lines for who waits
    "matlib.study.store", "matlib.study.store.store", "matlib.files",
    "matlib.study.store.provenance",  # keep what was made, under a hash that holds all else
)  # fmt: skip
"""Modules whose code can change no result but through a value that is hashed as well."""

HASHED_FIELDS = "matlib.study.profile"
"""Below it are the classes of the profile, whose fields are hashed by value. What they compute
(properties, constants beside them) counts like other code, and so does a default where an object
is made by the code itself."""

STRUCTURAL = frozenset({"Protocol", "Generic", "ABC", "object", "NamedTuple", "BaseModel"})
"""Foreign bases that call no method of their own accord."""


@dataclass
class Reach:
    """Everything that some roots reach."""

    readings: dict[Unit, Definition] = field(default_factory=dict)
    chosen: set[str] = field(default_factory=set)


class Code:
    """The code of a package as it lies in its files now.

    Args:
        folder: of the package itself; its name is the package's.
        inert: modules that are left out.
    """

    def __init__(self, folder: Path, inert: Iterable[str] = INERT) -> None:
        self.package, self.inert = Package(folder), frozenset(inert)
        self._reader = Reader(self.package)
        self._read = cache(self._reader.read)
        self.makers = dict(self._makers())
        self.hash = cache(self._hash)

    def _makers(self) -> Iterator[tuple[str, Unit]]:
        """Every function that is marked by `@makes`, by its name as a maker."""
        for module in self.package.modules.values():
            for name in module.definitions:
                methods = (f"{name}.{each}" for each in self.package.methods((module.name, name)))
                for unit in ((module.name, name), *((module.name, each) for each in methods)):
                    for node in self.package.nodes(unit):
                        for mark in filter(is_mark, getattr(node, "decorator_list", ())):
                            yield mark.args[0].value, unit

    def _hash(self, maker: str, chosen: tuple[str, ...] = ()) -> str:
        """sha256 of what a maker reaches.

        Args:
            maker: its name, as `@makes` gives it.
            chosen: the names of the entries that are followed in tables of choices.

        Raises:
            ValueError: no such maker, or an entry that no table has which it reaches.
        """
        reach = self.reach(maker, chosen)
        missing = {*chosen} - reach.chosen
        if missing:
            raise ValueError(
                f"{', '.join(sorted(missing))}: in no table of choices that the maker {maker!r} "
                "reaches, so that its code is not known; add it to its table"
            )
        return _digest(self._labels(reach))

    def reach(self, maker: str, chosen: Iterable[str] = ()) -> Reach:
        """Every definition that a maker reaches with these choices."""
        if maker not in self.makers:
            raise ValueError(f"nothing is marked as maker {maker!r}; known: {sorted(self.makers)}")
        unit = self.makers[maker]
        return _Walk(self, frozenset(chosen), unit).run([unit])

    def read(self, unit: Unit, as_root: bool) -> Definition:
        return self._read(unit, as_root=as_root)

    def _labels(self, reach: Reach) -> list[str]:
        """A text per definition that tells it from all others by what it says and reaches.

        Two of equal text that name different things become different round by round, until
        no more do (colour refinement).
        """
        near = {u: [*self._named(r, reach)] for u, r in reach.readings.items()}
        for unit in reach.readings:
            module, _, member = unit[1].partition(".")
            if member and (unit[0], module) in near:
                near[unit[0], module].append(unit)
        labels = {u: _digest([json.dumps(r.text)]) for u, r in reach.readings.items()}
        count = 0
        while len({*labels.values()}) > count:
            count = len({*labels.values()})
            labels = {
                u: _digest([labels[u], *(labels[t] for t in near[u] if "." not in t[1]),
                            *sorted(labels[t] for t in near[u] if "." in t[1])])
                for u in labels
            }  # fmt: skip
        return sorted(labels.values())

    def _named(self, reading: Definition, reach: Reach) -> Iterator[Unit]:
        """The definitions that one names, among those reached; of a table, its chosen entries."""
        for unit in reading.units:
            keys = reach.chosen if self.package.entries(unit) is not None else ()
            for each in (unit, *((unit[0], f"{unit[1]}[{key}]") for key in sorted(keys))):
                if each in reach.readings:
                    yield each


class _Walk:
    """From some roots to all that they reach."""

    def __init__(self, code: Code, chosen: frozenset[str], root: Unit) -> None:
        self.code, self.package, self.chosen, self.root = code, code.package, chosen, root
        self.found = Reach()
        self.met: set[Unit] = set()
        self.accesses: set[Access] = set()

    def run(self, units: Iterable[Unit]) -> Reach:
        waiting = [*units]
        while waiting:
            while waiting:
                waiting += self._take(waiting.pop())
            waiting = [u for u in self._methods() if u not in self.found.readings]
        return self.found

    def _take(self, unit: Unit) -> Iterable[Unit]:
        """Read one definition; returns those that it names."""
        if unit in self.found.readings or unit[0] in self.code.inert:
            return ()
        entries = None if "[" in unit[1] else self.package.entries(unit)
        if entries is not None:
            keys = sorted(self.chosen & entries.keys())
            self.found.chosen |= {*keys}
            return [(unit[0], f"{unit[1]}[{key}]") for key in keys]
        reading = self.code.read(unit, unit == self.root)
        self.found.readings[unit] = reading
        self.met |= reading.met
        self.accesses |= reading.accesses
        module = self.package.modules[unit[0]]
        more = [*reading.units, *self.package.changed_by.get(unit, ())]
        more += [(unit[0], name) for name in ("", *module.registered) if name or module.loose]
        if self.package.class_of(unit):
            self.met |= {*self.package.mro(unit)}
            more += self._always(unit)
        return more

    def _always(self, unit: Unit) -> Iterator[Unit]:
        """Methods that are called without being named: by operators, or by a foreign base."""
        for own in self.package.mro(unit):
            every = bool(self.package.foreign(unit) - STRUCTURAL)
            for name in self.package.methods(own):
                if every or name.startswith("__"):
                    yield own[0], f"{own[1]}.{name}"

    def _methods(self) -> Iterator[Unit]:
        """The methods and heads of classes that the attributes read so far may mean."""
        by_name: dict[str, set[Unit | None]] = {}
        for owner, name in self.accesses:
            by_name.setdefault(name, set()).add(owner)
            if owner is not None:
                self.met |= {*self.package.mro(owner)}
        owned = {o for owners in by_name.values() for o in owners if o}
        loose = {o for o in owned if self._is_loose(o)}
        for unit in [*self.met]:
            if unit[0] in self.code.inert:
                continue
            above = self.package.mro(unit)
            touched = unit in owned
            for own in above:
                for name in self.package.methods(own):
                    if any(o is None or o in above or o in loose
                           for o in (*by_name.get(name, ()), *by_name.get(ANY, ()))):  # fmt: skip
                        touched = True
                        yield own[0], f"{own[1]}.{name}"
            if touched:
                yield from self._head(unit)

    def _is_loose(self, unit: Unit) -> bool:
        """Whether objects of other classes may stand for one of this: a protocol."""
        return "Protocol" in self.package.foreign(unit)

    def _head(self, unit: Unit) -> Iterator[Unit]:
        if not f"{unit[0]}.".startswith(f"{HASHED_FIELDS}."):
            yield unit
            return
        for name in self.package.methods(unit):
            if name.startswith("__"):
                yield unit[0], f"{unit[1]}.{name}"


def _digest(parts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
