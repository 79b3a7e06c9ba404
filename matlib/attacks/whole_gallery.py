"""The gallery attacker: all images and all words of a gallery chosen together.

Two attackers are told apart everywhere:

*pairwise*: each image and each caption is attacked for itself against the clean rest of the
gallery. It is the literature's convention (Sep-Attack, Co-Attack, SGA; here also `pgd`,
`contrastive_attack` and `words_attack(attacker="pairwise")`).

*gallery*: one attacker holds the whole gallery and chooses all images and all words together so
that as many queries as possible fail at 1, in both directions. A caption is then a query, the
own caption of its images and a distractor of all others; so is an image. It is the worst case
that an evaluation with all images and all captions attacked implies (`gallery_attack`,
`words_attack`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

import torch

from matlib.attacks.ascent import AttackReport
from matlib.attacks.attacked_gallery import Attacked, Case, margins_of
from matlib.attacks.balls import Ball
from matlib.attacks.edits import CandidateTable
from matlib.attacks.gallery import Gallery, TextAttack
from matlib.attacks.gallery_images import JointAscent
from matlib.attacks.margins import TIE, Aim, AimedAt
from matlib.models.dual_encoder import DualEncoder, check_evaluation_mode

Attacker = Literal["pairwise", "gallery"]


def words_attack(
    encoder: DualEncoder,
    gallery: Gallery,
    candidates: CandidateTable,
    text: TextAttack,
    *,
    generator: torch.Generator,
    attacker: Attacker = "gallery",
    target: AimedAt | Aim = "both",
    n_restarts: int = 2,
    start: Sequence[str] | None = None,
    report: AttackReport | None = None,
) -> list[str]:
    """Words alone, the images being clean.

    `pairwise`: each caption for itself against the clean rest. `gallery`: coordinate descent
    over the words of all captions (see `WordDescent`).

    Args:
        text: what may change: its `n_words`; every allowed edit is tried, whatever its search.
        attacker: who chooses, see above.
        target: recall that the attacker lowers.
        n_restarts: descents in all; each further one begins at the best choice so far, a tenth
            of it disturbed. More never leave more recall.
        start: the captions of an earlier attack with no larger budget; what comes back leaves
            no more recall than they.
        report: counts captions and what can be attacked in them.

    Returns:
        M captions.

    Raises:
        ValueError: unknown attacker or target, a table that does not fit, `start` beyond the
            budget, an encoder in training mode.
    """
    if attacker not in ("pairwise", "gallery"):
        raise ValueError(f"attacker must be 'pairwise' or 'gallery'; got {attacker!r}")
    check_evaluation_mode(encoder)
    case = Case(encoder, gallery, candidates, text, target, report)
    clean = Attacked(gallery.pixels, list(gallery.captions))
    best = clean if start is None else case.within(clean._replace(captions=list(start)), Ball(0.0))
    if attacker == "pairwise":
        rows = case.descent(gallery.pixels, clean).alone()
        found = clean._replace(captions=case.choices.sentences(rows))
        return case.better(best, found).captions if start is not None else found.captions
    descent = case.descent(gallery.pixels, best)
    case.choose_words(descent, generator, n_restarts - 1)
    return case.better(best, clean._replace(captions=case.captions(descent))).captions


def gallery_attack(
    encoder: DualEncoder,
    gallery: Gallery,
    candidates: CandidateTable,
    image: JointAscent,
    text: TextAttack,
    *,
    generator: torch.Generator,
    target: AimedAt | Aim = "both",
    n_rounds: int = 2,
    n_restarts: int = 1,
    start: Attacked | None = None,
    report: AttackReport | None = None,
) -> Attacked:
    """All images and all words by one attacker: words, then `n_rounds` times images and words.

    The words are chosen on the exact margins of every query (`WordDescent`), the images ascend
    a soft margin over the whole gallery in both directions (`JointAscent`). On the way of an
    ascent the words follow, by margins as soft as the images'; at its end they are chosen by what
    fails. After every round the gallery that leaves least recall so far is kept, the clean one
    among them (of equal ones that of the wider margins): more rounds and more restarts never
    leave more, nor does a larger budget that is given the result of a smaller one as `start`
    (`nested`).

    Args:
        text: what may change: its `n_words`; every allowed edit is tried, whatever its search.
        generator: every restart and round has a generator of its own, seeded from this one.
        target: recall that the attacker lowers; an `Aim` gives each query a worth of its own.
        n_rounds: ascents of the images; from the second on they are narrower.
        n_restarts: runs in all, each from other starts.
        start: what an earlier attack with no larger budget found; the first run begins there.
        report: counts the gradients that vanish.

    Raises:
        ValueError: unknown target, a table that does not fit, `start` beyond the budget,
            pixels outside [0, 1], an encoder in training mode.
    """
    check_evaluation_mode(encoder)
    case = Case(encoder, gallery, candidates, text, target, report)
    seed = int(torch.randint(2**31, (1,), generator=generator))
    clean = Attacked(gallery.pixels, list(gallery.captions))
    best = clean if start is None else case.within(start, image.ball)
    for restart in range(max(n_restarts, 1)):
        own = torch.Generator().manual_seed(seed + 1009 * restart)
        begin = best if start is not None and restart == 0 else None
        descent = case.descent(gallery.pixels if begin is None else begin.pixels, begin)
        case.choose_words(descent, own)
        point = image.start(gallery.pixels, own) if begin is None else begin.pixels
        if begin is None:
            best = case.better(best, Attacked(gallery.pixels, case.captions(descent)))
        for round_ in range(n_rounds):
            own = torch.Generator().manual_seed(seed + 1009 * restart + 1 + round_)
            how = image.narrowed() if round_ else image
            words, choose = case.words(descent), case.chooser(descent, own)
            point = how(encoder, gallery, point, words, case.aim, choose=choose, report=report)
            descent.see(case.seen(point))
            case.choose_words(descent, own, temperatures=())
            best = case.better(best, Attacked(point, case.captions(descent)))
    return best


def aimed_at_rest(
    encoder: DualEncoder,
    gallery: Gallery,
    candidates: CandidateTable,
    image: JointAscent,
    text: TextAttack,
    *,
    earlier: Sequence[Attacked],
    generator: torch.Generator,
    target: AimedAt,
    n_rounds: int = 1,
    report: AttackReport | None = None,
) -> Attacked:
    """One more gallery, aimed at the queries that no earlier one made fail.

    For a minimum per query over several galleries: there each query needs to fail in one of
    them only, so this one gives up all others. It begins anew, from other points than the first.

    Args:
        earlier: one gallery or more, as `gallery_attack` made them under the same budget.
        target: of the queries that are left, those of both directions or of one.

    Raises:
        ValueError: no earlier gallery; else as `gallery_attack`.
    """
    if not earlier:
        raise ValueError("aimed_at_rest needs the galleries made before; got none")
    tr_left, ir_left = (torch.ones(n, dtype=torch.bool) for n in gallery.relevant.shape)
    for each in earlier:
        tr, ir = margins_of(encoder, gallery, each)
        tr_left, ir_left = tr_left & (tr < -TIE), ir_left & (ir < -TIE)
    aim = Aim.at(gallery.relevant, target, aside=0.0).among(tr_left, ir_left)
    if not float(aim.tr.sum() + aim.ir.sum()):
        return earlier[0]  # nothing is left
    return gallery_attack(
        encoder, gallery, candidates, image, text, generator=generator, target=aim,
        n_rounds=n_rounds, report=report,
    )  # fmt: skip


class GalleryBudget(NamedTuple):
    """What an attack may do."""

    candidates: CandidateTable
    image: JointAscent
    text: TextAttack


def nested(
    encoder: DualEncoder,
    gallery: Gallery,
    budgets: Iterable[GalleryBudget],
    *,
    generator: torch.Generator,
    target: AimedAt | Aim = "both",
    n_rounds: int = 2,
    n_restarts: int = 1,
) -> list[Attacked]:
    """`gallery_attack` per budget, smallest first, each from what the one before found.

    So the recall that is left falls or stays from one to the next.

    Raises:
        ValueError: a budget that does not hold the one before.
    """
    found: list[Attacked] = []
    for budget in budgets:
        found.append(
            gallery_attack(
                encoder,
                gallery,
                *budget,
                generator=generator,
                target=target,
                n_rounds=n_rounds,
                n_restarts=n_restarts,
                start=found[-1] if found else None,
            )
        )
    return found
