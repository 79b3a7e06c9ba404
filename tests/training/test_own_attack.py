"""The judge that ascends a defence's own training loss."""

from __future__ import annotations

import copy

import pytest
import torch

from matlib.attacks.ascent import AttackReport
from matlib.attacks.edits import Edit
from matlib.attacks.gallery import Gallery
from matlib.attacks.pgd import PGD
from matlib.attacks.word_substitution import WordSubstitution
from matlib.data.pairs import ImageTensor, ImageTextPairs
from matlib.defences.own_loss import OwnLossAttack, own_attack
from matlib.defences.table import defence
from matlib.evaluation.robustness import evaluate
from matlib.evaluation.suite import ATTACKS, Suite
from matlib.models.open_clip import OpenClipEncoder
from matlib.models.small import SmallModel, build_small

CAPTIONS = ["a red star on grass", "a blue circle", "a green square below a red cross"]
TABLE = [[Edit(1, "crimson"), Edit(2, "sun")], [Edit(1, "azure")], []]
SHAPE = SmallModel(
    image_size=16, patch_size=8, image_width=16, image_layers=1, text_width=16, text_layers=1,
    head_width=8, embed_dim=8,
)  # fmt: skip


@pytest.fixture(scope="module")
def reference() -> OpenClipEncoder:
    return build_small(SHAPE, seed=1).eval()


@pytest.fixture(scope="module")
def evaluated(reference: OpenClipEncoder) -> OpenClipEncoder:
    """The reference with slightly other weights, as after fine-tuning."""
    encoder = copy.deepcopy(reference)
    draw = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for p in encoder.parameters():
            p.add_(0.05 * torch.randn(p.shape, generator=draw))
    return encoder


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    return torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 0.8 + 0.1


def _run(
    name: str, evaluated: OpenClipEncoder, reference: OpenClipEncoder, pixels: torch.Tensor
) -> tuple[torch.Tensor, list[str]]:
    attack = own_attack(defence(name), reference)
    assert attack is not None
    gallery = Gallery(pixels, CAPTIONS, torch.eye(3, dtype=torch.bool), torch.arange(3))
    budget = PGD(8, 5), WordSubstitution(1)
    draw = torch.Generator().manual_seed(0)
    return attack(evaluated, gallery, TABLE, *budget, draw, AttackReport())


@pytest.mark.parametrize("name", ["fare", "leaf", "fare+leaf"])
def test_own_loss_stays_in_the_ball_and_changes_one_allowed_word(
    name: str, evaluated: OpenClipEncoder, reference: OpenClipEncoder, pixels: torch.Tensor
) -> None:
    weights = {key: value.clone() for key, value in evaluated.state_dict().items()}
    moved, captions = _run(name, evaluated, reference, pixels)
    assert float((moved - pixels).abs().max()) <= 8 / 255 + 1e-6
    assert float(moved.min()) >= 0 and float(moved.max()) <= 1
    for before, after, row in zip(CAPTIONS, captions, TABLE, strict=True):
        allowed = {before, *(" ".join(_replaced(before, edit)) for edit in row)}
        assert after in allowed
    assert all(torch.equal(value, weights[key]) for key, value in evaluated.state_dict().items())
    assert all(p.grad is None for p in evaluated.parameters()) and not evaluated.training


def _replaced(caption: str, edit: Edit) -> list[str]:
    words = caption.split(" ")
    words[edit.position] = edit.replacement
    return words


def test_fares_images_move_further_from_the_reference_than_those_of_pgd(
    evaluated: OpenClipEncoder, reference: OpenClipEncoder, pixels: torch.Tensor
) -> None:
    def distance(image: torch.Tensor) -> float:
        with torch.no_grad():
            gap = evaluated.image_features(image) - reference.image_features(pixels)
        return float(gap.square().sum(1).mean())

    own, _ = _run("fare", evaluated, reference, pixels)
    other, _ = _run("leaf", evaluated, reference, pixels)  # LEAF trains on text: images by PGD
    assert distance(own) > distance(other) > 0


def test_leafs_words_are_the_farthest_of_the_table_one_at_a_time(
    evaluated: OpenClipEncoder, reference: OpenClipEncoder, pixels: torch.Tensor
) -> None:
    _, captions = _run("leaf", evaluated, reference, pixels)
    for before, after, row in zip(CAPTIONS, captions, TABLE, strict=True):
        options = [before, *(" ".join(_replaced(before, edit)) for edit in row)]
        with torch.no_grad():
            clean = reference.text_features([before])[0]
            far = [float((evaluated.text_features([o])[0] - clean).square().sum()) for o in options]
        assert after == options[max(range(len(options)), key=far.__getitem__)]


def test_defences_whose_loss_has_a_row_already_get_no_other() -> None:
    for name in ("clean", "image-at", "tecoa", "pmg-aft", "mmcoa", "mat", "mat+"):
        assert own_attack(defence(name), None) is None
    with pytest.raises(ValueError, match="measured from the model before fine-tuning"):
        own_attack(defence("fare"), None)


def test_the_suite_judges_by_it_under_the_deciding_threat_only(
    evaluated: OpenClipEncoder, reference: OpenClipEncoder, pixels: torch.Tensor
) -> None:
    images = ImageTensor((pixels * 255).round().to(torch.uint8))
    pairs = ImageTextPairs("toy", "test", images, tuple(CAPTIONS), torch.arange(3), ("a", "b", "c"))
    own = OwnLossAttack(defence("fare+leaf"), reference)
    suite = Suite(PGD(8, 2), own=own, slow_under=("bert_true",), n_restarts=2)
    tables = {"bert_true": TABLE, "typo": TABLE}
    found = evaluate(evaluated, pairs, tables, suite, seed=0)
    slow = [name for name, attack in ATTACKS.items() if attack.is_slow]
    ran = {key for key in found.outcomes if key[0] in slow}
    assert ran == {(attack, "bert_true") for attack in slow if attack not in ("apgd", "fused")}
    worst = found.outcomes["worst", "bert_true"]
    assert bool((worst.tr_rank >= found.outcomes["own", "bert_true"].tr_rank).all())
    assert suite.stronger().n_restarts == 2
