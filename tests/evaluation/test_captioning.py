"""Captions under attack: the loss of the clean caption rises, inside the budget; measures."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from matlib.attacks.pgd import PGD
from matlib.data.pairs import OneToMany
from matlib.evaluation.captioning import bleu_4, caption_scores, caption_under_attack
from matlib.models.captioner import CaptionerConfig, TowerCaptioner, train_tower_captioner
from matlib.models.open_clip import OpenClipEncoder
from matlib.models.small import SmallModel, build_small

SHAPE = SmallModel(image_size=32, patch_size=8, image_width=32, image_layers=2, text_width=32,
                   text_layers=1, embed_dim=16)  # fmt: skip
TEXTS = (
    "a red star on sand",
    "a blue ring on grass",
    "a green moon on stone",
    "a pink bolt on dusk",
)


@pytest.fixture(scope="module")
def trained() -> tuple[OpenClipEncoder, TowerCaptioner, torch.Tensor]:
    encoder = build_small(SHAPE, 0)
    images = torch.randint(0, 256, (4, 1, 3, 32, 32), generator=torch.Generator().manual_seed(0))
    data = OneToMany("none", tuple((text,) for text in TEXTS), images.to(torch.uint8))
    config = CaptionerConfig(32, 1, 2, n_steps=120, batch_size=16, lr=1e-2)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    captioner = train_tower_captioner(encoder, data, config, 0)
    assert all(torch.equal(before[name], value) for name, value in encoder.state_dict().items())
    return encoder, captioner, images[:, 0].float() / 255


def test_it_learns_what_a_frozen_tower_sees(
    trained: tuple[OpenClipEncoder, TowerCaptioner, torch.Tensor], tmp_path: Path
) -> None:
    encoder, captioner, pixels = trained
    assert captioner.describe(pixels) == list(TEXTS)
    own, others = captioner.loss(pixels, TEXTS), captioner.loss(pixels, [*TEXTS[1:], TEXTS[0]])
    assert own.shape == (4,) and (own < others).all()
    captioner.save(tmp_path)
    assert TowerCaptioner.load(tmp_path, encoder).describe(pixels) == list(TEXTS)
    assert not any(name.startswith("encoder") for name in captioner.state_dict())


def test_the_clean_caption_becomes_unlikely_inside_the_budget(
    trained: tuple[OpenClipEncoder, TowerCaptioner, torch.Tensor],
) -> None:
    encoder, captioner, pixels = trained
    found = caption_under_attack(captioner, pixels, PGD(16, 8), encoder=encoder)
    assert list(found.captions) == ["clean", "embeddings", "caption-loss"]
    loss = {name: captioner.loss(moved, TEXTS) for name, moved in found.pixels.items()}
    assert (loss["caption-loss"] > loss["clean"]).all()
    assert loss["caption-loss"].mean() > loss["embeddings"].mean()
    assert max((m - pixels).abs().max() for m in found.pixels.values()) <= 16 / 255 + 1e-6
    assert all(p.requires_grad for p in encoder.parameters())
    alone = caption_under_attack(captioner, pixels, PGD(16, 8))
    assert "embeddings" not in alone.captions
    assert alone.captions["caption-loss"] == found.captions["caption-loss"]


def test_measures_of_captions(
    trained: tuple[OpenClipEncoder, TowerCaptioner, torch.Tensor],
) -> None:
    encoder, _, pixels = trained
    human = [[text, "something else"] for text in TEXTS]
    found = caption_scores(TEXTS, pixels, human, encoder, lambda i, text: float(text == TEXTS[i]))
    assert found["truth"].tolist() == [1] * 4 and torch.allclose(found["bleu"], torch.ones(4))
    similarity = (encoder.encode_image(pixels) * encoder.encode_text(TEXTS)).sum(1)
    assert torch.allclose(found["similarity"], similarity, atol=1e-5)
    assert "truth" not in caption_scores(TEXTS, pixels, human, encoder)


def test_bleu_falls_with_every_wrong_word_and_is_0_for_no_caption() -> None:
    human = [["a red star left of a blue ring on the sand"]]
    scores = [
        float(bleu_4([text], human))
        for text in (human[0][0], "a red star left of a blue moon on the sand", "a moon", "")
    ]
    assert scores == sorted(scores, reverse=True) and scores[0] == pytest.approx(1)
    assert scores[-1] == 0
    with pytest.raises(ValueError, match="human captions for each of 1"):
        bleu_4(["a"], [[]])
