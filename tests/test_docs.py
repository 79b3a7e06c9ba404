"""The documentation: its recipes run, its links lead somewhere, its tables are whole."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import pandas as pd
import pytest
import torch
import yaml
from markdown.extensions.toc import slugify

import matlib
from docs import generated
from matlib.augmentations import TECHNIQUES
from matlib.cli import main
from matlib.defences import DEFENCES
from matlib.evaluation import ATTACKS
from matlib.evaluation.statistics import Verdict
from matlib.models.small import build_small
from matlib.study.profile.parts import JudgedThreat
from matlib.study.profile.profile import load_profile
from matlib.study.tables.findings import NO_VIOLATION
from matlib.study.tables.ledger import CLAIMS, NO_VERDICT
from matlib.training import save_weights
from tests.commands.toy_data import make_toy
from tests.data.test_refcoco import made as made_refcoco
from tests.models import named, pretend_hub
from tests.models.albef_file import albef_state
from tests.models.test_door import open_clip_folder
from tests.models.test_masked_lm_kinds import saved
from tests.models.test_transformers_clip import PROCESSOR, clip

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
CONFIG = yaml.safe_load((ROOT / "mkdocs.yml").read_text().replace("!!python", "python"))
RECIPES = (DOCS / "recipes.md").read_text(encoding="utf-8")
CLIP = "ViT-B-32-quickgelu"

TOY_SIZED = {
    "n_steps=2000, batch_size=128": "n_steps=2, batch_size=4",
    f"--model {CLIP} --pretrained my_clip.pt --rest openai \\\n    --profile flickr30k "
    "--data flickr30k": "--model small --pretrained small.safetensors --profile smoke "
    "--results results --limit 4",
    "--out attacked": "--batch 3 --steps 2 --out attacked",
    "--split testA": "--split val --steps 2",
}
"""What stands in a recipe -> what a test can run in its place."""


@cache
def pages() -> dict[Path, str]:
    """Every page as the site has it, by where it would lie in `docs/`."""
    own = {p: p.read_text(encoding="utf-8") for p in sorted(DOCS.rglob("*.md"))}
    beside = {DOCS / name: generated.page_beside(name) for name in generated.BESIDE}
    return {path: generated.expanded(text) for path, text in {**own, **beside}.items()}


def prose(markdown: str) -> str:
    return re.sub(r"^```.*?^```", "", markdown, flags=re.DOTALL | re.MULTILINE)


def anchors(markdown: str) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", prose(markdown), re.MULTILINE)
    return {slugify(heading.replace("`", ""), "-") for heading in headings}


def test_links_and_their_anchors_exist() -> None:
    pictures = {*map(generated.place_of, generated.PICTURES)}
    n_links = 0
    for page, text in pages().items():
        for target in re.findall(r"\]\(([^)\s]+)\)", prose(text)):
            if "://" in target or str(Path(target)) in pictures:
                continue
            file, _, anchor = target.partition("#")
            found = (page.parent / file).resolve() if file else page
            assert found in pages(), f"{page.name}: {target}"
            assert not anchor or anchor in anchors(pages()[found]), f"{page.name}: {target}"
            n_links += 1
    assert n_links > 30


def test_pictures_that_pages_show_are_published_and_shown() -> None:
    shown = {
        name for text in pages().values() for name in re.findall(r"\]\((pictures/\S+)\)", text)
    }
    assert shown == {*map(generated.place_of, generated.PICTURES)}
    for name in generated.PICTURES:
        assert (generated.PUBLISHED / name).is_file()


def test_every_page_stands_in_the_navigation() -> None:
    def files(entry: Any) -> Iterator[str]:
        for each in entry.values() if isinstance(entry, dict) else entry:
            if isinstance(each, str):
                yield each
            else:
                yield from files(each)

    assert {*files(CONFIG["nav"])} == {p.relative_to(DOCS).as_posix() for p in pages()}


def test_files_that_pages_name_exist() -> None:
    folders = r"(?:matlib|tests|profiles|published|data_manifests|docs|notebooks|benchmarks)"
    for page, text in pages().items():
        for path in re.findall(rf"`({folders}/[\w./-]*)`", prose(text)):
            assert "NAME" in path or (ROOT / path).exists(), f"{page.name}: {path}"
        for name in re.findall(r"`(matlib(?:\.\w+)+)`", prose(text)):
            found: Any = matlib
            for part in name.split(".")[1:]:
                found = getattr(found, part)


def test_tables_of_names_are_whole() -> None:
    names = generated.expanded((DOCS / "names.md").read_text(encoding="utf-8"))
    for heading, entries in (
        ("Defences", DEFENCES), ("Augmentations", TECHNIQUES), ("Claims", CLAIMS),
        ("Attacks", ["clean", *ATTACKS, "worst"]),
        ("Text threats", [*get_args(JudgedThreat)]),
        ("Verdicts", [*get_args(Verdict), NO_VERDICT, NO_VIOLATION]),
    ):  # fmt: skip
        [part] = re.findall(rf"^## {heading}\n(.*?)(?=^## |\Z)", names, re.DOTALL | re.MULTILINE)
        first = re.findall(r"^\| `?([^|`]+?)`? \|", part, re.MULTILINE)[1:]
        assert [cell for cell in first if cell.strip("- ")] == [*entries], heading
    assert {*generated.VERDICTS} == {*get_args(Verdict), NO_VERDICT, NO_VIOLATION}
    assert {*generated.THREATS} == {*get_args(JudgedThreat)}


def test_attackers_of_the_threat_model_have_every_row() -> None:
    text = (DOCS / "threat_model.md").read_text(encoding="utf-8")
    [rows] = re.findall(r"^## Two attackers\n(.*?)^## ", text, re.DOTALL | re.MULTILINE)
    assert set(ATTACKS) - {"own"} == {*re.findall(r"`([\w-]+)`", rows)}


def test_every_name_behind_a_door_stands_in_the_reference() -> None:
    doors = [name for name in matlib.__all__ if isinstance(getattr(matlib, name), ModuleType)]
    for name in doors:
        [page] = [text for path, text in pages().items() if path == DOCS / "api" / f"{name}.md"]
        found = {line.rpartition(".")[2] for line in re.findall(r"^::: (\S+)$", page, re.MULTILINE)}
        assert {*getattr(matlib, name).__all__} - {"figures", "shift"} <= found


def test_every_recipe_of_the_front_page_is_there_and_names_the_places_to_touch() -> None:
    parts = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", RECIPES, re.DOTALL | re.MULTILINE))
    for thing, table in (("defence", "defences/table"), ("attack", "evaluation/suite"),
                         ("augmentation", "augmentations/table")):  # fmt: skip
        [text] = [
            text for title, text in parts.items() if title in (f"Add a {thing}", f"Add an {thing}")
        ]
        places = re.findall(r"^\d\. `([^`]+)`", text, re.MULTILINE)
        assert f"matlib/{table}.py" in places and any(p.startswith("tests/") for p in places)
        assert len(places) >= 3 and "```python" in text
    assert all("```" in text for text in parts.values()) and len(parts) >= 8


def test_commits_that_it_names_exist() -> None:
    git = ["git", "-C", str(ROOT)]
    is_whole = subprocess.run([*git, "rev-parse", "--is-shallow-repository"],
                              capture_output=True, text=True, check=False)  # fmt: skip
    if is_whole.stdout.strip() != "false":
        pytest.skip("no git checkout with its history")
    text = pages()[DOCS / "results.md"]
    named = set(re.findall(r"(?:`git show |[( ])((?=\w*\d)[0-9a-f]{7})[:,)]", text))
    assert len(named) >= 4
    for commit in named:
        subprocess.run([*git, "cat-file", "-e", f"{commit}^{{commit}}"], check=True)


def test_the_table_of_growth_is_the_files() -> None:
    found = json.loads((ROOT / "published" / "growth.json").read_text(encoding="utf-8"))
    text = generated.growth()
    for n, cost in found["engine_by_workers"].items():
        assert f"| {n} | {cost['start_seconds']:.0f} |" in text
    assert list(found["engine_by_workers"]) == ["1", "2", "4", "8"]
    assert "| 10,000 |" in text


def test_no_page_types_a_result() -> None:
    """Numbers with an interval, and points of recall, come from `published/` while it is built."""
    result = re.compile(r"\d \[[\d−-]|\d[.]\d points|\d ?%")
    assert result.search(pages()[DOCS / "results.md"])
    for path in [*DOCS.rglob("*.md"), *(ROOT / name for name in generated.BESIDE)]:
        text = prose(path.read_text(encoding="utf-8")).replace("95 %", "")
        assert not result.search(text), path.name


def test_issue_forms_ask_for_something() -> None:
    forms = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
    assert [form.stem for form in forms] == ["new_model", "new_result", "stronger_attack"]
    for form in forms:
        asked = yaml.safe_load(form.read_text(encoding="utf-8"))
        assert {"name", "description", "body"} <= asked.keys()
        ids = [field["id"] for field in asked["body"]]
        assert len(ids) == len(set(ids)) >= 4
        assert all(field["type"] in ("input", "textarea") and field["attributes"]["label"]
                   for field in asked["body"])  # fmt: skip


def some_models(folder: Path) -> None:
    """A tiny model of each further kind, under the names of the recipes."""
    with named.registered():
        open_clip_folder(folder / "fare2-clip", named.flat(5, quick=True), named.SHAPE)
    for name, model, processor in (
        ("clip-vit-large-patch14", pretend_hub.clip_model(), pretend_hub.clip_processor()),
        ("blip-itm-base-coco", *pretend_hub.blip()),
    ):
        model.save_pretrained(folder / name)
        processor.save_pretrained(folder / name)
    pretend_hub.clip_model().save_pretrained(folder / "leaf-clip")
    pretend_hub.bert_tokenizer().save_pretrained(folder / "bert-for-albef")
    for name in ("flickr30k.pth", "refcoco+.pth"):
        torch.save({"model": albef_state(pretrained=False)}, folder / name)
    made_refcoco(folder)
    shutil.move(folder / "images" / "train2014", folder)
    (folder / "synonyms.json").write_text(json.dumps({"red": ["blue"], "star": ["dog"]}))


@pytest.fixture
def a_users_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """What recipes name, with tiny models in the place of large ones; tables as they were after."""
    toy = make_toy(tmp_path / "toy")
    shutil.move(toy.images, tmp_path / "photos")
    shutil.move(toy.captions, tmp_path / "captions.json")
    (tmp_path / "bert-base-uncased").mkdir()
    saved("bert", tmp_path / "bert-base-uncased")
    clip().save_pretrained(tmp_path / "clip-vit-base-patch32")
    processor = tmp_path / "clip-vit-base-patch32" / "preprocessor_config.json"
    processor.write_text(json.dumps(PROCESSOR))
    profile = load_profile("smoke")
    small = build_small(profile.model.shape(profile.dataset.image_size), seed=3)
    save_weights(small, tmp_path / "small.safetensors")
    some_models(tmp_path)
    monkeypatch.chdir(tmp_path)
    tables: tuple[dict[str, Any], ...] = (ATTACKS, TECHNIQUES, DEFENCES)
    before = [dict(table) for table in tables]
    with ExitStack() as known:
        known.enter_context(named.registered(name=CLIP))
        torch.save(named.flat(1, CLIP, quick=True).state_dict(), tmp_path / "openai.pt")
        torch.save(named.flat(2, CLIP, quick=True).state_dict(), tmp_path / "my_clip.pt")
        tag = {"openai": {"quick_gelu": True, "file": str(tmp_path / "openai.pt")}}
        known.enter_context(named.tagged(tag, CLIP))
        yield tmp_path
    for table, entries in zip(tables, before, strict=True):
        for name in table.keys() - entries.keys():
            del table[name]


def test_recipes_run(a_users_folder: Path) -> None:
    names: dict[str, Any] = {}
    recipes, n_blocks = RECIPES, 0
    for shown, toy_sized in TOY_SIZED.items():
        assert shown in recipes, shown
        recipes = recipes.replace(shown, toy_sized)
    for language, block in re.findall(r"```(\w+)\n(.*?)```", recipes, re.DOTALL):
        n_blocks += 1
        if language == "python":
            exec(compile(block, "recipes.md", "exec"), names)
            continue
        assert language == "sh"
        for line in block.replace("\\\n", " ").splitlines():
            before, is_command, arguments = line.partition("-m matlib ")
            assert before == "python " and is_command, line
            assert main(shlex.split(arguments)) == 0, line
    assert n_blocks >= 10
    table = names["table"]
    assert isinstance(table, pd.DataFrame) and {"clean", "sga", "gallery"} <= {*table.index}
    least = table.loc["worst", "TR@1"]
    assert (table["TR@1"] >= least).all() and table["TR@1"].between(0, 1).all()
    for folder in ("attacked", "attacked-theirs"):
        found = json.loads((a_users_folder / folder / "pairs.json").read_text())
        assert len(found["pairs"]) == len(names["pairs"])
    assert (a_users_folder / "defended.safetensors").is_file()
    assert (a_users_folder / "judged" / "mine.json").is_file()
    assert {"clean", "both", "worst"} <= {*pd.read_csv(a_users_folder / "grounding.csv")["attack"]}
    assert (a_users_folder / "results" / "smoke" / "extra" / "mine.limit-4.csv").is_file()
    assert [len(own) for own in names["variants"].captions] == [3] * len(names["pairs"])


@pytest.mark.full
def test_the_site_is_built_without_a_warning_and_reads_without_a_network(tmp_path: Path) -> None:
    site = tmp_path / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)]
    made = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(r"<(?:script|img|iframe|source)[^>]*\bsrc=\"([^\"]+)\"", text)
        loaded += re.findall(r"<link[^>]*rel=\"(?:stylesheet|preconnect|icon)\"[^>]*>", text)
        assert not [each for each in loaded if "//" in each], page
    reference = (site / "api" / "attacks.html").read_text(encoding="utf-8")
    for name in matlib.attacks.__all__:
        assert re.search(rf'id="matlib\.attacks\.\w+\.{name}"', reference), name
