"""The report: a front page and one page per executed notebook, readable without a network.

Pages hold everything in themselves (styles, pictures) and forbid scripts, so a report can be
mailed, put on any server or opened from a folder, on a telephone too.
"""

from __future__ import annotations

import base64
import logging
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bs4 import BeautifulSoup
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from nbconvert import HTMLExporter
from nbformat import NotebookNode
from pygments.formatters import HtmlFormatter

from matlib.data.strict import read_json
from matlib.files import write_durably
from matlib.study.publish.notebooks import has_tag, read_notebook
from matlib.study.publish.published import without_progress
from matlib.study.tables.findings import Ledger, as_worded_now, decided, shown_in

_UNKNOWN = "–"
CLAIM_COLUMNS = ("id", "claim", "contrast", "verdict", "estimate", "scope", "n", "seeds")
"""What `claim_rows` says of a claim."""

PICTURES = {".png": "image/png", ".jpg": "image/jpeg", ".svg": "image/svg+xml"}


@dataclass(frozen=True)
class Figure:
    """A picture of the front page: png, jpg or svg, and the sentence under it."""

    path: Path
    caption: str


@dataclass(frozen=True)
class FrontPage:
    """What the front page says; every text is shown as it is, markup in it has no effect.

    Attributes:
        title: of the report.
        question: of the study, in a few sentences.
        profile: which study this is.
        claims: rows of claims.json.
        published: profile -> claims of larger studies that are published, to be read beside.
        made: when, on which machine, and in how much time, in words.
        figures: shown in order.
        provenance: name to value, in order.
        notes: what a reader must know first, e.g. that the study is partial.
        scale: estimates are multiplied by it for reading.
        unit: of the estimates after scaling.
    """

    title: str
    question: str
    profile: str
    claims: Ledger
    published: Mapping[str, Ledger] = field(default_factory=dict)
    made: str = ""
    figures: Sequence[Figure] = ()
    provenance: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()
    scale: float = 100.0
    unit: str = "points"


def claim_rows(claims: Sequence[Mapping[str, Any]], scale: float = 100.0) -> list[dict[str, str]]:
    """Ledger as texts by column of `COLUMNS`; what is not known is a dash.

    Args:
        claims: `{id, claim, contrast, scope, estimate, ci_low, ci_high, n, unit, n_seeds,
            verdict}`; numbers may be None. `unit` is `query`, `seed` or `point` (of a design).
        scale: factor for estimates.
    """
    return [_claim_row(claim, scale) for claim in claims]


def _claim_row(claim: Mapping[str, Any], scale: float) -> dict[str, str]:
    is_tested = claim["estimate"] is not None  # what was not tested has no scope and no size
    return {
        "id": str(claim["id"]),
        "claim": str(claim["claim"]),
        "contrast": str(claim["contrast"] or _UNKNOWN),
        "verdict": str(claim["verdict"]),
        "estimate": _interval(claim, scale),
        "scope": str(claim["scope"]) if is_tested else _UNKNOWN,
        "n": f"{claim['n']} {_plural(claim)}" if is_tested else _UNKNOWN,
        "seeds": str(claim["n_seeds"]) if is_tested else _UNKNOWN,
    }


def _interval(claim: Mapping[str, Any], scale: float) -> str:
    if claim["estimate"] is None:
        return _UNKNOWN
    text = f"{scale * claim['estimate']:+.1f}"
    if claim["ci_low"] is not None and claim["ci_high"] is not None:
        text += f" [{scale * claim['ci_low']:.1f}, {scale * claim['ci_high']:.1f}]"
    elif claim["ci_low"] is not None:  # a one-sided interval
        text += f" [≥ {scale * claim['ci_low']:.1f}]"
    return text.replace("-", "−")  # a sign, at which no line breaks


def _plural(claim: Mapping[str, Any]) -> str:
    plural = {"query": "queries", "seed": "seeds", "point": "design points"}
    unit = str(claim["unit"] or "")
    return unit if claim["n"] == 1 else plural.get(unit, unit)


