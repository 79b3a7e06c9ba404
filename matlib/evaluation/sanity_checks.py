"""The checks of the sanity battery, one function each: a model under examination in, a check out.

After Carlini et al. 2019 (arXiv 1902.06705), "On Evaluating Adversarial Robustness", and
Athalye et al. 2018 (arXiv 1802.00420), section 3.1, for the signs of masked gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from matlib.attacks.apgd import APGD
from matlib.attacks.balls import MAX_EPS_255
from matlib.attacks.edits import Edit, apply_edit
from matlib.attacks.image import PGD
from matlib.evaluation.retrieval import Outcomes
from matlib.evaluation.sanity_subject import Check, SanitySubject

N_SHUFFLES = 20
"""Shuffles of the captions that are averaged: one alone can hit by luck."""

N_RESTARTS = 5


def zero_budget(subject: SanitySubject) -> Check:
    """Exact: with nothing allowed, every query keeps its rank to the last one.

    Also catches a model that does not give the same embedding twice.
    """
    pixels = subject.made_on(subject.encoder, _with_eps(subject.image, 0))
    found, clean = subject.judge(pixels), subject.clean
    changed = [
        float((a != b).double().mean())
        for a, b in ((found.tr_rank, clean.tr_rank), (found.ir_rank, clean.ir_rank))
    ]
    moved = float((pixels.cpu() != subject.gallery.pixels.cpu()).double().mean())
    share = 100 * max(moved, sum(changed) / 2)
    return Check(
        "zero_budget",
        "with a budget of zero every query keeps the rank that it has on clean data",
        {
            "clean": subject.points(clean),
            "eps 0/255": subject.points(found),
            "queries of another rank": 50 * sum(changed),
        },
        estimate_points=share,
        lower_points=share,
        p_value=None,
        p_smallest=None,
        exact=True,
        n_images=len(subject.gallery.pixels),
    )


def gradients(subject: SanitySubject) -> Check:
    """Images that stood still in at least one step of the evaluation's attack."""
    subject.under(subject.image)
    report = subject.report
    return subject.share(
        "gradients",
        "no image has a gradient of exactly zero, or one that is not finite, at any step",
        {
            "images that stood still": 100 * report.n_images_vanished / report.n_images,
            "zero gradients": 100 * report.n_zero / report.n_gradients,
            "non-finite gradients": 100 * report.n_non_finite / report.n_gradients,
        },
        report.n_images_vanished,
    )


def more_steps(subject: SanitySubject) -> Check:
    """Four times the steps; a given `step_255` stays, the default shrinks with their number."""
    n = subject.image.n_steps
    few, many = f"{n} steps", f"{4 * n} steps"
    more = replace(subject.image, n_steps=4 * n)
    return subject.compare(
        "more_steps",
        "four times the steps leave no more recall",
        {few: [subject.under(subject.image)], many: [subject.under(more)]},
        [(many, few)],
    )


def more_budget(subject: SanitySubject) -> Check:
    """Twice and four times eps, each against the next smaller one; steps grow with it."""
    attacks = [_with_eps(subject.image, factor * subject.image.eps_255) for factor in (1, 2, 4)]
    found = {f"eps {attack.eps_255:g}/255": [subject.under(attack)] for attack in attacks}
    small, middle, large = found
    rule = [(middle, small), (large, middle)]
    return subject.compare("more_budget", "a larger budget leaves no more recall", found, rule)


def huge_budget(subject: SanitySubject) -> Check:
    """64/255: the content of any image can be replaced."""
    label = f"eps {MAX_EPS_255:g}/255"
    found = subject.under(_with_eps(subject.image, MAX_EPS_255))
    return subject.compare(
        "huge_budget",
        f"at {MAX_EPS_255:g}/255 recall is at or below chance",
        {label: [found]},
        [(label, subject.chance())],
    )


def random_noise(subject: SanitySubject) -> Check:
    """Noise of +eps or -eps at every value: the corners of the ball, where it is largest."""
    pixels, eps = subject.gallery.pixels, subject.image.eps_255 / 255
    draw = torch.randint(2, pixels.shape, generator=subject.generator())
    sign = (2 * draw - 1).to(pixels.device, pixels.dtype)
    noisy = (pixels + eps * sign).clamp(0, 1)
    found = {"attack": [subject.under(subject.image)], "noise": [subject.judge(noisy)]}
    return subject.compare(
        "random_noise",
        "the attack leaves no more recall than random-sign noise of the same size",
        found,
        [("attack", "noise")],
    )


