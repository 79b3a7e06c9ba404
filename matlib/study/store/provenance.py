"""What made an artefact: its configuration, its code, and the state of the checkout.

Of the code, the definitions count that the maker of an artefact reaches. So a reworded comment
remakes nothing, and a changed attack remakes all that used it.
"""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from importlib import metadata
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from matlib.files import file_hash
from matlib.study.identity.reached import Code

PACKAGE_ROOT = Path(__file__).resolve().parents[3]
"""The folder that holds the package `matlib` (the checkout, when installed editable)."""

PACKAGE = PACKAGE_ROOT / "matlib"

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


def code_hash(maker: str, chosen: Iterable[str] = (), package: Path = PACKAGE) -> str:
    """sha256 of the code that a maker reaches (`matlib.study.identity.reached`).

    Args:
        maker: as `@makes` names it.
        chosen: entries that count in the tables of choices that it reaches.
        package: folder of the package.

    Raises:
        ValueError: no such maker, or an entry that none of these tables has.
    """
    return _code(package).hash(maker, tuple(sorted(set(chosen))))


@cache
def _code(package: Path) -> Code:
    """Once per process: it runs the code that it was started with, whatever is edited since."""
    return Code(package)


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


def stale_kinds(records: Iterable[Mapping[str, Any]], package: Path = PACKAGE) -> list[str]:
    """Kinds among `records` (provenances of artefacts) that other code made than is here now."""
    return sorted({record["kind"] for record in records if not _is_current(record, package)})


def _is_current(record: Mapping[str, Any], package: Path) -> bool:
    if "maker" not in record:  # of a version that named modules in its place
        return False
    try:
        return code_hash(record["maker"], record["chosen"], package) == record["code"]
    except ValueError:  # what made it is no longer here
        return False
