"""The documentation's generated parts, made while the site is built: nothing in them is typed.

A line `<!-- made: name -->` or `<!-- made: name argument -->` of a page is replaced by the text of
`MADE[name]`. Tables of names come from the tables of the code, numbers from `published/`, the
reference from the front doors.
"""

from __future__ import annotations

import ast
import importlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import pandas as pd
from mkdocs.structure.files import File, Files

from matlib.analysis.as_text import markdown_text
from matlib.analysis.figures.sentences import percent
from matlib.analysis.figures.style import label_of
from matlib.augmentations import TECHNIQUES
from matlib.augmentations.table import Data
from matlib.defences import DEFENCES
from matlib.evaluation import ATTACKS
from matlib.evaluation.statistics import Verdict
from matlib.evaluation.suite import default_rows
from matlib.study.profile.parts import JudgedThreat
from matlib.study.profile.profile import load_profile
from matlib.study.profile.rows import ON_TRUE_WORDS, OPTIONS
from matlib.study.publish.design import design_of, history_markdown
from matlib.study.publish.full import of_published, published_study
from matlib.study.publish.readme import (
    MAIN,
    bench_markdown,
    findings_markdown,
    found_markdown,
    judge_markdown,
    ledger_markdown,
)
from matlib.study.tables.findings import NO_VIOLATION, shown_in
from matlib.study.tables.ledger import CLAIMS, NO_VERDICT
from matlib.study.tables.recall_left import outside_markdown, recall_markdown

ROOT = Path(__file__).resolve().parents[1]
PUBLISHED = ROOT / "published"

BESIDE = ("CHANGELOG.md", "CONTRIBUTING.md")
"""Pages that lie in the root of the repository, where people look for them."""

PICTURES = (
    "demo/retrieval.png", "demo/adversarial.png", "report/robustness.png",
    "replication-pairs/good_pairs.png",
)  # fmt: skip
"""Published figures that pages show; where, says `place_of`."""

THREATS = {
    "bert_true": "words of a masked language model that keep the caption true of its image; only "
    "the embedded world can tell",
    "typo": "one letter changed, never into another word",
    "bert_free": "any word that a masked language model proposes, true or not",
    "bert_similar": "a word of near meaning, or of another human caption of the same image",
    "true_known": "true words that defences may have been trained on",
    "true_held_out": "true words that no defence was trained on: a family of synonyms, or half",
    "typo_held_out": "typos by a rule that no defence was trained on",
}
"""Text threat -> what may replace a word."""

VERDICTS = {
    "supported": "five trained weights or more, and above the threshold after the correction",
    "not supported": "the interval lies below the threshold",
    "inconclusive": "the interval holds the threshold, or the correction for several claims does "
    "not allow more, or there are fewer than five training seeds",
    "inconclusive (floor)": "both sides are at chance: there is nothing left to compare",
    "not yet tested": "no study measured it",
    "favourable, for these weights only": "the interval, which is over images, lies above the "
    "threshold; it says nothing of other training seeds",
    "unfavourable, for these weights only": "it lies below, with the same limit",
    "inconclusive, for these weights only": "it holds the threshold, with the same limit",
    NO_VERDICT: "the experiment did not do what it was set to; the reason stands beside it",
    NO_VIOLATION: "of ledgers made before C9 became a claim of equivalence: no check failed, which "
    "shows no more than that",
}
"""Verdict -> when it is given (`matlib.evaluation.verdict`)."""


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; cells are Markdown already."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def defences() -> str:
    """One row for each line of `DEFENCES`."""
    headings = ["name", "in figures", "image step", "text step", "towers that learn", "source"]
    return table(headings, [
        [_code(name), markdown_text(label_of(name)), _code(each.image), _code(each.text),
         ", ".join(each.towers), markdown_text(each.source)]
        for name, each in DEFENCES.items()
    ])  # fmt: skip


def techniques() -> str:
    """One row for each line of `TECHNIQUES`."""
    headings = ["name", "in figures", "adds", "made of", "strength", "control"]
    return table(headings, [
        [_code(name), markdown_text(label_of(name, "technique")), each.adds or "nothing",
         _made_of(name), _strength(name), "yes" if each.is_control else ""]
        for name, each in TECHNIQUES.items()
    ])  # fmt: skip


def _made_of(name: str) -> str:
    each = TECHNIQUES[name]
    kinds = {"scenes": "the embedded world", "disk": "data on disk"}
    fits = [kinds[data] for data in get_args(Data) if each.fits(data)]
    return "any pairs" if len(fits) == len(kinds) else ", ".join(fits)


def _strength(name: str) -> str:
    found = TECHNIQUES[name].strength
    return f"{found.unit}: {found.usual:g}, at most {found.greatest:g}" if found else ""


