"""Names of image files as captions give them: one spelling each, and the file on disk."""

from __future__ import annotations

import os
import posixpath
import unicodedata
from collections.abc import Sequence
from pathlib import Path, PureWindowsPath

from matlib.data.strict import check_whole


def one_spelling(names: Sequence[str], captions: Path) -> list[str]:
    """The names, each in one spelling: `a/../i0.png`, `./i0.png` and `i0.png` are the same file.

    Raises:
        ValueError: a name outside the folder of images, or two of the same image.
    """
    found: dict[str, str] = {}
    for given in names:
        name = _place(given, captions)
        if name in found:
            raise ValueError(
                f"{captions}: {found[name]!r} and {given!r} name the same image; give it one "
                "entry with all its captions"
            )
        found[name] = given
    return list(found)


def find_images(folder: Path, names: Sequence[str], captions: Path) -> tuple[Path, ...]:
    """The files of the names, all of them looked for before any is opened.

    Raises:
        FileNotFoundError: some are missing.
        ValueError: two names of one file, or a name that this system cannot spell.
    """
    found = {name: _on_disk(folder, name) for name in names}
    missing = [name for name, path in found.items() if path is None]
    if missing:
        raise FileNotFoundError(
            f"{captions} has captions for {len(missing):,} of {len(names):,} images that are not "
            f"in {folder}, e.g. {', '.join(missing[:3])}"
        )
    paths = tuple(path for path in found.values() if path is not None)
    _refuse_same_file(names, paths, captions)
    return paths


def _place(given: str, captions: Path) -> str:
    """The name with `/` between folders, without `.` and `..`, in composed characters."""
    check_whole(given, f"{captions}: the name of an image")
    name = posixpath.normpath(given.replace("\\", "/"))
    is_outside = name.startswith("/") or name.split("/")[0] in (".", "..")
    if is_outside or PureWindowsPath(name).drive or "\0" in name:
        raise ValueError(f"{captions}: {given!r} must name a file below the folder of images")
    return unicodedata.normalize("NFC", name)


def _on_disk(folder: Path, name: str) -> Path | None:
    """The file of that name; some systems store `é` as two characters."""
    for spelt in (name, unicodedata.normalize("NFD", name)):
        try:
            os.fsencode(spelt)
        except UnicodeEncodeError as error:
            raise ValueError(
                f"file names are read here as {error.encoding}, which does not hold {name!a}: "
                "set PYTHONUTF8=1 and start again"
            ) from None
        try:
            if (folder / spelt).is_file():
                return folder / spelt
        except OSError:  # a name that is too long for any file
            return None
    return None


def _refuse_same_file(names: Sequence[str], paths: Sequence[Path], captions: Path) -> None:
    """Where capitals do not count, `I0.png` and `i0.png` are one file."""
    first: dict[str, int] = {}
    for i, name in enumerate(names):
        before = first.setdefault(name.casefold(), i)
        if before != i and paths[before].samefile(paths[i]):
            raise ValueError(
                f"{captions}: {names[before]!r} and {name!r} name the same image; give it one "
                "entry with all its captions"
            )
