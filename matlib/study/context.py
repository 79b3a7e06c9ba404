"""A profile with its data and its results, and the artefacts that are made from them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

import torch
import torch.distributed

from matlib.attacks.edits import normalise_caption
from matlib.data.pairs import ImageTextPairs
from matlib.launcher import n_processes, place
from matlib.study.arithmetic import arithmetic, one_thread
from matlib.study.profile.model_checks import check_models
from matlib.study.profile.profile import Profile, map_places
from matlib.study.profile.rows import Run
from matlib.study.recipes import profile_of_architecture, profile_of_world, run_named
from matlib.study.sources import open_source
from matlib.study.sources.karpathy import KarpathySource
from matlib.study.sources.scenes import ScenesSource
from matlib.study.sources.source import draw
from matlib.study.store.provenance import named_weights
from matlib.study.store.store import Artefact, ArtefactSpec, Store

HASHES = ".file-hashes"
"""Below the folder of all results: hashes of the files of data sets (`FileHashes`)."""

Loaded = TypeVar("Loaded")
Held = TypeVar("Held", covariant=True)
Make = Callable[[Path], Mapping[str, Any] | None]


@dataclass(frozen=True)
class Node(Generic[Held]):
    """An artefact of a study, known before it is there.

    Attributes:
        spec: its identity.
        inputs: the artefacts that it is made from, by what they are to it.
        make: writes its files into an empty folder; may return notes (JSON types).
        load: reads what `Context.get` returns.
    """

    spec: ArtefactSpec
    inputs: Mapping[str, Node[Any]]
    make: Make
    load: Callable[[Artefact], Held]

    @property
    def hash(self) -> str:
        """sha256, hexadecimal."""
        return self.spec.hash

    @property
    def processes(self) -> int:
        """How many make it together: of a model, those that split its batches."""
        return int(self.spec.config.get("schedule", {}).get("processes", 1))


def in_order(nodes: Iterable[Node[Any]]) -> Iterator[Node[Any]]:
    """These artefacts and all that they are made from, each once, inputs first."""
    seen: set[str] = set()

    def below(node: Node[Any]) -> Iterator[Node[Any]]:
        if node.hash not in seen:
            seen.add(node.hash)
            for each in node.inputs.values():
                yield from below(each)
            yield node

    for node in nodes:
        yield from below(node)


def identified(profile: Profile) -> Profile:
    """The profile with the hash of its content in place of every path of this machine.

    Names on a hub stay as they are.
    """
    return map_places(profile, lambda _, name: named_weights(name))


class Context:
    """What every maker of an artefact is given.

    Args:
        profile: what is studied.
        results: folder of all results; this profile's lie in `results/<profile name>`.
        data: folder of a data set on disk; not needed for scenes.
        source: the data, where they are open already.

    Raises:
        ValueError, FileNotFoundError: data missing or unfit, before any work.
    """

    def __init__(
        self,
        profile: Profile,
        results: Path,
        data: Path | None = None,
        source: ScenesSource | KarpathySource | None = None,
    ) -> None:
        torch.set_flush_denormal(True)
        check_models(profile)
        self.profile = profile
        self.root = results / profile.name
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        # beside the results: the data may lie on a disk that is only read
        self.source = source or open_source(profile.dataset, data, results / HASHES)
        self.store = Store(self.root, device=self.device)
        self.used: set[str] = set()
        self._others: dict[str, Self] = {}

    @cached_property
    def identified(self) -> Profile:
        """The profile as part of identities."""
        return identified(self.profile)

    def node(
        self,
        kind: str,
        name: str,
        seed: int,
        config: Mapping[str, Any],
        inputs: Mapping[str, Node[Any] | None],
        make: Make,
        load: Callable[[Artefact], Loaded],
        *,
        maker: str = "",
        chosen: tuple[str, ...] = (),
        data: Mapping[str, Any] | None = None,
    ) -> Node[Loaded]:
        """What a maker returns.

        Args:
            kind, name, seed, config, chosen: as of `ArtefactSpec`.
            inputs: those that are None (a pretrained model) are left out.
            maker: as `@makes` names it; the kind by default.
            data: identity of the data; of the study's by default.
        """
        there = {key: node for key, node in inputs.items() if node is not None}
        about = {"data": dict(data or self._data), "device": self._arithmetic}
        spec = ArtefactSpec(
            kind, name, seed, {**config, **about},
            {key: node.hash for key, node in there.items()}, maker or kind, chosen,
        )  # fmt: skip
        return Node(spec, there, make, load)

    @cached_property
    def _data(self) -> Mapping[str, Any]:
        return self.source.identity()

    @cached_property
    def _arithmetic(self) -> str:
        return arithmetic(self.device)

    def make(self, node: Node[Any]) -> Artefact:
        """An artefact of this study, made where it is not there, and noted as used.

        Small models are made and judged on one thread of a CPU: otherwise their numbers would
        depend on the cores.

        Raises:
            ValueError: a model to be trained by another number of processes than there are.
        """
        self.used.add(node.hash)
        with self._threads():
            return self.store.get_or_make(node.spec, lambda folder: self._made(node, folder))

    def join(self, node: Node[Any]) -> None:
        """Train a model together with the process that makes it; nothing is kept of it here."""
        beside = self.root / f".joined-{place()}-{node.spec.folder}"
        shutil.rmtree(beside, ignore_errors=True)  # a killed one's
        folder = beside / f".making-{node.spec.folder}"  # the checkpoints are found by its name
        folder.mkdir(parents=True)
        try:
            with self._threads():
                self._made(node, folder)
        finally:
            shutil.rmtree(beside, ignore_errors=True)

    def _made(self, node: Node[Any], folder: Path) -> Mapping[str, Any] | None:
        found, spec = n_processes(), node.spec
        if spec.kind == "model" and found != node.processes:
            raise ValueError(
                f"model {spec.name} is trained by {node.processes} processes, as its profile says; "
                f"here is {found}: torchrun --nproc-per-node {node.processes} -m matlib row "
                f"--study {self.profile.name} --row {spec.name} --seed {spec.seed}"
            )
        if spec.kind == "model" and found > 1:
            torch.distributed.barrier()  # what it is made from is there
        return node.make(folder)

    def _threads(self) -> AbstractContextManager[None]:
        return one_thread(self.device == "cpu" and self.profile.model.kind == "small")

    def get(self, node: Node[Loaded]) -> Loaded:
        """The same, read."""
        return node.load(self.make(node))

    def find(self, node: Node[Any] | None) -> Artefact | None:
        """The artefact if it is there and whole."""
        return None if node is None else self.store.find(node.spec)

    def run(self, name: str) -> Run:
        """The run of that row name.

        Raises:
            ValueError: the profile has no such row.
        """
        return run_named(self.profile, name)

    def of_architecture(self, name: str) -> Self:
        """The same study of another of the profile's architectures; itself for "".

        It has the rows in `transfer_rows` only, and shares data, store and what was used: an
        artefact's identity holds the model's shape, so that nothing is taken for another.

        Raises:
            ValueError: the profile has no such architecture.
        """
        if not name:
            return self
        return self._other(name, lambda: (profile_of_architecture(self.profile, name), self.source))

    def of_world(self, seed: int | None) -> Self:
        """The same study in another of the profile's worlds; itself for None.

        It has data and a base model of its own, and shares store and what was used.

        Raises:
            ValueError: the profile has no such world.
        """
        if seed is None:
            return self
        return self._other(f"world {seed}", lambda: (profile_of_world(self.profile, seed), None))

    def worlds(self) -> list[Self]:
        """The study in each of its worlds, its own first."""
        return [self, *(self.of_world(seed) for seed in self.profile.worlds)]

    def _other(
        self, key: str, opened: Callable[[], tuple[Profile, ScenesSource | KarpathySource | None]]
    ) -> Self:
        if key not in self._others:
            profile, source = opened()
            other = type(self)(profile, self.root.parent, source=source)
            other.used, other.store = self.used, self.store
            self._others[key] = other
        return self._others[key]

    def pairs(self, gallery: str) -> ImageTextPairs:
        """`train` (1:1), `val`, `test`; or the equal galleries `train-1` and `test-1`."""
        if not gallery.endswith("-1"):
            pairs = self.source.pairs(gallery)
            if self.profile.evaluation.conventions == "released":
                captions = tuple(normalise_caption(c) or c for c in pairs.captions)
                pairs = replace(pairs, captions=captions)
            return pairs
        split = gallery.removesuffix("-1")
        n = min(self.profile.dataset.n_train, self.profile.dataset.n_test)
        pairs = self.source.pairs(split).subset(range(n))
        return pairs.one_to_one(draw(0, gallery))