def attacks() -> str:
    """One row for each line of `ATTACKS`, and those that every suite adds."""
    usual = default_rows()
    moved = {"image": "images", "words": "words", "both": "images and words"}
    rows = [
        [_code(name), markdown_text(label_of(name, "attack")), moved[each.sides],
         "fusion models" if each.of_fusion else "always" if name in usual
         else "with `Suite(own=…)`" if name == "own" else "on request"]
        for name, each in ATTACKS.items()
    ]  # fmt: skip
    ends = {"clean": "nothing", "worst": "what leaves each query least, of all rows that are legal"}
    first, last = (
        [_code(name), markdown_text(label_of(name, "attack")), what, "always"]
        for name, what in ends.items()
    )
    return table(["name", "in figures", "moves", "a row of a suite"], [first, *rows, last])


def threats() -> str:
    """Every text threat with what it allows."""
    names = get_args(JudgedThreat)
    return table(["name", "in figures", "a word may become"], [
        [_code(name), markdown_text(label_of(name, "threat")), THREATS[name]] for name in names
    ])  # fmt: skip


def verdicts() -> str:
    """Every verdict with when it is given."""
    names = (*get_args(Verdict), NO_VERDICT, NO_VIOLATION)
    return table(["verdict", "given when"], [[name, VERDICTS[name]] for name in names])


def claims() -> str:
    """Every claim, with the notebook that shows it."""
    return table(["id", "claim", "notebook"], [
        [name, markdown_text(claim), _code(shown_in(name)[0])] for name, claim in CLAIMS.items()
    ])  # fmt: skip


def options() -> str:
    """The letters of a row's options."""
    letters = [f"`{letter}` {name.replace('_', ' ')}" for name, letter in OPTIONS.items()]
    return (
        f"A row is named after its defence, then the technique of its pairs and their options: "
        f"`mat+.eda.x0.3` is MAT+ on EDA at strength 0.3. The letters: {', '.join(letters)}. "
        f"A name that ends in `{ON_TRUE_WORDS}` is the same defence, trained on words that keep "
        f"captions true. `base` is the model before any defence."
    )


def ledger(study: str) -> str:
    """The decided claims of a published study, and what made them."""
    found = ledger_markdown(PUBLISHED / study)
    return re.sub(r"\[(C\w[\w-]*)\]\([^)]*\.ipynb\)", r"[\1](names.md#claims)", found)


def profiles() -> str:
    """Every profile that comes with the project: what it is, how long, and whether it was run."""
    found = [load_profile(path.stem) for path in sorted((ROOT / "profiles").glob("*.yaml"))]
    return table(["profile", "what it is", "about so many minutes", "published"], [
        [_code(each.name), markdown_text(each.about), f"{each.minutes:g}" if each.minutes else "",
         "yes" if (PUBLISHED / each.name).is_dir() else ""]
        for each in found
    ])  # fmt: skip


def expected(study: str) -> str:
    """What the frozen design of a replication foretold, word for word."""
    told = design_of(PUBLISHED, f"{study}.yaml")["expected"]
    return (
        f"Expected, as it was written down in `published/{study}.yaml` before: "
        f"{'; '.join(f'{claim}, {markdown_text(str(what))}' for claim, what in told.items())}."
    )


def curve(study: str) -> str:
    """What MAT and MAT+ keep of new pairs, and how much less that is than of learnt ones."""
    found = published_study(PUBLISHED / study).table("curves")
    numbers = found.columns.drop(["row", "defence", "weights"])
    found[numbers] = found[numbers].apply(pd.to_numeric)  # an empty cell, "", is NaN
    rows = found.to_dict("records")
    headings = ["row", "training pairs", "weights", "worst, new pairs", "gap in points",
                "gain over MAT in points"]  # fmt: skip
    lines = [
        [_code(row["row"]), str(row["n_train"]), row["weights"],
         in_points(row["worst"], row["low"], row["high"]),
         in_points(row["gap"], row["gap_low"], row["gap_high"]),
         in_points(row["gain"], row["gain_low"], row["gain_high"])]
        for row in rows
    ]  # fmt: skip
    return table(headings, lines) + (
        "\n\nThe gap: recall under the joint attack on as many training as held-out pairs, the "
        "first minus the second, the undefended model's difference subtracted. Recall in %, all "
        "with 95 % intervals over trainings, images and worlds."
    )


def gains(study: str) -> str:
    """What the techniques of a published study of pairs keep, and gain over MAT."""
    found = of_published(published_study(PUBLISHED / study))
    lines = [
        [_code(row["row"]), row["modality"], percent(row["worst"]),
         in_points(row["gain"], row["low"], row["high"]), percent(row["true_fraction"])]
        for row in found.gains.to_dict("records")
    ]  # fmt: skip
    headings = ["row", "adds", "worst", "gain in points", "true"]
    return table(headings, lines) + (
        f"\n\nRecall under the worst attack, in %, and by how much that is more than that of "
        f"`{found.reference}`, which learns from the same pairs without additions: means over "
        f"trainings and worlds with 95 % t-intervals. *True*: added captions that hold for their "
        f"image. The largest gain stands first; no number here is corrected for how many there are."
    )


def in_points(value: float, low: float, high: float) -> str:
    """`18.8 [15.8, 21.9]` of shares of 1; a dash for what there is none of."""
    return "–" if value != value else f"{100 * value:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def found() -> str:
    """README's sentences; notebooks are no pages of the site."""
    return re.sub(r" \(\[(\w+)\]\([^)]*\.ipynb\)\)", r" (notebook `\1`)", found_markdown(PUBLISHED))


