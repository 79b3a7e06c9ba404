"""Sentence templates of the caption grammar, in families.

Upper-case letters are slots: A, B, C noun phrases; R the relation of A to B; S the relation
named second (its subject is the object before "that"/"which", else A); G the background.
Everything else is written as it stands.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

FAMILIES: dict[str, tuple[str, ...]] = {
    "plain": (
        "A R B",
        "A is R B",
        "A sits R B",
        "A lies R B",
        "A R B on G",
        "A R B on the G",
        "A is R B on G",
        "A rests R B in the G",
        "A that is R B",
        "A appears R B against the G",
        "A on G R B",
        "A that is R B on the G",
    ),
    "ground first": (
        "on G A R B",
        "on the G A is R B",
        "against the G A R B",
        "in the G A sits R B",
        "on the G is A R B",
        "on G there is A R B",
        "on G A and B",
        "the background is G and A is R B",
        "the background is G with A and B",
    ),
    "inverted": (
        "R B is A",
        "R B sits A",
        "R B there is A",
        "R B is A on G",
        "on the G R B is A",
        "B with A R it",
        "B has A R it",
        "B on G with A R it",
        "B has A R it on the G",
    ),
    "framed": (
        "there is A R B",
        "here is A R B",
        "we see A R B",
        "a picture of A R B",
        "a photo of A R B on G",
        "an image showing A and B on G",
        "a drawing of A and B on the G",
        "a G scene with A R B",
        "a G scene showing A and B",
        "the G scene shows A R B",
        "there is A R B on the G",
        "we see A and B on G",
    ),
    "listing": (
        "A and B",
        "A with B",
        "A and B on G",
        "A and B on the G",
        "there are A and B",
        "A and B with G behind them",
        "A R B with G behind",
        "A and B lie on the G",
    ),
    "three": (
        "A and B and C",
        "A R B and C",
        "A R B with C on G",
        "A and B and C on the G",
        "A is R B and S C",
        "A R B that is S C",
        "C and A R B",
        "on G A R B and C",
        "a picture of A R B with C",
        "a G scene with A and B and C",
    ),
}


@dataclass(frozen=True)
class Template:
    """One sentence form: `text` with slots, of a family."""

    text: str
    family: str

    @cached_property
    def tokens(self) -> tuple[str, ...]:
        return tuple(self.text.split(" "))

    @cached_property
    def n_mentions(self) -> int:
        return sum(token in ("A", "B", "C") for token in self.tokens)

    @cached_property
    def has_relation(self) -> bool:
        return "R" in self.tokens

    @cached_property
    def has_second_relation(self) -> bool:
        return "S" in self.tokens

    @cached_property
    def second_subject(self) -> str:
        """The slot that S starts from: B after "that", else A."""
        return "B" if "that" in self.tokens else "A"

    @cached_property
    def has_background(self) -> bool:
        return "G" in self.tokens


TEMPLATES: tuple[Template, ...] = tuple(
    Template(text, family) for family, texts in FAMILIES.items() for text in texts
)