def build_report(
    profile_folder: Path, front: FrontPage, notebooks: Sequence[Path] | None = None
) -> Path:
    """Write `report/` below a profile's results folder; give the path of its front page.

    Args:
        profile_folder: `results/<profile>`.
        front: content of the front page.
        notebooks: executed notebooks in order; by default those in `notebooks/` of the folder.

    Raises:
        FileNotFoundError: a figure is missing, or there is no executed notebook.
        ValueError: a figure in a format that browsers do not show.
    """
    if notebooks is None:
        notebooks = sorted((profile_folder / "notebooks").glob("[0-9][0-9]_*.ipynb"))
        notebooks = [path for path in notebooks if not path.name.endswith(".failed.ipynb")]
    if not notebooks:
        raise FileNotFoundError(
            f"no executed notebook for the report of {front.profile}; run the study first"
        )
    figures, stems = [_embedded(figure) for figure in front.figures], {p.stem for p in notebooks}
    read = [read_notebook(path) for path in notebooks]
    pages = [
        {"file": f"{path.stem}.html", "title": _title(notebook, path.stem)}
        for path, notebook in zip(notebooks, read, strict=True)
    ]
    folder = profile_folder / "report"
    folder.mkdir(parents=True, exist_ok=True)
    for stale in set(folder.glob("*.html")) - {folder / page["file"] for page in pages}:
        stale.unlink()
    environment = _environment()
    for i, (page, notebook) in enumerate(zip(pages, read, strict=True)):
        html = environment.get_template("notebook.html.j2").render(
            title=page["title"],
            profile=front.profile,
            body=_linked(_body(notebook), stems),
            before=pages[i - 1] if i > 0 else None,
            after=pages[i + 1] if i + 1 < len(pages) else None,
        )
        write_durably(folder / page["file"], html)
    html = _front_html(environment, front, figures=figures, pages=pages)
    write_durably(folder / "index.html", html)
    return folder / "index.html"


def _front_html(environment: Environment, front: FrontPage, **parts: Any) -> str:
    """The front page with its `figures` and `pages`; claims link to pages that are there."""
    files = {page["file"] for page in parts["pages"]}
    page_of = {str(c["id"]): f"{shown_in(str(c['id']))[0]}.html" for c in front.claims}
    return environment.get_template("front.html.j2").render(
        title=front.title,
        front=front,
        rows=[
            {**row, "published": _published(claim, front)}
            for claim, row in zip(front.claims, claim_rows(front.claims, front.scale), strict=True)
        ],
        scopes=scopes(front.claims),
        page_of={claim: file for claim, file in page_of.items() if file in files},
        **parts,
    )


def scopes(claims: Ledger) -> list[str]:
    """What decided claims are about, said once: every scope with the claims that it holds for.

    >>> scopes([{"id": "C0", "scope": "eps 3", "estimate": 0.1}])
    ['eps 3']
    """
    of: dict[str, list[str]] = {}
    for claim in claims:
        if claim["estimate"] is not None:
            of.setdefault(str(claim["scope"]), []).append(str(claim["id"]))
    if len(of) == 1:
        return list(of)
    return [f"{', '.join(ids)}: {scope}" for scope, ids in of.items()]


