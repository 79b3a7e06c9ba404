"""BLIP and ALBEF behind the contract: embeddings, matching, attention, and files key by key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from transformers import BertConfig, BertModel

from matlib import models
from matlib.attacks import PGD, WordSubstitution, fused_co_attack, unmatched
from matlib.data.referring import Referring
from matlib.defences import DEFENCES, InnerAttack
from matlib.evaluation import Suite, Threat, evaluate
from matlib.evaluation.grounding import ground_under_attack, heat_of, outside_margin
from matlib.evaluation.reranking import reranked
from matlib.evaluation.robustness import Attacks, gallery_of
from matlib.models.dual_encoder import FusionEncoder, parameters_of
from matlib.models.fusion import FusionModel
from matlib.models.positions import heat_of_fusion, heat_of_tower, seen
from matlib.models.small import SmallModel, build_small, save_small
from matlib.study.profile.profile import load_profile
from matlib.training import Schedule, train
from tests.evaluation.test_benchmark import toy_pairs
from tests.models import albef_file, pretend_hub
from tests.models.named import same
from tests.toys import random_edits, random_pixels, tiny_encoder, toy_gallery
from tests.training.toy_runs import toy_candidates, toy_data

TEXTS = ["a red star", "a dog runs on grass", "blue"]
PIXELS = random_pixels(3)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("bert")
    pretend_hub.bert_tokenizer().save_pretrained(folder)
    return str(folder)


def albef(folder: Path, tokenizer: str, *, pretrained: bool = False) -> Any:
    state = albef_file.albef_state(pretrained=pretrained)
    content = {"model": state, "optimizer": {"state": {}}, "config": {"k_test": 128}, "epoch": 4}
    torch.save(content, folder / "albef.pth")
    return models.open("albef", folder / "albef.pth", rest=tokenizer)


@pytest.fixture(params=["blip", "albef"])
def fusion(request: pytest.FixtureRequest, tmp_path: Path, tokenizer: str) -> FusionModel:
    if request.param == "albef":
        return albef(tmp_path, tokenizer)  # type: ignore[no-any-return]
    return models.open(*pretend_hub.blip())  # type: ignore[return-value]


def test_the_contract(fusion: FusionModel) -> None:
    assert isinstance(fusion, FusionEncoder)
    tokens = fusion.image_tokens(PIXELS)
    assert tokens.shape[:2] == (3, 1 + 4)
    seen = fusion.fused(PIXELS, TEXTS)
    assert torch.equal(seen.score, fusion.match(PIXELS, TEXTS))
    assert same(fusion.match(tokens, TEXTS), seen.score)
    assert same(torch.cat([fusion.match(PIXELS[i : i + 1], TEXTS[i : i + 1]) for i in range(3)]),
                seen.score)  # fmt: skip
    n = seen.is_word.shape[1]
    assert all(each.shape == (3, each.shape[1], n, 5) for each in seen.attention)
    assert len(seen.attention) == 2
    assert all(torch.allclose(each.sum(-1), torch.ones(())) for each in seen.attention)
    assert seen.is_word.sum(1).tolist() == [8, 15, 4]  # a letter is a token
    slopes = torch.autograd.grad(seen.score.sum(), seen.attention, retain_graph=True)
    assert all(bool(slope.abs().sum() > 0) for slope in slopes)
    pixels = PIXELS.clone().requires_grad_()
    [slope] = torch.autograd.grad(fusion.match(pixels, TEXTS).sum(), pixels)
    assert bool((slope.abs().amax((1, 2, 3)) > 0).all())
    with pytest.raises(ValueError, match="a text for each image; got 3 and 2"):
        fusion.match(PIXELS, TEXTS[:2])
    towers = {name: parameters_of(fusion, name) for name in fusion.towers()}
    ids = [id(p) for own in towers.values() for p in own]
    assert list(towers) == ["image", "text", "fusion", "scale"]
    assert len(ids) == len(set(ids)) == len(list(fusion.parameters()))


def test_blip_is_the_class_of_transformers() -> None:
    model, processor = pretend_hub.blip()
    encoder: Any = models.open(model, processor)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in
                 (encoder.settings.mean, encoder.settings.std))  # fmt: skip
    tokens = processor.tokenizer(TEXTS, padding=True, return_tensors="pt")
    tokens.pop("token_type_ids", None)
    with torch.no_grad():
        given = {"pixel_values": (PIXELS - mean) / std, **tokens}
        logits = model(**given).itm_score
        cosines = model(**given, use_itm_head=False).itm_score
        assert same(encoder.match(PIXELS, TEXTS), logits[:, 1] - logits[:, 0])
        assert same(encoder.encode_image(PIXELS) @ encoder.encode_text(TEXTS).T, cosines)


def test_a_folder_of_blip_opens(tmp_path: Path) -> None:
    model, processor = pretend_hub.blip()
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    here = models.open(model, processor)
    assert same(models.open(tmp_path).encode_text(TEXTS), here.encode_text(TEXTS))


@pytest.mark.parametrize("pretrained", [False, True])
def test_albef_loads_key_by_key(pretrained: bool, tmp_path: Path, tokenizer: str) -> None:
    encoder = albef(tmp_path, tokenizer, pretrained=pretrained)
    state = albef_file.albef_state(pretrained=pretrained)
    for name, value in encoder.clip.state_dict().items():
        theirs = name.replace("text_encoder.", "text_encoder.bert.") if pretrained else name
        assert torch.equal(value, state[theirs]), name
    assert float(encoder.logit_scale.detach()) == pytest.approx(1 / 0.05)
    assert encoder.image_size == 16


def test_the_text_tower_of_albef_is_berts_lower_half(tmp_path: Path, tokenizer: str) -> None:
    encoder = albef(tmp_path, tokenizer)
    config = BertConfig(
        vocab_size=albef_file.VOCABULARY, hidden_size=albef_file.WIDTH, num_attention_heads=1,
        num_hidden_layers=albef_file.TEXT_LAYERS, intermediate_size=albef_file.INNER,
        max_position_embeddings=albef_file.POSITIONS,
    )  # fmt: skip
    bert = BertModel(config, add_pooling_layer=False).eval()
    own = encoder.clip.text_encoder.state_dict()
    bert.load_state_dict({name: own[name] for name in bert.state_dict()})
    tokens = pretend_hub.bert_tokenizer()(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        state = bert(**tokens).last_hidden_state[:, 0]
        expected = F.normalize(encoder.clip.text_proj(state), dim=1)
        assert same(encoder.encode_text(TEXTS), expected)
        # the first token's state reads the last word beside the image too: no causal mask
        both = encoder.match(PIXELS[:1].repeat(2, 1, 1, 1), ["a red star", "a red stag"])
    assert not torch.allclose(both[0], both[1], atol=1e-5)


def test_what_is_no_albef_is_refused(tmp_path: Path, tokenizer: str) -> None:
    state = albef_file.albef_state(pretrained=False)
    for damage, message in (
        ({"itm_head.weight": None}, "1 missing, 0 that it has no place for"),
        ({"visual_encoder.pos_embed": None}, r"holds no ALBEF; its layout is that of ALBEF"),
        ({"surplus.weight": torch.ones(2)}, "0 missing, 1 that it has no place for"),
    ):
        kept = {k: v for k, v in {**state, **damage}.items() if v is not None}
        torch.save(kept, tmp_path / "w.pt")
        with pytest.raises(ValueError, match=message):
            models.open("albef", tmp_path / "w.pt", rest=tokenizer)
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(ValueError, match="rest=bert-base-uncased"):
        models.open("albef", tmp_path / "w.pt")


def naive_ranks(
    scores: torch.Tensor, match: torch.Tensor, right: torch.Tensor, k: int
) -> list[int]:
    found = []
    for query in range(len(scores)):
        order = sorted(range(scores.shape[1]), key=lambda i: -float(scores[query, i]))
        first = sorted(order[:k], key=lambda i: -float(match[query, i]))
        whole = [*first, *order[k:]]
        found.append(min(place for place, i in enumerate(whole) if right[query, i]))
    return found


@pytest.mark.parametrize("k", [1, 2, 100])
def test_reranking_orders_the_candidates_by_match(fusion: FusionModel, k: int) -> None:
    texts, pixels = [*TEXTS, "a dog", "star"], random_pixels(4)
    relevant = torch.zeros(4, 5, dtype=torch.bool)
    relevant[[0, 1, 2, 3, 3], range(5)] = True
    with torch.no_grad():
        similarity = fusion.encode_image(pixels) @ fusion.encode_text(texts).T
        match = torch.stack([fusion.match(pixels, [text] * 4) for text in texts], dim=1)
    found = reranked(fusion, pixels, texts, similarity, relevant, k)  # type: ignore[arg-type]
    assert found.tr_rank.tolist() == naive_ranks(similarity, match, relevant, k)
    assert found.ir_rank.tolist() == naive_ranks(similarity.T, match.T, relevant.T, k)
    with pytest.raises(ValueError, match="1 candidate or more; got 0"):
        reranked(fusion, pixels, texts, similarity, relevant, 0)  # type: ignore[arg-type]


def test_the_suite_judges_what_reranking_finds(fusion: FusionModel) -> None:
    pairs = toy_pairs()
    suites = {k: Suite(PGD(8, 1), attacks=("clean", "pgd"), rerank=k) for k in (0, 4)}
    by = {k: evaluate(fusion, pairs, {}, suite, seed=0) for k, suite in suites.items()}
    gallery = pairs.pixels()
    with torch.no_grad():
        similarity = fusion.encode_image(gallery) @ fusion.encode_text(pairs.captions).T
    expected = reranked(fusion, gallery, pairs.captions, similarity, pairs.relevance(), 4)  # type: ignore[arg-type]
    assert torch.equal(by[4].outcomes["clean", ""].tr_rank, expected.tr_rank)
    assert not torch.equal(by[0].outcomes["clean", ""].tr_rank, expected.tr_rank)


def test_the_fusion_is_attacked_where_a_model_has_one(fusion: FusionModel) -> None:
    pairs, budget = toy_pairs(), PGD(8, 2)
    tables = {"t": random_edits(list(pairs.captions))}
    own = Suite(budget, attacks=("clean", "pgd", "match", "fused"), rerank=4)
    rows = {("clean", ""), ("pgd", ""), ("match", ""), ("fused", "t")}
    assert {*own.rows(tables, of_fusion=True)} == rows
    assert {*own.rows(tables)} == {("clean", ""), ("pgd", "")}
    found = evaluate(fusion, pairs, tables, own, seed=0).outcomes
    assert {*found} == {*rows, ("worst", "t")}
    assert torch.equal(found["worst", "t"].ir_rank,
                       torch.stack([found[key].ir_rank for key in rows]).amax(0))  # fmt: skip
    apart = evaluate(tiny_encoder(), pairs, tables, own, seed=0).outcomes
    assert {*apart} == {("clean", ""), ("pgd", ""), ("worst", "t")}
    with pytest.raises(ValueError, match=r"fused attacks .* reads them apart: .*pgd"):
        Attacks(tiny_encoder(), gallery_of(pairs), tables, own, 0).run("fused", "t")
    assert Threat(rerank=4).suite().rerank == 4


def test_an_image_moves_away_from_matching_its_own_captions(fusion: FusionModel) -> None:
    gallery = toy_gallery([1, 2, 1])
    moved = unmatched(fusion, gallery, PGD(8, 3), generator=torch.Generator())  # type: ignore[arg-type]
    assert bool(((moved - gallery.pixels).abs() <= 8 / 255 + 1e-6).all())
    with torch.no_grad():
        before, after = (fusion.match(pixels[gallery.own], list(gallery.captions))
                         for pixels in (gallery.pixels, moved))  # fmt: skip
    gained = torch.zeros(3).index_add(0, gallery.own, before - after)
    assert bool((gained > 0).all())


def test_a_phrase_is_looked_for_by_the_cross_attention_and_the_map_attacked(
    fusion: FusionModel,
) -> None:
    assert heat_of(fusion) is heat_of_fusion and heat_of(tiny_encoder()) is heat_of_tower
    pixels = PIXELS.clone().requires_grad_()
    heat = heat_of_fusion(fusion, pixels, TEXTS, differentiable=True)  # type: ignore[arg-type]
    plain = heat_of_fusion(fusion, PIXELS, TEXTS)  # type: ignore[arg-type]
    assert heat.shape == (3, 2, 2) and bool((heat >= 0).all()) and not plain.requires_grad
    torch.testing.assert_close(heat.detach(), plain, atol=1e-5, rtol=1e-4)
    [slope] = torch.autograd.grad(heat[1].sum(), pixels)
    assert bool(slope[1].abs().sum() > 0) and not slope[[0, 2]].any()  # of its own image alone
    boxes = torch.tensor([[0.0, 0.0, 0.5, 0.5]] * 3)
    asked = Referring(tuple(TEXTS), torch.arange(3), boxes, tuple(boxes[:, None]))
    found = ground_under_attack(fusion, PIXELS, asked, PGD(8, 4))
    margin = {name: outside_margin(each, boxes) for name, each in found.heat.items()}
    assert bool((margin["image"] >= margin["clean"] - 1e-6).all())
    assert bool((margin["image"] > margin["clean"]).any())
    assert seen(fusion, PIXELS).at.shape[:2] == (3, 4)  # what a captioner on its tower reads


def test_mat_trains_the_contrastive_and_the_matching_loss(fusion: FusionModel) -> None:
    data = toy_data()
    before = {name: [p.detach().clone() for p in parameters_of(fusion, name)]
              for name in fusion.towers()}  # fmt: skip
    inner = InnerAttack(PGD(8, 1), WordSubstitution())
    history = train(fusion, data, DEFENCES["mat"], Schedule(3, 4, 1e-3), seed=0, inner=inner,
                    candidates=toy_candidates(data))  # fmt: skip
    assert all(row["loss"] > 0 for row in history.rows)
    for name, own in before.items():
        now = parameters_of(fusion, name)
        assert any(not torch.equal(a, b) for a, b in zip(now, own, strict=True)), name


def test_the_fused_state_is_attacked_within_the_budget(fusion: FusionModel) -> None:
    gallery = toy_gallery([1, 2, 1])
    table = random_edits(list(gallery.captions))
    attack = {"image": PGD(8, 3), "text": WordSubstitution(), "generator": torch.Generator()}
    moved, edited = fused_co_attack(fusion, gallery, table, **attack)  # type: ignore[arg-type]
    assert bool(((moved - gallery.pixels).abs() <= 8 / 255 + 1e-6).all())
    for before, after in zip(gallery.captions, edited, strict=True):
        assert sum(a != b for a, b in zip(before.split(), after.split(), strict=True)) <= 1

    def far(pixels: torch.Tensor, captions: Any) -> float:
        with torch.no_grad():
            clean = fusion.fused(gallery.pixels[gallery.own], list(gallery.captions)).state
            now = fusion.fused(pixels[gallery.own], list(captions)).state
        p, q = clean.log_softmax(1), now.log_softmax(1)
        return float((p.exp() * (p - q)).sum())

    text_alone = far(gallery.pixels, edited)
    assert text_alone > 0 and far(moved, edited) > text_alone


SMALL = {"image_size": 16, "patch_size": 8, "image_width": 32, "image_layers": 1, "text_width": 16,
         "text_layers": 1, "context_length": 16, "head_width": 16, "embed_dim": 16}  # fmt: skip


@pytest.mark.parametrize("family", ["blip", "albef"])
def test_a_small_model_of_the_family_is_made_and_kept(family: Any, tmp_path: Path) -> None:
    shape = SmallModel(**SMALL, family=family)  # type: ignore[arg-type]
    small, again, other = (build_small(shape, seed) for seed in (1, 1, 2))
    assert isinstance(small, FusionEncoder) and isinstance(again, FusionModel)
    expected = small.match(PIXELS, TEXTS)
    assert same(again.match(PIXELS, TEXTS), expected)
    assert not same(other.encode_text(TEXTS), small.encode_text(TEXTS))
    assert again.fused(PIXELS, TEXTS).is_word.sum(1).tolist() == [3, 5, 1]
    save_small(again, shape, tmp_path)
    assert same(models.open(tmp_path).match(PIXELS, TEXTS), expected)  # type: ignore[operator]
    assert same(torch.cat([small.encode_text([text]) for text in TEXTS]), small.encode_text(TEXTS))


def test_the_families_of_the_profile_can_be_built() -> None:
    profile = load_profile("families")
    kinds = {name: type(build_small(model.shape(64), 0)).__name__
             for name, model in profile.architectures.items()}  # fmt: skip
    assert kinds == {"blip": "Blip", "albef": "Albef"}
