"""What a user's words reach, and what is wrong with them, through the command line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from matlib.cli import main
from matlib.models.masked_lm import train_masked_lm
from matlib.models.masked_lm_training import MaskedLMConfig
from tests.commands.toy_data import Toy, make_toy
from tests.toys import WORDS

CAPTIONS = {
    "i0.png": ["Three men, all in hats, play chess."],
    "i1.png": ["Dog!"],
    "i2.png": ["a well-dressed man"],
    "i3.png": ["the boy’s kite"],
}
SYNONYMS = {
    "chess": ["go"], "men": ["women"], "hats": ["caps"], "play": ["like"], "Dog": ["Cat"],
    "dressed": ["clad"], "man": ["boy"], "boy": ["girl"], "kite": ["ball"],
}  # fmt: skip


@dataclass
class Shell:
    """Runs `attack` on the toy's images as a user types it."""

    toy: Toy
    root: Path
    capsys: pytest.CaptureFixture[str]

    def write(self, name: str, content: Any) -> Path:
        path = self.root / name
        path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
        return path

    def attack(self, captions: Any, *more: object) -> tuple[int, str]:
        """Exit code, and what it printed."""
        arguments = [
            "attack", "--model", "small", "--pretrained", self.toy.weights,
            "--images", self.toy.images, "--captions", self.write("captions.json", captions),
            "--steps", "1", "--out", self.root / "out", *more,
        ]  # fmt: skip
        code = main([str(argument) for argument in arguments])
        return code, "".join(self.capsys.readouterr())

    def refused(self, source: str, content: Any, captions: Any = CAPTIONS) -> str:
        code, printed = self.attack(captions, source, self.write("words.json", content))
        assert code == 1 and "Traceback" not in printed
        assert not (self.root / "out").exists()
        assert "words.json" in printed
        return printed

    def found(self) -> dict[str, Any]:
        read: dict[str, Any] = json.loads((self.root / "out" / "pairs.json").read_text())
        return read

    def changed(self) -> list[list[str]]:
        return [
            [change["after"] for change in caption["changed"]]
            for pair in self.found()["pairs"]
            for caption in pair["captions"]
        ]


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    return make_toy(tmp_path_factory.mktemp("toy"))


