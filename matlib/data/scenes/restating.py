"""Saying the same facts in other words: captions that add nothing to an original."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations, product

import torch

from matlib.data.scenes.grammar import Dials, realise, with_articles, with_synonyms
from matlib.data.scenes.reading import Reading
from matlib.data.scenes.scene import python_random
from matlib.data.scenes.templates import TEMPLATES, Template

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
