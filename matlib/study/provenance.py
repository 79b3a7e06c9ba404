"""What made an artefact: its configuration, its code, and the state of the checkout.

The code of a kind is hashed as a syntax tree without comments and docstrings, read from the
files without importing them. So a reworded comment remakes nothing, and a changed attack remakes
all that used it.
"""

from __future__ import annotations

import ast
import hashlib
import json
import platform
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache, lru_cache
from importlib import metadata
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

PACKAGE_ROOT = Path(__file__).resolve().parent.parent.parent
"""The folder that holds the package `matlib` (the checkout, when installed editable)."""

INERT_MODULES = frozenset({"matlib.progress"})
"""Modules that cannot change a result: their code is left out of every hash."""

VERSIONED = ("torch", "torchvision", "open_clip_torch", "transformers", "numpy")


def canonical_json(value: Any) -> str:
    """One text per value: keys sorted, no spaces, JSON types only.

    Raises:
        ValueError: something JSON cannot hold (a path, a tensor, nan), or a path of this machine.
    """
    _refuse_absolute_paths(value)
    try:
        return json.dumps(
            value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False
        )
    except (TypeError, ValueError) as error:
        raise ValueError(
            "a configuration is expected to hold JSON types only (strings, finite numbers, "
            f"booleans, lists, mappings); {error}. Turn the offending value into one of these."
        ) from error


def _refuse_absolute_paths(value: Any) -> None:
    for text in _strings(value):
        if PurePosixPath(text).is_absolute() or PureWindowsPath(text).is_absolute():
            raise ValueError(
                f"a configuration must not hold a path of this machine, got {text!r}; "
                "give the hash of the content as an input instead"
            )


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _strings(key)
            yield from _strings(item)
    elif isinstance(value, Sequence) and not isinstance(value, bytes):
        for item in value:
            yield from _strings(item)


def text_hash(text: str) -> str:
    """sha256 of `text` in UTF-8, hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def file_hash(path: Path) -> str:
    """sha256 of a file's bytes, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def named_weights(name_or_place: str) -> str:
    """Identity of a pretrained model: its name on the hub, or the hash of a local file or folder.

    A place says nothing about the content, and belongs to one machine. Of a folder the names of
    all its files below it count too.
    """
    place = Path(name_or_place)
    if name_or_place and place.is_file():
        return file_hash(place)
    if not name_or_place or not place.is_dir():
        return name_or_place
    whole = hashlib.sha256()
    for path in sorted(path for path in place.rglob("*") if path.is_file()):
        whole.update(f"{path.relative_to(place).as_posix()} {file_hash(path)}\n".encode())
    return whole.hexdigest()


def code_hash(modules: Iterable[str], root: Path = PACKAGE_ROOT) -> str:
    """sha256 of the code of `modules` and of all of this package that they import.

    Args:
        modules: dotted names; a package stands for every file in it.
        root: the folder that holds the package.

    Raises:
        ValueError: a module that does not exist.
    """
    if root == PACKAGE_ROOT:
        return _own_code_hash(tuple(modules))
    return _code_hash(tuple(modules), root)


@lru_cache(maxsize=512)
def _own_code_hash(modules: tuple[str, ...]) -> str:
    """Once per process: it runs the code that it was started with, whatever is edited since."""
    return _code_hash(modules, PACKAGE_ROOT)


def _code_hash(modules: Sequence[str], root: Path) -> str:
    files = sorted(_closure(modules, root))
    trees = [
        f"{path.relative_to(root).as_posix()}:{_tree_of(path, _signature(path))}" for path in files
    ]
    return text_hash("\n".join(trees))


def _closure(modules: Sequence[str], root: Path) -> set[Path]:
    """The files of `modules`, and those they import from the same top-level packages."""
    found: set[Path] = set()
    waiting: list[Path] = []
    for name in modules:
        folder = root.joinpath(*name.split("."))
        files = sorted(folder.rglob("*.py")) if folder.is_dir() else _files_of(name, root)
        if not files:
            raise ValueError(f"module {name!r} has no file below the folder of the package")
        waiting += files
    inert = {path for name in INERT_MODULES for path in _files_of(name, root)}
    while waiting:
        path = waiting.pop()
        if path in found or path in inert:
            continue
        found.add(path)
        for name in _imports_of(path, root, _signature(path)):
            waiting += _files_of(name, root)
    return found


def _files_of(name: str, root: Path) -> list[Path]:
    """The one file of a module or package, or none if `name` is not a module of this package."""
    base = root.joinpath(*name.split("."))
    candidates = (base.with_suffix(".py"), base / "__init__.py")
    return [path for path in candidates if path.is_file()]


@lru_cache(maxsize=512)
def _imports_of(path: Path, root: Path, signature: tuple[int, int]) -> tuple[str, ...]:
    """Dotted names that a file imports; `from a import b` gives `a` and `a.b`."""
    package = path.parent.relative_to(root).parts
    names: list[str] = []
    for node in ast.walk(_parse(path)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            stem = ".".join([*base, *([node.module] if node.module else [])])
            names += [stem, *(f"{stem}.{alias.name}" for alias in node.names)]
    return tuple(names)


@lru_cache(maxsize=512)
def _tree_of(path: Path, signature: tuple[int, int]) -> str:
    """The code of a file; `signature` makes an edited file be read again."""
    return json.dumps(_plain(_parse(path)))


def _signature(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_mtime_ns, stat.st_size


def _parse(path: Path) -> ast.Module:
    """The syntax tree of a file."""
    return ast.parse(path.read_text(encoding="utf-8"), filename=path.name)


def _plain(node: Any) -> Any:
    """A syntax tree as lists, without docstrings and positions.

    `ast.dump` would do, but its text differs between Python 3.11 and 3.13 for the same code;
    here empty fields are left out, so that the hash is one for all.
    """
    if isinstance(node, ast.Constant):
        return [type(node.value).__name__, repr(node.value)]
    if isinstance(node, ast.AST):
        fields = []
        for name, value in ast.iter_fields(node):
            if name == "body" and isinstance(value, list):
                value = _without_docstring(node, value)
            if value is not None and value != [] and name not in ("ctx", "type_comment"):
                fields.append([name, _plain(value)])
        return [type(node).__name__, fields]
    if isinstance(node, list):
        return [_plain(item) for item in node]
    return repr(node)


def _without_docstring(node: ast.AST, body: list[Any]) -> list[Any]:
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    if isinstance(node, documented) and ast.get_docstring(node, clean=False) is not None:
        return body[1:]
    return body


@cache
def checkout_state() -> dict[str, Any]:
    """`commit` (None outside a git checkout) and `dirty`: whether tracked files differ from it."""
    commit = _git("rev-parse", "HEAD")
    if commit is None:
        return {"commit": None, "dirty": None}
    return {"commit": commit, "dirty": bool(_git("status", "--porcelain", "-uno"))}


def _git(*arguments: str) -> str | None:
    # Without a .git of our own, git would report the state of whatever repository lies around us.
    if not (PACKAGE_ROOT / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "-C", str(PACKAGE_ROOT), *arguments], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


@cache
def versions() -> dict[str, str]:
    """Versions of Python and of the packages that the numbers depend on most."""
    found = {"python": platform.python_version()}
    for name in VERSIONED:
        found[name] = metadata.version(name)
    return found


def stale_kinds(records: Iterable[Mapping[str, Any]], root: Path = PACKAGE_ROOT) -> list[str]:
    """Kinds among `records` (provenances of artefacts) that other code made than is here now."""
    found = {
        record["kind"] for record in records if code_hash(record["modules"], root) != record["code"]
    }
    return sorted(found)
