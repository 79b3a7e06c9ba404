"""WordNet's files read from a folder: senses, irregular forms, wider meanings."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from matlib.data.wordnet import WordNet, open_wordnet, wordnet_identity
from tests.data.tiny_wordnet import write_wordnet


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_wordnet(tmp_path / "wordnet")


def test_words_that_share_a_sense_are_synonyms(folder: Path) -> None:
    wordnet = WordNet(folder)
    assert wordnet.synonyms("puppy") == () and wordnet.synonyms("sea") == ("ocean",)
    assert wordnet.synonyms("Dog") == ("hound", "track", "trail"), "of every part of speech"
    assert wordnet.synonyms("large") == ("big",), "the mark of its place is no part of a word"
    assert wordnet.lemmas(wordnet.senses("puppy")[0]) == ["puppy", "young_dog"]
    assert wordnet.synonyms("unheard") == () == wordnet.senses("unheard")


def test_inflected_words_count_as_their_lemmas(folder: Path) -> None:
    wordnet = WordNet(folder)
    assert wordnet.senses("dogs") == wordnet.senses("dog")
    assert wordnet.senses("Puppies") == wordnet.senses("puppy")
    assert wordnet.senses("children") == wordnet.senses("child"), "irregular ones too"
    assert wordnet.senses("tracking") == wordnet.senses("tracked")
    assert wordnet.senses("seas") == wordnet.senses("sea") != wordnet.senses("se")


def test_the_same_meaning_and_one_step_wider_are_near(folder: Path) -> None:
    wordnet = WordNet(folder)
    near = [w for w in ("dogs", "hound", "animal", "sea") if wordnet.is_near("puppy", w)]
    assert near == ["dogs", "hound"], "one step wider, not two"
    assert wordnet.is_near("dog", "animal") and not wordnet.is_near("dog", "puppy")


def test_its_identity_is_its_content(folder: Path) -> None:
    before = WordNet(folder).identity
    assert WordNet(folder).identity == before
    (folder / "noun.exc").write_text("mice mouse\n")
    assert WordNet(folder).identity != before


@pytest.mark.parametrize("packed", [False, True])
def test_it_is_found_where_nltk_keeps_it(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packed: bool
) -> None:
    corpora = tmp_path / "data" / "corpora"
    corpora.mkdir(parents=True)
    if packed:
        with zipfile.ZipFile(corpora / "wordnet.zip", "w") as file:
            file.mkdir("wordnet")
            for path in folder.iterdir():
                file.write(path, f"wordnet/{path.name}")
    else:
        folder.rename(corpora / "wordnet")
    for name in ("WNSEARCHDIR", "WNHOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NLTK_DATA", str(tmp_path / "data"))
    open_wordnet.cache_clear()
    assert open_wordnet().synonyms("sea") == ("ocean",)
    open_wordnet.cache_clear()


def test_no_wordnet_and_half_of_one_are_said(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("matlib.data.wordnet._places", lambda: iter([tmp_path / "none"]))
    open_wordnet.cache_clear()
    with pytest.raises(FileNotFoundError, match=r"apt install wordnet-base.*WNSEARCHDIR"):
        open_wordnet()
    assert wordnet_identity() == ""
    (folder / "data.verb").unlink()
    with pytest.raises(FileNotFoundError, match=r"is no WordNet: it has no data\.verb"):
        WordNet(folder)
