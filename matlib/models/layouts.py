"""Which layout the names of a checkpoint's tensors have: for messages that say what was found."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Layout:
    """How somebody names the tensors of a model.

    Attributes:
        name: in words.
        known_by: whether a set of names has this layout.
        to_open: what opens it.
    """

    name: str
    known_by: Callable[[Firsts], bool]
    to_open: str


class Firsts(frozenset[str]):
    """The first parts of dotted names."""


_BY_NAME = "models.open(NAME, FILE), NAME of open_clip.list_models()"
_WITH_REST = (
    "models.open(NAME, FILE, rest=WEIGHTS), WEIGHTS those that it was fine-tuned from, such as "
    "openai"
)
_FOLDER = "models.open(FOLDER), the folder that save_pretrained wrote"
LAYOUTS = (
    Layout("ALBEF or TCL", lambda k: {"visual_encoder", "text_encoder"} <= k,
           'models.open("albef", FILE, rest=TOKENIZER), TOKENIZER bert-base-uncased or its folder'),
    Layout("transformers' BLIP", lambda k: {"vision_model", "text_encoder"} <= k, _FOLDER),
    Layout("transformers' SigLIP", lambda k: {"vision_model", "logit_bias"} <= k, _FOLDER),
    Layout("transformers' CLIP", lambda k: {"vision_model", "text_model"} <= k,
           f"{_FOLDER}, or {_BY_NAME}"),
    Layout("one tower of transformers' CLIP", lambda k: bool({"vision_model", "text_model"} & k),
           _WITH_REST),
    Layout("open_clip with a text tower of its own", lambda k: {"visual", "text"} <= k, _BY_NAME),
    Layout("open_clip or OpenAI's CLIP", lambda k: {"visual", "token_embedding"} <= k, _BY_NAME),
    Layout("an image tower alone (TeCoA, FARE, QT-AFT, AdvFLYP, AGFT)",
           lambda k: "visual" in k or "class_embedding" in k or {"conv1", "attnpool"} <= k,
           _WITH_REST),
    Layout("a text tower alone (LEAF)", lambda k: "token_embedding" in k, _WITH_REST),
)  # fmt: skip


def layout_of(names: Iterable[str]) -> Layout | None:
    """The layout of a checkpoint, None if it is not known."""
    firsts = Firsts(name.partition(".")[0] for name in names)
    return next((layout for layout in LAYOUTS if layout.known_by(firsts)), None)


def found_layout(names: Iterable[str]) -> str:
    """What was found, what is known, and what to pass, as one sentence."""
    names = list(names)
    found = layout_of(names)
    known = "; ".join(layout.name for layout in LAYOUTS)
    if found is None:
        return f"its layout is not known ({', '.join(names[:3])} …); known: {known}"
    return f"its layout is that of {found.name}: {found.to_open}. Known layouts: {known}"