def restarts(subject: SanitySubject) -> Check:
    """Five times the runs, the first of which is the evaluation's (galleries of one chunk).

    An attack without a random start gets one, or its runs would all be the same.
    """
    n = N_RESTARTS * subject.image.n_restarts
    start = "uniform" if subject.image.start == "none" else subject.image.start
    many = replace(subject.image, n_restarts=n, start=start)
    once, often = f"runs: {subject.image.n_restarts}", f"runs: {n}"
    return subject.compare(
        "restarts",
        "restarts of the attack gain little",
        {once: [subject.under(subject.image)], often: [subject.under(many)]},
        [(once, often)],
    )


def apgd(subject: SanitySubject) -> Check:
    """Auto-PGD of many steps, as large a budget, the same loss."""
    stronger = APGD(subject.image.eps_255, subject.apgd_steps)
    return subject.compare(
        "apgd",
        "APGD is not much stronger than the evaluation's PGD",
        {"PGD": [subject.under(subject.image)], "APGD": [subject.under(stronger)]},
        [("PGD", "APGD")],
    )


def transfer(subject: SanitySubject) -> Check:
    """Images attacked on the source model, judged on this one.

    Raises:
        ValueError: a subject without a source.
    """
    if subject.source is None:
        raise ValueError("the transfer check needs a source model; this subject has none")
    moved = subject.made_on(subject.source, subject.image)
    return subject.compare(
        "transfer",
        "the white-box attack leaves no more recall than images attacked on another model",
        {"white-box": [subject.under(subject.image)], "transfer": [subject.judge(moved)]},
        [("white-box", "transfer")],
    )


def shuffled_captions(subject: SanitySubject) -> Check:
    """Captions dealt out anew: what recall is left comes from the evaluation, not the model."""
    generator, captions = subject.generator(), subject.gallery.captions
    found = []
    for _ in range(N_SHUFFLES):
        order = torch.randperm(len(captions), generator=generator).tolist()
        found.append(subject.judge(captions=[captions[i] for i in order]))
    return subject.compare(
        "shuffled_captions",
        "with shuffled captions recall is that of a random ranking",
        {"shuffled": found},
        [("shuffled", subject.chance())],
    )


def random_edits(subject: SanitySubject) -> Check:
    """The text attack against random edits from the same tables, threat by threat.

    Raises:
        ValueError: a subject without tables.
    """
    if not subject.tables:
        raise ValueError("the check of the text attack needs a table of edits; there is none")
    captions = subject.gallery.captions
    sides: dict[str, list[Outcomes]] = {}
    rule: list[tuple[str, str | float]] = []
    for threat, table in subject.tables.items():
        searched = subject.word_search(subject.encoder, captions, table)
        generator, n_words = subject.generator(), subject.word_search.n_words
        drawn = [
            _randomly_edited(caption, row, n_words, generator)
            for caption, row in zip(captions, table, strict=True)
        ]
        high, low = f"{threat}: attack", f"{threat}: random"
        sides |= {
            high: [subject.judge(captions=searched)],
            low: [subject.judge(captions=drawn)],
        }
        rule.append((high, low))
    asserts = "the text attack leaves no more recall than random edits of the same table"
    return subject.compare("random_edits", asserts, sides, rule)


def _randomly_edited(
    caption: str, row: Sequence[Edit], n_words: int, generator: torch.Generator
) -> str:
    """The caption with up to `n_words` words replaced by allowed edits drawn at random."""
    touched: set[int] = set()
    for index in torch.randperm(len(row), generator=generator).tolist():
        if len(touched) < n_words and row[index].position not in touched:
            caption = apply_edit(caption, row[index])
            touched.add(row[index].position)
    return caption


def _with_eps(image: PGD, eps_255: float) -> PGD:
    """The attack with another budget; a given step keeps its share of it."""
    step = None  # a step of 0 is no step: without a budget the default is taken, to no effect
    if image.step_255 is not None and eps_255 > 0:
        step = image.step_255 * eps_255 / image.eps_255
    return replace(image, eps_255=eps_255, step_255=step)


CHECKS: tuple[Callable[[SanitySubject], Check], ...] = (
    zero_budget,
    shuffled_captions,
    gradients,
    more_steps,
    more_budget,
    huge_budget,
    random_noise,
    restarts,
    apgd,
    transfer,
    random_edits,
)
"""All checks; `transfer` needs a source and `random_edits` tables."""
