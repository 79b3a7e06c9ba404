"""The ways in which the study judges a model: which gallery, threats, attacks and budget."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from matlib.attacks.ascent import ScaleViews
from matlib.attacks.pgd import PGD
from matlib.attacks.word_substitution import WordSubstitution
from matlib.evaluation.suite import ATTACKS, Key, Suite, default_rows
from matlib.study.profile.parts import EvaluationConfig, Model

GalleryName = Literal["test", "val", "train-1", "test-1"]
"""`test` and `val` with all captions; `train-1` and `test-1` with one caption per image and
the same number of images, to compare training with held-out pairs."""

INSIDE_ATTACKS = (
    "clean", "pgd", "bert", "words", "sga", "joint", "gallery", "match", "fused",
)  # fmt: skip
"""In short; the last two where the model reads image and text together."""

PAIRS_ATTACKS = ("clean", "pgd", "bert", "words", "co-attack", "sga", "joint", "gallery")
"""What techniques of augmentation are compared under: the paper's four attacks, `joint`, and the
gallery attacker."""

HELD_OUT_ATTACKS = ("clean", "bert", "words", "joint", "gallery")
"""Edits of kinds that no defence trains on: text alone, and with the images."""

UNIMODAL_ATTACKS = ("clean", "pgd", "words-pairwise", "joint")
"""Images by PGD, words by every edit, and both at once, of the one contrastive loss."""

TRANSFER_ATTACKS = ("pgd", "sga", "joint")
"""Image alone, the attack that is made to transfer, and the strongest pairwise one (on its own
model)."""


@dataclass(frozen=True)
class EvaluationProtocol:
    """How a model is judged: the gallery, the threats, the attacks and the image budget.

    `parts`: threats judged elsewhere whose edits those of a threat may hold (`evaluate`).
    """

    gallery: GalleryName
    threats: tuple[str, ...]
    eps_255: float
    attacks: tuple[str, ...] = field(default_factory=default_rows)
    with_curve: bool = False
    parts: tuple[str, ...] = ()


def full(e: EvaluationConfig, gallery: GalleryName) -> EvaluationProtocol:
    """All attacks under all threats; on the test gallery none leaves more than `held_out`."""
    parts = e.held_out if gallery == "test" else ()
    return EvaluationProtocol(
        gallery, e.threats, e.eps_255, default_rows(), bool(e.curve_eps_255), parts
    )


def held_out(e: EvaluationConfig) -> EvaluationProtocol:
    """Edits of kinds that no defence trains on: text alone, and with the images."""
    return EvaluationProtocol("test", e.held_out, e.eps_255, HELD_OUT_ATTACKS)


def inside(e: EvaluationConfig) -> EvaluationProtocol:
    """Variations of one defence: without the slow attacks, primary threat."""
    return EvaluationProtocol("test", (e.primary_threat,), e.eps_255, INSIDE_ATTACKS)


def pairs(e: EvaluationConfig) -> EvaluationProtocol:
    """Techniques of augmentation, primary threat."""
    return EvaluationProtocol("test", (e.primary_threat,), e.eps_255, PAIRS_ATTACKS)


def gap(e: EvaluationConfig, gallery: GalleryName) -> EvaluationProtocol:
    """Training and held-out pairs: the joint attack, primary threat."""
    return EvaluationProtocol(gallery, (e.primary_threat,), e.eps_255, ("clean", "joint"))


def between_models(e: EvaluationConfig) -> EvaluationProtocol:
    """The attacks that are sent from model to model, primary threat."""
    return EvaluationProtocol("test", (e.primary_threat,), e.eps_255, TRANSFER_ATTACKS)


def unimodal(e: EvaluationConfig) -> EvaluationProtocol:
    """One side attacked, and both, by equal searches, where each side alone leaves 30-60 %."""
    return EvaluationProtocol("test", (e.primary_threat,), e.unimodal_eps_255, UNIMODAL_ATTACKS)


def validating(e: EvaluationConfig) -> EvaluationProtocol:
    """A model beside its training: both sides attacked, primary threat."""
    return EvaluationProtocol("val", (e.primary_threat,), e.eps_255, ("clean", "joint"))


def protocols_of(e: EvaluationConfig, what: str) -> list[EvaluationProtocol]:
    """How a task of that kind (`workers.Task`) judges its model; empty where it judges none."""
    return {
        "judged": [full(e, "test")],
        "inside": [inside(e)],
        "technique": [pairs(e), validating(e)],
        "sweep": [pairs(e)],
        "dialled": [inside(e)],
        "held-out": [held_out(e)],
        "transfer": [between_models(e)],
        "unimodal": [unimodal(e)],
        "gap": [gap(e, "train-1"), gap(e, "test-1")],
    }.get(what, [])


NOT_IN_THE_ATTACKS = (
    "n_boot", "primary_threat", "threats", "held_out", "eps_255", "unimodal_eps_255",
    "sentence_encoder",
)  # fmt: skip
"""Parts of the evaluation that change no attack, or that a `EvaluationProtocol` holds itself."""


def protocol_config(e: EvaluationConfig, how: EvaluationProtocol) -> dict[str, Any]:
    """A protocol for the identity of what it finds."""
    return {**asdict(how), "budget": e.model_dump(exclude=set(NOT_IN_THE_ATTACKS))}


def reads_together(model: Model) -> bool:
    """Whether a profile's model is a fusion model."""
    return model.family != "clip"


def moves_of(how: EvaluationProtocol, *models: Model) -> tuple[str, ...]:
    """The attacks of a protocol that have an entry in the table of attacks, and meet a model."""
    of_fusion = any(map(reads_together, models))
    return tuple(
        attack for attack in how.attacks
        if attack in ATTACKS and (of_fusion or not ATTACKS[attack].of_fusion)
    )  # fmt: skip


def judged_rows(e: EvaluationConfig, how: EvaluationProtocol, model: Model) -> list[Key]:
    """(attack, threat) of everything that a protocol does to a profile's model."""
    return make_suite(e, how).rows(how.threats, of_fusion=reads_together(model))


def make_suite(e: EvaluationConfig, how: EvaluationProtocol) -> Suite:
    """The attacks of one protocol."""
    step = e.step_255 if how.eps_255 == e.eps_255 else None
    return Suite(
        PGD(how.eps_255, e.pgd_steps, step),
        WordSubstitution(e.n_words),
        ScaleViews(e.sga_scales),
        how.attacks,
        n_restarts=e.n_restarts,
        slow_under=e.slow_under,
        rerank=e.rerank,
        released=e.conventions == "released",
    )
