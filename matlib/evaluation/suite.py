"""Which attacks judge a model, with which budgets, in whose conventions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

from matlib.attacks.apgd import APGD
from matlib.attacks.ascent import AttackReport, ImageAttack, ScaleViews
from matlib.attacks.attacked_gallery import Attacked
from matlib.attacks.diversified import dra
from matlib.attacks.edits import CandidateTable
from matlib.attacks.gallery import Gallery, TextAttack
from matlib.attacks.gallery_images import JointAscent
from matlib.attacks.multimodal import co_attack, contrastive_attack, feature_pgd, pgd_attack, sga
from matlib.attacks.pgd import PGD
from matlib.attacks.whole_gallery import aimed_at_rest, gallery_attack, words_attack
from matlib.attacks.words import WordSubstitution
from matlib.choices import Choices
from matlib.models.dual_encoder import DualEncoder

Key = tuple[str, str]
"""(attack, text threat); the threat is "" where no text is attacked."""

WORDS_ALONE = ("bert", "words-pairwise", "words")
"""Rows whose images are clean."""

GALLERY_AT_REST = ("gallery-tr", "gallery-ir")
"""Further galleries, each aimed at the queries of one direction that `gallery` left right."""

NESTED = ("words", "gallery")
"""Rows that begin, under a threat whose edits hold all of another's, at what they found there:
further edits never leave more recall."""

TEXT_ATTACKS = (
    *WORDS_ALONE, "sep", "co-attack", "sga", "joint", "gallery", *GALLERY_AT_REST,
)  # fmt: skip
ATTACKS = ("clean", "pgd", *TEXT_ATTACKS)
"""The rows of a suite unless it names its own."""

SLOW = ("words-pairwise", "co-attack", "sga", "apgd", "own", "gallery", *GALLERY_AT_REST)
"""Attacks that a study may keep for the threats that decide (`Suite.slow_under`)."""

OWN = "own"

OwnAttack = Callable[
    [
        DualEncoder, Gallery, CandidateTable, ImageAttack, WordSubstitution,
        torch.Generator, AttackReport,
    ],
    tuple[Tensor, list[str]],
]  # fmt: skip
"""An attack that ascends the judged defence's own training loss."""

ON_REQUEST = ("dra", "apgd")
"""DRA is made to transfer, and no stronger than `sga` on the model that it is made on; APGD costs
as much as `gallery` and leaves twice as much."""


