"""The README says what the files say, and its commands exist."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from functools import wraps
from pathlib import Path

import pandas as pd
import pytest
import torch

from matlib import models
from matlib.attacks.edits import n_changed_words
from matlib.cli import app, data_sets, main
from matlib.evaluation.threat import ROWS
from matlib.scenes.world import World
from matlib.study.profile.profile import profile_names
from matlib.study.publish.readme import (
    bench_markdown,
    claims_markdown,
    generated_readme,
    theory_markdown,
)
from matlib.study.publish.report import read_claims
from matlib.study.publish.shown import origin_markdown
from matlib.study.store.provenance import code_hash
from matlib.study.store.shared_json import read_shared
from matlib.study.tables.recall_left import held_out_notes, outside_markdown, recall_markdown
from tests.toys import tiny_encoder

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PUBLISHED = ROOT / "published"
DEMO, FULL = PUBLISHED / "demo", PUBLISHED / "demo-full"


def test_generated_parts_equal_the_published_files_and_the_state_of_the_code() -> None:
    # after a change of attack, training or evaluation code: python -m matlib readme
    assert generated_readme(README, DEMO) == README


def test_table_changes_when_a_published_number_changes() -> None:
    claims = read_claims(DEMO / "claims.json")
    before = claims_markdown(claims)
    decided = next(c for c in claims if c["estimate"] is not None)
    decided["estimate"] += 0.1
    assert claims_markdown(claims) != before


def table_of(folder: Path, name: str, **where: str) -> pd.Series:
    """One row of a published table."""
    table = pd.read_csv(folder / name, keep_default_na=False, na_values=["nan"])
    for column, value in where.items():
        table = table[table[column] == value]
    [row] = [row for _, row in table.iterrows()]
    return row


def percent(*shares: float) -> str:
    value, low, high = (f"{100 * share:.1f}" for share in shares)
    return f"{value} [{low}, {high}]"


@pytest.mark.parametrize("row", ["base", "mat", "mat-valid", "mat+.captions+renderings"])
def test_recall_left_is_told_in_percent_with_its_interval(row: str) -> None:
    text = recall_markdown(FULL)
    [line] = [line for line in text.splitlines() if line.startswith(f"| `{row}` |")]
    for attack, threat in (("clean", ""), ("worst", "bert_true")):
        found = table_of(FULL, "endpoints.csv", row=row, attack=attack, text_threat=threat)
        assert percent(found["value"], found["low"], found["high"]) in line
    assert text in README


def test_no_defence_holds_where_any_word_may_stand() -> None:
    table = pd.read_csv(FULL / "endpoints.csv", keep_default_na=False)
    free = table[(table["attack"] == "worst") & (table["text_threat"] == "bert_free")]
    assert (free["value"] < 0.001).all() and len(free) >= 18
    assert "leaves every row 0.0 to 0.1 %" in README


def test_attacks_that_the_published_records_lack_are_named() -> None:
    judged = set(pd.read_csv(FULL / "endpoints.csv")["attack"])
    [line] = [line for line in recall_markdown(FULL).splitlines() if line.startswith("Mean of")]
    for attack in ("words", "gallery"):
        assert (f"`{attack}`" in line.partition("before the suite had")[2]) == (
            attack not in judged
        )


def test_claims_on_trained_words_stand_beside_what_held_out_words_say() -> None:
    notes = held_out_notes(FULL)
    for claim, attack, rows in (
        ("C0-valid", "bert", ("base", "mat-valid")),
        ("C2-valid", "worst", ("mat", "mat-valid", "text-at-valid")),
    ):
        for row in rows:
            found = table_of(
                FULL, "held_out.csv", row=row, attack=attack, text_threat="true_held_out"
            )
            assert f"{row} {percent(found['recall'], found['low'], found['high'])}" in notes[claim]
        [line] = [line for line in README.splitlines() if notes[claim] in line]
        assert f"[{claim}]" in line
    assert held_out_notes(PUBLISHED / "one-to-many") == {}


def test_what_an_outside_attack_left_stands_beside_the_studys_worst() -> None:
    text = outside_markdown(PUBLISHED)
    found = pd.read_csv(PUBLISHED / "outside_attack.csv")
    assert len(found) == 7 and text in README
    for row, recall in zip(found["row"], found["recall"], strict=True):
        ours = table_of(DEMO, "endpoints.csv", row=row, attack="worst", text_threat="bert_true")
        [line] = [line for line in text.splitlines() if line.startswith(f"| `{row}` |")]
        assert percent(ours["value"], ours["low"], ours["high"]) in line
        assert f"| {100 * recall:.1f}" in line and recall < ours["low"]


def test_the_theory_of_pairs_is_told_as_it_foretells() -> None:
    text = theory_markdown(PUBLISHED / "one-to-many")
    assert text in README
    assert "within the range of the dials, the theory misses" in text
    assert "farther than the mean of the others (8 techniques)" in text


def test_no_failed_check_is_not_called_support() -> None:
    lines = [line for line in README.splitlines() if line.startswith("| [C9]")]
    assert len(lines) == 2
    for line in lines:
        assert "no violation found" in line and "supported" not in line


def test_sgas_image_step_is_set_beside_its_own_order() -> None:
    found = json.loads((PUBLISHED / "bench.json").read_text())
    assert f"{found['sga_image_speedup_released_order']:.2f} times" in bench_markdown(found)
    assert "loop over views" not in README


def test_nothing_of_another_projects_name_is_installed() -> None:
    told = [*ROOT.glob("matlib/**/*.py"), *ROOT.glob("profiles/*.yaml")]
    for text in (README, *(path.read_text() for path in told)):
        assert not re.search(r"pip install (?!-)", text)


def test_the_line_that_activates_is_that_of_the_environment_that_make_makes() -> None:
    assert "ENV := .venv\n" in (ROOT / "Makefile").read_text()
    assert "\nsource .venv/bin/activate" in README and "\ngit clone " in README


def test_commits_that_it_names_exist() -> None:
    git = ["git", "-C", str(ROOT)]
    is_whole = subprocess.run([*git, "rev-parse", "--is-shallow-repository"],
                              capture_output=True, text=True, check=False)  # fmt: skip
    if is_whole.stdout.strip() != "false":
        pytest.skip("no git checkout with its history")
    named = set(re.findall(r"`(?:git show )?([0-9a-f]{7})[:`]", README))
    assert len(named) >= 4
    for commit in named:
        subprocess.run([*git, "cat-file", "-e", f"{commit}^{{commit}}"], check=True)


def test_changed_code_is_admitted() -> None:
    provenance = read_shared(DEMO / "provenance.json")
    for artefact in provenance["artefacts"]:
        artefact |= {"maker": "masked-lm", "chosen": [], "code": code_hash("masked-lm")}
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
        assert main([*words, "--help"]) == 0
        capsys.readouterr()


def shown_commands() -> list[list[str]]:
    """Every command of matlib in the README, as a shell splits it."""
    found = []
    for block in [
        *re.findall(r"```sh\n(.*?)```", README, flags=re.DOTALL),
        *re.findall(r"`([^`]*)`", README),
    ]:
        for line in block.replace("\\\n", " ").splitlines():
            _, is_command, arguments = line.partition("-m matlib ")
            if is_command:
                found.append(shlex.split(arguments, comments=True))
    return found


def test_commands_have_the_options_that_it_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    """All is read, and nothing is run."""
    for command in (*app.registered_commands, *data_sets.registered_commands):
        assert command.callback is not None
        monkeypatch.setattr(command, "callback", wraps(command.callback)(lambda **_: None))
    commands = shown_commands()
    assert (
        len(commands) >= 9
        and ["study", "--profile", "flickr30k", "--data", "flickr30k"] in commands
    )
    for command in commands:
        assert main(command) == 0, command


def test_openais_weights_are_named_with_their_activation() -> None:
    """They were trained with QuickGELU, which open_clip's plain names do not build."""
    named = re.findall(r"--model (\S+).*?--pretrained openai", README, flags=re.DOTALL)
    named += re.findall(r'models\.open\("([^"]+)", "openai"\)', README)
    assert len(named) == 4 and all(name.endswith("-quickgelu") for name in named)


def test_ten_lines_on_your_own_model_run() -> None:
    [_, code, _] = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
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


def test_the_one_call_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a tiny model and the embedded world in the place of openai's and of Flickr30k."""
    code = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)[0]
    assert len([line for line in code.splitlines() if line]) <= 10
    monkeypatch.chdir(tmp_path)
    World(0, n_test=4).export(Path("flickr30k"))
    Path("flickr30k/dataset_scenes.json").rename("flickr30k/dataset_flickr30k.json")
    monkeypatch.setattr(models, "open", lambda *_: tiny_encoder())
    code = code.replace('"dog"', '"diamond"').replace("eps_255=2", "eps_255=2, n_steps=1")
    exec(compile(code, "README", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[2:]] == [*ROWS, "worst"]
