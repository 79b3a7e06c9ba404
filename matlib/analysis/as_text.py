"""Captions, names and paths are text wherever they are shown; no sign in them has an effect.

They come from data: a caption may hold `$5 # $6`, `<script>`, a bar or half a character. Figures
draw `drawable` text with matplotlib's formulas off (`figures.style.drawing`); pages of HTML and
Markdown are written with the functions below.
"""

from __future__ import annotations

import re
from html import escape

NO_FORMULAS = "tex2jax_ignore mathjax_ignore"
"""Class of an HTML element in which Jupyter leaves dollars alone."""

_UNDRAWABLE = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\ud800-\udfff]")

# an entity is never markup; in a span of its own a dollar or a backslash begins no formula
_ENTITIES = {sign: f"&#{ord(sign)};" for sign in "&<>|`*_[]~"}
_ALONE = {sign: f"<span>&#{ord(sign)};</span>" for sign in "$\\"}
_MARKDOWN = str.maketrans(_ENTITIES | _ALONE)


def drawable(text: str) -> str:
    """The text with � for what no font draws: control characters, halves of surrogate pairs.

    Lines may break; formulas are the figure's matter (`figures.style.drawing`).
    """
    return _UNDRAWABLE.sub("\ufffd", text)


def html_text(text: str) -> str:
    """The text for HTML, in an element or a quoted attribute.

    Jupyter reads formulas in HTML too; the element around it has the class `NO_FORMULAS`.
    """
    return escape(_encodable(text))


def markdown_text(text: str) -> str:
    """The text for inside a line or a cell of Markdown: on GitHub, in Jupyter and in a report.

    Line breaks become spaces, since a cell ends with its line.
    """
    return " ".join(_encodable(text).split()).translate(_MARKDOWN)


def _encodable(text: str) -> str:
    """Files are UTF-8, in which half a surrogate pair cannot be written."""
    return text.encode("utf-8", "replace").decode("utf-8")
