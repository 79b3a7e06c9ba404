"""The README says what the files say, and its commands exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from matlib.attacks.text import n_changed_words
from matlib.cli import main
from matlib.config import profile_names
from matlib.study.readme import with_claims
from matlib.study.report import read_claims

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CLAIMS = ROOT / "published" / "demo" / "claims.json"


def test_claims_table_equals_the_published_ledger() -> None:
    assert with_claims(README, read_claims(CLAIMS)) == README


def test_table_changes_when_a_published_number_changes() -> None:
    claims = read_claims(CLAIMS)
    decided = next(c for c in claims if c["estimate"] is not None)
    decided["estimate"] += 0.1
    assert with_claims(README, claims) != README


def test_pictures_and_folders_that_it_names_exist() -> None:
    for path in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README):
        assert (ROOT / path).is_file(), path
    for folder in re.findall(r"^(matlib/\w+) ", README, flags=re.MULTILINE):
        assert (ROOT / folder).is_dir(), folder


def test_notebooks_that_it_names_are_the_notebooks_there_are() -> None:
    named = set(re.findall(r"`(\d\d_\w+)`", README))
    assert named == {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}


def test_make_targets_and_profiles_that_it_names_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"(?:^|`)make ([a-z][a-z-]*)", README, flags=re.MULTILINE)):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
    for profile in re.findall(r"PROFILE=([\w-]+)|--profile ([\w-]+)", README):
        assert "".join(profile) in profile_names()


def test_commands_that_it_shows_are_understood(capsys: pytest.CaptureFixture[str]) -> None:
    for command in set(re.findall(r"python -m matlib (\w+)(?: (\w+))?", README)):
        words = [word for word in command if word and word != "flickr30k"]
        with pytest.raises(SystemExit) as stopped:
            main([*words, "--help"])
        assert stopped.value.code == 0
        capsys.readouterr()


def test_ten_lines_on_your_own_model_run() -> None:
    [code] = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert '"openai"' in code
    names: dict[str, object] = {}
    # weights come from a hub there; here the same model with random ones
    with torch.random.fork_rng():
        torch.manual_seed(0)
        exec(compile(code.replace('"openai"', "None"), "README", "exec"), names)
    images, pixels = names["images"], names["pixels"]
    assert 0 < float((images - pixels).abs().max()) <= 2 / 255 + 1e-6  # type: ignore[operator]
    for before, after in zip(names["captions"], names["texts"], strict=True):  # type: ignore[call-overload]
        assert n_changed_words(before, after) <= 1