def _published(claim: Mapping[str, Any], front: FrontPage) -> dict[str, str] | None:
    """What the published study that speaks of a claim decided: of its part, or else of another."""
    of_it = [each for each in decided(front.published) if each[1]["id"] == claim["id"]]
    if not of_it:
        return None
    part = claim.get("part", "")
    name, found = next((each for each in of_it if each[1].get("part", "") == part), of_it[0])
    return {**_claim_row(found, front.scale), "study": name}


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("matlib.study.publish"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    environment.filters["verdict_class"] = _verdict_class
    own = (Path(__file__).parent / "templates" / "report.css").read_text(encoding="utf-8")
    light = HtmlFormatter(style="default").get_style_defs(".highlight")
    dark = HtmlFormatter(style="github-dark").get_style_defs(".highlight")
    themes = f"{light}\n@media (prefers-color-scheme: dark) {{\n{dark}\n}}\n"
    environment.globals["css"] = Markup(themes + own)
    return environment


VERDICT_CLASSES = {
    "not supported": "against", "unfavourable": "against", "not yet tested": "untested",
    "inconclusive": "inconclusive", "no violation found": "leaning", "supported": "supported",
    "favourable": "leaning",
}  # fmt: skip
"""Beginning of a verdict -> its CSS class: full colour where a study decides, pale where it speaks
of its own weights only."""


def _verdict_class(verdict: str) -> str:
    """CSS class of a verdict; a longer text (`inconclusive (floor)`) counts by its beginning."""
    found = next((css for known, css in VERDICT_CLASSES.items() if verdict.startswith(known)), "")
    return f"{found} weak" if verdict.endswith("these weights only") else found


def _embedded(figure: Figure) -> dict[str, str]:
    kind = PICTURES.get(figure.path.suffix)
    if kind is None:
        raise ValueError(f"a figure is expected as {', '.join(PICTURES)}; got {figure.path.name}")
    if not figure.path.is_file():
        raise FileNotFoundError(f"the figure {figure.path.name} of the report is missing")
    data = base64.b64encode(figure.path.read_bytes()).decode()
    return {"source": f"data:{kind};base64,{data}", "caption": figure.caption}


def _title(notebook: NotebookNode, otherwise: str) -> str:
    """The first heading."""
    lines = notebook.cells[0].source.splitlines() if notebook.cells else []
    return lines[0].lstrip("# ").strip() if lines else otherwise


FOLDED = """{%- extends 'basic/index.html.j2' -%}
{% block input_group %}<details class="code"><summary>code</summary>{{ super() }}</details>
{%- endblock input_group %}"""
"""nbconvert's page, its code behind a line that opens it."""


def _body(notebook: NotebookNode) -> Markup:
    """A notebook as HTML without head, scripts or the cell that papermill injected."""
    silent = logging.getLogger(f"{__name__}.nbconvert")
    silent.setLevel(logging.ERROR)  # it warns of every picture without a description
    shown = without_progress(notebook)
    shown.cells = [cell for cell in shown.cells if not has_tag(cell, "injected-parameters")]
    exporter = HTMLExporter(
        raw_template=FOLDED, exclude_input_prompt=True, exclude_output_prompt=True, log=silent
    )
    body, _ = exporter.from_notebook_node(shown)
    return Markup(_readable(body))


def _readable(body: str) -> str:
    """The page for a telephone and for who does not see pictures.

    A picture without words is called after the heading above it. A table lies in a box that is
    scrolled for itself; one with a single line of headings has them in its cells too, so that
    it can be shown as cards.
    """
    page = BeautifulSoup(body, "html.parser")
    for picture in page.find_all("img"):
        if str(picture.get("alt", _NO_WORDS)).startswith(_NO_WORDS):
            above = picture.find_previous(["h1", "h2", "h3"])
            picture["alt"] = f"Figure: {above.get_text().strip('¶ ')}" if above else "Figure"
    for table in page.find_all("table"):
        lines = table.select("thead tr")
        if len(lines) == 1:
            names = [cell.get_text(" ", strip=True) for cell in lines[0].find_all(["th", "td"])]
            for row in table.select("tbody tr"):
                for name, cell in zip(names, row.find_all(["th", "td"]), strict=False):
                    cell["data-label"] = name
            table["class"] = " ".join([*filter(None, table.get_attribute_list("class")), "cards"])
        table.wrap(page.new_tag("div", attrs={"class": "scroll", "tabindex": "0"}))
    return str(page)


_NO_WORDS = "No description"
"""How nbconvert begins what it says of a picture without words."""


def _linked(body: Markup, pages: Collection[str]) -> Markup:
    """Links from notebook to notebook lead to pages; where there is no page, the words stay."""

    def to_page(found: re.Match[str]) -> str:
        stem, words = found.groups()
        return f'<a href="{stem}.html">{words}</a>' if stem in pages else words

    return Markup(re.sub(r'<a href="([\w-]+)\.ipynb">(.*?)</a>', to_page, body))


def claims_text(claims: Sequence[Mapping[str, Any]], scale: float = 100.0) -> str:
    """The claims table for a terminal: one line per claim, and its words below."""
    rows = claim_rows(claims, scale)
    wide = max((len(row["id"]) for row in rows), default=0)
    lines = []
    for row in rows:
        lines.append(f"{row['id']:<{wide}}  {row['verdict']}: {row['estimate']}")
        lines.append(f"{'':<{wide}}  {row['claim']} ({row['contrast']}; {row['scope']})")
    return "\n".join(lines)


def read_claims(path: Path) -> list[dict[str, Any]]:
    """The rows of a claims.json, worded as they would be now.

    Raises:
        ValueError: no list of claims, e.g. a file that was cut.
    """
    claims: Any = read_json(path)
    known = {"id", "claim", "contrast", "scope", "estimate", "ci_low", "ci_high", "n", "unit",
             "n_seeds", "verdict"}  # fmt: skip
    if isinstance(claims, list) and all(isinstance(c, dict) and known <= set(c) for c in claims):
        return [as_worded_now(claim) for claim in claims]
    raise ValueError(f"{path} is no list of claims; run the study again: what is finished is kept")