@pytest.fixture
def shell(toy: Toy, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(toy, tmp_path, capsys)


@pytest.mark.parametrize("attack", ["bert", "sep", "joint", "apgd", "sga"])
def test_synonyms_reach_every_word_beside_a_mark(shell: Shell, attack: str) -> None:
    synonyms = shell.write("words.json", SYNONYMS)
    code, printed = shell.attack(
        CAPTIONS, "--synonyms", synonyms, "--attack", attack, "--n-words", "9"
    )
    assert code == 0
    summary = shell.found()["summary"]
    assert summary["n_unattackable_captions"] == 0
    assert summary["attackable_words_per_caption"] == (4 + 1 + 2 + 2) / 4
    assert "2.25 words per caption may" in printed
    allowed = [
        {"women,", "caps,", "like", "go."}, {"Cat!"}, {"well-clad", "boy"}, {"girl’s", "ball"},
    ]  # fmt: skip
    assert all(set(found) <= ok for found, ok in zip(shell.changed(), allowed, strict=True))
    assert sum(map(len, shell.changed())) > 0


def test_a_masked_lm_reaches_words_beside_marks(shell: Shell) -> None:
    corpus = [f"the {a} {b}, near a {c}." for a in WORDS for b in WORDS for c in WORDS[:3]]
    config = MaskedLMConfig(width=16, layers=1, heads=2, n_steps=2, batch_size=8)
    (shell.root / "lm").mkdir()
    train_masked_lm(corpus, config, 0).save(shell.root / "lm")
    captions = {"i0.png": ["Red star, near a (circle)."], "i1.png": ["a blue-green cross!"]}
    code, _ = shell.attack(
        captions, "--masked-lm", shell.root / "lm", "--k", "5", "--n-words", "9", "--attack", "bert"
    )
    assert code == 0
    assert shell.found()["summary"]["attackable_words_per_caption"] == (4 + 2) / 2
    first, second = (pair["captions"][0]["adversarial"] for pair in shell.found()["pairs"])
    assert first.split(" ")[1].endswith(",") and first.endswith(").") and "(" in first
    assert second.endswith("!") and "-" in second.split(" ")[1]


def test_released_conventions_attack_what_scikit_learn_calls_stop_words(shell: Shell) -> None:
    """In the field's list "two", "three", "top" and "front" are words like others."""
    words = ["two", "three", "top", "front", "side"]
    corpus = [f"{a} {b} {c} red star" for a in words for b in words for c in words]
    config = MaskedLMConfig(width=16, layers=1, heads=2, n_steps=2, batch_size=8)
    (shell.root / "lm").mkdir()
    train_masked_lm(corpus, config, 0).save(shell.root / "lm")
    more = ["--masked-lm", shell.root / "lm", "--k", "5", "--attack", "bert"]
    captions = {"i0.png": ["Two three, top front"]}
    assert shell.attack(captions, *more, "--conventions", "released")[0] == 0
    assert shell.found()["summary"]["attackable_words_per_caption"] == 4
    (shell.root / "out").rename(shell.root / "released")
    code, printed = shell.attack(captions, *more)
    assert code == 1 and "changes no word of the 1 captions" in printed


@pytest.mark.parametrize("attack", ["joint", "apgd", "bert"])
def test_more_words_than_a_caption_has(shell: Shell, attack: str) -> None:
    synonyms = shell.write("words.json", {"dog": ["cat", "cow"]})
    code, _ = shell.attack(
        {"i0.png": ["a dog"]}, "--synonyms", synonyms, "--attack", attack, "--n-words", "2"
    )
    assert code == 0 and len(shell.changed()[0]) <= 1


def test_candidates_are_found_whatever_the_white_space_of_their_captions(shell: Shell) -> None:
    captions = {"i0.png": ["a red  dog\truns "], "i1.png": ["two black cats sleep."]}
    rows = {"a red  dog\truns ": [[2, "cat"]], " two black cats sleep.": [[3, "eat"]]}
    code, printed = shell.attack(
        captions, "--candidates", shell.write("words.json", rows), "--attack", "bert"
    )
    assert code == 0 and "0 captions have no key" not in printed
    assert shell.found()["summary"]["attackable_words_per_caption"] == 1
    assert [set(found) for found in shell.changed()] <= [{"cat"}, {"eat."}]


def test_keys_that_miss_are_counted(shell: Shell) -> None:
    rows = {"Dog!": [[0, "cat"]], "no caption": [[0, "x"]], "nor this": []}
    more = ["--candidates", shell.write("words.json", rows), "--attack", "bert"]
    code, printed = shell.attack(CAPTIONS, *more)
    assert code == 0
    assert "words.json: 3 captions have no key there and stay as they are; 2 keys are" in printed


WRONG_ROWS: Sequence[tuple[Any, str]] = (
    ({"Dog!": [[0, 5]]}, "'Dog!', position 0: expected a word as a string; got 5"),
    ({"Dog!": [[0, None]]}, "expected a word as a string; got None"),
    ({"Dog!": [[0, True]]}, "expected a word as a string; got True"),
    ({"Dog!": [[True, "cat"]]}, "'Dog!': expected [position, replacement]; got [True, 'cat']"),
    ({"Dog!": [["0", "cat"]]}, "expected [position, replacement]"),
    ({"Dog!": [[0.0, "cat"]]}, "expected [position, replacement]"),
    ({"Dog!": [[0, "cat", 1]]}, "expected [position, replacement]"),
    ({"Dog!": "cat"}, "'Dog!': expected a list of [position, replacement]; got 'cat'"),
    ({"Dog!": None}, "expected a list of [position, replacement]; got None"),
    ({"Dog!": [[0, "polar bear"]]}, "must be one word"),
    ({"Dog!": [[0, "a\tb"]]}, "must be one word"),
    ({"Dog!": [[0, "a\nb"]]}, "must be one word"),
    ({"Dog!": [[0, ""]]}, "must be one word"),
    ({"Dog!": [[1, "cat"]]}, "it has 1 words, numbered from 0; [1, 'cat'] lies outside"),
    ({"Dog!": [[-1, "cat"]]}, "[-1, 'cat'] lies outside"),
    ({"dog": [[0, "cat"]]}, "1 keys miss a caption by capitals or marks alone, e.g. 'dog'"),
    ({"Cow": [[0, "cat"]]}, "has edits for none of the captions"),
    ({"Dog!": []}, "changes no word of the 4 captions"),
    ({"Dog!": [[0, "cat"]], " Dog! ": []}, "two keys read as this caption"),
)


@pytest.mark.parametrize(("content", "message"), WRONG_ROWS)
def test_wrong_candidates_are_named_with_their_file_and_key(
    shell: Shell, content: Any, message: str
) -> None:
    assert message in shell.refused("--candidates", content)


WRONG_SYNONYMS: Sequence[tuple[Any, str]] = (
    ({"dog": "cat"}, "synonyms of 'dog': expected a list of words; got 'cat'"),
    ({"dog": None}, "synonyms of 'dog': expected a list of words; got None"),
    ({"dog": 3}, "expected a list of words; got 3"),
    ({"dog": {"cat": 1}}, "expected a list of words"),
    ({"dog": ["cat", 3]}, "expected a word as a string; got 3"),
    ({"dog": [None]}, "expected a word as a string; got None"),
    ({"dog": [True]}, "expected a word as a string; got True"),
    ({"dog": ["a\tb"]}, "must be one word"),
    ({"dog": ["a\r\nb"]}, "must be one word"),
    ({"dog": ["a\u200bb"]}, "must be one word"),
    ({"dog": ["polar bear"]}, "must be one word"),
    ({"dog": [""]}, "must be one word"),
    ({"hot dog": ["cat"]}, "no word of a caption can match this key"),
    ({"dog.": ["cat"]}, "no word of a caption can match this key"),
    ({"": ["cat"]}, "no word of a caption can match this key"),
    ({"dog": ["cat"], "Dog": ["cow"]}, "'dog' are given twice"),
    ({"zebra": ["cat"]}, "changes no word of the 4 captions"),
    ({"dog": ["dog"]}, "changes no word"),
)


@pytest.mark.parametrize(("content", "message"), WRONG_SYNONYMS)
def test_wrong_synonyms_are_named_with_their_file_and_key(
    shell: Shell, content: Any, message: str
) -> None:
    assert message in shell.refused("--synonyms", content)


def test_positions_that_released_conventions_shift_are_refused(shell: Shell) -> None:
    rows = shell.write("words.json", {"a well-dressed man": [[2, "boy"]]})
    code, printed = shell.attack(CAPTIONS, "--candidates", rows, "--conventions", "released")
    assert code == 1 and "read it as 'a well dressed man'" in printed
    rows = shell.write("words.json", {"a well dressed man": [[3, "boy"]]})
    assert shell.attack(CAPTIONS, "--candidates", rows, "--conventions", "released")[0] == 0


@pytest.mark.parametrize("attack", ["pgd", "sga"])
@pytest.mark.parametrize(
    "budget",
    ["--eps=-1", "--eps=nan", "--eps=inf", "--eps=0", "--steps=-1", "--steps=0", "--step-size=-2",
     "--step-size=0", "--step-size=nan", "--step-size=inf", "--n-words=-1", "--n-words=0", "--k=0",
     "--seed=-1", "--seed=2147483648", "--seed=18446744073709551616"],
)  # fmt: skip
def test_no_budget_helps_the_model(shell: Shell, attack: str, budget: str) -> None:
    words = shell.write("words.json", SYNONYMS)
    code, printed = shell.attack(CAPTIONS, "--synonyms", words, "--attack", attack, budget)
    assert code == 1 and "error: " in printed and "Traceback" not in printed
    assert not (shell.root / "out").exists()
