"""The sanity battery: is a model's robustness real, or does the attack only fail to see?

A list of things that hold of every attack that works on every defence that is real (Carlini
et al. 2019, "On Evaluating Adversarial Robustness", arXiv 1902.06705; for the signs
of masked gradients Athalye et al. 2018, arXiv 1802.00420, section 3.1), each a function of a model
under examination that gives a check with the numbers behind it:

| check | violated if |
|---|---|
| `zero_budget` | a query changes its rank although nothing may be changed (exact) |
| `shuffled_captions` | recall with shuffled captions is above chance |
| `gradients` | images have a gradient of zero, or one that is not finite |
| `more_steps` | four times the steps leave more recall |
| `more_budget` | two or four times the budget leaves more recall |
| `huge_budget` | recall at 64/255 is above chance |
| `random_noise` | random-sign noise of the same size leaves less recall than the attack |
| `restarts` | five runs of the attack leave less recall than one |
| `apgd` | APGD leaves less recall than PGD |
| `transfer` | images attacked on another model leave less recall than the white-box attack |
| `universal` | one perturbation for all images, learnt on others, leaves less than the attack |
| `hub_image` | one added image takes more captions than the attack on all images |
| `stronger_gallery` | twice the rounds, steps and restarts of the gallery attacker leave less |
| `fewer_edits` | half of the edits leave less recall than all |
| `pairwise` | the pairwise attacker leaves less recall than the gallery attacker |
| `words_of_another` | words chosen on another model leave less recall than words chosen here |
| `random_words` | random edits leave less recall than either search for words |
| `own_loss` | an attack that ascends the defence's own loss leaves less than the gallery attacker |

Recall is the primary endpoint, the mean of TR@1 and IR@1. "More", "less" and "above" mean: by
more than 2 points. A check is *violated* where the one-sided 95 % lower bound over images lies
above them, *passed* where the upper bound does not, and *open* between: with few images most
are, for at 100 images a paired difference of recalls has a standard error of about 1 to 3
points. Nothing is corrected for the number of checks, since that would help the defender. What
holds of a method is told by several seeds together (`matlib.study.made.sanity`).

**What passing does not prove.** An attack that nobody tried here (another loss, one made for
this defence) may still break the model. A model whose recall is already at chance under the
evaluation's attack passes most checks because nothing is left to lose.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import pandas as pd
import torch

from matlib.attacks.apgd import APGD
from matlib.attacks.balls import MAX_EPS_255
from matlib.attacks.edits import CandidateTable
from matlib.attacks.gallery import embed_images
from matlib.attacks.hubs import behind, hub
from matlib.attacks.pgd import PGD
from matlib.attacks.scoring import embed_texts
from matlib.attacks.universal import Universal
from matlib.attacks.word_substitution import WordSubstitution
from matlib.data.pairs import ImageTextPairs
from matlib.evaluation.retrieval import Outcomes
from matlib.evaluation.robustness import gallery_of
from matlib.evaluation.sanity_judge import (
    fewer_edits,
    own_loss,
    pairwise,
    random_words,
    stronger_gallery,
    words_of_another,
)
from matlib.evaluation.sanity_subject import Check, SanitySubject
from matlib.evaluation.suite import OwnAttack
from matlib.models.dual_encoder import DualEncoder


def sanity(
    encoder: DualEncoder,
    pairs: ImageTextPairs,
    tables: Mapping[str, CandidateTable] | None = None,
    *,
    image: PGD,
    source: DualEncoder | None = None,
    seed: int = 0,
    n_images: int | None = None,
    word_search: WordSubstitution | None = None,
    apgd_steps: int = 50,
    n_restarts: int = 1,
    own: OwnAttack | None = None,
    train: ImageTextPairs | None = None,
    n_boot: int = 2000,
    on_check: Callable[[str], None] | None = None,
) -> list[Check]:
    """Every check that can be made of one model.

    Cost in gradients per image, at n steps of the evaluation's attack: 14 n (itself, four times
    the steps, two budgets, the huge one, five runs, the source) and `apgd_steps`; and with tables
    the gallery attacker's 4 n per restart ten times over (itself, half of its edits, eight times
    the effort).

    Args:
        encoder: the model, in evaluation mode; untouched afterwards.
        pairs: the gallery: N images with all their captions.
        tables: per text threat the allowed edits of every caption of `pairs`; None leaves out
            all checks of words and of the gallery attacker.
        image: the evaluation's image attack, L-infinity, with eps of at most 16/255.
        source: another model for `transfer` and `words_of_another`; None leaves them out.
        seed: of every attack, noise, shuffle and bootstrap.
        n_images: at most this many images, the first of the gallery; all by default.
        word_search: the evaluation's text attack.
        apgd_steps: steps of APGD; the paper has 100 for classifiers.
        n_restarts: of the evaluation's gallery attacker.
        own: the attack of the defence's own training loss (`matlib.defences.own_attack`); None
            leaves out `own_loss`.
        train: other images with their captions, to learn on for `universal`; None leaves it out.
        n_boot: bootstrap samples.
        on_check: called with the name of each check when it is done.

    Raises:
        ValueError: a budget that leaves no room for four times it, a source that is the
            encoder itself, tables of another number of captions, or no images.
    """
    if n_images is not None and n_images < 1:
        raise ValueError(f"n_images must be 1 or more, or None for all; got {n_images}")
    kept, kept_tables = _first(pairs, tables or {}, n_images)
    subject = SanitySubject(
        encoder,
        gallery_of(kept),
        image,
        seed,
        source,
        kept_tables,
        word_search or WordSubstitution(),
        apgd_steps,
        n_restarts,
        own,
        None if train is None else gallery_of(train),
        n_boot,
    )
    found = []
    for check in CHECKS:
        if (check in OF_SOURCE and source is None) or (check in OF_WORDS and not tables):
            continue
        if (check is own_loss and own is None) or (check is universal and train is None):
            continue
        found.append(check(subject))
        if on_check is not None:
            on_check(found[-1].name)
    return found


def _first(
    pairs: ImageTextPairs, tables: Mapping[str, CandidateTable], n_images: int | None
) -> tuple[ImageTextPairs, dict[str, CandidateTable]]:
    """The first images with all their captions, and the tables' rows of these captions."""
    for threat, table in tables.items():
        if len(table) != pairs.n_captions:
            raise ValueError(
                f"table {threat!r} has rows for {len(table)} captions; the gallery has "
                f"{pairs.n_captions}. Make it for these pairs."
            )
    n = len(pairs) if n_images is None else min(n_images, len(pairs))
    order = pairs.image_of.argsort(stable=True)  # captions grouped by image, as `subset` does
    columns = order[pairs.image_of[order] < n].tolist()
    kept: dict[str, CandidateTable] = {}
    for threat, table in tables.items():
        kept[threat] = [table[j] for j in columns]
    return pairs.subset(range(n)), kept


