"""A data set on disk as a source of pairs."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

from matlib.attacks.attackable import english_stop_words, pieces
from matlib.attacks.edits import content_pieces, one_letter_edits
from matlib.augmentations.table import Data
from matlib.augmentations.wanted import Wanted
from matlib.data.eccv import eccv_positives, with_positives
from matlib.data.file_hashes import FileHashes
from matlib.data.karpathy import (
    KarpathyEntry,
    KarpathyFormatError,
    find_json,
    image_files,
    read_karpathy,
)
from matlib.data.pairs import ImageTextPairs, OneToMany
from matlib.data.wordnet import open_wordnet
from matlib.study.profile.parts import Dataset
from matlib.study.profile.rows import Run
from matlib.study.sources.source import Source, draw, typo_rules, words_by_image
from matlib.study.store.provenance import text_hash


class KarpathySource(Source):
    """A data set on disk in the Karpathy format: Flickr8k, Flickr30k or COCO.

    Images that fit into `image_budget()` are held as bytes, others decoded when a batch needs
    them; RandAugment's variants are a function of (seed, image, number) and held or made anew
    in the same way. The bytes are the same either way.

    Args:
        folder: of the data set; nothing is written into it.
        kept: folder for hashes of its files, so that they are read again only when they have
            changed; None keeps none.
    """

    data: Data = "disk"

    def __init__(self, config: Dataset, folder: Path, kept: Path | None = None) -> None:
        self.config, self.folder, self.kept = config, folder, kept
        place = text_hash(str(folder.absolute()))[:12]
        self._hashes = FileHashes(kept and kept / f"{config.name}-{place}.json")
        self.name: str = config.name
        self.stop_words: frozenset[str] = english_stop_words()
        self.held_out_words: frozenset[str] = frozenset()
        self.pairs("test")  # missing files are found before any long work

    def identity(self) -> dict[str, Any]:
        return {**self.config.model_dump(mode="json"), **self._content}

    @cached_property
    def _files(self) -> dict[str, tuple[Path, ...] | FileNotFoundError | KarpathyFormatError]:
        c = self.config
        limits = {"train": max(c.n_train, c.n_base), "val": c.n_val, "test": c.n_test}
        return image_files(self.folder, c.name, limits)

    @cached_property
    def _content(self) -> dict[str, Any]:
        """Hashes of the JSON that is read, and of the images of each split in their order."""
        annotation = self._hashes.of([find_json(self.folder, self.config.name)])[0]
        images = {
            split: text_hash("\n".join(self._hashes.of(files)))
            if isinstance(files, tuple)
            else "missing"
            for split, files in self._files.items()
        }
        return {"annotation": annotation, "images": images}

    def require_files(self) -> None:
        """Before a study: every image that it will read is there.

        Raises:
            FileNotFoundError, KarpathyFormatError: which images or splits are missing.
        """
        for files in self._files.values():
            if isinstance(files, Exception):
                raise files

    @cache  # noqa: B019 - one source lives as long as its study
    def _read(self, split: str, limit: int) -> ImageTextPairs:
        c = self.config
        return read_karpathy(
            self.folder, c.name, split, c.image_size, limit=limit,
            mode=c.image_mode, interpolation=c.interpolation,
            also=_also(c.relevance),
        )  # fmt: skip

    @cached_property
    def _train(self) -> ImageTextPairs:
        return self._read("train", self.config.n_train)

    def pairs(self, split: str) -> ImageTextPairs:
        if split == "train":
            return self._train.one_to_one(draw(self.config.world_seed, "one caption each"))
        n = self.config.n_val if split == "val" else self.config.n_test
        return self._read(split, n)

    def human_words(self, split: str) -> list[frozenset[str]]:
        return words_by_image(self._train if split == "train" else self.pairs(split))

    def base(self) -> OneToMany:
        return OneToMany.from_pairs(self._read("train", self.config.n_base))

    def corpus(self, n_captions: int) -> list[str]:
        wanted = max(self.config.n_train, self.config.n_base)
        return list(self._read("train", wanted).captions[:n_captions])

    def wanted(self, run: Run, added: int, seed: int) -> Wanted:
        return replace(super().wanted(run, added, seed), written=self._train)

    def synonyms(self, word: str) -> Sequence[str]:
        return open_wordnet().synonyms(word)

    @cached_property
    def _vocabulary(self) -> frozenset[str]:
        captions = (*self._train.captions, *self.pairs("test").captions)
        return frozenset(piece.text.lower() for c in captions for piece in pieces(c))

    def typos(
        self, caption: str, seed: int, n_per_word: int, held_out: bool = False
    ) -> list[tuple[int, str]]:
        rng, rules = random.Random(seed), typo_rules(held_out)
        return [
            (word.position, word.replaced(typo))
            for word in content_pieces(caption, self.stop_words)
            for typo in one_letter_edits(word.text, n_per_word, self._vocabulary, rng, rules)
        ]

    def truth(self) -> Callable[[int, str], float] | None:
        return None


def _also(relevance: str) -> Callable[[Sequence[KarpathyEntry]], Sequence[KarpathyEntry]]:
    if relevance == "own":
        return tuple
    return partial(with_positives, positives=eccv_positives())
