"""Which attacks judge a model, with which budgets, in whose conventions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

from matlib.attacks.apgd import APGD
from matlib.attacks.ascent import AttackReport, ImageAttack, ScaleViews
from matlib.attacks.attacked_gallery import Attacked, least_recall
from matlib.attacks.diversified import dra
from matlib.attacks.edits import CandidateTable
from matlib.attacks.fused import fused_co_attack, unmatched
from matlib.attacks.gallery import Gallery, TextAttack, prepared
from matlib.attacks.gallery_images import JointAscent
from matlib.attacks.margins import AimedAt
from matlib.attacks.multimodal import co_attack, contrastive_attack, feature_pgd, pgd_attack, sga
from matlib.attacks.pgd import PGD
from matlib.attacks.whole_gallery import aimed_at_rest, gallery_attack, words_attack
from matlib.attacks.word_substitution import WordSubstitution
from matlib.choices import UNNAMED, Choices, Shown
from matlib.evaluation.reranking import RERANKED
from matlib.models.dual_encoder import DualEncoder, FusionEncoder, as_fusion

Key = tuple[str, str]
"""(attack, text threat); the threat is "" where no text is attacked."""

CLEAN, OWN = "clean", "own"
"""Two rows that are asked for otherwise: nothing moves, and `Suite.own`."""

Moved = tuple[Tensor | None, list[str] | None]
"""float (N, 3, H, W) adversarial images and M captions; None for what an attack leaves alone."""

OwnAttack = Callable[
    [
        DualEncoder, Gallery, CandidateTable, ImageAttack, WordSubstitution,
        torch.Generator, AttackReport,
    ],
    tuple[Tensor, list[str]],
]  # fmt: skip
"""An attack that ascends the judged defence's own training loss."""


@dataclass(frozen=True)
class Suite:
    """The attacks and their budgets.

    Rows of the pairwise attacker, who attacks each image and each caption for itself against the
    clean rest of the gallery: `clean`, `pgd` (image alone), and per text threat `bert` and
    `words-pairwise` (text alone, by importance and every edit), `sep` (both, independently),
    `co-attack`, `sga`, `joint` (contrastive loss on both sides with an exhaustive text search).
    Rows of the gallery attacker, who chooses all images and all words together: `words` (text
    alone), `gallery`, and `gallery-tr`, `gallery-ir` and `gallery-rest`, each aimed at the queries
    that no gallery before it made fail (`matlib.attacks.whole_gallery`). Rows of a model that
    reads image and text together: `match` (image alone, away from matching its own captions) and
    `fused` (Co-Attack on the fused representation). And `worst` (`matlib.evaluation.robustness`:
    per query the minimum over all of these, a pessimistic bound). On request `dra`, and `apgd`
    (`joint` with APGD at three times the steps).

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
        slow_under: the text threats under which the slow attacks run; all if None. Under the
            others `worst` is the minimum over fewer attacks.
        own: the attack of the judged defence's own training loss, where no row has it.
        n_shown: images whose adversarial pixels are kept for figures.
        rerank: candidates of each query that a fusion model orders by `match` (128 and 256 in
            the literature); 0: retrieval by embeddings alone, as of dual encoders.
        released: the conventions of Co-Attack's and SGA's code, to compare with published
            numbers: PGD and Co-Attack start in [0, eps] and ascend KL from the clean embedding,
            with steps of 1.25 * eps / n (0.25/255 at eps 2/255 and 10 steps); Co-Attack meets
            the last caption of each image only; SGA starts in the ball with steps of eps / 4
            (0.5/255) and views without antialiasing and the last clamp (`ScaleViews`).
    """

    image: PGD
    text: WordSubstitution = field(default_factory=WordSubstitution)
    views: ScaleViews = field(default_factory=ScaleViews)
    attacks: tuple[str, ...] = field(default_factory=lambda: default_rows())
    n_restarts: int = 1
    slow_under: tuple[str, ...] | None = None
    own: OwnAttack | None = None
    n_shown: int = 12
    rerank: int = RERANKED
    released: bool = False

    def __post_init__(self) -> None:
        known = (CLEAN, *(name for name in ATTACKS if name != OWN))
        unknown = set(self.attacks) - {*known}
        if unknown:
            raise ValueError(f"unknown attacks {sorted(unknown)}; known: {', '.join(known)}")

    def rows(self, threats: Iterable[str], *, of_fusion: bool = False) -> list[Key]:
        """(attack, threat) of every attack to be run; `worst` follows from them.

        Args:
            of_fusion: on a model that reads image and text together; the attacks on what it makes
                of them are no rows of others.
        """
        asked = [
            each for name, each in ATTACKS.items()
            if self._asks_for(name) and (of_fusion or not each.of_fusion)
        ]  # fmt: skip
        clean = [(CLEAN, "")] if CLEAN in self.attacks else []
        alone = [(each.name, "") for each in asked if not each.moves_words]
        return [*clean, *alone] + [
            (each.name, threat)
            for threat in threats
            for each in asked
            if each.moves_words and self.runs_under(each, threat)
        ]

    def _asks_for(self, name: str) -> bool:
        return name in self.attacks or (name == OWN and self.own is not None)

    def runs_under(self, attack: Attack, threat: str) -> bool:
        """Whether an attack is made under a threat: the slow ones only under `slow_under`."""
        return not attack.is_slow or self.slow_under is None or threat in self.slow_under

    def together(self) -> JointAscent:
        """The image step of the gallery attacker."""
        return joint_ascent(self.image)

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


