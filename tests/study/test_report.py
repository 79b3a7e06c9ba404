"""The report: whole in itself, escaped, readable without a network."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_output

from matlib.study.publish.report import (
    CLAIM_COLUMNS,
    Figure,
    FrontPage,
    build_report,
    claim_rows,
    claims_text,
    scopes,
)
from matlib.study.publish.shown import made_in_words
from tests.study.toy_notebooks import toy_notebook, write_notebook

CLAIM: Mapping[str, Any] = {
    "id": "C2",
    "claim": "MAT beats <script>alert(1)</script> defences",
    "contrast": "MAT − TeCoA",
    "scope": "scenes & co",
    "estimate": 0.123,
    "ci_low": 0.05,
    "ci_high": 0.2,
    "n": 250,
    "unit": "query",
    "n_seeds": 1,
    "verdict": "supported",
}
UNTESTED = {**CLAIM, "id": "C8b", "verdict": "not yet tested", "scope": ""} | dict.fromkeys(
    ("estimate", "ci_low", "ci_high", "n", "n_seeds")
)
PIXEL = bytes.fromhex("89504e470d0a1a0a")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A results folder with two executed notebooks and a picture."""
    notebook = toy_notebook("table")
    notebook.cells[2].outputs = [
        new_output("stream", name="stdout", text="· train: 1/2\n0.5 <b>\n"),
        new_output("display_data", {"image/png": "iVBORw0KGgo="}),
    ]
    injected = new_code_cell("results = '/home/me'", metadata={"tags": ["injected-parameters"]})
    notebook.cells.insert(2, injected)
    write_notebook(tmp_path / "notebooks/00_a.ipynb", notebook)
    write_notebook(tmp_path / "notebooks/10_b.ipynb", toy_notebook())
    write_notebook(tmp_path / "notebooks/10_b.failed.ipynb", toy_notebook())
    (tmp_path / "bars.png").write_bytes(PIXEL)
    return tmp_path


def _front(folder: Path, **changes: Any) -> FrontPage:
    content: dict[str, Any] = {
        "title": "matlib: smoke",
        "question": "Does <i>it</i> help?",
        "profile": "smoke",
        "claims": [CLAIM, UNTESTED],
        "figures": [Figure(folder / "bars.png", 'Bars "with" intervals')],
        "provenance": {"commit": "abc<def"},
        "notes": ["Partial: limit 50."],
    }
    return FrontPage(**(content | changes))


def test_the_front_page_carries_claims_figures_provenance_and_links(folder: Path) -> None:
    index = build_report(folder, _front(folder))
    text = index.read_text()
    assert index == folder / "report" / "index.html"
    assert "+12.3 [5.0, 20.0]" in text and "250 queries" in text
    assert '<span class="verdict supported">supported</span>' in text
    assert '<span class="verdict untested">not yet tested</span>' in text
    assert text.index("In pictures") < text.index("What was found") < text.index("The notebooks")
    assert text.count("scenes &amp; co") == 1, "what all claims are about is said once"
    assert "data:image/png;base64,iVBORw0KGgo=" in text
    assert "Partial: limit 50." in text
    assert re.findall(r'<li><a href="([^"]+)">([^<]+)</a>', text) == [
        ("00_a.html", "A toy"),
        ("10_b.html", "A toy"),
    ]


def test_claims_link_to_the_pages_that_are_there(folder: Path) -> None:
    notebook = toy_notebook("table")
    links = "[C2](20_defences.ipynb), [C9](80_sanity.ipynb)"
    notebook.cells[2].outputs = [new_output("display_data", {"text/markdown": links})]
    write_notebook(folder / "notebooks/20_defences.ipynb", notebook)
    front = build_report(folder, _front(folder)).read_text()
    assert '<a href="20_defences.html">C2</a>' in front  # C8b is shown in no notebook
    page = (folder / "report" / "20_defences.html").read_text()
    assert '<a href="20_defences.html">C2</a>, C9' in page and ".ipynb" not in page


@pytest.mark.parametrize(
    ("verdict", "css"),
    [
        ("supported", "supported"),
        ("favourable, for these weights only", "leaning weak"),
        ("no violation found", "leaning"),
        ("not supported", "against"),
        ("unfavourable, for these weights only", "against weak"),
        ("inconclusive (floor)", "inconclusive"),
        ("not yet tested", "untested"),
    ],
)
def test_a_colour_means_what_the_verdict_says(verdict: str, css: str, folder: Path) -> None:
    text = build_report(folder, _front(folder, claims=[{**CLAIM, "verdict": verdict}])).read_text()
    assert f'<span class="verdict {css}">{verdict}</span>' in text
    for name in css.split():
        assert f".{name}" in text


def test_a_published_larger_study_speaks_where_this_one_did_not_test(folder: Path) -> None:
    larger = {**CLAIM, "id": "C8b", "verdict": "not supported", "n_seeds": 5}
    smaller = {**larger, "verdict": "inconclusive", "n_seeds": 2}
    front = _front(folder, published={"few": [smaller], "many": [larger], "open": [UNTESTED]})
    text = build_report(folder, front).read_text()
    assert "not yet tested" not in text and '<span class="verdict against">not supported' in text
    assert (
        "Published study many: not decided here" in text
        and "inconclusive" not in (text[text.index("What was found") :])
    )
    both = _front(folder, published={"many": [{**CLAIM, "verdict": "inconclusive", "n_seeds": 5}]})
    text = build_report(folder, both).read_text()
    assert '<span class="verdict supported">supported</span>' in text
    assert "Published study many: inconclusive, +12.3 [5.0, 20.0]" in text


