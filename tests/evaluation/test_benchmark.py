"""The common wish in one call, against the suite that it stands on."""

from __future__ import annotations

from dataclasses import replace

import open_clip
import pytest
import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg, set_model_preprocess_cfg

import matlib
from matlib.attacks.edits import from_synonyms
from matlib.data.pairs import ImageTensor, ImageTextPairs
from matlib.evaluation.robustness import evaluate
from matlib.evaluation.statistics import primary_difference, primary_endpoint, recall_estimate
from matlib.evaluation.threat import ROWS, THREAT, Threat, benchmark
from matlib.models.in_memory import ClipInMemory
from matlib.models.settings import Settings
from tests.toys import WORDS, generator, random_captions, tiny_encoder

SYNONYMS = {word: [other for other in WORDS if other != word][:3] for word in WORDS}
SMALL = Threat(eps_255=8.0, n_steps=2, words=SYNONYMS)


def toy_pairs() -> ImageTextPairs:
    captions, own = random_captions([1, 3, 2, 1, 2])
    images = torch.randint(0, 256, (5, 3, 16, 16), generator=generator(), dtype=torch.uint8)
    ids = tuple(f"i{i}" for i in range(5))
    return ImageTextPairs("toy", "test", ImageTensor(images), tuple(captions), own, ids)


def test_its_numbers_are_those_of_the_suite() -> None:
    pairs, done = toy_pairs(), []
    table = matlib.benchmark(tiny_encoder(), pairs, SMALL, on_attack=done.append)
    assert list(table.index) == [*ROWS, "worst"] and len(done) == len(ROWS)
    words = {THREAT: from_synonyms(pairs.captions, SYNONYMS, k=10)}
    found = evaluate(tiny_encoder(), pairs, words, SMALL.suite(), seed=0).outcomes
    for (attack, _), outcomes in found.items():
        row = table.loc[attack]
        assert row["mean"] == primary_endpoint(outcomes)
        both = primary_difference(outcomes, None, pairs.image_of)
        assert [row["mean low"], row["mean high"]] == [both.low, both.high]
        one = recall_estimate(outcomes, pairs.image_of, "IR", 1)
        assert [row["IR@1"], row["IR@1 low"], row["IR@1 high"]] == [one.value, one.low, one.high]
    assert (table["mean"] >= table.loc["worst", "mean"]).all()


def test_each_row_says_what_it_may_use() -> None:
    table = benchmark(tiny_encoder(), toy_pairs(), SMALL)
    uses = {key: (row["eps_255"], row["n_words"]) for key, row in table.iterrows()}
    assert uses["clean"] == (0, 0) and uses["pgd"] == (8, 0) and uses["bert"] == (0, 1)
    assert uses["sga"] == uses["worst"] == (8, 1)


def test_without_words_images_alone_are_attacked() -> None:
    table = benchmark(tiny_encoder(), toy_pairs(), replace(SMALL, words=None))
    assert list(table.index) == ["clean", "pgd", "worst"] and (table["n_words"] == 0).all()


def test_seed_and_attacks_are_the_callers() -> None:
    few = benchmark(tiny_encoder(), toy_pairs(), SMALL, attacks=("clean", "pgd"), seed=3)
    assert list(few.index) == ["clean", "pgd", "worst"]
    with pytest.raises(ValueError, match="unknown attacks"):
        benchmark(tiny_encoder(), toy_pairs(), SMALL, attacks=("fgsm",))


@pytest.mark.parametrize("nothing", [{"eps_255": 0}, {"n_steps": 0}, {"n_words": 0}])
def test_attacks_of_size_zero_are_no_robustness(nothing: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(nothing))} must be"):
        Threat(**nothing)  # type: ignore[arg-type]
    assert Threat(words=None, n_words=0).n_words == 0  # images alone


def test_words_that_no_caption_has_are_refused() -> None:
    with pytest.raises(ValueError, match="changes no word of the 9 captions"):
        benchmark(tiny_encoder(), toy_pairs(), Threat(words={"zebra": ["horse"]}))


def in_memory() -> CLIP:
    """A tiny model of open_clip's plain class, as `create_model_and_transforms` leaves it."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        clip = CLIP(
            embed_dim=16, vision_cfg=CLIPVisionCfg(layers=1, width=32, head_width=16,
                                                   patch_size=8, image_size=16),
            text_cfg=CLIPTextCfg(context_length=77, width=32, heads=2, layers=1),
        )  # fmt: skip
    set_model_preprocess_cfg(clip, Settings(mean=(0.5, 0.5, 0.5)).preprocessing(16))
    return clip.eval()


def test_an_open_clip_model_in_memory_is_judged_with_its_tokenizer() -> None:
    clip, tokenizer = in_memory(), open_clip.get_tokenizer("ViT-B-32")
    table = benchmark((clip, tokenizer), toy_pairs(), SMALL)
    assert list(table.index) == [*ROWS, "worst"]
    wrapped, pixels = ClipInMemory(clip, tokenizer), toy_pairs().pixels()
    mean, std = torch.tensor([0.5] * 3), torch.tensor(Settings().std)
    shaped = (pixels - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    torch.testing.assert_close(
        wrapped.encode_image(pixels), clip.encode_image(shaped, normalize=True)
    )
    texts = clip.encode_text(tokenizer(["a red star", ""]), normalize=True)
    torch.testing.assert_close(wrapped.encode_text(["a red star", ""]), texts)
    with pytest.raises(ValueError, match="training mode"):
        benchmark((clip.train(), tokenizer), toy_pairs(), SMALL)


def test_what_is_no_model_is_refused_with_what_would_be_one() -> None:
    with pytest.raises(ValueError, match=r"matlib\.models\.open gives one.* got CLIP"):
        benchmark(in_memory(), toy_pairs())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="got Linear without visual"):
        benchmark((torch.nn.Linear(1, 1), open_clip.get_tokenizer("ViT-B-32")), toy_pairs())
    with pytest.raises(ValueError, match="open_clip has no model 'nope'"):
        benchmark(("nope", None), toy_pairs())