def joint_ascent(image: PGD) -> JointAscent:
    """The gallery attacker's image step beside an image attack: three times the steps, each round.

    Its words are chosen anew after every fourth of them.
    """
    return JointAscent(image.eps_255, 3 * image.n_steps, image.norm)


@dataclass
class Situation:
    """What one attack of a suite meets.

    Attributes:
        suite: budgets and conventions.
        encoder: the model that is attacked.
        gallery: the clean images and captions.
        candidates: the threat's allowed edits of every caption.
        text: the suite's text attack, or what it prepared for these captions, to be shared.
        threat: its name; "" where no text is attacked.
        seed: every attack has a generator of its own, made from it.
        smaller: the same under the threats whose edits are a part of these.
        kept: what several attacks build on, by threat and function; see `shared`.
        report: of this attack.
    """

    suite: Suite
    encoder: DualEncoder
    gallery: Gallery
    candidates: CandidateTable
    text: TextAttack
    threat: str
    seed: int
    smaller: tuple[Situation, ...] = ()
    kept: dict[tuple[str, Move], tuple[Moved, AttackReport]] = field(default_factory=dict)
    report: AttackReport = field(default_factory=AttackReport)

    @property
    def target(self) -> tuple[DualEncoder, Gallery, CandidateTable]:
        """What every attack with words begins with."""
        return self.encoder, self.gallery, self.candidates

    def generator(self) -> torch.Generator:
        """The attack's own, at its start."""
        return torch.Generator().manual_seed(self.seed)

    @property
    def drawn(self) -> dict[str, Any]:
        """`generator` and `report`, which every attack with gradients takes."""
        return {"generator": self.generator(), "report": self.report}

    def shared(self, move: Move, threat: str = "") -> tuple[Moved, AttackReport]:
        """What a move finds, made once for all attacks that build on it, and its own report.

        Args:
            threat: whose words it changes, if any.
        """
        if (threat, move) not in self.kept:
            own = replace(self, report=AttackReport())
            self.kept[threat, move] = move(own), own.report
        return self.kept[threat, move]

    def counted(self, move: Move, threat: str = "") -> Moved:
        """What a move finds, as `shared`; what it met counts as met by this attack."""
        moved, report = self.shared(move, threat)
        self.report.add(report)
        return moved

    def begin(self, move: Move) -> Attacked | None:
        """The best that a move finds with a part of these edits; None if no threat is smaller.

        An attack that begins there leaves no more recall with further edits.
        """
        found = [each.shared(move, each.threat)[0] for each in self.smaller]
        return self.whole(self.least(found)) if found else None

    def least(self, found: Sequence[Moved]) -> Moved:
        """Of one or more, that which leaves least recall; of equal ones the first."""
        if len(found) == 1:
            return found[0]
        return found[least_recall(self.encoder, self.gallery, [*map(self.whole, found)])]

    def whole(self, moved: Moved) -> Attacked:
        """The gallery that a move makes."""
        pixels, captions = moved
        return Attacked(
            self.gallery.pixels if pixels is None else pixels,
            list(self.gallery.captions) if captions is None else captions,
        )


