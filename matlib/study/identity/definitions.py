"""What the modules of a package define at their top, read from the files and never imported."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path

from matlib.choices import entries_in

Unit = tuple[str, str]
"""(module, name): a function, constant or class (`Style`), a method (`Style.draw`), an entry of a
table of choices (`DEFENCES[mat]`), or what a module does besides defining names (``)."""

Function = ast.FunctionDef | ast.AsyncFunctionDef
MAKES = "makes"
"""The decorator that marks (`matlib.study.identity.makers`)."""

SHOWN_CLASS = "Shown"
"""The class of what an entry is called in figures, which decides no result."""

_parse = lru_cache(maxsize=1024)(ast.parse)  # by text: an edited file is parsed anew


@dataclass(frozen=True)
class Found:
    """A name followed to where it is defined: a unit of the package and the attributes after it,
    or, outside the package, a dotted name (`torch.nn.functional.relu`)."""

    unit: Unit | None = None
    rest: tuple[str, ...] = ()
    foreign: str = ""


@dataclass
class Module:
    """One file: its definitions by name, its imports (name -> dotted name), and the rest.

    Attributes:
        registered: definitions under a decorator of the package, which may keep them in a table.
    """

    name: str
    package: str
    definitions: dict[str, list[ast.stmt]] = field(default_factory=dict)
    imports: dict[str, str] = field(default_factory=dict)
    loose: list[ast.stmt] = field(default_factory=list)
    registered: list[str] = field(default_factory=list)

    def take(self, body: Iterable[ast.stmt]) -> None:
        """Sort the statements of the file's top."""
        for node in body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                self.imports |= imported(node, self.package)
            elif isinstance(node, ast.If) and _is_about_types(node):
                self.take(n for n in node.body if isinstance(n, ast.Import | ast.ImportFrom))
            elif not _does_nothing(node):
                for inner in ast.walk(node) if isinstance(node, _COMPOUND) else ():
                    if isinstance(inner, ast.Import | ast.ImportFrom):
                        self.imports |= imported(inner, self.package)
                names = {*bound([node]), *_changed(node)} - self.imports.keys()
                for name in names:
                    self.definitions.setdefault(name, []).append(node)
                if not names:
                    self.loose.append(node)


_COMPOUND = (ast.If, ast.Try, ast.With, ast.For, ast.While)


def _is_about_types(node: ast.If) -> bool:
    return "TYPE_CHECKING" in ast.unparse(node.test)


def _does_nothing(node: ast.stmt) -> bool:
    """A docstring, and what runs only where the file is a program."""
    is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    is_main = isinstance(node, ast.If) and "__name__" in ast.unparse(node.test)
    return is_text or is_main or isinstance(node, ast.Pass)


def _changed(node: ast.stmt) -> Iterator[str]:
    """Names whose content a statement changes: `TABLE["x"] = f`, `TABLE.update(more)`."""
    targets: list[ast.expr] = []
    if isinstance(node, ast.Assign):
        targets = node.targets
    elif isinstance(node, ast.AugAssign):
        targets = [node.target]
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        targets = [node.value.func]
    for target in targets:
        inner = target
        while isinstance(inner, ast.Attribute | ast.Subscript):
            inner = inner.value
        if inner is not target and isinstance(inner, ast.Name):
            yield inner.id


def imported(node: ast.Import | ast.ImportFrom, package: str) -> dict[str, str]:
    """What an import binds: name -> dotted name. `package` is where relative imports start."""
    if isinstance(node, ast.Import):
        return {
            alias.asname or alias.name.partition(".")[0]: alias.name
            if alias.asname
            else alias.name.partition(".")[0]
            for alias in node.names
        }
    above = package.split(".")
    base = above[: len(above) - node.level + 1] if node.level else []
    stem = ".".join([*base, *([node.module] if node.module else [])])
    return {alias.asname or alias.name: f"{stem}.{alias.name}" for alias in node.names}


def bound(body: Iterable[ast.AST]) -> Iterator[str]:
    """Names that statements bind in their own scope (not inside functions and classes)."""
    for node in body:
        if isinstance(node, Function | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store | ast.Del):
            yield node.id
        elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and node.name:
            yield node.name
        if not isinstance(node, Function | ast.ClassDef | ast.Lambda | _COMPREHENSION):
            yield from bound(ast.iter_child_nodes(node))


_COMPREHENSION = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp


