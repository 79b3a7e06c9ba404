"""WordNet's database read from a folder of its files: no network and no other package.

The format is that of the manual pages wndb(5WN) and morphy(7WN); Fellbaum (1998), *WordNet: An
Electronic Lexical Database*.
"""

from __future__ import annotations

import hashlib
import os
import sys
import zipfile
from collections.abc import Iterator
from functools import cache, cached_property, lru_cache
from importlib.resources.abc import Traversable
from pathlib import Path

Sense = tuple[str, int]
"""One meaning: its part of speech (noun, verb, adj, adv) and its place in that data file."""

_ENDINGS = {
    "noun": (("s", ""), ("ses", "s"), ("ves", "f"), ("xes", "x"), ("zes", "z"), ("ches", "ch"),
             ("shes", "sh"), ("men", "man"), ("ies", "y")),
    "verb": (("s", ""), ("ies", "y"), ("es", "e"), ("es", ""), ("ed", "e"), ("ed", ""),
             ("ing", "e"), ("ing", "")),
    "adj": (("er", ""), ("est", ""), ("er", "e"), ("est", "e")),
    "adv": (),
}  # fmt: skip
_FILE_OF = {"n": "noun", "v": "verb", "a": "adj", "s": "adj", "r": "adv"}
_FILES = tuple(f"{kind}.{part}" for kind in ("index", "data") for part in _ENDINGS)


class WordNet:
    """WordNet in memory, some 30 MB.

    Args:
        folder: with `index.noun`, `data.noun` and so on, and with `noun.exc` and so on for
            irregular forms.

    Raises:
        FileNotFoundError: a file is missing.
    """

    def __init__(self, folder: Traversable) -> None:
        missing = [name for name in _FILES if not (folder / name).is_file()]
        if missing:
            raise FileNotFoundError(f"{folder} is no WordNet: it has no {', '.join(missing)}")
        exceptions = [f"{part}.exc" for part in _ENDINGS if (folder / f"{part}.exc").is_file()]
        self._files = {name: (folder / name).read_bytes() for name in (*_FILES, *exceptions)}

    @cached_property
    def identity(self) -> str:
        """sha256, hexadecimal, of the files' names and content."""
        whole = hashlib.sha256()
        for name, content in sorted(self._files.items()):
            whole.update(f"{name} {hashlib.sha256(content).hexdigest()}\n".encode())
        return whole.hexdigest()

    @cached_property
    def _index(self) -> dict[str, dict[str, list[int]]]:
        """Part of speech -> lemma -> places of its senses, the most frequent first."""
        found: dict[str, dict[str, list[int]]] = {}
        for part in _ENDINGS:
            own = found.setdefault(part, {})
            for line in self._files[f"index.{part}"].decode().splitlines():
                if not line.startswith(" "):  # the licence
                    lemma, _, n, *rest = line.split()
                    own[lemma] = [int(place) for place in rest[len(rest) - int(n) :]]
        return found

    @cached_property
    def _irregular(self) -> dict[str, dict[str, list[str]]]:
        """Part of speech -> inflected form -> its lemmas."""
        found: dict[str, dict[str, list[str]]] = {}
        for part in _ENDINGS:
            lines = self._files.get(f"{part}.exc", b"").decode().splitlines()
            found[part] = {form: lemmas for form, *lemmas in map(str.split, lines)}
        return found

    @lru_cache(maxsize=65_536)  # noqa: B019 - one WordNet lives as long as its process
    def senses(self, word: str) -> tuple[Sense, ...]:
        """The meanings of a word, or of the lemmas that it is an inflected form of."""
        found: dict[Sense, None] = {}
        word = word.lower()
        for part, endings in _ENDINGS.items():
            regular = (word.removesuffix(old) + new for old, new in endings if word.endswith(old))
            forms = (word, *self._irregular[part].get(word, regular))
            found |= {(part, at): None for form in forms for at in self._index[part].get(form, ())}
        return tuple(found)

    def lemmas(self, sense: Sense) -> list[str]:
        """The words with this meaning as they are written; `_` stands for a space."""
        words, _ = self._line(sense)
        return [word.partition("(")[0] for word in words]  # "alive(p)": stands after its noun

    def hypernyms(self, sense: Sense) -> list[Sense]:
        """The wider meanings one step above."""
        _, pointers = self._line(sense)
        return [
            (_FILE_OF[kind], int(place))
            for symbol, place, kind, _ in zip(*[iter(pointers)] * 4, strict=True)
            if symbol == "@"
        ]

    def _line(self, sense: Sense) -> tuple[list[str], list[str]]:
        part, at = sense
        data = self._files[f"data.{part}"]
        fields = data[at : data.index(b"|", at)].decode().split()
        n = 4 + 2 * int(fields[3], 16)
        return fields[4:n:2], fields[n + 1 : n + 1 + 4 * int(fields[n])]

    def synonyms(self, word: str) -> tuple[str, ...]:
        """Single words of letters that share a sense with a word, in alphabetical order."""
        found = {lemma.lower() for sense in self.senses(word) for lemma in self.lemmas(sense)}
        return tuple(sorted(w for w in found if w.isalpha() and w != word.lower()))

    @lru_cache(maxsize=1_000_000)  # noqa: B019
    def is_near(self, word: str, other: str) -> bool:
        """Whether another word has a sense of this one, or a wider sense (a hypernym of one).

        Inflected words count as their lemmas.
        """
        senses = set(self.senses(word))
        wider = {above for sense in senses for above in self.hypernyms(sense)}
        return not (senses | wider).isdisjoint(self.senses(other))


def _places() -> Iterator[Traversable]:
    """Where the files may lie: WordNet's own variables, nltk's folders, Debian's."""
    if named := os.environ.get("WNSEARCHDIR"):
        yield Path(named)
    if home := os.environ.get("WNHOME"):
        yield Path(home) / "dict"
    own = [Path(each) for each in os.environ.get("NLTK_DATA", "").split(os.pathsep) if each]
    for root in (*own, Path.home() / "nltk_data", Path(sys.prefix) / "nltk_data",
                 Path("/usr/share/nltk_data"), Path("/usr/local/share/nltk_data")):  # fmt: skip
        yield root / "corpora" / "wordnet"
        if (packed := root / "corpora" / "wordnet.zip").is_file():
            yield zipfile.Path(packed, "wordnet/")
    yield Path("/usr/share/wordnet")


@cache
def open_wordnet() -> WordNet:
    """The WordNet of this machine.

    It is looked for in $WNSEARCHDIR, $WNHOME/dict, nltk's data (a folder or `wordnet.zip`) and
    /usr/share/wordnet.

    Raises:
        FileNotFoundError: it is in none of them; the message says how it gets there.
    """
    for place in _places():
        if (place / "index.noun").is_file():
            return WordNet(place)
    raise FileNotFoundError(
        "WordNet, whose synonyms are asked for, is not here. Install it (apt install "
        "wordnet-base, or python -m nltk.downloader wordnet), or name the folder with its files "
        "index.noun, data.noun, ... in WNSEARCHDIR"
    )


def wordnet_identity() -> str:
    """`WordNet.identity` of the one of this machine; empty where there is none."""
    try:
        return open_wordnet().identity
    except FileNotFoundError:
        return ""