@dataclass(frozen=True)
class Suite:
    """The attacks and their budgets.

    Rows of the pairwise attacker, who attacks each image and each caption for itself against the
    clean rest of the gallery: `clean`, `pgd` (image alone), and per text threat `bert` and
    `words-pairwise` (text alone, by importance and every edit), `sep` (both, independently),
    `co-attack`, `sga`, `joint` (contrastive loss on both sides with an exhaustive text search).
    Rows of the gallery attacker, who
    chooses all images and all words together: `words` (text alone), `gallery`, and `gallery-tr`
    and `gallery-ir`, aimed at what is left (`matlib.attacks.whole_gallery`). And `worst`
    (`matlib.evaluation.robustness`: per query the minimum over all of these, a pessimistic
    bound). On request `dra`, and `apgd` (`joint` with APGD at three times the steps).

    A defence's own training loss is among them: `pgd` ascends TeCoA's and PMG-AFT's (captions
    as classes), `bert` MMCoA's on text, `joint` that of contrastive training on both sides, each
    with the whole gallery as negatives. For a defence with another loss (FARE, LEAF: distance to
    the model before fine-tuning) pass `own`, and there is a row of that name.

    Attributes:
        image: budget of the image attack.
        text: budget of the text attack.
        views: SGA's scales.
        attacks: rows to compute; `worst` is the minimum over them.
        n_restarts: of the gallery attacker and of APGD; PGD has its own.
        slow_under: the text threats under which the `SLOW` attacks run; all if None. Under the
            others `worst` is the minimum over fewer attacks.
        own: the attack of the judged defence's own training loss, where no row has it.
        n_shown: images whose adversarial pixels are kept for figures.
        released: the conventions of Co-Attack's and SGA's code, to compare with published
            numbers: PGD and Co-Attack start in [0, eps] and ascend KL from the clean embedding,
            with steps of 1.25 * eps / n (0.25/255 at eps 2/255 and 10 steps); Co-Attack meets
            the last caption of each image only; SGA starts in the ball with steps of eps / 4
            (0.5/255) and views without antialiasing and the last clamp (`ScaleViews`).
    """

    image: PGD
    text: WordSubstitution = field(default_factory=WordSubstitution)
    views: ScaleViews = field(default_factory=ScaleViews)
    attacks: tuple[str, ...] = ATTACKS
    n_restarts: int = 1
    slow_under: tuple[str, ...] | None = None
    own: OwnAttack | None = None
    n_shown: int = 12
    released: bool = False

    def __post_init__(self) -> None:
        unknown = set(self.attacks) - {*ATTACKS, *ON_REQUEST}
        if unknown:
            raise ValueError(
                f"unknown attacks {sorted(unknown)}; known: {', '.join((*ATTACKS, *ON_REQUEST))}"
            )

    def rows(self, threats: Iterable[str]) -> list[Key]:
        """(attack, threat) of every attack to be run; `worst` follows from them."""
        alone = [(attack, "") for attack in ("clean", "pgd") if attack in self.attacks]
        return alone + [
            (attack, threat)
            for threat in threats
            for attack in self._with_text()
            if self.runs_under(attack, threat)
        ]

    def _with_text(self) -> list[str]:
        asked = [attack for attack in (*TEXT_ATTACKS, *ON_REQUEST) if attack in self.attacks]
        return asked if self.own is None else [*asked, OWN]

    def runs_under(self, attack: str, threat: str) -> bool:
        """Whether an attack is made under a threat: the `SLOW` ones only under `slow_under`."""
        return attack not in SLOW or self.slow_under is None or threat in self.slow_under

    def move_images(
        self, encoder: DualEncoder, gallery: Gallery, seed: int, report: AttackReport
    ) -> Tensor:
        """The image attack of the rows `pgd` and `sep`."""
        attack = feature_pgd if self.released else pgd_attack
        return attack(encoder, gallery, self.baseline(), generator=_generator(seed), report=report)

    def move_both(
        self,
        attack: str,
        encoder: DualEncoder,
        gallery: Gallery,
        table: CandidateTable,
        text: TextAttack,
        seed: int,
        report: AttackReport,
        first: Attacked | None = None,
        start: Attacked | None = None,
    ) -> tuple[Tensor, list[str]]:
        """A multimodal attack by its row; each has a generator of its own.

        Args:
            text: `self.text`, or what it prepared for these captions, to be shared.
            first: what `gallery` found, for the rows that are aimed at what it leaves; made
                here if it is not given.
            start: what a row of `NESTED` found with a part of the edits.
        """
        if attack == OWN and self.own is not None:
            drawn_from = _generator(seed)
            return self.own(encoder, gallery, table, self.image, self.text, drawn_from, report)
        drawn: dict[str, Any] = {"generator": _generator(seed), "report": report}
        if attack in GALLERY_AT_REST:
            if first is None:
                made = self.move_both("gallery", encoder, gallery, table, text, seed, report)
                first = Attacked(*made)
            drawn["earlier"] = [first]
        if attack in NESTED and start is not None:
            drawn["start"] = start.captions if attack in WORDS_ALONE else start
        return MOVES.choose(attack)(self, (encoder, gallery, table), text, drawn)

    def together(self) -> JointAscent:
        """The image step of the gallery attacker: the image attack's steps, in each round."""
        return JointAscent(self.image.eps_255, self.image.n_steps, self.image.norm)

    def stronger(self) -> APGD:
        """APGD with the budget of the image attack, three times its steps, and restarts."""
        image = self.image
        return APGD(
            image.eps_255,
            3 * max(image.n_steps, 1),
            start=image.start,
            norm=image.norm,
            n_restarts=max(image.n_restarts, self.n_restarts),
        )

    def guided(self) -> PGD:
        """The image attack of SGA and DRA."""
        if not self.released:
            return self.image
        return replace(self.image, step_255=self.image.eps_255 / 4 or None)

    def guiding_views(self) -> ScaleViews:
        """The scales that SGA and DRA see an image at."""
        return replace(self.views, released=True) if self.released else self.views

    def baseline(self) -> PGD:
        """The image attack of the rows `pgd`, `sep` and `co-attack`."""
        if not self.released:
            return self.image
        step = 1.25 * self.image.eps_255 / max(self.image.n_steps, 1)
        return replace(self.image, start="positive", step_255=step or None)


