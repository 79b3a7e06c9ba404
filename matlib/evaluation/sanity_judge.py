"""Checks of the judge that decides the claims: the gallery attacker, and its words.

What a check asserts is that something which should be no stronger gains nothing on it: the same
attacker with twice the effort or with fewer edits, the pairwise attacker, words made on another
model, words at random. Where one of them leaves less recall, so would an attacker from outside.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch

from matlib.attacks.ascent import AttackReport
from matlib.attacks.attacked_gallery import Attacked
from matlib.attacks.edits import Edit, apply_edit
from matlib.attacks.multimodal import contrastive_attack
from matlib.attacks.whole_gallery import gallery_attack, words_attack
from matlib.evaluation.retrieval import Outcomes
from matlib.evaluation.sanity_subject import Check, SanitySubject
from matlib.evaluation.suite import joint_ascent
from matlib.models.dual_encoder import DualEncoder

N_ROUNDS = 2
"""Of the evaluation's gallery attacker."""

Left = Callable[[str], Outcomes]
"""A text threat -> what an attacker leaves under it."""


def stronger_gallery(subject: SanitySubject) -> Check:
    """The gallery attacker with twice the rounds, image steps and restarts."""
    return _compared(
        subject,
        "stronger_gallery",
        "twice the rounds, steps and restarts gain the gallery attacker little",
        {"gallery": lambda threat: gallery(subject, threat),
         "twice": lambda threat: gallery(subject, threat, effort=2)},
    )  # fmt: skip


def fewer_edits(subject: SanitySubject) -> Check:
    """Every second edit of each caption, searched on its own: a smaller budget."""
    return _compared(
        subject,
        "fewer_edits",
        "half of the edits leave no less recall than all of them",
        {"all edits": lambda threat: gallery(subject, threat),
         "half": lambda threat: gallery(subject, threat, every=2)},
    )  # fmt: skip


def pairwise(subject: SanitySubject) -> Check:
    """The strongest attack on each image and caption for itself (the suite's row `joint`)."""
    return _compared(
        subject,
        "pairwise",
        "the gallery attacker leaves no more recall than the pairwise one",
        {"gallery": lambda threat: gallery(subject, threat),
         "pairwise": lambda threat: _pairwise(subject, threat)},
    )  # fmt: skip


def words_of_another(subject: SanitySubject) -> Check:
    """Black-box words: chosen on the source model, judged on this one.

    Raises:
        ValueError: a subject without a source.
    """
    source = subject.given_source()
    return _compared(
        subject,
        "words_of_another",
        "words chosen on this model leave no more recall than words chosen on another",
        {"words": lambda threat: _words(subject, subject.encoder, threat),
         "of another": lambda threat: _words(subject, source, threat)},
    )  # fmt: skip


def random_words(subject: SanitySubject) -> Check:
    """Both searches for words, by importance and over the gallery, against random ones."""
    captions = subject.gallery.captions

    def searched(threat: str) -> Outcomes:
        table = subject.tables[threat]
        return subject.judge(captions=subject.word_search(subject.encoder, captions, table))

    def drawn(threat: str) -> Outcomes:
        generator, n_words = subject.generator(), subject.word_search.n_words
        rows = zip(captions, subject.tables[threat], strict=True)
        edited = [randomly_edited(caption, row, n_words, generator) for caption, row in rows]
        return subject.judge(captions=edited)

    return _compared(
        subject,
        "random_words",
        "neither search for words leaves more recall than random edits of the same table",
        {"by importance": searched,
         "words": lambda threat: _words(subject, subject.encoder, threat),
         "random": drawn},
    )  # fmt: skip


def own_loss(subject: SanitySubject) -> Check:
    """The attack that ascends the distances which FARE or LEAF was trained to keep small.

    It is no row of the study's suite: the same attacks judge every defence.

    Raises:
        ValueError: a subject without such an attack.
    """
    own = subject.own
    if own is None:
        raise ValueError("this check needs the attack of the defence's own loss; there is none")

    def left(threat: str) -> Outcomes:
        found = own(
            subject.encoder, subject.gallery, subject.tables[threat], subject.image,
            subject.word_search, subject.generator(), AttackReport(),
        )  # fmt: skip
        return subject.judge(*Attacked(*found))

    return _compared(
        subject,
        "own_loss",
        "the gallery attacker leaves no more recall than an ascent of the defence's own loss",
        {"gallery": lambda threat: gallery(subject, threat), "own loss": left},
    )


def _compared(subject: SanitySubject, name: str, asserts: str, ways: Mapping[str, Left]) -> Check:
    """Threat by threat: all ways but the last leave no more than the last.

    Raises:
        ValueError: a subject without tables.
    """
    if not subject.tables:
        raise ValueError(f"the check {name} needs a table of edits; there is none")
    sides: dict[str, list[Outcomes]] = {}
    rule: list[tuple[str, str | float]] = []
    for threat in subject.tables:
        labels = [f"{threat}: {way}" for way in ways]
        left = [way(threat) for way in ways.values()]
        sides |= {label: [outcomes] for label, outcomes in zip(labels, left, strict=True)}
        rule += [(label, labels[-1]) for label in labels[:-1]]
    return subject.compare(name, asserts, sides, rule)


def gallery(subject: SanitySubject, threat: str, *, every: int = 1, effort: int = 1) -> Outcomes:
    """What the gallery attacker leaves.

    Args:
        every: 2 for every second edit of each caption, and so on.
        effort: times its rounds, image steps and restarts.
    """
    key = threat, every, effort
    if key not in subject.kept:
        found = gallery_attack(
            subject.encoder,
            subject.gallery,
            [row[::every] for row in subject.tables[threat]],
            joint_ascent(replace(subject.image, n_steps=effort * subject.image.n_steps)),
            subject.word_search,
            generator=subject.generator(),
            n_rounds=effort * N_ROUNDS,
            n_restarts=effort * subject.n_restarts,
        )
        subject.kept[key] = subject.judge(*found)
    return subject.kept[key]


def _pairwise(subject: SanitySubject, threat: str) -> Outcomes:
    found = contrastive_attack(
        subject.encoder, subject.gallery, subject.tables[threat], subject.image,
        subject.word_search, generator=subject.generator(),
    )  # fmt: skip
    return subject.judge(*Attacked(*found))


def _words(subject: SanitySubject, encoder: DualEncoder, threat: str) -> Outcomes:
    found = words_attack(
        encoder, subject.gallery, subject.tables[threat], subject.word_search,
        generator=subject.generator(), n_restarts=subject.n_restarts,
    )  # fmt: skip
    return subject.judge(captions=found)


def randomly_edited(
    caption: str, row: Sequence[Edit], n_words: int, generator: torch.Generator
) -> str:
    """The caption with up to `n_words` words replaced by allowed edits drawn at random."""
    touched: set[int] = set()
    for index in torch.randperm(len(row), generator=generator).tolist():
        if len(touched) < n_words and row[index].position not in touched:
            caption = apply_edit(caption, row[index])
            touched.add(row[index].position)
    return caption
