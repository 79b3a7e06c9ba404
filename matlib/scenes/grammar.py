"""Captions: facts of a scene put into one of many sentence forms, or told again in another.

Templates come in families. Upper-case letters are slots: A, B, C noun phrases; R the relation of
A to B; S the relation named second (its subject is the object before "that"/"which", else A); G
the background. Everything else is written as it stands.

Lower case, no punctuation, single spaces. A caption leaves facts out, but never so many that
it would fit many scenes: what it states carries at least `min_bits` of information.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import permutations, product

import torch

from matlib.scenes.lexicon import CONCEPT_OF, LEXICON
from matlib.scenes.scene import RELATION_NAMES, Scene, SceneObject, holds, python_random
from matlib.scenes.truth import Reading
from matlib.scenes.typos import TYPO_RULES, typo_of_caption

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


_BITS = {kind: math.log2(len(LEXICON[kind])) for kind in ("shape", "colour", "texture", "size")}
_BACKGROUND_BITS = math.log2(len(LEXICON["background"]))
_RELATION_BITS = 1.3  # a relation word is true of roughly 40 % of ordered pairs
_ORDERS = (
    ("size", "texture", "colour"),
    ("size", "colour", "texture"),
    ("texture", "size", "colour"),
)
_RELATION_FORMS = {
    "left": ("left of", "left of", "to the left of"),
    "right": ("right of", "right of", "to the right of"),
    "far": ("far from",),
}


@dataclass(frozen=True)
class Dials:
    """How captions vary. All rates are probabilities in [0, 1].

    Attributes:
        synonym_rate: per content word, to be written as one of its synonyms.
        typo_rate: per caption, to contain one one-letter typo in a content word.
        omit_rate: per optional attribute (size, texture), to be left out; shape and colour are
            left out at a fifth of it.
        min_bits: information in bits that the stated facts carry at least. 15 bits leave one
            scene among some 10,000 (a scene has several ways to fit).
        families: template families in use (keys of `templates.FAMILIES`).
        typo_rules: kinds of typo in use (of `typos.TYPO_RULES`).
    """

    synonym_rate: float = 0.0
    typo_rate: float = 0.0
    omit_rate: float = 0.6
    min_bits: float = 15.0
    families: tuple[str, ...] = tuple(FAMILIES)
    typo_rules: tuple[str, ...] = TYPO_RULES

    def __post_init__(self) -> None:
        for name in ("synonym_rate", "typo_rate", "omit_rate"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} is a probability; got {getattr(self, name)}")
        unknown = set(self.families) - set(FAMILIES)
        if unknown or not set(self.families) - {"three"}:
            raise ValueError(
                f"families must name some of {sorted(FAMILIES)}, not only 'three'; "
                f"got {self.families}"
            )
        if not self.typo_rules or set(self.typo_rules) - set(TYPO_RULES):
            raise ValueError(f"typo_rules must be among {TYPO_RULES}; got {self.typo_rules}")


@dataclass
class _Plan:
    """What a caption will say: objects in slot order, their stated kinds, relation words."""

    objects: list[SceneObject]
    stated: list[set[str]]
    relations: dict[str, str]
    background: str | None


def _plan(scene: Scene, template: Template, dials: Dials, rng: random.Random) -> _Plan:
    objects = rng.sample(scene.objects, template.n_mentions)
    rates = {"shape": dials.omit_rate / 5, "colour": dials.omit_rate / 5}
    stated = [
        {kind for kind in _BITS if rng.random() >= rates.get(kind, dials.omit_rate)}
        for _ in objects
    ]
    relations = {}
    if template.has_relation:
        relations["R"] = _relation(objects[0], objects[1], rng)
    if template.has_second_relation:
        subject = objects["ABC".index(template.second_subject)]
        relations["S"] = _relation(subject, objects[2], rng)
    bits = sum(_BITS[kind] for kinds in stated for kind in kinds)
    bits += _RELATION_BITS * len(relations) + _BACKGROUND_BITS * template.has_background
    missing = [(i, kind) for i, kinds in enumerate(stated) for kind in sorted(_BITS.keys() - kinds)]
    rng.shuffle(missing)
    while missing and (bits < dials.min_bits or any(not kinds for kinds in stated)):
        i, kind = missing.pop()
        stated[i].add(kind)
        bits += _BITS[kind]
    return _Plan(objects, stated, relations, scene.background if template.has_background else None)


def _relation(first: SceneObject, second: SceneObject, rng: random.Random) -> str:
    return rng.choice([name for name in RELATION_NAMES if holds(name, first, second)])


def _noun_phrase(attributes: dict[str, str], rng: random.Random) -> list[str]:
    words = [attributes[kind] for kind in rng.choice(_ORDERS) if kind in attributes]
    return ["a", *words, attributes.get("shape") or rng.choice(("shape", "object", "figure"))]


def realise(
    template: Template,
    mentions: Sequence[dict[str, str]],
    relations: dict[str, str],
    background: str | None,
    rng: random.Random,
) -> list[str]:
    """The words of a template with its slots filled (canonical words, articles all "a")."""
    words: list[str] = []
    for token in template.tokens:
        if token in ("A", "B", "C"):
            words += _noun_phrase(mentions["ABC".index(token)], rng)
        elif token in ("R", "S"):
            forms = _RELATION_FORMS.get(relations[token], (relations[token],))
            words += rng.choice(forms).split(" ")
        elif token == "G":
            words.append(str(background))
        else:
            words.append(token)
    return words


def with_articles(words: list[str]) -> list[str]:
    """The words with every "a"/"an" agreeing with the word that follows."""
    return [
        ("an" if following[:1] in "aeio" else "a") if word in ("a", "an") and following else word
        for word, following in zip(words, [*words[1:], ""], strict=True)
    ]


def with_synonyms(words: list[str], rate: float, rng: random.Random) -> list[str]:
    """Each content word replaced by one of its synonyms with probability `rate`."""
    if rate == 0.0:
        return words
    out = []
    for word in words:
        concept = CONCEPT_OF.get(word)
        if concept is not None and rng.random() < rate:
            word = rng.choice(LEXICON[concept.kind][concept.value])
        out.append(word)
    return out


def _write(scene: Scene, templates: Sequence[Template], dials: Dials, rng: random.Random) -> str:
    template = rng.choice(templates)
    plan = _plan(scene, template, dials, rng)
    mentions = [
        {kind: getattr(thing, kind) for kind in _BITS if kind in kinds}
        for thing, kinds in zip(plan.objects, plan.stated, strict=True)
    ]
    words = realise(template, mentions, plan.relations, plan.background, rng)
    words = with_articles(with_synonyms(words, dials.synonym_rate, rng))
    caption = " ".join(words)
    if dials.typo_rate > 0.0 and rng.random() < dials.typo_rate:
        return typo_of_caption(caption, rng, dials.typo_rules)
    return caption


def write_captions(
    scenes: Sequence[Scene],
    generator: torch.Generator | int,
    n_per_scene: int = 1,
    *,
    dials: Dials | None = None,
    **rates: float,
) -> list[tuple[str, ...]]:
    """`n_per_scene` true captions of each scene, different from each other where possible.

    Args:
        scenes: S scenes.
        generator: CPU generator or int seed; same seed, same captions.
        n_per_scene: captions per scene, at least 1.
        dials: how captions vary; canonical words and no typos by default.
        **rates: single fields of `Dials`, e.g. `synonym_rate=0.8`, instead of `dials`.

    Returns:
        S tuples of `n_per_scene` captions.
    """
    if n_per_scene < 1:
        raise ValueError(f"n_per_scene is at least 1; got {n_per_scene}")
    if dials is not None and rates:
        raise ValueError("give either dials or single rates, not both")
    dials = dials or Dials(**rates)  # type: ignore[arg-type]
    usable = [t for t in TEMPLATES if t.family in dials.families]
    by_size = {n: [t for t in usable if t.n_mentions <= n] for n in (2, 3)}
    rng = python_random(generator)
    result = []
    for scene in scenes:
        templates = by_size[len(scene.objects)]
        captions: dict[str, None] = {}
        for _ in range(4 * n_per_scene):
            captions[_write(scene, templates, dials, rng)] = None
            if len(captions) == n_per_scene:
                break
        written = list(captions)
        result.append(tuple(written[i % len(written)] for i in range(n_per_scene)))
    return result


_CONVERSE = {"left": "right", "right": "left", "above": "below", "below": "above"}


def restate(
    reading: Reading, generator: torch.Generator | int, n: int, *, dials: Dials | None = None
) -> tuple[str, ...]:
    """Up to `n` different captions that state the facts of a reading and no others.

    For one-to-many captions restricted to what the original says: no scene is looked at. A
    relation may be told from the other side ("a left of b" as "b right of a").

    Args:
        reading: the facts, from `read(caption)`.
        generator: CPU generator or int seed.
        n: number of captions wanted; fewer come back where the facts allow fewer.
        dials: synonyms and families; other dials have no effect here.

    Raises:
        ValueError: if the facts fit no template (two backgrounds, a star that is red and blue).
    """
    dials = dials or Dials()
    fitting = [
        (template, order, told)
        for told in _tellings(reading)
        for template in TEMPLATES
        if template.family in dials.families
        for order in _slot_orders(template, told)
    ]
    if not fitting or _has_contradiction(reading):
        raise ValueError(f"no template states exactly these facts: {reading}")
    rng = python_random(generator)
    background = reading.backgrounds[0] if reading.backgrounds else None
    captions: dict[str, None] = {}
    for _ in range(6 * n):
        template, order, told = rng.choice(fitting)
        mentions = [{c.kind: c.value for c in told.mentions[i]} for i in order]
        relations = {
            "R" if {i, j} == {order[0], order[1]} else "S": name for i, name, j in told.relations
        }
        words = realise(template, mentions, relations, background, rng)
        words = with_articles(with_synonyms(words, dials.synonym_rate, rng))
        captions[" ".join(words)] = None
        if len(captions) == n:
            break
    return tuple(captions)


def _tellings(reading: Reading) -> list[Reading]:
    """The reading with each relation told from either side."""
    sides = [((i, name, j), (j, _CONVERSE.get(name, name), i)) for i, name, j in reading.relations]
    return [replace(reading, relations=tuple(told)) for told in product(*sides)]


def _has_contradiction(reading: Reading) -> bool:
    return len(reading.backgrounds) > 1 or any(
        len({c.kind for c in mention}) < len(mention) for mention in reading.mentions
    )


def _slot_orders(template: Template, reading: Reading) -> list[tuple[int, ...]]:
    """Orders of the mentions in which the template states exactly the reading's facts."""
    n = len(reading.mentions)
    if template.n_mentions != n or template.has_background != bool(reading.backgrounds):
        return []
    wanted = {(i, j) for i, _, j in reading.relations}
    orders = []
    for order in permutations(range(n)):
        slots = {(order[0], order[1])} if template.has_relation else set()
        if template.has_second_relation:
            slots.add((order["ABC".index(template.second_subject)], order[2]))
        if slots == wanted and len(wanted) == len(reading.relations):
            orders.append(order)
    return orders