def judge() -> str:
    """README's warning of the judge, as a box."""
    return f'!!! warning "Whose judgement this is"\n\n    {judge_markdown(PUBLISHED)}'


def bench() -> str:
    """Speed beside the released code."""
    return bench_markdown(json.loads((PUBLISHED / "bench.json").read_text(encoding="utf-8")))


def growth() -> str:
    """What the study's machinery costs beside the work, as `benchmarks.growth` measured it."""
    found = json.loads((PUBLISHED / "growth.json").read_text(encoding="utf-8"))
    lines = ["| workers | until the first row begins, s | each row, ms |", "|---|---|---|"]
    for n, of_engine in found["engine_by_workers"].items():
        cost = f"{of_engine['start_seconds']:.0f} | {1000 * of_engine['row_seconds']:.0f}"
        lines.append(f"| {n} | {cost} |")
    lines += ["", "| artefacts in the store | open, ms | find one, ms | read all provenance, ms |",
              "|---|---|---|---|"]  # fmt: skip
    for n, of_store in found["store_by_artefacts"].items():
        seconds = (of_store[f"{what}_seconds"] for what in ("open", "find", "provenances"))
        lines.append(f"| {int(n):,} | {' | '.join(f'{1000 * each:.1f}' for each in seconds)} |")
    records = found["records"]
    return "\n".join([
        *lines, "",
        f"Records of {records['queries']:,} queries are read in {records['read_seconds']:.1f} s. "
        f"Measured on {found['machine']['n_cores']} cores ({found['machine']['cpu']}), of which "
        "each worker above them waits for its turn.",
    ])  # fmt: skip


def door(name: str) -> str:
    """The reference of one part of the library: its own text, then every name behind its door."""
    doors = sorted((ROOT / "matlib" / name).rglob("__init__.pyi"), key=lambda p: len(p.parts))
    return "\n\n".join(_of_door(path) for path in doors)


def _of_door(stub: Path) -> str:
    module = ".".join(stub.parent.relative_to(ROOT).parts)
    parts = [prose(importlib.import_module(module).__doc__ or "")]
    if module.count(".") > 1:  # a door behind the door, on the same page
        parts.insert(0, f"## {module}")
    for stem, names in names_behind(stub):
        parts += [f"::: {module}.{stem}.{name}" for name in names]
    return "\n\n".join(parts)


def names_behind(stub: Path) -> Iterator[tuple[str, list[str]]]:
    """(module, names) of every import of a front door but of further doors."""
    for node in ast.parse(stub.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module, [alias.name for alias in node.names]


def prose(docstring: str) -> str:
    """A docstring of a front door as Markdown: its labelled lines become a list."""
    found: list[str] = []
    for line in docstring.splitlines():
        if line.startswith(" "):  # goes on with the line above
            found[-1] += f" {line.strip()}"
        else:
            found.append(re.sub(r"^(\w+):\s+(?=\S)", r"- **\1**: ", line))
    return "\n".join(found)


def _code(text: str | None) -> str:
    return f"`{text}`" if text else ""


MADE: dict[str, Callable[..., str]] = {
    "defences": defences,
    "techniques": techniques,
    "attacks": attacks,
    "threats": threats,
    "verdicts": verdicts,
    "claims": claims,
    "profiles": profiles,
    "expected": expected,
    "curve": curve,
    "gains": gains,
    "options": options,
    "ledger": ledger,
    "found": found,
    "judge": judge,
    "bench": bench,
    "growth": growth,
    "recall": lambda name=MAIN: recall_markdown(PUBLISHED / name),
    "outside": lambda: outside_markdown(PUBLISHED),
    "findings": lambda: findings_markdown(PUBLISHED),
    "history": lambda: history_markdown(PUBLISHED),
    "door": door,
}


def expanded(markdown: str) -> str:
    """A page with its generated parts.

    Raises:
        KeyError: there is no such part.
    """
    return re.sub(
        r"^<!-- made: (\w+)(?: ([\w-]+))? -->$",
        lambda found: MADE[found[1]](*filter(None, [found[2]])),
        markdown,
        flags=re.MULTILINE,
    )


def page_beside(name: str) -> str:
    """A page of the repository's root, its links as seen from the site."""
    text = (ROOT / name).read_text(encoding="utf-8")
    return text.replace("](docs/", "](")


def place_of(picture: str) -> str:
    """Where the site has a published figure."""
    return f"pictures/{picture.replace('/', '-')}"


def on_files(files: Files, config: Any) -> Files:
    """mkdocs: what the site shows beside the pages of `docs/`."""
    for name in BESIDE:
        files.append(File.generated(config, name, content=page_beside(name)))
    for name in PICTURES:
        path = str(PUBLISHED / name)
        files.append(File.generated(config, place_of(name), abs_src_path=path))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """mkdocs: a page before it is rendered."""
    return expanded(markdown)
