"""The names that a function binds, and what its text says of each."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from matlib.study.definitions import Function, Module, Unit, chain_of, imported

Source = tuple[str, Any]
"""What a name is bound to: ("said", annotation), ("value", expression), ("object", class),
("function", node), or ("?", None) where the text does not say."""

UNKNOWN: Source = ("?", None)


@dataclass
class Scope:
    """The names of one function, or of the top of a class."""

    module: Module
    above: Scope | None = None
    owner: Unit | None = None
    imports: dict[str, str] = field(default_factory=dict)
    sources: dict[str, list[Source]] = field(default_factory=dict)

    def holder(self, name: str) -> Scope | None:
        """The scope that binds a name, from here outwards; None for the module's names."""
        if name in self.sources or name in self.imports:
            return self
        return self.above.holder(name) if self.above else None

    def bind(self, name: str, source: Source = UNKNOWN) -> None:
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


def _said(annotation: ast.expr | None) -> Source:
    return ("said", annotation) if annotation is not None else UNKNOWN


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
