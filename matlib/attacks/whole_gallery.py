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
from torch import Tensor

from matlib.attacks.ascent import AttackReport
from matlib.attacks.balls import Ball
from matlib.attacks.edits import CandidateTable
from matlib.attacks.gallery import Gallery, TextAttack, embed_images, prepared
from matlib.attacks.gallery_images import JointAscent
from matlib.attacks.gallery_words import WordDescent, alone
from matlib.attacks.margins import TIE, Aim, Target, margins
from matlib.attacks.scoring import embed_texts
from matlib.attacks.word_choices import WordChoices
from matlib.models.dual_encoder import DualEncoder, check_evaluation_mode

Attacker = Literal["pairwise", "gallery"]


class Attacked(NamedTuple):
    """A fully adversarial gallery.

    Attributes:
        pixels: float (N, 3, H, W) in [0, 1].
        captions: M captions.
    """

    pixels: Tensor
    captions: list[str]


def words_attack(
    encoder: DualEncoder,
    gallery: Gallery,
    candidates: CandidateTable,
    text: TextAttack,
    *,
    generator: torch.Generator,
    attacker: Attacker = "gallery",
    target: Target | Aim = "both",
    n_restarts: int = 2,
    start: Sequence[str] | None = None,
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

    Returns:
        M captions.

    Raises:
        ValueError: unknown attacker or target, a table that does not fit, `start` beyond the
            budget, an encoder in training mode.
    """
    if attacker not in ("pairwise", "gallery"):
        raise ValueError(f"attacker must be 'pairwise' or 'gallery'; got {attacker!r}")
    check_evaluation_mode(encoder)
    case = _Case(encoder, gallery, candidates, text, target)
    clean = Attacked(gallery.pixels, list(gallery.captions))
    best = clean if start is None else case.within(clean._replace(captions=list(start)), Ball(0.0))
    if attacker == "pairwise":
        rows = alone(case.choices, case.seen(gallery.pixels), gallery.relevant, case.aim)
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
    target: Target | Aim = "both",
    n_rounds: int = 2,
    n_restarts: int = 1,
    start: Attacked | None = None,
    report: AttackReport | None = None,
) -> Attacked:
    """All images and all words by one attacker: words, then `n_rounds` times images and words.

    The words are chosen on the exact margins of every query (`WordDescent`), the images ascend
    a soft margin over the whole gallery in both directions (`JointAscent`). After every step
    the gallery that leaves least recall so far is kept, the clean one among them: more rounds
    and more restarts never leave more, nor does a larger budget that is given the result of a
    smaller one as `start` (`nested`).

    Args:
        text: what may change: its `n_words`; every allowed edit is tried, whatever its search.
        generator: every restart and round has a generator of its own, seeded from this one.
        target: recall that the attacker lowers; an `Aim` gives each query a worth of its own.
        n_rounds: alternations of images and words.
        n_restarts: runs in all, each from other starts.
        start: what an earlier attack with no larger budget found; the first run begins there.
        report: counts the gradients that vanish.

    Raises:
        ValueError: unknown target, a table that does not fit, `start` beyond the budget,
            pixels outside [0, 1], an encoder in training mode.
    """
    check_evaluation_mode(encoder)
    case = _Case(encoder, gallery, candidates, text, target)
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
            words = case.choices.features[descent.choice.to(encoder.device)]
            point = image(encoder, gallery, point, words, case.aim, report=report)
            descent.see(case.seen(point))
            case.choose_words(descent, own)
            best = case.better(best, Attacked(point, case.captions(descent)))
    return best


def gallery_variants(
    encoder: DualEncoder,
    gallery: Gallery,
    candidates: CandidateTable,
    image: JointAscent,
    text: TextAttack,
    *,
    generator: torch.Generator,
    targets: Sequence[Target] = ("both", "tr", "ir"),
    n_rounds: int = 2,
    report: AttackReport | None = None,
) -> dict[str, Attacked]:
    """One fully adversarial gallery per target, for a minimum per query over them.

    Each after the first is aimed at the queries that all galleries before it left right, and
    begins where the first ended.
    """
    away = prepared(encoder, gallery, candidates, text)
    found: dict[str, Attacked] = {}
    right = (torch.ones(len(gallery.pixels)), torch.ones(len(gallery.captions)))
    left = right[0].bool(), right[1].bool()
    for target in targets:
        aim = Aim.at(gallery.relevant, target)
        aim = aim.among(*left) if found else aim
        first = next(iter(found.values()), None)
        found[target] = gallery_attack(
            encoder, gallery, candidates, image, away, generator=generator, target=aim,
            n_rounds=n_rounds, start=first, report=report,
        )  # fmt: skip
        tr, ir = _margins(encoder, gallery, found[target])
        left = left[0] & (tr < -TIE), left[1] & (ir < -TIE)
    return found


class Budget(NamedTuple):
    """What an attack may do."""

    candidates: CandidateTable
    image: JointAscent
    text: TextAttack


def nested(
    encoder: DualEncoder,
    gallery: Gallery,
    budgets: Iterable[Budget],
    *,
    generator: torch.Generator,
    target: Target | Aim = "both",
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
                encoder, gallery, *budget, generator=generator, target=target,
                n_rounds=n_rounds, n_restarts=n_restarts, start=found[-1] if found else None,
            )  # fmt: skip
        )
    return found


class _Case:
    """What an attack on one gallery needs at every step."""

    def __init__(
        self,
        encoder: DualEncoder,
        gallery: Gallery,
        candidates: CandidateTable,
        text: TextAttack,
        target: Target | Aim,
    ) -> None:
        self.encoder, self.gallery = encoder, gallery
        self.aim = target if isinstance(target, Aim) else Aim.at(gallery.relevant, target)
        self.text = prepared(encoder, gallery, candidates, text)
        self.choices = WordChoices(self.text)

    def seen(self, pixels: Tensor) -> Tensor:
        """(N, D) embeddings of the images."""
        device = self.encoder.device
        return embed_images(self.encoder, pixels.to(device), self.gallery.chunk)

    def within(self, start: Attacked, ball: Ball) -> Attacked:
        """The result of an earlier attack, once it is known to keep this budget.

        Raises:
            ValueError: images outside the ball, or captions that the edits do not lead to.
        """
        clean = self.gallery.pixels
        offset = (start.pixels.to(clean) - clean).flatten(1)
        far = float(torch.linalg.vector_norm(offset, ord=ball.order, dim=1).max())
        if far > ball.eps * (1 + 1e-4) + 1e-6:
            raise ValueError(
                f"start lies {255 * far:.4g}/255 from the clean images, outside the budget of "
                f"{255 * ball.eps:.4g}/255: begin at what a smaller budget found"
            )
        text = self.text
        for i, (before, after) in enumerate(zip(text.captions, start.captions, strict=True)):
            if not text.reaches(i, after):
                raise ValueError(
                    f"start's caption {i} is not within the budget of {text.attack.n_words} "
                    f"allowed edits: {before!r} -> {after!r}"
                )
        return start

    def descent(self, pixels: Tensor, begin: Attacked | None) -> WordDescent:
        """The words as they were in `begin`, as far as they are to be had."""
        found = WordDescent(self.choices, self.seen(pixels), self.gallery.relevant, self.aim)
        if begin is not None:
            rows = self.choices.rows_of(begin.captions)
            found.choose(torch.where(rows < 0, found.choice, rows))
        return found

    def choose_words(
        self, descent: WordDescent, generator: torch.Generator, n_kicks: int = 0
    ) -> None:
        """Descend; with more than one word, again with one word more, up to the budget."""
        descent.descend(generator, n_kicks=n_kicks)
        for _ in range(self.text.attack.n_words - 1):
            descent.choose(self.choices.grow(descent.choice))
            descent.descend(generator, n_kicks=n_kicks)

    def captions(self, descent: WordDescent) -> list[str]:
        return self.choices.sentences(descent.choice)

    def better(self, kept: Attacked, found: Attacked) -> Attacked:
        """The one of which more is worth failing; `kept` of two equal ones."""
        return found if self._worth(found) > self._worth(kept) else kept

    def _worth(self, attacked: Attacked) -> float:
        tr, ir = _margins(self.encoder, self.gallery, attacked)
        return float(self.aim.to(tr).failing(tr, ir, TIE))


def _margins(
    encoder: DualEncoder, gallery: Gallery, attacked: Attacked
) -> tuple[Tensor, Tensor]:
    """Margins as the evaluation computes them: from sentences, not from kept embeddings."""
    image = embed_images(encoder, attacked.pixels.to(encoder.device), gallery.chunk)
    text = embed_texts(encoder, attacked.captions)
    tr, ir = margins(image.float() @ text.float().T, gallery.relevant.to(image.device))
    return tr.cpu(), ir.cpu()
