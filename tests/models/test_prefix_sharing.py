from __future__ import annotations

from dataclasses import replace
from functools import cache

import torch
from hypothesis import given, settings, strategies as st
from open_clip.model import CLIPTextCfg, CLIPVisionCfg, CustomTextCLIP
from open_clip.tokenizer import SimpleTokenizer

from matlib.models.open_clip import OpenClipEncoder
from matlib.models.prefix_sharing import PrefixTree, can_share, encode_shared
from matlib.models.small import build_small
from matlib.models.tokens import ClipTokenizer
from tests.toys import TINY, tiny_encoder

WORDS = ["red", "blue", "star", "круг", "unbelievably", "x", ""]


@cache
def encoder(layers: int) -> OpenClipEncoder:
    return build_small(replace(TINY, text_layers=layers), seed=1).eval().double()


@settings(max_examples=40)
@given(
    texts=st.lists(
        st.lists(st.sampled_from(WORDS), max_size=20).map(" ".join), min_size=1, max_size=8
    ),
    layers=st.sampled_from([1, 2, 3]),
)
def test_shared_prefixes_give_the_towers_own_embeddings(texts: list[str], layers: int) -> None:
    model = encoder(layers)
    plain = model.encode_text(texts)
    with torch.no_grad():
        shared = model.encode_text(texts)
    assert plain.requires_grad and not shared.requires_grad
    torch.testing.assert_close(shared, plain.detach(), atol=1e-12, rtol=0)


@settings(max_examples=40)
@given(st.lists(st.lists(st.integers(1, 3), max_size=5), min_size=1, max_size=8))
def test_nodes_are_the_distinct_prefixes(rows: list[list[int]]) -> None:
    tokens = torch.zeros(len(rows), 7, dtype=torch.long)
    for i, row in enumerate(rows):
        tokens[i, : len(row) + 1] = torch.tensor([*row, 9])
    tree = PrefixTree.of(tokens)
    prefixes = {(*row, 9)[: n + 1] for row in rows for n in range(len(row) + 1)}
    assert len(tree.first) == len(prefixes)
    seen: dict[int, tuple[int, ...]] = {}
    for i, row in enumerate(rows):
        for n in range(len(row) + 1):
            node, prefix = int(tree.node[i, n]), (*row, 9)[: n + 1]
            assert seen.setdefault(node, prefix) == prefix
            pair = tree.distinct[node]
            assert (int(tree.token[pair]), int(tree.depth[pair])) == (prefix[-1], n)
            assert int(tree.node.flatten()[tree.first[node]]) == node


def test_near_equal_sentences_cost_few_positions() -> None:
    caption = "a small red star above a large blue circle"
    texts = [f"{caption} {word}" for word in ("near", "below", "above", "beside")]
    tokens = ClipTokenizer(32)(texts)
    assert len(PrefixTree.of(tokens).first) == 10 + 4 * 2


def test_towers_of_another_kind_are_left_alone() -> None:
    for changed in ({"no_causal_mask": True}, {"pool_type": "last"}, {"embed_cls": True}):
        clip = CustomTextCLIP(
            embed_dim=16,
            vision_cfg=CLIPVisionCfg(
                layers=1, width=32, head_width=16, patch_size=8, image_size=16
            ),
            text_cfg=CLIPTextCfg(context_length=16, width=32, heads=2, layers=1, **changed),
        )
        assert not can_share(clip.text)
    other = OpenClipEncoder(clip.eval(), SimpleTokenizer(context_length=16), 16)
    with torch.no_grad():
        inference = other.encode_text(["red", "a star"])
    assert torch.equal(inference, other.encode_text(["red", "a star"]).detach())
    assert can_share(tiny_encoder().clip.text)  # type: ignore[arg-type]


def test_weights_get_no_gradient() -> None:
    model = tiny_encoder()
    features = encode_shared(model.clip.text, model.tokenize(["red", "star"]))  # type: ignore[arg-type]
    assert not features.requires_grad and all(p.grad is None for p in model.parameters())