SANITY_COLUMNS = (
    "model", "check", "asserts", "comparison", "estimate_points", "lower_points", "upper_points",
    "exact", "n_images", "verdict", "numbers",
)  # fmt: skip


def to_frame(per_model: Mapping[str, Sequence[Check]]) -> pd.DataFrame:
    """`COLUMNS`, one row per model and check in the order given; `numbers` as JSON, rounded.

    Of a check with several comparisons the one whose upper bound is highest.
    """
    rows = [
        (
            model, check.name, check.asserts, check.worst, *check.gains[check.worst], check.exact,
            check.n_images, check.verdict,
            json.dumps({k: round(v, 2) for k, v in check.numbers.items()}),
        )
        for model, checks in per_model.items()
        for check in checks
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=list(SANITY_COLUMNS))


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
        gains={"queries of another rank": [share, share, share]},
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
    moved = subject.made_on(subject.given_source(), subject.image)
    return subject.compare(
        "transfer",
        "the white-box attack leaves no more recall than images attacked on another model",
        {"white-box": [subject.under(subject.image)], "transfer": [subject.judge(moved)]},
        [("white-box", "transfer")],
    )


def universal(subject: SanitySubject) -> Check:
    """One perturbation for all images, learnt on others: no gradient of a judged image is used.

    Raises:
        ValueError: a subject without other images.
    """
    if subject.train is None:
        raise ValueError("the check universal needs other images to learn on; there are none")
    attack = Universal(subject.image.eps_255)
    added = attack.learn(subject.encoder, subject.train, subject.generator())
    found = subject.judge(attack.apply(subject.gallery.pixels, added))
    return subject.compare(
        "universal",
        "the attack leaves no more recall than one perturbation for all images",
        {"attack": [subject.under(subject.image)], "universal": [found]},
        [("attack", "universal")],
    )


def hub_image(subject: SanitySubject) -> Check:
    """One image is added, near the first, towards all captions; none of the others moves."""
    gallery, encoder = subject.gallery, subject.encoder
    made = hub(
        encoder, gallery.pixels[0], gallery.captions, subject.image, generator=subject.generator()
    )
    text = embed_texts(encoder, gallery.captions)
    image = embed_images(encoder, torch.cat([gallery.pixels, made[None].to(gallery.pixels)]))
    relevant = gallery.relevant.to(text.device)
    ir_rank = behind(subject.clean.ir_rank.to(text.device), text, image[:-1], image[-1], relevant)
    found = Outcomes(subject.clean.tr_rank, ir_rank.cpu())
    return subject.compare(
        "hub_image",
        "the attack leaves no more recall than one image that is added to the gallery",
        {"attack": [subject.under(subject.image)], "hub": [found]},
        [("attack", "hub")],
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
    universal,
    hub_image,
    stronger_gallery,
    fewer_edits,
    pairwise,
    words_of_another,
    random_words,
    own_loss,
)
"""All checks."""

OF_SOURCE = (transfer, words_of_another)
"""They need a source."""

OF_WORDS = (stronger_gallery, fewer_edits, pairwise, words_of_another, random_words, own_loss)
"""They need tables."""
