"""One definition read: its text as far as it decides results, and what it leads to.

Not part of the text: docstrings, annotations, comments, layout, imports (a name stands for what
it was imported from), the places of definitions in files, and how an entry of a table is called in
figures (`Shown`).
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from matlib.study.identity.definitions import MAKES, SHOWN_CLASS, Function, Package, Unit, chain_of
from matlib.study.identity.receivers import Receivers, Scope, own_nodes

Access = tuple[Unit | None, str]
"""`x.name` for an object of a class, or of a class that is not known (None)."""

ANY = "*"
"""In place of a name that the text does not say."""

BY_TEXT = frozenset({"operator.methodcaller", "operator.attrgetter"})

MAKE = "make"
"""The function inside, which the store calls only where the artefact is not there."""


@dataclass
class Definition:
    """What one definition says.

    Attributes:
        text: its syntax tree as nested lists.
        units: the definitions that it names, in the order of the text.
        accesses: the attributes that it reads.
        met: classes that its annotations name, whose objects it may be handed.
    """

    text: Any = None
    units: list[Unit] = field(default_factory=list)
    accesses: set[Access] = field(default_factory=set)
    met: set[Unit] = field(default_factory=set)


class Reader:
    """Reads the definitions of one package.

    Args:
        package: all its modules.
    """

    def __init__(self, package: Package) -> None:
        self.package, self.receivers = package, Receivers(package)

    def read(self, unit: Unit, *, as_root: bool = False) -> Definition:
        """A definition; of a maker that is not the root, without the function `make` inside."""
        module, (name, _, member) = self.package.modules[unit[0]], unit[1].partition(".")
        found, scope = Definition(), Scope(module, None, (unit[0], name) if member else None)
        text = _Text(self, found, as_root=as_root)
        if unit[1].endswith("]"):
            table, _, key = unit[1][:-1].partition("[")
            entries = self.package.entries((unit[0], table)) or {}
            found.text = text.plain(entries[key], scope)
        elif not name:
            found.text = text.plain(module.loose, scope)
        else:
            found.text = text.plain(self.package.nodes(unit), scope, is_method=bool(member))
        return found


class _Text:
    """The text of one definition, noting on the way what it leads to."""

    def __init__(self, reader: Reader, found: Definition, *, as_root: bool) -> None:
        self.package, self.receivers = reader.package, reader.receivers
        self.found, self.as_root = found, as_root

    def plain(self, node: Any, scope: Scope, *, is_method: bool = False) -> Any:
        """A syntax tree as lists: equal for all versions of Python, empty fields left out."""
        match node:
            case list():
                kept = (n for n in node if not _is_nothing(n))
                return [self.plain(n, scope, is_method=is_method) for n in kept]
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda():
                return self._function(node, scope, is_method)
            case ast.ClassDef():
                return self._class(node, scope)
            case ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
                return self._fields(node, scope.inside(node))
            case ast.AnnAssign():
                self._meet(node.annotation, scope)
                parts = [self.plain(node.target, scope), self.plain(node.value, scope)]
                return ["Assign", parts]
            case ast.Name() | ast.Attribute():
                return self._name(node, scope)
            case ast.Call() if chain_of(node.func)[-1:] == (SHOWN_CLASS,):
                return [SHOWN_CLASS]
            case ast.Call():
                self._by_text(node, scope)
                return self._fields(node, scope)
            case ast.Constant():
                return [type(node.value).__name__, repr(node.value)]
            case ast.AST():
                return self._fields(node, scope)
            case _:
                return repr(node)

    def _fields(self, node: ast.AST, scope: Scope) -> list[Any]:
        parts = [
            [name, self.plain(value, scope)]
            for name, value in ast.iter_fields(node)
            if value is not None and value != [] and name not in ("ctx", "type_comment", "kind")
        ]
        return [type(node).__name__, parts]

    def _function(self, node: Function | ast.Lambda, scope: Scope, is_method: bool) -> list[Any]:
        inner, a = scope.inside(node, is_method=is_method), node.args
        every = [*a.posonlyargs, *a.args, *a.kwonlyargs, *filter(None, (a.vararg, a.kwarg))]
        for arg in every:
            self._meet(arg.annotation, scope)
        names = [[arg.arg for arg in part] for part in (a.posonlyargs, a.args, a.kwonlyargs)]
        more = [arg.arg if arg else "" for arg in (a.vararg, a.kwarg)]
        defaults = [self.plain([*part], scope) for part in (a.defaults, a.kw_defaults)]
        if isinstance(node, ast.Lambda):
            return ["Lambda", names, more, defaults, self.plain(node.body, inner)]
        self._meet(node.returns, scope)
        decorators = node.decorator_list
        kept = [d for d in decorators if not is_mark(d)]
        body: Sequence[ast.stmt] = node.body
        if any(map(is_mark, decorators)) and not self.as_root:
            body = [n for n in body if not (isinstance(n, Function) and n.name == MAKE)]
        parts = [self.plain(kept, scope), names, more, defaults, self.plain([*body], inner)]
        return [type(node).__name__, node.name, *parts]

    def _class(self, node: ast.ClassDef, scope: Scope) -> list[Any]:
        """A class without its methods, which are definitions of their own at a module's top."""
        inner = Scope(scope.module, scope, scope.owner)
        inner.take(own_nodes(node.body))
        is_top = any(node is each for each in scope.module.definitions.get(node.name, ()))
        body = [n for n in node.body if not (is_top and isinstance(n, Function))]
        heads = (node.decorator_list, node.bases, node.keywords)
        head = [self.plain(part, scope) for part in heads]
        return ["ClassDef", node.name, head, self.plain(body, inner)]

    def _name(self, node: ast.Name | ast.Attribute, scope: Scope) -> list[Any]:
        found = self.receivers.follow(node, scope)
        if found is not None and found.unit is None:
            return ["foreign", found.foreign]
        if found is not None and found.unit is not None and not found.rest:
            self.found.units.append(found.unit)
            return ["defined", found.unit[1]]
        if isinstance(node, ast.Attribute):
            self._access(node.value, node.attr, scope)
            return ["Attribute", self.plain(node.value, scope), node.attr]
        return ["Name", node.id]

    def _by_text(self, node: ast.Call, scope: Scope) -> None:
        """`getattr(x, "name")`, and `getattr(x, name)`, which may be any method of x's class."""
        found = self.receivers.follow(node.func, scope)
        match node.func, node.args:
            case ast.Name(id="getattr"), [of, ast.Constant(value=str(name)), *_]:
                self._access(of, name, scope)
            case ast.Name(id="getattr"), [of, *_]:
                owners = self.receivers.classes(of, scope) or ()
                self.found.accesses |= {(owner, ANY) for owner in owners}
            case _, [*names] if found is not None and found.foreign in BY_TEXT:
                texts = {n.value for n in names if isinstance(n, ast.Constant)}
                self.found.accesses |= {(None, str(text)) for text in texts}
            case _:
                pass

    def _access(self, value: ast.expr, name: str, scope: Scope) -> None:
        classes = self.receivers.classes(value, scope)
        owners: Iterable[Unit | None] = (None,) if classes is None else classes
        self.found.accesses |= {(owner, name) for owner in owners}
        for owner in classes or ():
            methods = {m for own in self.package.mro(owner) for m in self.package.methods(own)}
            if "__getattr__" in methods and name not in methods:
                self.found.accesses.add((None, name))  # handed on to another object

    def _meet(self, annotation: ast.expr | None, scope: Scope) -> None:
        for node in ast.walk(annotation) if annotation else ():
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                try:
                    node = ast.parse(node.value, mode="eval").body
                except SyntaxError:  # not a type: a pattern inside `Annotated[…]`
                    continue
            chain = chain_of(node) if isinstance(node, ast.expr) else ()
            found = self.package.find(scope.module.name, chain) if chain else None
            if found and found.unit and self.package.class_of(found.unit):
                self.found.met.add(found.unit)


def is_mark(decorator: ast.expr) -> bool:
    """Whether it is `@makes(…)`."""
    return isinstance(decorator, ast.Call) and chain_of(decorator.func)[-1:] == (MAKES,)


def _is_nothing(node: Any) -> bool:
    """Docstrings, imports, and `pass`."""
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant)
    return isinstance(node, _NOTHING)


_NOTHING = (ast.Import, ast.ImportFrom, ast.Pass)