Target = tuple[DualEncoder, Gallery, CandidateTable]
Moved = tuple[Tensor, list[str]]
Drawn = Mapping[str, Any]
"""`generator` and `report` of one attack."""


def _co_attack(suite: Suite, target: Target, text: TextAttack, drawn: Drawn) -> Moved:
    captions: Literal["joint", "per_caption_last"] = "joint"
    if suite.released:
        captions = "per_caption_last"
    return co_attack(*target, suite.baseline(), text, captions=captions, **drawn)


def _sga(suite: Suite, target: Target, text: TextAttack, drawn: Drawn) -> Moved:
    return sga(*target, suite.guided(), text, views=suite.guiding_views(), **drawn)


def _dra(suite: Suite, target: Target, text: TextAttack, drawn: Drawn) -> Moved:
    return dra(*target, suite.guided(), text, views=suite.guiding_views(), **drawn)


def _joint(suite: Suite, target: Target, text: TextAttack, drawn: Drawn) -> Moved:
    return contrastive_attack(*target, suite.image, text, **drawn)


def _apgd(suite: Suite, target: Target, text: TextAttack, drawn: Drawn) -> Moved:
    return contrastive_attack(*target, suite.stronger(), text, **drawn)


def _words_pairwise(suite: Suite, target: Target, text: TextAttack, drawn: Drawn) -> Moved:
    return target[1].pixels, words_attack(*target, text, attacker="pairwise", **drawn)


def _words(suite: Suite, target: Target, text: TextAttack, drawn: Drawn) -> Moved:
    return target[1].pixels, words_attack(*target, text, n_restarts=suite.n_restarts, **drawn)


def _gallery(suite: Suite, target: Target, text: TextAttack, drawn: Drawn) -> Moved:
    return gallery_attack(*target, suite.together(), text, n_restarts=suite.n_restarts, **drawn)


def _gallery_tr(suite: Suite, target: Target, text: TextAttack, drawn: Drawn) -> Moved:
    return _at_rest(suite, target, text, drawn, "tr")


def _gallery_ir(suite: Suite, target: Target, text: TextAttack, drawn: Drawn) -> Moved:
    return _at_rest(suite, target, text, drawn, "ir")


def _at_rest(
    suite: Suite, target: Target, text: TextAttack, drawn: Drawn, direction: Literal["tr", "ir"]
) -> Moved:
    return aimed_at_rest(*target, suite.together(), text, target=direction, **drawn)


MOVES: Choices[Callable[[Suite, Target, TextAttack, Drawn], Moved]] = Choices({
    "co-attack": _co_attack, "sga": _sga, "dra": _dra, "joint": _joint, "apgd": _apgd,
    "words-pairwise": _words_pairwise, "words": _words, "gallery": _gallery,
    "gallery-tr": _gallery_tr, "gallery-ir": _gallery_ir,
}, what="attack with words")  # fmt: skip
"""The rows that are one function; `pgd`, `bert` and `sep` are made of parts."""


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
