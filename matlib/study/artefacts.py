"""What an artefact is before it exists (its specification) and after (a verified folder)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from matlib.study.provenance import canonical_json, code_hash, file_hash, text_hash

SCHEMA = 1
"""Version of the layout of a results folder; raised when older folders cannot be read."""

PROVENANCE = "provenance.json"


class StoreVersionError(ValueError):
    """A results folder that another version of matlib made."""


@dataclass(frozen=True)
class ArtefactSpec:
    """What an artefact is, before it exists.

    Attributes:
        kind: what sort of thing, e.g. `model`, `robustness`.
        name: which one, e.g. `mat+`.
        seed: the seed that all its randomness comes from.
        config: resolved configuration, JSON types only, no path of any machine.
        inputs: hash of each input (`other_spec.hash`, a data set's content hash).
        maker: what makes it, by the name that `@makes` gives it (`matlib.study.makers`): its
            code, and all that this reaches, counts.
        chosen: names of the entries that count in the tables of choices that it reaches.
    """

    kind: str
    name: str
    seed: int
    config: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)
    maker: str = ""
    chosen: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for part in (self.kind, self.name):
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.+-]*", part):
                raise ValueError(
                    "kind and name of an artefact become part of a folder's name: letters, "
                    f"digits and _ . + - are expected; got {part!r}"
                )

    @cached_property
    def code(self) -> str:
        """Hash of the code that makes it."""
        return code_hash(self.maker, self.chosen)

    @cached_property
    def hash(self) -> str:
        """sha256, hexadecimal: the identity of the artefact, known before it is made."""
        identity = {
            "kind": self.kind,
            "name": self.name,
            "seed": self.seed,
            "config": self.config,
            "inputs": self.inputs,
            "code": self.code,
        }
        return text_hash(canonical_json(identity))

    @property
    def folder(self) -> str:
        """Name of its folder."""
        return f"{self.kind}-{self.name}-s{self.seed}-{self.hash[:12]}"


@dataclass(frozen=True)
class Artefact:
    """A folder that is whole and verified.

    Attributes:
        path: its folder.
        provenance: the content of its provenance.json.
    """

    path: Path
    provenance: Mapping[str, Any]

    @property
    def hash(self) -> str:
        return str(self.provenance["hash"])

    @property
    def notes(self) -> Mapping[str, Any]:
        """What the maker returned: small facts such as losses or counts."""
        notes: Mapping[str, Any] = self.provenance["notes"]
        return notes

    def file(self, name: str) -> Path:
        """Path of one output, `/` between folders.

        Raises:
            FileNotFoundError: the artefact has no such output.
        """
        outputs = self.provenance["outputs"]
        if name not in outputs:
            raise FileNotFoundError(f"{self.path.name} has no file {name!r}; it has {[*outputs]}")
        return self.path / name


def check_schema(root: Path) -> None:
    marker = root / "store.json"
    if marker.is_file():
        found = _schema_in(marker)
    elif (root / "runs").is_dir() and any((root / "runs").glob("*/" + PROVENANCE)):
        found = None  # artefacts without a marker: a version before markers, or not ours
    else:
        return
    if found != SCHEMA:
        _refuse_schema(root.name, found)


def _schema_in(marker: Path) -> Any:
    with suppress(ValueError, RecursionError):
        content = json.loads(marker.read_text(encoding="utf-8"))
        if isinstance(content, dict):
            return content.get("schema")
    raise StoreVersionError(
        f"{marker} is damaged: it is expected to hold {json.dumps({'schema': SCHEMA})}. Write that "
        "into it, or move the folder away, and run the command again"
    )


def _refuse_schema(name: str, found: Any) -> None:
    raise StoreVersionError(
        f"the results folder {name!r} was made by another version of matlib (layout {found}; "
        f"this version reads {SCHEMA}). Move or delete it, or give another results folder, "
        "and run the command again"
    )


def read_provenance(folder: Path) -> dict[str, Any]:
    path = folder / PROVENANCE
    if not path.is_file():
        raise ValueError(f"{PROVENANCE} is missing")
    provenance: Any = None
    with suppress(ValueError, RecursionError):
        provenance = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(provenance, dict):
        raise ValueError(f"{PROVENANCE} is not readable as a JSON object")
    if provenance.get("schema") != SCHEMA:
        _refuse_schema(folder.name, provenance.get("schema"))
    return provenance


def outputs_of(folder: Path) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            raise ValueError(f"an artefact holds files of its own, no links; got the link {name}")
        if path.is_file():
            found[name] = {"bytes": path.stat().st_size, "sha256": file_hash(path)}
    return found
