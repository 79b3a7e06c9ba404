"""The names that a function binds, and what its text says of each.

Whose method `x.draw` may be: the classes of an expression, from the annotations around it.

None where they cannot be told: then every class that was met is asked. What is of no class of the
package (a tensor, a string) has the empty set.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from matlib.study.identity.definitions import (
    Found,
    Function,
    Module,
    Package,
    Unit,
    chain_of,
    imported,
)

Told = tuple[str, Any]
"""What a name is bound to: ("said", annotation), ("value", expression), ("object", class),
("function", node), or ("?", None) where the text does not say."""

_UNKNOWN: Told = ("?", None)


@dataclass
class Scope:
    """The names of one function, or of the top of a class."""

    module: Module
    above: Scope | None = None
    owner: Unit | None = None
    imports: dict[str, str] = field(default_factory=dict)
    sources: dict[str, list[Told]] = field(default_factory=dict)

    def holder(self, name: str) -> Scope | None:
        """The scope that binds a name, from here outwards; None for the module's names."""
        if name in self.sources or name in self.imports:
            return self
        return self.above.holder(name) if self.above else None

    def bind(self, name: str, source: Told = _UNKNOWN) -> None:
        self.sources.setdefault(name, []).append(source)

    def inside(self, node: ast.AST, *, is_method: bool = False) -> Scope:
        """The scope of a function, lambda or comprehension that is written in this one."""
        inner = Scope(self.module, self, self.owner)
        if isinstance(node, Function | ast.Lambda):
            a = node.args
            first = is_method and not _is_static(node)
            for arg in [*a.posonlyargs, *a.args, *a.kwonlyargs]:
                inner.bind(arg.arg, ("object", self.owner) if first else _said(arg.annotation))
                first = False
            for extra in (a.vararg, a.kwarg):
                if extra:
                    inner.bind(extra.arg)
            body = node.body if isinstance(node.body, list) else [node.body]
            inner.take(own_nodes(body))
        else:
            for each in getattr(node, "generators", ()):
                inner.take(own_nodes([each.target]))
        return inner

    def take(self, nodes: Iterable[ast.AST]) -> None:
        """The names that these nodes bind."""
        known: set[int] = set()
        outer: set[str] = set()
        for node in nodes:
            match node:
                case ast.Import() | ast.ImportFrom():
                    self.imports |= imported(node, self.module.package)
                case ast.Global() | ast.Nonlocal():
                    outer |= {*node.names}
                case ast.FunctionDef() | ast.AsyncFunctionDef():
                    self.bind(node.name, ("function", node))
                case ast.ClassDef():
                    self.bind(node.name)
                case ast.Assign():
                    for target in node.targets:
                        known |= self._pair(target, node.value)
                case ast.AnnAssign(target=ast.Name(id=name)):
                    known.add(id(node.target))
                    self.bind(name, _said(node.annotation))
                case ast.NamedExpr():
                    known |= self._pair(node.target, node.value)
                case ast.withitem() if node.optional_vars:
                    known |= self._pair(node.optional_vars, node.context_expr)
                case ast.ExceptHandler() | ast.MatchAs() | ast.MatchStar() if node.name:
                    self.bind(node.name)
                case ast.Name(ctx=ast.Store() | ast.Del()) if id(node) not in known:
                    self.bind(node.id)
                case _:
                    pass
        for name in outer:
            self.sources.pop(name, None)

    def _pair(self, target: ast.expr, value: ast.expr) -> set[int]:
        if isinstance(target, ast.Name):
            self.bind(target.id, ("value", value))
            return {id(target)}
        if (
            isinstance(target, ast.Tuple)
            and isinstance(value, ast.Tuple)
            and len(target.elts) == len(value.elts)
        ):
            pairs = zip(target.elts, value.elts, strict=True)
            return {one for t, v in pairs for one in self._pair(t, v)}
        return set()


def _said(annotation: ast.expr | None) -> Told:
    return ("said", annotation) if annotation is not None else _UNKNOWN


def _is_static(node: ast.AST) -> bool:
    return any(chain_of(d) == ("staticmethod",) for d in getattr(node, "decorator_list", ()))


def own_nodes(body: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """The nodes of statements, outer before inner, without those of functions inside."""
    waiting = [*body]
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, _APART):
            waiting += ast.iter_child_nodes(node)


_APART = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)


Classes = frozenset[Unit] | None

_NOTHING: frozenset[Unit] = frozenset()
NOT_TOLD = frozenset({"Any", "object", "type", "TypeVar", "ParamSpec"})
AS_FIRST = frozenset({"dataclasses.replace", "copy.copy", "copy.deepcopy"})
AROUND = frozenset({"Optional", "Final", "ClassVar", "Annotated"})