Move = Callable[[Situation], Moved]


def _images(s: Situation) -> Moved:
    attack = feature_pgd if s.suite.released else pgd_attack
    return attack(s.encoder, s.gallery, s.suite.baseline(), **s.drawn), None


def _pgd(s: Situation) -> Moved:
    return s.counted(_images)


def _bert(s: Situation) -> Moved:
    return None, prepared(*s.target, s.text, s.report)()


def _sep(s: Situation) -> Moved:
    return _pgd(s)[0], _bert(s)[1]


def _co_attack(s: Situation) -> Moved:
    captions: Literal["joint", "per_caption_last"] = "joint"
    if s.suite.released:
        captions = "per_caption_last"
    return co_attack(*s.target, s.suite.baseline(), s.text, captions=captions, **s.drawn)


def _sga(s: Situation) -> Moved:
    return sga(*s.target, s.suite.guided(), s.text, views=s.suite.guiding_views(), **s.drawn)


def _dra(s: Situation) -> Moved:
    return dra(*s.target, s.suite.guided(), s.text, views=s.suite.guiding_views(), **s.drawn)


def _joint(s: Situation) -> Moved:
    return contrastive_attack(*s.target, s.suite.image, s.text, **s.drawn)


def _apgd(s: Situation) -> Moved:
    return contrastive_attack(*s.target, s.suite.stronger(), s.text, **s.drawn)


def _words_pairwise(s: Situation) -> Moved:
    return None, words_attack(*s.target, s.text, attacker="pairwise", **s.drawn)


def _all_words(s: Situation) -> Moved:
    begin, n_restarts = s.begin(_all_words), s.suite.n_restarts
    start = begin.captions if begin is not None else None
    return None, words_attack(*s.target, s.text, n_restarts=n_restarts, start=start, **s.drawn)


def _words(s: Situation) -> Moved:
    return s.counted(_all_words, s.threat)


def _whole(s: Situation) -> Moved:
    start, n_restarts = s.begin(_whole), s.suite.n_restarts
    image = s.suite.together()
    return gallery_attack(*s.target, image, s.text, n_restarts=n_restarts, start=start, **s.drawn)


def _gallery(s: Situation) -> Moved:
    return s.counted(_whole, s.threat)


def _rest_tr(s: Situation) -> Moved:
    return _at_rest(s, "tr", _whole)


def _rest_ir(s: Situation) -> Moved:
    return _at_rest(s, "ir", _whole, _rest_tr)


def _rest(s: Situation) -> Moved:
    return _at_rest(s, "both", _whole, _rest_tr, _rest_ir)


def _gallery_tr(s: Situation) -> Moved:
    return s.counted(_rest_tr, s.threat)


def _gallery_ir(s: Situation) -> Moved:
    return s.counted(_rest_ir, s.threat)


def _at_rest(s: Situation, target: AimedAt, *moves: Move) -> Moved:
    """One more gallery, from starts of its own; its report is of it alone."""
    earlier = [s.whole(s.shared(move, s.threat)[0]) for move in moves]
    generator = torch.Generator().manual_seed(s.seed + len(moves))
    return aimed_at_rest(
        *s.target, s.suite.together(), s.text, target=target, earlier=earlier,
        generator=generator, report=s.report,
    )  # fmt: skip


def _match(s: Situation) -> Moved:
    return unmatched(_reader(s), s.gallery, s.suite.image, **s.drawn), None


def _fused(s: Situation) -> Moved:
    _, gallery, table = s.target
    return fused_co_attack(_reader(s), gallery, table, s.suite.image, s.suite.text, **s.drawn)


def _reader(s: Situation) -> FusionEncoder:
    found = as_fusion(s.encoder)
    assert found is not None, "`check_meets` lets no other model through"
    return found


def _own(s: Situation) -> Moved:
    assert s.suite.own is not None, "a row of the suites that have one"
    return s.suite.own(*s.target, s.suite.image, s.suite.text, s.generator(), s.report)


