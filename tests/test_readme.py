"""The README says what the files say, and its commands exist."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

from matlib.attacks.text import n_changed_words
from matlib.cli import main
from matlib.config import profile_names
from matlib.study.provenance import code_hash
from matlib.study.readme import claims_markdown, generated, origin_markdown
from matlib.study.report import read_claims

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DEMO = ROOT / "published" / "demo"


def test_generated_parts_equal_the_published_files_and_the_state_of_the_code() -> None:
    # after a change of attack, training or evaluation code: python -m matlib readme
    assert generated(README, DEMO) == README


def test_table_changes_when_a_published_number_changes() -> None:
    claims = read_claims(DEMO / "claims.json")
    before = claims_markdown(claims)
    decided = next(c for c in claims if c["estimate"] is not None)
    decided["estimate"] += 0.1
    assert claims_markdown(claims) != before


def test_changed_code_is_admitted() -> None:
    provenance = json.loads((DEMO / "provenance.json").read_text())
    for artefact in provenance["artefacts"]:
        artefact["code"] = code_hash(artefact["modules"])
    assert "changed since" not in origin_markdown(provenance)
    provenance["artefacts"][0]["code"] = "of other code"
    assert "changed since" in origin_markdown(provenance)


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
