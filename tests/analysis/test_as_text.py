"""Captions, names and paths are shown as they are; no sign in them has an effect."""

from __future__ import annotations

import re
from collections.abc import Callable
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from nbconvert.filters.markdown_mistune import markdown2html_mistune

from matlib.analysis import figures
from matlib.analysis.as_text import NO_FORMULAS, drawable, html_text, markdown_text
from matlib.analysis.figures.sentences import captions_html
from matlib.study.publish.readme import ALL_HEADINGS, claims_markdown

HOSTILE = (
    "a price tag of $5 # $6",
    "$$",
    r"$\frac{$ \(x\) \sum_",
    "a | b `code` *star* _under_ ~~gone~~ [link](x.ipynb) ![](y)",
    "<script>alert('1')</script> & &amp; <b>",
    "two\nlines\r\n and\ta tab\x0b",
    "bell \x07 escape \x1b[2J nothing \x00",
    "half a pair \ud83d of a dog",
    "emoji 🐕 and 犬 and \u202e שלום",
    "_hidden from a legend",
    "C:\\images\\$new$.png",
    "",
    "x" * 400,
)


@pytest.fixture(autouse=True)
def no_screen() -> None:
    mpl.use("Agg")


def written(figure: Figure) -> list[str]:
    """All texts of a figure, after it was written as notebooks write it."""
    assert figures.show(figure).data.startswith(b"\x89PNG")
    return [text.get_text() for text in figure.findobj(mpl.text.Text)]  # type: ignore[attr-defined]


def pixels(n: int) -> torch.Tensor:
    return torch.rand(n, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def _captioned() -> Figure:
    return figures.captioned_pictures(pixels(len(HOSTILE)), HOSTILE)


def _one_to_many() -> Figure:
    return figures.one_to_many_pictures(pixels(2), HOSTILE)


def _strip() -> Figure:
    found = (True,) * 2
    shelves = [
        figures.Shelf(text, f"{text} changed", pixels(2), pixels(2), found, found)
        for text in HOSTILE
    ]
    return figures.retrieval_strip(shelves, n_gallery=9)


def _bars(text: str) -> Figure:
    """Four panels of two attacks: the lower panels make their labels while they are drawn."""
    rows = [(row, panel, 0.5, 0.4, 0.6) for row in (text, "base") for panel in "abcd"]
    table = pd.DataFrame(rows, columns=["row", "text_threat", "value", "low", "high"])
    return figures.robustness_bars(
        table, panel="text_threat", chance=0.1, gallery=drawable(text), title=drawable(text)
    )


def _curves(text: str) -> Figure:
    rows = [(row, eps, 0.5, 0.4, 0.6) for row in (text, "base") for eps in (0.0, 3.0)]
    table = pd.DataFrame(rows, columns=["row", "eps_255", "value", "low", "high"])
    return figures.strength_curves(table, chance=0.1, gallery="here")


def _map(text: str) -> Figure:
    rows = [(source, "base", "sga", 0.5, 0.4, 0.6) for source in ("none", text)]
    table = pd.DataFrame(rows, columns=["source", "target", "attack", "value", "low", "high"])
    both = pd.concat([table, table.assign(target=text)])
    return figures.transfer_map(both, attack="sga", gallery="here", title="t")


@pytest.mark.parametrize("draw", [_captioned, _one_to_many, _strip], ids=lambda d: d.__name__)
def test_captions_of_any_signs_are_drawn(draw: Callable[[], Figure]) -> None:
    whole = "".join(written(draw()))
    for text in HOSTILE:  # their first words; long ones are wrapped or cut
        assert all(word in whole for word in drawable(text[:8]).split())


@pytest.mark.parametrize("text", ["$5 # $6", "$$", r"\$\frac{$", "_mine"])
@pytest.mark.parametrize("draw", [_bars, _curves, _map], ids=lambda d: d.__name__)
def test_a_name_of_any_signs_is_drawn(draw: Callable[[str], Figure], text: str) -> None:
    assert any(drawable(text) in each for each in written(draw(text)))


def test_a_name_that_begins_with_an_underscore_is_in_the_legend() -> None:
    (legend,) = _curves("_mine").legends
    assert [each.get_text().strip() for each in legend.get_texts()] == ["_mine", "undefended"]


def test_dollars_are_no_formula_whatever_the_callers_settings_are() -> None:
    with plt.rc_context({"text.parse_math": True}):
        figure = _bars("$5 # $6")
        figures.show(figure)
        drawn = [t for axis in figure.axes for t in axis.get_yticklabels() if t.get_text()]
        assert len(drawn) == 4 and not any(t.get_parse_math() for t in drawn)
        assert mpl.rcParams["text.parse_math"]


class _Cells(HTMLParser):
    """Texts of the cells of a table, and every element that is in it."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.cells: list[str] = []
        self.tags: set[str] = set()
        self._depth = 0
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.add(tag)
        if tag == "td":
            self._depth += 1
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        self._depth -= tag == "td"

    def handle_data(self, data: str) -> None:
        if self._depth:
            self.cells[-1] += data


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_a_markdown_cell_shows_the_text_and_nothing_else(text: str) -> None:
    table = f"| a | b |\n|---|---|\n| {markdown_text(text)} | next |"
    html = markdown2html_mistune(table)
    found = _Cells(html)
    assert found.tags <= {"table", "thead", "tbody", "tr", "th", "td", "span"}
    shown = " ".join(text.encode("utf-8", "replace").decode().split())
    assert found.cells == [shown, "next"]
    assert not re.search(r"\$[^<]|\\[^<]", unescape(html))  # each alone: no formula begins


def test_a_claim_of_any_signs_keeps_to_its_row() -> None:
    claim = {
        "id": "C2", "claim": "a | b", "contrast": "mat - $x$ <b>", "scope": "profile _my_|`one`",
        "estimate": 0.1, "ci_low": 0.05, "ci_high": 0.15, "n": 5, "unit": "seed", "n_seeds": 5,
        "verdict": "supported",
    }  # fmt: skip
    html = markdown2html_mistune(claims_markdown([claim], columns=ALL_HEADINGS))
    found = _Cells(html)
    assert len(found.cells) == len(ALL_HEADINGS)
    assert {"a | b", "mat - $x$ <b>", "profile _my_|`one`"} <= set(found.cells)
    assert not found.tags & {"b", "em", "code"} and "a" in found.tags


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_captions_in_html_are_text(text: str) -> None:
    html = captions_html([text], {text: [text]})
    found = _Cells(html)
    assert found.tags == {"table", "thead", "tbody", "tr", "th", "td"}
    (cell,) = found.cells
    assert cell.split() == text.encode("utf-8", "replace").decode().split()
    assert NO_FORMULAS in html
    assert unescape(html_text(text)) == text.encode("utf-8", "replace").decode()


def test_tables_of_a_study_leave_dollars_to_the_reader(tmp_path: Path) -> None:
    from matlib.study.study import open_study

    with pd.option_context("display.html.use_mathjax", True, "display.max_colwidth", 50,
                           "display.max_columns", 5):  # fmt: skip
        open_study("smoke", str(tmp_path))
        html = pd.DataFrame({"caption": ["$5 # $6", "<script>"]})._repr_html_()  # type: ignore[operator]
    assert "mathjax_ignore" in html and "<script>" not in html
