"""Embeddings of text equal open_clip's own on its own full-length tokens, in any batch."""

from __future__ import annotations

from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
import torch.nn.functional as F
from open_clip.factory import _MODEL_CONFIGS
from open_clip.model import CLIPTextCfg, CLIPVisionCfg, CustomTextCLIP
from open_clip.tokenizer import SimpleTokenizer
from torch import Tensor, nn

from matlib import models
from matlib.models.open_clip import OpenClipEncoder
from matlib.models.tokens import can_trim
from tests.models.text_towers import CAPTIONS, placed, structures
from tests.toys import tiny_encoder

STRUCTURES = structures()
END = 49407


def check(encoder: OpenClipEncoder, expected: Tensor) -> None:
    """In one batch and alone; with gradients and without."""
    expected = F.normalize(expected.detach(), dim=-1)
    for grad in (False, True):
        with torch.set_grad_enabled(grad):
            together = encoder.encode_text(CAPTIONS)
            alone = torch.cat([encoder.encode_text([caption]) for caption in CAPTIONS])
        torch.testing.assert_close(together.detach(), expected, atol=1e-5, rtol=0)
        torch.testing.assert_close(alone.detach(), expected, atol=1e-5, rtol=0)


def by_name(
    config: dict[str, Any], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[nn.Module, Any, OpenClipEncoder]:
    """open_clip's own model and tokenizer, and ours from its checkpoint."""
    monkeypatch.setitem(_MODEL_CONFIGS, "tiny", placed(config, folder))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = open_clip.create_model("tiny", pretrained_text=False).eval()
        for parameter in theirs.parameters():  # far from the tiny numbers that it starts with
            nn.init.normal_(parameter, std=0.2)
    torch.save(theirs.state_dict(), folder / "weights.pt")
    ours = models.open("tiny", str(folder / "weights.pt"))
    return theirs, open_clip.get_tokenizer("tiny"), ours


@pytest.mark.parametrize("name", STRUCTURES)
def test_every_text_tower_embeds_as_open_clip_does(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs, tokenize, ours = by_name(STRUCTURES[name], tmp_path, monkeypatch)
    tokens = tokenize(CAPTIONS)
    assert tokens.shape[1] == tokenize.context_length
    with torch.no_grad():
        check(ours, theirs.encode_text(tokens, normalize=True))  # type: ignore[operator]


def test_towers_with_the_same_structure_are_tried_once_and_all_are_tried() -> None:
    texts = [config["text_cfg"] for config in STRUCTURES.values()]
    assert len(STRUCTURES) < len(open_clip.list_models())
    for switch, value in (
        ("no_causal_mask", True), ("embed_cls", True), ("pool_type", "last"), ("pool_type", "eos"),
        ("output_tokens", True), ("proj_type", "none"), ("hf_pooler_type", "cls_pooler"),
    ):  # fmt: skip
        assert any(text.get(switch) == value for text in texts)


@pytest.mark.parametrize("clean", ["canonicalize", "whitespace"])
def test_the_tokenizers_own_settings_are_kept(
    clean: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = {**STRUCTURES["EVA01-g-14"]}
    settings = {"context_length": 20, "tokenizer_kwargs": {"clean": clean}}
    config["text_cfg"] = {**config["text_cfg"], **settings}
    theirs, tokenize, ours = by_name(config, tmp_path, monkeypatch)
    with torch.no_grad():
        check(ours, theirs.encode_text(tokenize(CAPTIONS)))  # type: ignore[operator]


@cache
def clip_tokens() -> SimpleTokenizer:
    return SimpleTokenizer(context_length=16)


def built(pad_mask: bool = False, **text: Any) -> CustomTextCLIP:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        images = CLIPVisionCfg(layers=1, width=16, head_width=8, patch_size=8, image_size=16)
        shape = CLIPTextCfg(context_length=16, width=16, heads=2, layers=2, **text)
        clip = CustomTextCLIP(embed_dim=8, vision_cfg=images, text_cfg=shape).eval()
        for parameter in clip.text.parameters():
            nn.init.normal_(parameter, std=0.2)
    clip.text.use_pad_mask = pad_mask
    return clip


@pytest.mark.parametrize(
    ("no_causal_mask", "embed_cls", "pool_type"),
    [*product((False, True), (False, True), ("argmax", "eos", "first", "last"))],
)
def test_any_mix_of_switches_embeds_as_open_clip_does(
    no_causal_mask: bool, embed_cls: bool, pool_type: str
) -> None:
    clip = built(
        no_causal_mask=no_causal_mask, embed_cls=embed_cls, pool_type=pool_type, eos_id=END
    )
    with torch.no_grad():
        expected = clip.encode_text(clip_tokens()(CAPTIONS))
    check(OpenClipEncoder(clip, clip_tokens(), 16), expected)


def test_captions_are_trimmed_only_where_the_padding_is_not_read() -> None:
    assert can_trim(built().text, 0, END)
    assert can_trim(built(pool_type="eos", eos_id=END).text, 0, END)
    assert not can_trim(built(pool_type="eos", eos_id=0).text, 0, END)  # pools the padding
    assert not can_trim(built().text, END + 1, END)  # as does the highest id
    both = {"no_causal_mask": True, "pool_type": "eos", "eos_id": END}
    assert not can_trim(built(**both).text, 0, END)
    assert can_trim(built(pad_mask=True, **both).text, 0, END)
    assert not can_trim(built(pad_mask=True, **both).text, 5, END)  # another padding is masked
    assert not can_trim(nn.Linear(2, 2), 0, END)
    short = tiny_encoder().tokenize(["a dog", "a"])
    assert short.shape == (2, 4)


def test_features_before_the_norm_are_not_normalised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # CoCa normalises unless it is told not to
    theirs, tokenize, ours = by_name(STRUCTURES["coca_ViT-B-32"], tmp_path, monkeypatch)
    with torch.no_grad():
        found = ours.text_features(CAPTIONS)
        expected = theirs.encode_text(tokenize(CAPTIONS), normalize=False)  # type: ignore[operator]
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-5)
    assert float((found.norm(dim=1) - 1).abs().max()) > 0.01
