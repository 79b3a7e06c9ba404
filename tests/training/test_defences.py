from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from matlib.defences.batch import Batch
from matlib.defences.defence import PairWeights
from matlib.defences.reference import Unnormalised
from matlib.defences.table import DEFENCES, defence
from matlib.models.open_clip import OpenClipEncoder
from tests.toys import random_pixels
from tests.training.toy_batches import CAPTIONS, exact_encoder, fresh_encoder, part, toy_batch
from tests.training.two_processes import TwoProcesses, on_two

NAMES = list(DEFENCES)
DISTINCT = [name for name in NAMES if name != "mat+"]  # mat by another name


def attacked_batch() -> Batch:
    clean = toy_batch()
    pixels = (clean.pixels + 0.1 * random_pixels(4, 9).double()).clamp(0, 1)
    return replace(clean, pixels=pixels, captions=["near circle", *CAPTIONS[1:3], "large squire"])


def versions(name: str) -> tuple[Batch, Batch]:
    """Clean and attacked batch, of which only what the defence attacks differs."""
    how, clean, moved = defence(name), toy_batch(), attacked_batch()
    if not how.attacks_image:
        moved = replace(moved, pixels=clean.pixels)
    if not how.attacks_text:
        moved = replace(moved, captions=clean.captions)
    return clean, moved


def loss(name: str, encoder: OpenClipEncoder, reference: OpenClipEncoder | None = None) -> Tensor:
    return defence(name).loss(encoder, *versions(name), reference or exact_encoder(1))


