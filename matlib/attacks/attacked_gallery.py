"""A fully adversarial gallery, and what an attack that makes one needs at every step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from matlib.attacks.ascent import AttackReport
from matlib.attacks.balls import Ball
from matlib.attacks.edits import CandidateTable
from matlib.attacks.gallery import Gallery, TextAttack, embed_images, prepared
from matlib.attacks.gallery_images import Choose
from matlib.attacks.gallery_words import TEMPERATURES, WordChoices, WordDescent, soft
from matlib.attacks.margins import TIE, Aim, AimedAt, margins
from matlib.attacks.scoring import embed_texts
from matlib.attacks.word_substitution import PreparedSubstitution
from matlib.models.dual_encoder import DualEncoder


class Attacked(NamedTuple):
    """A fully adversarial gallery.

    Attributes:
        pixels: float (N, 3, H, W) in [0, 1].
        captions: M captions.
    """

    pixels: Tensor
    captions: list[str]


class Case:
    """What an attack on one gallery needs at every step."""

    def __init__(
        self,
        encoder: DualEncoder,
        gallery: Gallery,
        candidates: CandidateTable,
        text: TextAttack,
        target: AimedAt | Aim,
        report: AttackReport | None,
    ) -> None:
        self.encoder, self.gallery = encoder, gallery
        self.aim = target if isinstance(target, Aim) else Aim.at(gallery.relevant, target)
        self.text = prepared(encoder, gallery, candidates, text, report)
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
            if not _is_within(text, i, after):
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
        self,
        descent: WordDescent,
        generator: torch.Generator,
        n_kicks: int = 0,
        temperatures: Sequence[float] = TEMPERATURES,
    ) -> None:
        """Descend; with more than one word, again with one word more, up to the budget."""
        descent.descend(generator, n_kicks=n_kicks, temperatures=temperatures)
        for _ in range(self.text.attack.n_words - 1):
            descent.choose(self.choices.grow(descent.choice))
            descent.descend(generator, n_kicks=n_kicks, temperatures=temperatures)

    def words(self, descent: WordDescent) -> Tensor:
        """(M, D) embeddings of the captions as they are chosen now."""
        return self.choices.features[descent.choice.to(self.encoder.device)]

    def chooser(self, descent: WordDescent, generator: torch.Generator) -> Choose:
        """Lets the words follow images on their way: one soft sweep over all captions."""

        def choose(image: Tensor, softness: float) -> Tensor:
            descent.see(image)
            order = torch.randperm(len(descent.choice), generator=generator)
            descent.sweep(soft(softness), order)
            return self.words(descent)

        return choose

    def captions(self, descent: WordDescent) -> list[str]:
        return self.choices.sentences(descent.choice)

    def better(self, kept: Attacked, found: Attacked) -> Attacked:
        """The one of which more fails, or as much by wider margins; `kept` of two equal ones."""
        return found if self._worth(found) > self._worth(kept) else kept

    def _worth(self, attacked: Attacked) -> tuple[float, float]:
        tr, ir = margins_of(self.encoder, self.gallery, attacked)
        aim = self.aim.to(tr)
        return float(aim.failing(tr, ir, TIE)), float(aim.tr @ tr + aim.ir @ ir)


def margins_of(encoder: DualEncoder, gallery: Gallery, attacked: Attacked) -> tuple[Tensor, Tensor]:
    """(N,) and (M,) on the CPU, as the evaluation has them: from sentences, embedded anew."""
    image = embed_images(encoder, attacked.pixels.to(encoder.device), gallery.chunk)
    text = embed_texts(encoder, attacked.captions)
    tr, ir = margins(image.float() @ text.float().T, gallery.relevant.to(image.device))
    return tr.cpu(), ir.cpu()


def least_recall(encoder: DualEncoder, gallery: Gallery, found: Sequence[Attacked]) -> int:
    """Of several galleries, one or more, in which most queries fail at 1; of equal ones the first.

    Returns:
        its number.
    """
    aim = Aim.at(gallery.relevant)
    worth = [float(aim.failing(*margins_of(encoder, gallery, each), TIE)) for each in found]
    return worth.index(max(worth))


def _is_within(text: PreparedSubstitution, caption: int, sentence: str) -> bool:
    """Whether at most `n_words` allowed edits make a caption this sentence."""
    before, after = text.captions[caption].split(" "), sentence.split(" ")
    if len(before) != len(after):
        return False
    changed = [i for i, (a, b) in enumerate(zip(before, after, strict=True)) if a != b]
    return len(changed) <= text.attack.n_words and all(
        any(
            text.edited(edit, text.captions[caption]).split(" ")[position] == after[position]
            for edit in text.edits_at(caption, [position])
        )
        for position in changed
    )
