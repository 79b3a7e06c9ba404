"""Models by a short name: where their weights lie, what they were trained for, whose they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from matlib.data.strict import read_yaml
from matlib.files import file_hash
from matlib.models.door import HUB, open as open_model
from matlib.models.encoder import VisionLanguageModel
from matlib.models.hub import fetched, fetched_file
from matlib.models.settings import LOCAL

ZOO = Path(__file__).parents[1] / "zoo.yaml"
"""The public models; another file of the same form holds one's own."""


class ZooEntry(BaseModel):
    """One model of a zoo.

    Attributes:
        model, weights, rest: as `matlib.models.open` takes them; a path is relative to the zoo's
            file, and of `weights` also `hf-hub:owner/name/file`. None: not known.
        layout: in words.
        sha256: of the file of weights, if somebody has hashed it.
        trained_for: the attack that it was trained against, in words.
        licence: of the weights, None if no source says.
        citation: whom to name.
        source: where all this is said.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    weights: str | None = ""
    rest: str = ""
    layout: str
    sha256: str | None
    trained_for: str
    licence: str | None
    citation: str
    source: str

    def about(self) -> dict[str, str]:
        """What a table says beside the model's numbers."""
        named = {"trained for": self.trained_for, "licence": self.licence or "not stated",
                 "citation": self.citation, "source": self.source}  # fmt: skip
        return named


@dataclass(frozen=True)
class ZooModel:
    """An entry whose files are here.

    Attributes:
        name: in the zoo.
        entry: as the zoo has it.
        model, weights, rest: what `matlib.models.open` takes; hubs' names are local paths now.
    """

    name: str
    entry: ZooEntry
    model: str
    weights: str
    rest: str

    def open(self, device: str = "cpu") -> VisionLanguageModel:
        """The model, in evaluation mode.

        Raises:
            ValueError, FileNotFoundError: as `matlib.models.open`.
        """
        return open_model(self.model, self.weights, device, rest=self.rest)


def read_zoo(path: Path = ZOO) -> Mapping[str, ZooEntry]:
    """The entries of a zoo, by name.

    Raises:
        FileNotFoundError: no such file.
        ValueError: damaged, or an entry of another form; the message names the first fault.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no zoo at {path}")
    content = read_yaml(path)
    entries = content.get("models") if isinstance(content, dict) else None
    if not isinstance(entries, dict) or not entries:
        raise ValueError(f"{path}: expected `models:` with an entry for each name")
    found = {}
    for name, entry in entries.items():
        try:
            found[str(name)] = ZooEntry.model_validate(entry)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, (name, *first["loc"])))
            raise ValueError(f"{path}: {where}: {first['msg']:.120}") from error
    return found


def found_in_zoo(name: str, path: Path = ZOO) -> ZooModel:
    """An entry with its files: fetched from the hub, or taken from its cache.

    Raises:
        ValueError: no such name, a file whose name is not known, or one with another hash.
        FileNotFoundError: a file that is neither here nor reachable.
    """
    zoo = read_zoo(path)
    if name not in zoo:
        raise ValueError(f"{path} has no model {name!r}; it has {', '.join(zoo)}")
    entry = zoo[name]
    if entry.weights is None:
        raise ValueError(
            f"the name of {name}'s file is not known: fetch it from {entry.source}, and pass "
            f"--model {entry.model} --pretrained FILE --rest {entry.rest} instead of --zoo"
        )
    model = _model_here(entry.model, path.parent)
    weights = _file_here(entry.weights, path.parent)
    _check_hash(name, entry, model, weights)
    return ZooModel(name, entry, model, weights, _file_here(entry.rest, path.parent))


def _model_here(model: str, beside: Path) -> str:
    if model.startswith(HUB):
        return LOCAL + str(fetched(model.removeprefix(HUB)))
    if model.startswith(LOCAL):
        return LOCAL + str(beside / model.removeprefix(LOCAL))
    return model


def _file_here(weights: str, beside: Path) -> str:
    if weights.startswith(HUB):
        return str(fetched_file(weights.removeprefix(HUB)))
    return str(beside / weights) if weights and (beside / weights).exists() else weights


def _check_hash(name: str, entry: ZooEntry, model: str, weights: str) -> None:
    if entry.sha256 is None:
        return
    folder = Path(model.removeprefix(LOCAL))
    places = [Path(weights)] if weights else sorted(folder.glob("*.safetensors"))
    hashes = [file_hash(place) for place in places if place.is_file()]
    if entry.sha256 not in hashes:
        raise ValueError(
            f"the weights of {name} have the hash {', '.join(hashes) or 'of no file'}, and the "
            f"zoo says {entry.sha256}: remove them, and fetch them again"
        )