@dataclass(frozen=True)
class Attack:
    """One row of a suite.

    Attributes:
        name: of the row, in every table.
        sides: what it moves.
        move: the function that makes the move.
        cost: `slow` attacks may be kept for the threats that decide (`Suite.slow_under`).
        on_request: whether it is a row only of the suites that name it.
        at_rest: whether it gives up the queries that fail elsewhere, so that what it leaves of
            recall says nothing by itself.
        of_fusion: whether it attacks what a model makes of image and text together, so that it
            is a row of models that read them so.
        shown: in figures.
    """

    name: str
    sides: Literal["image", "words", "both"]
    move: Move
    cost: Literal["fast", "slow"] = "fast"
    on_request: bool = False
    at_rest: bool = False
    of_fusion: bool = False
    shown: Shown = UNNAMED

    def least(self, s: Situation) -> Moved:
        """What it finds; or finds under a smaller threat, where that leaves less recall.

        So more edits never leave more of it, whatever the attack's search is worth.
        """
        if self.at_rest or not s.smaller:
            return self.move(s)
        fewer = [each.shared(self.least, each.threat)[0] for each in s.smaller]
        return s.least([self.move(s), *fewer])

    def check_meets(self, encoder: DualEncoder) -> None:
        """Refuse a model that has not what is attacked.

        Raises:
            ValueError: an attack on the fusion, and a model that has none.
        """
        if self.of_fusion and as_fusion(encoder) is None:
            raise ValueError(
                f"{self.name} attacks what a model makes of image and text together, as BLIP and "
                f"ALBEF do; {type(encoder).__name__} reads them apart: choose among "
                + ", ".join(name for name, each in ATTACKS.items() if not each.of_fusion)
            )

    @property
    def moves_images(self) -> bool:
        """Whether images are adversarial in its row."""
        return self.sides != "words"

    @property
    def moves_words(self) -> bool:
        """Whether captions are, so that it has a row per text threat."""
        return self.sides != "image"

    @property
    def is_slow(self) -> bool:
        return self.cost == "slow"


# DRA is made to transfer, and no stronger than SGA on the model that it is made on; APGD costs
# as much as `gallery` and leaves twice as much.
ATTACKS: Choices[Attack] = Choices.named(
    Attack("pgd", "image", _pgd, shown=Shown("image (PGD)")),
    Attack("bert", "words", _bert, shown=Shown("text (one word)")),
    Attack("words-pairwise", "words", _words_pairwise, "slow", shown=Shown("text, every edit")),
    Attack("words", "words", _words, shown=Shown("text, whole gallery")),
    Attack("sep", "both", _sep, shown=Shown("both, separately")),
    Attack("co-attack", "both", _co_attack, "slow", shown=Shown("both, Co-Attack")),
    Attack("sga", "both", _sga, "slow", shown=Shown("both, SGA")),
    Attack("joint", "both", _joint, shown=Shown("both, jointly")),
    Attack("gallery", "both", _gallery, "slow", shown=Shown("both, whole gallery")),
    Attack("gallery-tr", "both", _gallery_tr, "slow", at_rest=True,
           shown=Shown("whole gallery, images left")),
    Attack("gallery-ir", "both", _gallery_ir, "slow", at_rest=True,
           shown=Shown("whole gallery, captions left")),
    Attack("gallery-rest", "both", _rest, "slow", at_rest=True,
           shown=Shown("whole gallery, all left")),
    Attack("match", "image", _match, of_fusion=True, shown=Shown("image, matching")),
    Attack("fused", "both", _fused, "slow", of_fusion=True, shown=Shown("both, fused")),
    Attack("dra", "both", _dra, on_request=True, shown=Shown("both, DRA")),
    Attack("apgd", "both", _apgd, "slow", on_request=True, shown=Shown("both, by APGD")),
    Attack("own", "both", _own, "slow", on_request=True, shown=Shown("its own training loss")),
    what="attack",
)  # fmt: skip


def default_rows() -> tuple[str, ...]:
    """The rows of a suite unless it names its own."""
    return (CLEAN, *(name for name, each in ATTACKS.items() if not each.on_request))