def clip(image: Tensor, text: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Both halves of CLIP's loss, written out."""
    logits = scale * image @ text.T
    return (
        -(logits.diagonal() - logits.exp().sum(1).log()).mean(),
        -(logits.diagonal() - logits.exp().sum(0).log()).mean(),
    )


@pytest.mark.parametrize("name", ["clean", "image-at", "image-at-tower", "text-at", "mat", "mat+"])
def test_contrastive_defences_descend_the_mean_of_both_halves_on_attacked_pairs(name: str) -> None:
    encoder, (_, moved) = exact_encoder(), versions(name)
    image, text = encoder.encode_image(moved.pixels), encoder.encode_text(moved.captions)
    expected = sum(clip(image, text, encoder.logit_scale)) / 2
    assert torch.allclose(loss(name, encoder), expected, rtol=1e-9)


def test_tecoa_descends_the_image_to_text_half() -> None:
    encoder, (clean, moved) = exact_encoder(), versions("tecoa")
    image, text = encoder.encode_image(moved.pixels), encoder.encode_text(clean.captions)
    assert torch.allclose(loss("tecoa", encoder), clip(image, text, encoder.logit_scale)[0])


def test_mmcoa_pairs_each_attacked_input_with_the_other_clean_one_at_lambda_one_half() -> None:
    encoder, (clean, moved) = exact_encoder(), versions("mmcoa")
    v, w = encoder.encode_image(clean.pixels), encoder.encode_image(moved.pixels)
    t, s = encoder.encode_text(clean.captions), encoder.encode_text(moved.captions)
    scale = encoder.logit_scale
    expected = 0.5 * sum(clip(v, s, scale)) + 0.5 * sum(clip(w, t, scale))
    assert torch.allclose(loss("mmcoa", encoder), expected)


def test_every_pair_weighs_what_its_field_says() -> None:
    encoder, (clean, moved) = exact_encoder(), versions("mat")
    pairs = PairWeights(0.1, 0.2, 0.3, 0.4)
    found = replace(defence("mat"), pairs=pairs).loss(encoder, clean, moved)  # type: ignore[call-arg]
    expected = torch.zeros((), dtype=torch.float64)
    for weight, pixels, captions in (
        (0.1, moved.pixels, moved.captions),
        (0.2, moved.pixels, clean.captions),
        (0.3, clean.pixels, moved.captions),
        (0.4, clean.pixels, clean.captions),
    ):
        image, text = encoder.encode_image(pixels), encoder.encode_text(captions)
        expected = expected + weight * sum(clip(image, text, encoder.logit_scale)) / 2
    assert torch.allclose(found, expected)


def test_fare_and_leaf_descend_the_distance_before_normalisation_to_the_reference() -> None:
    encoder, reference = exact_encoder(), exact_encoder(1)
    clean, moved = versions("fare+leaf")
    image = encoder.image_features(moved.pixels) - reference.image_features(clean.pixels)
    text = encoder.text_features(moved.captions) - reference.text_features(clean.captions)
    fare, leaf = (image**2).sum() / 4, (text**2).sum() / 4
    assert torch.allclose(loss("fare", encoder, reference), fare)
    assert torch.allclose(loss("leaf", encoder, reference), leaf)
    assert torch.allclose(loss("fare+leaf", encoder, reference), fare + leaf)


def test_pmg_aft_averages_three_terms_at_the_models_temperature() -> None:
    encoder, reference = exact_encoder(), fresh_encoder(1)
    with torch.no_grad():
        reference.clip.logit_scale.add_(0.5)  # a reference of its own temperature
    clean, moved = versions("pmg-aft")
    text = encoder.encode_text(clean.captions)
    logits = encoder.logit_scale * encoder.encode_image(moved.pixels) @ text.T
    still = encoder.logit_scale * encoder.encode_image(clean.pixels) @ text.T
    classes = reference.encode_text(clean.captions)
    target = reference.logit_scale * reference.encode_image(moved.pixels) @ classes.T
    expected = F.cross_entropy(logits, torch.arange(4))
    for other in (target, still):
        p, q = other.softmax(1), logits.softmax(1)
        expected = expected + (p * (p / q).log()).sum() / 4
    assert torch.allclose(loss("pmg-aft", encoder, reference), expected)


def test_advflyp_adds_both_halves_and_two_distances_of_unit_embeddings() -> None:
    encoder, reference = exact_encoder(), exact_encoder(1)
    clean, moved = versions("advflyp")
    text = encoder.encode_text(clean.captions)
    image, still = encoder.encode_image(moved.pixels), encoder.encode_image(clean.pixels)
    guide = reference.encode_image(moved.pixels)
    logits, targets = encoder.logit_scale * image @ text.T, [
        reference.logit_scale * guide @ reference.encode_text(clean.captions).T,
        encoder.logit_scale * still @ text.T,
    ]  # fmt: skip
    expected = sum(clip(image, text, encoder.logit_scale)) / 2
    for other in targets:
        p, q = other.softmax(1), logits.softmax(1)
        expected = expected + (p * (p / q).log()).sum() / 4
    for i in range(4):
        expected = expected + (image[i] - guide[i]).square().sum().sqrt() / 4
        expected = expected + (image[i] - still[i]).square().sum().sqrt() / 4
    assert torch.allclose(loss("advflyp", encoder, reference), expected)


FAMILIES = (("red circle", "a disc"), ("blue star",), ("near", "small green cross", "far"),
            ("large square",))  # fmt: skip


def test_mava_holds_attacked_and_clean_images_near_the_reference_and_all_captions() -> None:
    encoder, reference = exact_encoder(), exact_encoder(1)
    clean, moved = (replace(each, families=FAMILIES) for each in versions("mava"))
    image, still = encoder.encode_image(moved.pixels), encoder.encode_image(clean.pixels)
    target = reference.encode_image(clean.pixels)
    expected = torch.zeros((), dtype=torch.float64)
    for i, family in enumerate(FAMILIES):
        near = sum(image[i] @ text for text in reference.encode_text(family))
        expected = expected + 0.4 * (image[i] - target[i]).square().sum() / 4
        expected = expected + 0.6 * (still[i] - target[i]).square().sum() / 4 - 0.002 * near / 4
    found = defence("mava").loss(encoder, clean, moved, reference)
    assert torch.allclose(found, expected)


def test_pmg_afts_targets_are_constants() -> None:
    encoder, reference = exact_encoder(), exact_encoder(1)
    clean, moved = versions("pmg-aft")
    how = defence("pmg-aft")
    found = torch.autograd.grad(
        how.loss(encoder, clean, moved, reference), encoder.tower("image"), allow_unused=True
    )
    text = encoder.encode_text(clean.captions).detach()
    scale = encoder.logit_scale.detach()
    logits = scale * encoder.encode_image(moved.pixels) @ text.T
    expected = F.cross_entropy(logits, torch.arange(4))
    with torch.no_grad():
        still = scale * encoder.encode_image(clean.pixels) @ text.T
        guide = reference.encode_image(moved.pixels) @ reference.encode_text(clean.captions).T
        guide = reference.logit_scale * guide
    for other in (guide, still):
        expected = expected + F.kl_div(
            logits.log_softmax(1), other.softmax(1), reduction="batchmean"
        )
    wanted = torch.autograd.grad(expected, encoder.tower("image"))
    for a, b in zip(found, wanted, strict=True):
        assert torch.allclose(a, b, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_reach_the_named_towers_only_and_never_the_reference(name: str) -> None:
    encoder, reference = fresh_encoder().train(), fresh_encoder(1)
    before = exact_encoder(1).state_dict()
    loss(name, encoder, reference).backward()
    reached = {
        tower
        for tower in ("image", "text", "scale")
        if any(p.grad is not None for p in encoder.tower(tower))
    }
    assert reached == set(defence(name).towers)
    assert all(p.grad is None and p.requires_grad for p in reference.parameters())
    assert all(torch.equal(value, before[key]) for key, value in reference.state_dict().items())
    assert not reference.training and encoder.training


@pytest.mark.parametrize("name", DISTINCT)
def test_a_batch_in_two_halves_has_the_loss_and_the_gradient_of_the_whole(name: str) -> None:
    encoder, reference = fresh_encoder(), exact_encoder(1)
    whole = defence(name).loss(encoder, *versions(name), reference)
    whole.backward()

    copies = [(fresh_encoder(), fresh_encoder(1)) for _ in range(2)]

    def half(processes: TwoProcesses) -> tuple[float, list[Tensor | None]]:
        own, still = copies[processes.rank]
        clean, moved = (part(batch, processes.rank) for batch in versions(name))
        found = defence(name).loss(own, clean, moved, still, processes)  # type: ignore[arg-type]
        found.backward()
        return float(found.detach()), [p.grad for p in own.parameters()]

    (first, left), (second, right) = on_two(half)
    assert first == pytest.approx(float(whole.detach()), rel=1e-12) and first == second
    for parameter, a, b in zip(encoder.parameters(), left, right, strict=True):
        if parameter.grad is None:
            assert a is None and b is None
        else:
            assert a is not None and b is not None
            assert torch.allclose((a + b) / 2, parameter.grad, atol=1e-12)


def test_two_defences_never_share_an_identity() -> None:
    written = {name: json.dumps(asdict(how), sort_keys=True) for name, how in DEFENCES.items()}
    assert len(set(written.values())) == len(written)
    mat = defence("mat")
    assert asdict(replace(mat, order="independent")) != asdict(mat)
    assert {how.kind for how in DEFENCES.values()} == {
        "contrastive", "guided", "neighbours", "reference-distance",
    }  # fmt: skip
    assert all(name == how.name and how.source for name, how in DEFENCES.items())


def test_what_a_defence_needs_follows_from_its_steps() -> None:
    needs = {n for n, how in DEFENCES.items() if how.needs_reference}
    assert needs == {
        "fare", "pmg-aft", "advflyp", "mava", "leaf", "fare+leaf", "fare+leaf-valid",
    }  # fmt: skip
    tables = {n for n, how in DEFENCES.items() if how.attacks_text and not how.needs_candidates}
    assert tables == {"leaf", "fare+leaf"}
    assert [n for n, how in DEFENCES.items() if how.uses_one_to_many] == ["mat+", "mat+set"]


@pytest.mark.parametrize("name", ["fare", "pmg-aft", "advflyp", "mava", "leaf", "fare+leaf"])
def test_a_missing_reference_is_named(name: str) -> None:
    with pytest.raises(ValueError, match="model before fine-tuning"):
        defence(name).loss(exact_encoder(), *versions(name))


def test_impossible_defences_are_refused() -> None:
    with pytest.raises(ValueError, match=r"unknown defence 'mta'.*mat\+"):
        defence("mta")
    with pytest.raises(ValueError, match="towers are some of"):
        replace(defence("mat"), towers=("visual",))
    with pytest.raises(ValueError, match="unknown order"):
        replace(defence("mat"), order="both")  # type: ignore[arg-type]
    for weights in ((0, 0, 0, 0), (-1, 1, 1, 1), (float("nan"), 1, 0, 0)):
        with pytest.raises(ValueError, match="not all 0"):
            PairWeights(*weights)


def test_an_encoder_of_unit_vectors_only_cannot_be_seen_before_normalisation() -> None:
    class Units(torch.nn.Module):
        image_size, device = 16, torch.device("cpu")
        logit_scale = torch.ones(())

        def encode_image(self, pixels: Tensor) -> Tensor:
            return pixels

        def encode_text(self, texts: list[str]) -> Tensor:
            return torch.ones(len(texts), 2)

    with pytest.raises(ValueError, match="image_features and text_features"):
        Unnormalised(Units())