def test_scopes_that_differ_are_told_with_their_claims() -> None:
    other = {**CLAIM, "id": "C1", "scope": "eps 4"}
    assert scopes([CLAIM, UNTESTED]) == ["scenes & co"]
    assert scopes([CLAIM, other]) == ["C2: scenes & co", "C1: eps 4"]


def test_when_where_and_how_long_a_study_was_made(tmp_path: Path) -> None:
    assert made_in_words(tmp_path) == ""
    artefacts = [{"device": "cpu", "wall_seconds": 90}, {"device": "cpu", "wall_seconds": 30}]
    (tmp_path / "provenance.json").write_text(json.dumps({"artefacts": artefacts}))
    text = made_in_words(tmp_path)
    assert text.startswith("Its 2 artefacts took 2 minutes on cpu. ")
    assert re.search(r"Built on \d\d \w+ 20\d\d on .*\d cores\.$", text)


def test_code_is_folded_pictures_have_words_and_tables_have_their_headings(folder: Path) -> None:
    notebook = toy_notebook("table")
    table = "<table><thead><tr><th></th><th>recall</th></tr></thead><tbody><tr><th>mat</th>"
    table += "<td>0.5</td></tr></tbody></table>"
    picture = {"image/png": "iVBORw0KGgo="}
    notebook.cells.insert(2, new_markdown_cell("## What is left"))
    notebook.cells[3].outputs = [
        new_output("display_data", {"text/html": table}),
        new_output("display_data", picture, metadata={"image/png": {"alt": "Bars: 2; 5"}}),
        new_output("display_data", picture),
    ]
    write_notebook(folder / "notebooks/10_b.ipynb", notebook)
    build_report(folder, _front(folder))
    text = (folder / "report" / "10_b.html").read_text()
    assert text.count('<details class="code">') == 3 and "<details open" not in text
    assert re.findall(r'<img[^>]* alt="([^"]*)"', text) == ["Bars: 2; 5", "Figure: What is left"]
    assert '<td data-label="recall">0.5</td>' in text and 'class="cards"' in text


def test_design_points_are_no_queries() -> None:
    (row,) = claim_rows([{**CLAIM, "unit": "point", "n": 54}])
    assert row["n"] == "54 design points"


def test_every_text_is_escaped(folder: Path) -> None:
    text = build_report(folder, _front(folder)).read_text()
    assert "&lt;script&gt;alert(1)" in text and "Does &lt;i&gt;it" in text
    assert "abc&lt;def" in text and "scenes &amp; co" in text
    assert 'alt="Bars &#34;with&#34; intervals"' in text


def test_pages_need_no_network_and_forbid_scripts(folder: Path) -> None:
    build_report(folder, _front(folder))
    pages = sorted((folder / "report").glob("*.html"))
    assert [page.name for page in pages] == ["00_a.html", "10_b.html", "index.html"]
    for page in pages:
        text = page.read_text()
        assert not re.search(r"<script|<link|@import|url\(|(src|href)=\"(https?:)?//", text)
        assert "default-src 'none'" in text
        assert 'name="viewport" content="width=device-width' in text


def test_notebook_pages_show_results_without_progress_and_injected_cells(folder: Path) -> None:
    build_report(folder, _front(folder))
    text = (folder / "report" / "00_a.html").read_text()
    assert "0.5 &lt;b&gt;" in text and "data:image/png" in text
    assert "train: 1/2" not in text and "/home/me" not in text
    assert 'href="10_b.html"' in text and 'href="index.html"' in text


def test_building_again_gives_the_same_bytes_and_removes_stale_pages(folder: Path) -> None:
    first = build_report(folder, _front(folder)).read_bytes()
    (folder / "report" / "99_old.html").write_text("old")
    assert build_report(folder, _front(folder)).read_bytes() == first
    assert not (folder / "report" / "99_old.html").exists()


def test_a_missing_figure_is_told_before_anything_is_written(folder: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"bars2\.png"):
        build_report(folder, _front(folder, figures=[Figure(folder / "bars2.png", "")]))
    with pytest.raises(ValueError, match=r"\.png, \.jpg, \.svg"):
        build_report(folder, _front(folder, figures=[Figure(folder / "bars.tiff", "")]))
    assert not (folder / "report").exists()


def test_a_study_without_executed_notebooks_has_no_report(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="run the study first"):
        build_report(tmp_path, _front(tmp_path, figures=[]))


def test_what_is_not_known_is_a_dash() -> None:
    (row,) = claim_rows([UNTESTED])
    assert tuple(row) == CLAIM_COLUMNS
    assert (row["estimate"], row["n"], row["seeds"], row["scope"]) == ("–", "–", "–", "–")


def test_a_negative_estimate_has_a_minus_sign() -> None:
    (row,) = claim_rows([{**CLAIM, "estimate": -0.1, "ci_low": -0.15, "ci_high": 0.004}])
    assert row["estimate"] == "−10.0 [−15.0, 0.4]"


def test_the_terminal_shows_the_same_estimates() -> None:
    assert claims_text([CLAIM, UNTESTED]).splitlines()[::2] == [
        "C2   supported: +12.3 [5.0, 20.0]",
        "C8b  not yet tested: –",
    ]