def union(parts: Iterable[Classes]) -> Classes:
    """All of them; not to be told where one part is not."""
    found = _NOTHING
    for part in parts:
        if part is None:
            return None
        found |= part
    return found


class Receivers:
    """Classes of expressions in one package."""

    def __init__(self, package: Package) -> None:
        self.package = package
        self.member, self.assigned = cache(self._member), cache(self._assigned)
        self._asked: set[tuple[int, int]] = set()

    def follow(self, node: ast.expr, scope: Scope) -> Found | None:
        """Where a name or `module.name` is defined; None for local names and builtins."""
        chain = chain_of(node)
        if not chain:
            return None
        holder = scope.holder(chain[0])
        if holder is None:
            return self.package.find(scope.module.name, chain)
        if chain[0] in holder.imports:
            return self.package.locate((*holder.imports[chain[0]].split("."), *chain[1:]))
        return None

    def classes(self, node: ast.expr, scope: Scope) -> Classes:
        """The classes that the value of an expression may have; a class stands for itself."""
        key = (id(node), id(scope))
        if key in self._asked:
            return _NOTHING  # asked in a circle: what else is said of it decides
        self._asked.add(key)
        try:
            return self._classes(node, scope)
        finally:
            self._asked.discard(key)

    def _classes(self, node: ast.expr, scope: Scope) -> Classes:
        found = self.follow(node, scope)
        if found is not None and not found.rest:
            return self._of_unit(found.unit) if found.unit else _NOTHING
        match node:
            case ast.Name():
                holder = scope.holder(node.id)
                sources = holder.sources[node.id] if holder else []
                return union(self._of_source(s, holder) for s in sources) if holder else _NOTHING
            case ast.Attribute():
                owners = self.classes(node.value, scope)
                return owners and union(self.member(o, node.attr, False) for o in owners)
            case ast.Call():
                return self._called(node, scope)
            case ast.IfExp():
                return union(self.classes(part, scope) for part in (node.body, node.orelse))
            case ast.BoolOp():
                return union(self.classes(part, scope) for part in node.values)
            case ast.NamedExpr():
                return self.classes(node.value, scope)
            case ast.Constant() | ast.JoinedStr() | ast.List() | ast.Tuple() | ast.Dict():
                return _NOTHING
            case _:
                return None

    def _of_source(self, source: Told, scope: Scope) -> Classes:
        match source:
            case ("said", ast.expr() as annotation):
                return self.said(annotation, scope.module.name, scope.owner)
            case ("value", ast.expr() as value):
                return self.classes(value, scope)
            case ("object", tuple() as unit):
                return frozenset({unit})
            case ("function", _):
                return _NOTHING
            case _:
                return None

    def _of_unit(self, unit: Unit) -> Classes:
        if self.package.class_of(unit):
            return frozenset({unit})
        [*_, node] = self.package.nodes(unit)
        if isinstance(node, ast.AnnAssign):
            return self.said(node.annotation, unit[0])
        if isinstance(node, ast.Assign):
            return self.classes(node.value, Scope(self.package.modules[unit[0]]))
        return _NOTHING if isinstance(node, Function) else None

    def _called(self, node: ast.Call, scope: Scope) -> Classes:
        func = node.func
        if isinstance(func, ast.Name) and func.id == "super" and scope.owner:
            return frozenset(self.package.mro(scope.owner)[1:])
        match func, node.args:
            case ast.Name(id="getattr"), [of, ast.Constant(value=str(name)), *_]:
                return self.classes(ast.Attribute(of, name, ast.Load()), scope)
        found = self.follow(func, scope)
        if found is not None and found.unit is None:
            if found.foreign in AS_FIRST and node.args:
                return self.classes(node.args[0], scope)
            if found.foreign == "typing.cast":
                return self.said(node.args[0], scope.module.name, scope.owner)
            return None
        if found is not None and found.unit is not None and not found.rest:
            return self._result(found.unit)
        if isinstance(func, ast.Attribute):
            owners = self.classes(func.value, scope)
            return owners and union(self.member(o, func.attr, True) for o in owners)
        if isinstance(func, ast.Name) and (holder := scope.holder(func.id)):
            return union(self._result_of(s, holder) for s in holder.sources[func.id])
        return None

    def _result(self, unit: Unit) -> Classes:
        """What calling a function, a class or an object of the module gives."""
        if self.package.class_of(unit):
            return frozenset({unit})
        [*_, node] = self.package.nodes(unit)
        if isinstance(node, Function):
            return self.said(node.returns, unit[0])
        return None

    def _result_of(self, source: Told, scope: Scope) -> Classes:
        """What calling a local name gives."""
        module, owner = scope.module.name, scope.owner
        match source:
            case ("function", ast.FunctionDef() as node):
                return self.said(node.returns, module, owner)
            case ("said", ast.expr() as annotation):
                return self.said(_returned(annotation), module, owner)
            case ("object", tuple() as unit):  # `cls(…)`
                return frozenset({unit})
            case _:
                return None

    def _member(self, unit: Unit, name: str, called: bool) -> Classes:
        """What `x.name`, or `x.name(…)`, may be for an object of a class."""
        for own in self.package.mro(unit):
            node = self.package.class_of(own)
            for part in node.body if node else ():
                match part:
                    case ast.FunctionDef() | ast.AsyncFunctionDef() if part.name == name:
                        is_property = any(
                            chain_of(d)[-1:] in (("property",), ("cached_property",))
                            for d in part.decorator_list
                        )
                        if is_property and called:
                            return self.said(_returned(part.returns), own[0], unit)
                        return self.said(part.returns, own[0], unit) if is_property or called \
                            else _NOTHING  # fmt: skip
                    case ast.AnnAssign(target=ast.Name(id=field)) if field == name:
                        said = _returned(part.annotation) if called else part.annotation
                        return self.said(said, own[0], unit)
            if assigned := self.assigned(own).get(name):
                told = self._result_of if called else self._of_source
                return union(told(source, scope) for source, scope in assigned)
        return None

    def _assigned(self, unit: Unit) -> dict[str, list[tuple[Told, Scope]]]:
        """What the methods of a class assign to `self.name`, by name."""
        node, around = self.package.class_of(unit), Scope(self.package.modules[unit[0]], None, unit)
        found: dict[str, list[tuple[Told, Scope]]] = {}
        for method in node.body if node else ():
            if not isinstance(method, Function):
                continue
            scope = around.inside(method, is_method=True)
            for part in own_nodes(method.body):
                match part:
                    case ast.Assign(targets=[target], value=value):
                        for t, v in _pairs(target, value):
                            if isinstance(t, ast.Attribute) and chain_of(t.value) == ("self",):
                                found.setdefault(t.attr, []).append((("value", v), scope))
                    case ast.AnnAssign(target=ast.Attribute() as t) if chain_of(t.value) == (
                        "self",
                    ):
                        found.setdefault(t.attr, []).append((("said", part.annotation), scope))
        return found

    def said(self, node: ast.expr | None, module: str, owner: Unit | None = None) -> Classes:
        """The classes that an annotation names."""
        match node:
            case None:
                return None
            case ast.Constant(value=str(text)):
                return self.said(ast.parse(text, mode="eval").body, module, owner)
            case ast.Constant() | ast.List() | ast.Tuple():
                return _NOTHING
            case ast.BinOp():
                return union(self.said(part, module, owner) for part in (node.left, node.right))
            case ast.Subscript():
                head = chain_of(node.value)[-1:]
                if head and head[0] in AROUND:  # `Annotated` has notes behind the type
                    inner = node.slice.elts[0] if isinstance(node.slice, ast.Tuple) else node.slice
                    return self.said(inner, module, owner)
                return self.said(node.value, module, owner)
        chain = chain_of(node) if node else ()
        if chain == ("Self",):
            return frozenset({owner}) if owner else None
        found = self.package.find(module, chain) if chain else None
        if found is None or found.unit is None:
            last = found.foreign.rpartition(".")[2] if found else chain[-1] if chain else "Any"
            if last == "Self":
                return frozenset({owner}) if owner else None
            return None if last in NOT_TOLD or last in self.package.foreign_bases else _NOTHING
        if self.package.class_of(found.unit):
            return frozenset({found.unit})
        [*_, alias] = self.package.nodes(found.unit)
        value = alias.value if isinstance(alias, ast.Assign | ast.AnnAssign) else None
        if isinstance(value, ast.Call):
            return None
        return self.said(value, found.unit[0], owner)


def _returned(annotation: ast.expr | None) -> ast.expr | None:
    """R of `Callable[[…], R]`."""
    match annotation:
        case ast.Subscript(value=value, slice=ast.Tuple(elts=[_, result])):
            return result if chain_of(value)[-1:] == ("Callable",) else None
        case _:
            return None


def _pairs(target: ast.expr, value: ast.expr) -> list[tuple[ast.expr, ast.expr]]:
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
        return [p for t, v in zip(target.elts, value.elts, strict=False) for p in _pairs(t, v)]
    return [(target, value)]