class Package:
    """All modules of a package.

    Args:
        folder: the package's own folder, whose name is the package's name.
    """

    def __init__(self, folder: Path) -> None:
        self.modules: dict[str, Module] = {}
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder.parent).with_suffix("").parts
            is_package = parts[-1] == "__init__"
            name = ".".join(parts[:-1] if is_package else parts)
            module = Module(name, name if is_package else name.rpartition(".")[0])
            module.take(_parse(path.read_text(encoding="utf-8")).body)
            self.modules[name] = module
        self.find = cache(self._find)
        self.mro = cache(self._mro)
        self.changed_by: dict[Unit, list[Unit]] = {}
        for module in self.modules.values():
            self._note_registers(module)
        self.foreign_bases = frozenset(
            base.rpartition(".")[2]
            for module in self.modules.values()
            for name in module.definitions
            for base in self._bases((module.name, name))
            if isinstance(base, str)
        )

    def _note_registers(self, module: Module) -> None:
        """What a module enters into tables: by decorators, or from outside their module."""
        for name, nodes in module.definitions.items():
            for decorator in (d for n in nodes for d in getattr(n, "decorator_list", ())):
                chain = chain_of(decorator.func if isinstance(decorator, ast.Call) else decorator)
                found = self.find(module.name, chain) if chain else None
                if found and found.unit and chain[-1] != MAKES:
                    module.registered.append(name)
        for name in (name for node in module.loose for name in _changed(node)):
            found = self.find(module.name, (name,))
            if found and found.unit:
                self.changed_by.setdefault(found.unit, []).append((module.name, ""))

    def _find(self, module: str, chain: tuple[str, ...]) -> Found | None:
        """Where the name `chain[0].chain[1]…`, as a module writes it, is defined.

        Returns:
            None for a name that the module neither defines nor imports (a builtin), and for a
            module as such.
        """
        here = self.modules[module]
        if chain[0] in here.definitions:
            return Found((module, chain[0]), chain[1:])
        if chain[0] not in here.imports:
            return None
        return self.locate((*here.imports[chain[0]].split("."), *chain[1:]))

    def locate(self, parts: tuple[str, ...]) -> Found | None:
        """Where a dotted name is defined, told from the top of all packages."""
        for n in range(len(parts), 0, -1):
            where = ".".join(parts[:n])
            if where in self.modules:
                return self.find(where, parts[n:]) if n < len(parts) else None
        return Found(foreign=".".join(parts))

    def nodes(self, unit: Unit) -> list[ast.stmt]:
        """The statements of a definition or a method; none if there is no such thing."""
        name, _, member = unit[1].partition(".")
        nodes = self.modules[unit[0]].definitions.get(name, [])
        if not member:
            return nodes
        return [
            inner
            for node in nodes
            if isinstance(node, ast.ClassDef)
            for inner in node.body
            if isinstance(inner, Function) and inner.name == member
        ]

    def class_of(self, unit: Unit) -> ast.ClassDef | None:
        """The node of a class; None for other units."""
        nodes = self.modules[unit[0]].definitions.get(unit[1], [])
        last = nodes[-1] if nodes else None
        return last if isinstance(last, ast.ClassDef) else None

    def methods(self, unit: Unit) -> list[str]:
        """Names of a class's own methods."""
        node = self.class_of(unit)
        return [n.name for n in node.body if isinstance(n, Function)] if node else []

    def _bases(self, unit: Unit) -> Iterator[Unit | str]:
        node = self.class_of(unit)
        for base in node.bases if node else ():
            inner = base.value if isinstance(base, ast.Subscript) else base
            chain = chain_of(inner)
            found = self.find(unit[0], chain) if chain else None
            if found is None or found.unit is None:
                yield found.foreign if found else ".".join(chain)
            else:
                yield found.unit

    def _mro(self, unit: Unit) -> tuple[Unit, ...]:
        """A class and its bases in the package, nearest first."""
        above = [b for b in self._bases(unit) if not isinstance(b, str)]
        return tuple(dict.fromkeys([unit, *(each for b in above for each in self.mro(b))]))

    def foreign(self, unit: Unit) -> set[str]:
        """Last names of the bases outside the package, of a class and of its bases."""
        every = (base for each in self.mro(unit) for base in self._bases(each))
        return {base.rpartition(".")[2] for base in every if isinstance(base, str)}

    def entries(self, unit: Unit) -> dict[str, ast.expr] | None:
        """The entries of a table of choices by name; None for what is no such table.

        Raises:
            ValueError: a table whose entries cannot be read from the text.
        """
        nodes = self.modules[unit[0]].definitions.get(unit[1], [])
        last = nodes[-1] if nodes else None
        pairs = entries_in(last.value) if isinstance(last, ast.Assign | ast.AnnAssign) else None
        if pairs is None:
            return None
        found = {name: entry for name, entry in pairs if name is not None}
        if len(found) < len(pairs) or len(self.nodes(unit)) > 1:
            raise ValueError(
                f"the table {unit[1]} of {unit[0]} is expected to be written in one piece, every "
                "entry with its name in quotes: only then is it known what an entry's code is"
            )
        return found


def chain_of(node: ast.expr) -> tuple[str, ...]:
    """`a.b.c` as ("a", "b", "c"); empty for anything but names and their attributes."""
    if isinstance(node, ast.Name):
        return (node.id,)
    if isinstance(node, ast.Attribute):
        inner = chain_of(node.value)
        return (*inner, node.attr) if inner else ()
    return ()
