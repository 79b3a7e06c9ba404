"""Judging one model: every attack of the suite, each in its own fully adversarial gallery.

An attacker without the weights of the attacked model makes the pairs on a model of their own.
`evaluate(target, ..., source=...)` judges one such pair of models; in `transfer_from` the attack
is made once per source and only embedded anew by every target, which is where the cost lies.

`worst_under` is the one definition of `worst`, which decides every claim.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from matlib.attacks.ascent import AttackReport
from matlib.attacks.balls import to_8bit
from matlib.attacks.edits import CandidateTable, check_table
from matlib.attacks.gallery import Gallery, TextAttack, embed_images
from matlib.attacks.multimodal import pgd_attack
from matlib.attacks.scoring import embed_texts
from matlib.attacks.word_substitution import PreparedSubstitution
from matlib.data.pairs import ImageTextPairs
from matlib.evaluation.reranking import reranked
from matlib.evaluation.retrieval import Outcomes, retrieve, worst_of
from matlib.evaluation.statistics import primary_endpoint
from matlib.evaluation.suite import (
    ATTACKS,
    CLEAN,
    Attack,
    Key,
    Move,
    Moved,
    Situation,
    Suite,
)
from matlib.models.dual_encoder import (
    CachedText,
    DualEncoder,
    as_fusion,
    check_evaluation_mode,
)

Against = Literal["adversarial", "clean"]
"""What a query searches: the attacked gallery (the field's convention), or the clean one."""


@dataclass
class Evaluation:
    """What the suite found.

    Attributes:
        outcomes: per (attack, threat) the rank of every query.
        captions: per (attack, threat) the adversarial captions.
        shown: per (attack, threat) float (n_shown, 3, H, W), the first adversarial images.
        n_unattackable: per threat the captions without an edit that changes them.
        attackable_words: per threat the words per caption that some edit changes, in the mean.
        n_vanished: per (attack, threat) the images whose gradient vanished in some step.
        n_embedded: sentences that the text attacks embedded.
        n_edits: edits that the threats allow, over all captions.
    """

    outcomes: dict[Key, Outcomes] = field(default_factory=dict)
    captions: dict[Key, list[str]] = field(default_factory=dict)
    shown: dict[Key, Tensor] = field(default_factory=dict)
    n_unattackable: dict[str, int] = field(default_factory=dict)
    attackable_words: dict[str, float] = field(default_factory=dict)
    n_vanished: dict[Key, int] = field(default_factory=dict)
    n_embedded: int = 0
    n_edits: int = 0

    def about_words(self) -> dict[str, dict[str, float]]:
        """Per threat what its edits reach, for the record of an evaluation."""
        return {
            "n_unattackable": {**self.n_unattackable},
            "attackable_words_per_caption": self.attackable_words,
        }


def evaluate(
    encoder: DualEncoder,
    pairs: ImageTextPairs,
    tables: Mapping[str, CandidateTable],
    suite: Suite,
    *,
    seed: int,
    on_attack: Callable[[str], None] | None = None,
    source: DualEncoder | None = None,
    gallery: Against = "adversarial",
    quantise_8bit: bool = False,
    parts: Mapping[str, CandidateTable] | None = None,
) -> Evaluation:
    """Run the suite on one model.

    Of two threats of which one allows all edits of the other, the larger leaves no more recall
    in any row (but in those aimed at the rest, `Attack.at_rest`) nor in `worst`: `words` and
    `gallery` begin at what they found under the smaller one, the other rows keep what they found
    there where it leaves less, and `worst` takes the smaller one's attacks too, for they are
    legal.

    Args:
        encoder: the judged model, in evaluation mode.
        pairs: the gallery: N images with all their captions.
        tables: per text threat, the allowed edits of every caption.
        seed: of the image attacks' starts; each attack has a generator of its own, so adding
            an attack changes no other.
        on_attack: called with the name of each attack when it is done.
        source: the model that the attacks are made on (transfer); the judged one by default.
        gallery: `clean` judges adversarial images among clean captions and adversarial
            captions among clean images; a query that was not attacked (captions in `pgd`,
            images in `bert`) is then as right as in `clean`.
        quantise_8bit: adversarial images in whole steps of 1/255 first, as image files hold
            them.
        parts: threats that are judged elsewhere, by the same suite: they count among the smaller
            ones that a threat of `tables` holds.

    Raises:
        ValueError: a model in training mode, a table that does not fit, an unknown `gallery`;
            before any attack.
    """
    judged = remembering(encoder)
    judge = Evaluator(judged, gallery_of(pairs), suite, gallery, quantise_8bit)
    attacked = judged if source is None else remembering(source)
    attacks = Attacks(attacked, judge.gallery, tables, suite, seed, parts)
    found = judge.found
    for attack, threat in suite.rows(tables, of_fusion=as_fusion(attacks.encoder) is not None):
        pixels, captions, report = attacks.run(attack, threat)
        judge.record((attack, threat), pixels, captions)
        found.n_vanished[attack, threat] = report.n_images_vanished
        if on_attack is not None:
            on_attack(f"{attack} {threat}".strip())
    for threat in tables:
        legal = [each for each in attacks.held[threat] if each in tables]
        each_worst = [worst_under(found.outcomes, one) for one in (threat, *legal)]
        found.outcomes[WORST, threat] = worst_of(each_worst)
    texts = attacks.n_unattackable, attacks.n_embedded, attacks.n_edits
    found.n_unattackable, found.n_embedded, found.n_edits = texts
    found.attackable_words = attacks.attackable_words
    return found


def remembering(encoder: DualEncoder) -> DualEncoder:
    """A model that embeds each sentence once while it is judged, where that saves time.

    The attacks of a suite end in captions that their searches embedded, and every gallery is
    embedded again for its ranks: most of a judge's time with a text tower like MiniLM on a CPU.
    An accelerator embeds a sentence sooner than the host has found it.
    """
    return CachedText(encoder) if encoder.device.type == "cpu" else encoder


def gallery_of(pairs: ImageTextPairs) -> Gallery:
    """What is attacked: all images and captions of a split, in memory."""
    return Gallery(pairs.pixels(), pairs.captions, pairs.relevance(), pairs.image_of)


class Attacks:
    """A suite's attacks on one model; what several of them need is made once.

    Per threat the text attacks share one `PreparedSubstitution`. Kept are the current threat's and
    those of the threats that it holds, each bounded by its `max_kept`.

    Args:
        parts: further threats, see `evaluate`.
    """

    def __init__(
        self,
        encoder: DualEncoder,
        gallery: Gallery,
        tables: Mapping[str, CandidateTable],
        suite: Suite,
        seed: int,
        parts: Mapping[str, CandidateTable] | None = None,
    ) -> None:
        check_evaluation_mode(encoder)
        tables = {**(parts or {}), **tables}
        for table in tables.values():
            check_table(gallery.captions, table)
        self.encoder, self.gallery, self.tables = encoder, gallery, tables
        self.suite, self.seed = suite, seed
        self.n_unattackable: dict[str, int] = {}
        self.attackable_words: dict[str, float] = {}
        self.n_edits = 0
        self._n_embedded = 0
        self._texts: dict[str, PreparedSubstitution] = {}
        self._kept: dict[tuple[str, Move], tuple[Moved, AttackReport]] = {}

    def run(self, attack: str, threat: str) -> tuple[Tensor | None, list[str] | None, AttackReport]:
        """Adversarial images and captions, None for what is not attacked; vanished gradients.

        Raises:
            ValueError: an unknown attack, or one that this model has nothing for.
        """
        if attack == CLEAN:
            return None, None, AttackReport()
        chosen = ATTACKS.choose(attack)
        chosen.check_meets(self.encoder)
        if not chosen.moves_words:
            met = self._met("", [], self.suite.text)
            return *chosen.move(met), met.report
        self._enter(threat)
        moved, report = self._under(chosen, threat).shared(chosen.least, threat)
        if not any(threat in smaller for smaller in self.held.values()):
            del self._kept[threat, chosen.least]  # nobody asks again
        return *moved, report

    def _under(self, attack: Attack, threat: str) -> Situation:
        smaller = tuple(
            self._under(attack, each)
            for each in self.held[threat]
            if self.suite.runs_under(attack, each)
        )
        return self._met(threat, self.tables[threat], self._prepared(threat), smaller)

    def _met(
        self,
        threat: str,
        table: CandidateTable,
        text: TextAttack,
        smaller: tuple[Situation, ...] = (),
    ) -> Situation:
        return Situation(
            self.suite, self.encoder, self.gallery, table, text, threat, self.seed, smaller,
            self._kept,
        )  # fmt: skip

    @cached_property
    def held(self) -> dict[str, list[str]]:
        """Per threat the others whose edits it allows all; of equal ones those named earlier."""
        names = list(self.tables)
        rows = {name: [frozenset(row) for row in self.tables[name]] for name in names}

        def holds(large: str, small: str) -> bool:
            both = list(zip(rows[large], rows[small], strict=True))
            is_equal = rows[large] == rows[small]
            is_later = names.index(large) > names.index(small)
            return all(own >= part for own, part in both) and (is_later or not is_equal)

        return {
            large: [small for small in names if small != large and holds(large, small)]
            for large in names
        }

    @property
    def n_embedded(self) -> int:
        """Sentences embedded so far."""
        return self._n_embedded + sum(text.n_embedded for text in self._texts.values())

    def _prepared(self, threat: str) -> PreparedSubstitution:
        if threat not in self._texts:
            table, captions = self.tables[threat], self.gallery.captions
            self._texts[threat] = self.suite.text.prepare(self.encoder, captions, table)
        return self._texts[threat]

    def _enter(self, threat: str) -> None:
        """Let go of what only other threats need, and count the threat's edits."""
        if threat in self.n_unattackable:
            return
        needed = {threat, *self.held[threat]}
        for each in self._texts.keys() - needed:
            self._n_embedded += self._texts.pop(each).n_embedded
        needed |= {"", *(each for smaller in self.held.values() for each in smaller)}
        self._kept = {key: made for key, made in self._kept.items() if key[0] in needed}
        text = self._prepared(threat)
        self.n_edits += text.n_edits
        self.n_unattackable[threat] = text.n_unattackable
        self.attackable_words[threat] = text.n_attackable_words / len(self.gallery.captions)


class Evaluator:
    """The judged model with the clean gallery, filling an `Evaluation`."""

    def __init__(
        self,
        encoder: DualEncoder,
        gallery: Gallery,
        suite: Suite,
        against: Against = "adversarial",
        quantise_8bit: bool = False,
    ) -> None:
        if against not in ("adversarial", "clean"):
            raise ValueError(f"gallery must be 'adversarial' or 'clean'; got {against!r}")
        check_evaluation_mode(encoder)
        self.gallery, self.encoder, self.suite = gallery, encoder, suite
        self.found = Evaluation()
        self._against, self._quantise_8bit = against, quantise_8bit
        self._image = embed_images(encoder, self.gallery.pixels)
        self._text = embed_texts(encoder, self.gallery.captions)

    def record(self, key: Key, pixels: Tensor | None, captions: list[str] | None) -> None:
        """Rank all queries; None stands for what was not attacked."""
        image, text = self._image, self._text
        clean = self.gallery.pixels, self.gallery.captions
        if pixels is not None:
            budget = self.suite.image
            if self._quantise_8bit:
                pixels = to_8bit(pixels, self.gallery.pixels, budget.eps_255, budget.norm)
            image = embed_images(self.encoder, pixels.to(self.encoder.device))
            self.found.shown[key] = pixels[: self.suite.n_shown].clone()
        if captions is not None:
            text = embed_texts(self.encoder, captions)
            self.found.captions[key] = captions
        now = clean[0] if pixels is None else pixels, captions or clean[1]
        if self._against == "clean":
            outcomes = Outcomes(
                self._ranks(image, self._text, now[0], clean[1]).tr_rank,
                self._ranks(self._image, text, clean[0], now[1]).ir_rank,
            )
        else:
            outcomes = self._ranks(image, text, *now)
        self.found.outcomes[key] = outcomes

    def _ranks(
        self, image: Tensor, text: Tensor, pixels: Tensor, captions: Sequence[str]
    ) -> Outcomes:
        relevant, reader = self.gallery.relevant, as_fusion(self.encoder)
        if reader is None or not self.suite.rerank:
            return retrieve(image, text, relevant)
        k = self.suite.rerank
        return reranked(reader, pixels, captions, image @ text.T, relevant, k)


def strength_curve(
    encoder: DualEncoder,
    pairs: ImageTextPairs,
    suite: Suite,
    eps_255: tuple[float, ...],
    *,
    seed: int,
) -> dict[float, Outcomes]:
    """Outcomes under the suite's PGD for several budgets, with the step scaled to each.

    A larger budget allows what a smaller one found, and keeps it where it leaves less recall.
    (Whether PGD itself gains by a larger budget is asked by the sanity battery.)
    """
    gallery, key = gallery_of(pairs), ("pgd", "")
    judge = Evaluator(encoder, gallery, suite)
    found: dict[float, Outcomes] = {}
    least = 1.0
    for eps in sorted(eps_255):
        attack = replace(suite.image, eps_255=eps, step_255=None)
        moved = pgd_attack(encoder, gallery, attack, generator=torch.Generator().manual_seed(seed))
        judge.record(key, moved, None)
        own = judge.found.outcomes[key]
        if found and primary_endpoint(own) > least:
            own = found[max(found)]
        found[eps], least = own, primary_endpoint(own)
    return {eps: found[eps] for eps in eps_255}


def transfer_from(
    source: DualEncoder,
    targets: Mapping[str, DualEncoder],
    pairs: ImageTextPairs,
    tables: Mapping[str, CandidateTable],
    suite: Suite,
    *,
    seed: int,
    on_attack: Callable[[str], None] | None = None,
    parts: Mapping[str, CandidateTable] | None = None,
) -> dict[str, dict[Key, Outcomes]]:
    """Make the suite's attacks on one model and judge every target by them.

    Args:
        source: the model that the attacks are made on, in evaluation mode.
        targets: name -> judged model, in evaluation mode; the source may be among them.
        pairs, tables, suite, seed, on_attack, parts: as of `evaluate`.

    Returns:
        per target and (attack, threat) the rank of every query, as `evaluate` with this
        `source` gives them; without `worst`.

    Raises:
        ValueError: no targets, a model in training mode, a table that does not fit.
    """
    if not targets:
        raise ValueError("transfer needs at least one target to judge; got none")
    gallery, ranks_only = gallery_of(pairs), replace(suite, n_shown=0)
    judges = {
        name: Evaluator(remembering(target), gallery, ranks_only)
        for name, target in targets.items()
    }
    attacks = Attacks(remembering(source), gallery, tables, suite, seed, parts)
    for attack, threat in suite.rows(tables, of_fusion=as_fusion(source) is not None):
        pixels, captions, _ = attacks.run(attack, threat)
        for judge in judges.values():
            judge.record((attack, threat), pixels, captions)
        if on_attack is not None:
            on_attack(f"{attack} {threat}".strip())
    return {name: judge.found.outcomes for name, judge in judges.items()}


WORST = "worst"


def key_of(attack: str, threat: str) -> Key:
    """Under which an attack stands in the outcomes of a suite, where `threat` is that of words."""
    moves_no_words = attack == CLEAN or (attack in ATTACKS and not ATTACKS[attack].moves_words)
    return attack, "" if moves_no_words else threat


def worst_under(
    outcomes: Mapping[tuple[str, str], Outcomes],
    threat: str,
    attacks: Collection[str] | None = None,
) -> Outcomes:
    """Per query the worst rank over everything that is legal under a text threat.

    Legal are the query as it is (`clean`), attacks on images alone, and attacks with the
    threat's words, each in its own gallery: an attacker who may change something may also leave
    it. So `worst` never leaves more than any of its parts, `clean` among them.

    Args:
        outcomes: per (attack, threat), the threat "" where no text is attacked.
        attacks: only these and `clean`, so that rows judged by different suites are compared
            under the same attacks. All by default.

    Raises:
        ValueError: nothing is legal.
    """
    parts = [
        found
        for (attack, own), found in outcomes.items()
        if attack != WORST
        and own in ("", threat)
        and (attacks is None or attack == "clean" or attack in attacks)
    ]
    return worst_of(parts)
