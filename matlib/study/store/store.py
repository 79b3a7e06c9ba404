"""Artefacts by content: computed once, published whole, verified when used.

An artefact is a folder `runs/<kind>-<name>-s<seed>-<hash12>/`. The hash covers its resolved
configuration, the hashes of its inputs and the code that makes it. It is written to a temporary
folder and moved into place, so a process killed at any moment leaves no half artefact.

What an artefact is before it exists (its specification) and after (a verified folder).
"""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from matlib.files import (
    check_space,
    file_hash,
    sync_folder,
    sync_tree,
    whole_or_nothing,
    write_durably,
)
from matlib.progress import note
from matlib.study.store.provenance import (
    canonical_json,
    checkout_state,
    code_hash,
    text_hash,
    versions,
)


class Store:
    """The artefacts of one profile, below `root` (`results/<profile>`).

    Args:
        root: made if missing.
        device: where the computing is done, for the record.
        say: receives a line for the person who waits (made, remade, waiting).

    Raises:
        StoreVersionError: `root` was made by another version.
    """

    def __init__(
        self, root: Path, *, device: str = "cpu", say: Callable[[str], None] = note
    ) -> None:
        self.root = root
        self.runs = root / "runs"
        self.device = device
        self._say = say
        self._verified: dict[Path, tuple[int, int]] = {}
        check_schema(root)
        self.runs.mkdir(parents=True, exist_ok=True)
        self._mark_schema()
        self._remove_leftovers()

    def find(self, spec: ArtefactSpec) -> Artefact | None:
        """The artefact if it is there and whole, else None."""
        return self._load(spec)[0]

    def get_or_make(
        self, spec: ArtefactSpec, make: Callable[[Path], Mapping[str, Any] | None]
    ) -> Artefact:
        """Load the artefact of `spec`, or make it once, whole or not at all.

        An artefact whose files were changed or lost is made again, and that is said.

        Args:
            make: writes the outputs into the empty folder that it is given; may return notes
                (JSON types) for the provenance.

        Raises:
            DiskFullError: no space; nothing half-written is left.
            StoreVersionError: the artefact was made by another version.
        """
        found, _ = self._load(spec)
        if found is not None:
            return found
        with self._lock(spec.folder):
            found, fault = self._load(spec)  # another process may have made it meanwhile
            if found is not None:
                return found
            if fault:
                self._say(f"{spec.folder} is damaged ({fault}): it is made again")
            return self._make(spec, make)

    def records(self) -> list[dict[str, Any]]:
        """Provenance of every artefact here, sorted by folder; damaged ones are left out."""
        found = []
        for path in sorted(self.runs.glob("*/" + PROVENANCE)):
            if not path.parent.name.startswith("."):
                with suppress(ValueError):
                    found.append(read_provenance(path.parent))
        return found

    def _load(self, spec: ArtefactSpec) -> tuple[Artefact | None, str]:
        """The artefact, or None and what is wrong with it ("" when it does not exist)."""
        folder = self.runs / spec.folder
        if not folder.exists():
            return None, ""
        try:
            provenance = read_provenance(folder)
            if provenance["hash"] != spec.hash:
                return None, "its hash is another one"
            self._verify(folder, provenance["outputs"])
        except StoreVersionError:
            raise
        except (ValueError, OSError) as error:
            return None, str(error)
        except (KeyError, TypeError, AttributeError):
            return None, f"{PROVENANCE} does not name what an artefact's does"
        return Artefact(folder, provenance), ""

    def _verify(self, folder: Path, outputs: Mapping[str, Mapping[str, Any]]) -> None:
        for name, expected in outputs.items():
            path = folder / name
            if not path.is_file():
                raise ValueError(f"{name} is missing")
            stat = path.stat()
            if stat.st_size != expected["bytes"]:
                raise ValueError(f"{name} has {stat.st_size} bytes, not {expected['bytes']}")
            signature = (stat.st_mtime_ns, stat.st_size)
            if self._verified.get(path) != signature:
                if file_hash(path) != expected["sha256"]:
                    raise ValueError(f"the content of {name} has changed")
                self._verified[path] = signature

    def _make(
        self, spec: ArtefactSpec, make: Callable[[Path], Mapping[str, Any] | None]
    ) -> Artefact:
        making = self.runs / f".making-{spec.folder}"
        shutil.rmtree(making, ignore_errors=True)
        with whole_or_nothing(making, spec.folder):
            check_space(self.runs)
            making.mkdir()
            started = time.monotonic()
            notes = make(making)
            provenance = self._provenance(spec, making, notes, time.monotonic() - started)
            write_durably(making / PROVENANCE, json.dumps(provenance, indent=1, sort_keys=True))
            sync_tree(making)
            final = self.runs / spec.folder
            if final.exists():  # a damaged one: out of the way in one step, then deleted
                damaged = self.runs / f".making-{spec.folder}.damaged"
                shutil.rmtree(damaged, ignore_errors=True)
                final.replace(damaged)
                shutil.rmtree(damaged, ignore_errors=True)
            making.replace(final)
            sync_folder(self.runs)
        return Artefact(final, provenance)

    def _provenance(
        self, spec: ArtefactSpec, folder: Path, notes: Mapping[str, Any] | None, seconds: float
    ) -> dict[str, Any]:
        outputs = outputs_of(folder)
        if not outputs:
            raise ValueError(f"the maker of {spec.folder} wrote no file into its folder")
        provenance = {
            "schema": SCHEMA,
            "kind": spec.kind,
            "name": spec.name,
            "seed": spec.seed,
            "hash": spec.hash,
            "config": spec.config,
            "inputs": dict(spec.inputs),
            "maker": spec.maker,
            "chosen": list(spec.chosen),
            "code": spec.code,
            **checkout_state(),
            "versions": versions(),
            "device": self.device,
            "wall_seconds": round(seconds, 3),
            "notes": dict(notes or {}),
            "outputs": outputs,
        }
        # Through JSON and back: what is returned now equals what a later run will read.
        result: dict[str, Any] = json.loads(canonical_json(provenance))
        return result

    @contextmanager
    def _lock(self, name: str) -> Iterator[None]:
        lock = FileLock(self.runs / f".{name}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            self._say(f"waiting for another process that makes {name}")
            lock.acquire()
        except OSError as error:
            raise OSError(
                error.errno,
                f"{name} is still to be made and {self.root} cannot be written; make it writable, "
                "or give another results folder",
            ) from error
        try:
            yield
        finally:
            lock.release()

    def _mark_schema(self) -> None:
        if not (self.root / "store.json").exists():
            write_durably(self.root / "store.json", json.dumps({"schema": SCHEMA}))

    def _remove_leftovers(self) -> None:
        """Delete what killed processes left; what another process is making now is locked."""
        for path in self.runs.glob(".making-*"):
            name = path.name.removeprefix(".making-").removesuffix(".damaged")
            lock = FileLock(self.runs / f".{name}.lock")
            with suppress(Timeout, OSError), lock.acquire(timeout=0):  # a disk that is only read
                shutil.rmtree(path, ignore_errors=True)


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
        maker: what makes it, by the name that `@makes` gives it
            (`matlib.study.identity.makers`): its code, and all that this reaches, counts.
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


MADE = "made"
"""Note of an artefact that was taken from records: the provenance that was published for it."""


def as_made(provenance: dict[str, Any]) -> dict[str, Any]:
    """Provenance of the run that made an artefact, also where it was taken from records."""
    original: dict[str, Any] = provenance["notes"].get(MADE, provenance)
    return original


def outputs_of(folder: Path) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            raise ValueError(f"an artefact holds files of its own, no links; got the link {name}")
        if path.is_file():
            found[name] = {"bytes": path.stat().st_size, "sha256": file_hash(path)}
    return found
