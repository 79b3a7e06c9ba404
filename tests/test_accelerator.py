"""Whatever is attacked, trained or judged gives on an accelerator what it gives on the CPU."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import open_clip
import pandas as pd
import pytest
import torch
from open_clip.factory import _MODEL_CONFIGS
from safetensors.torch import load_file
from torch import Tensor

from matlib import models
from matlib.attacks.gallery import Gallery
from matlib.cli import main
from matlib.commands.options import ATTACK_NAMES
from matlib.defences.table import DEFENCES, defence
from matlib.evaluation.suite import ATTACKS
from matlib.models.dual_encoder import frozen
from matlib.models.masked_lm import train_masked_lm
from matlib.models.masked_lm_training import MaskedLMConfig
from matlib.models.open_clip import OpenClipEncoder
from matlib.models.sentence_encoder import SentenceEncoder
from matlib.models.small import build_small
from matlib.study.context import Context
from matlib.study.profile.profile import load_profile
from matlib.study.study import Study
from matlib.study.tables.results import robustness_table
from matlib.training.checkpoint import save_weights
from matlib.training.log import Bookkeeping
from matlib.training.loop import train
from matlib.training.schedule import Schedule
from tests.commands.toy_data import Toy, make_toy
from tests.models.text_towers import CAPTIONS, placed, structures
from tests.pretend_accelerator import ACCELERATOR, Remote, pretended
from tests.toys import TINY, random_pixels, tiny_encoder, toy_gallery
from tests.training.toy_runs import INNER, toy_candidates, toy_data

TOWERS = structures()


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    return make_toy(tmp_path_factory.mktemp("toy"))


def weights_of(config: dict[str, Any], folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint of open_clip's model `tiny`, which has this configuration."""
    monkeypatch.setitem(_MODEL_CONFIGS, "tiny", config)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        clip = open_clip.create_model("tiny", pretrained_text=False)
    # CoCa's decoder holds a weight that nothing initialises: it may be any number, or none
    state = {name: torch.nan_to_num(value, 0, 0, 0) for name, value in clip.state_dict().items()}
    torch.save(state, folder / "weights.pt")
    return folder / "weights.pt"


def attacked(
    toy: Toy, weights: Path, attack: str, out: Path, device: str, *more: str
) -> tuple[Any, torch.Tensor]:
    """What the command line writes: the pairs, and the images as computed."""
    budget = ["--eps", "8", "--steps", "2", "--batch", "5", "--format", "float"]
    asked = ["attack", "--model", "tiny", "--pretrained", str(weights), "--attack", attack,
             "--images", str(toy.images), "--captions", str(toy.captions), "--out", str(out),
             "--device", device, *budget, *(more or ("--synonyms", str(toy.synonyms)))]  # fmt: skip
    assert main(asked) == 0
    pairs = json.loads((out / "pairs.json").read_text())["pairs"]
    places = [pair["adversarial_image"] for pair in pairs]
    pixels = [load_file(str(out / place["file"]))["pixels"][place["row"]] for place in places]
    return pairs, torch.stack(pixels)


@pytest.mark.parametrize("attack", [a for a in ATTACK_NAMES if not ATTACKS[a].of_fusion])
def test_every_attack_on_a_model_by_name_gives_the_cpus_pairs(
    attack: str, toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = weights_of(TOWERS["RN50-quickgelu"], tmp_path, monkeypatch)
    pairs, pixels = attacked(toy, weights, attack, tmp_path / "here", "cpu")
    with pretended():
        found, moved = attacked(toy, weights, attack, tmp_path / "there", ACCELERATOR.type)
    for there, here in zip(found, pairs, strict=True):
        assert there["captions"] == here["captions"] and there["tr_rank"] == here["tr_rank"]
    # where a gradient is next to nothing, rounding decides its sign
    assert float((moved - pixels).abs().le(1e-6).float().mean()) > 0.99


def test_words_of_a_masked_lm_are_asked_for_on_the_accelerator(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    captions = [c for own in json.loads(toy.captions.read_text()).values() for c in own]
    shape = MaskedLMConfig(width=16, layers=1, heads=2, vocab_size=90, n_steps=5, batch_size=4)
    train_masked_lm(captions, shape, seed=0).save(tmp_path / "lm")
    weights = weights_of(TOWERS["RN50-quickgelu"], tmp_path, monkeypatch)
    for conventions in ("matlib", "released"):
        words = ("--masked-lm", str(tmp_path / "lm"), "--conventions", conventions)
        here, _ = attacked(toy, weights, "bert", tmp_path / f"here-{conventions}", "cpu", *words)
        with pretended():
            out = tmp_path / f"there-{conventions}"
            there, _ = attacked(toy, weights, "bert", out, ACCELERATOR.type, *words)
        assert [p["captions"] for p in there] == [p["captions"] for p in here]


@pytest.mark.parametrize("name", ["RN50-quickgelu", "MobileCLIP2-L-14", "coca_ViT-B-32",
                                  "ViT-B-16-SigLIP", "roberta-ViT-B-32"])  # fmt: skip
def test_every_kind_of_text_tower_embeds_on_the_accelerator(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = weights_of(placed(TOWERS[name], tmp_path), tmp_path, monkeypatch)
    here, pixels = models.open("tiny", str(weights)), random_pixels(2)
    with pretended():
        there = models.open("tiny", str(weights), ACCELERATOR.type)
        assert {*map(type, [there.mean, there.std])} == {Remote}
        for grad in (False, True):
            with torch.set_grad_enabled(grad):
                text = there.encode_text(CAPTIONS)
                image = there.encode_image(pixels)
            for found, own in ((text, here.encode_text(CAPTIONS)),
                               (image, here.encode_image(pixels))):  # fmt: skip
                torch.testing.assert_close(found.detach().cpu(), own.detach(), atol=1e-5, rtol=0)


def test_word_saliency_and_another_image_tower_work_on_the_accelerator() -> None:
    shape = replace(TINY, image_tower="convnet", image_size=32)
    here, texts = build_small(shape, 0), ["a red star", "a star"]
    pixels = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    direction = here.encode_image(pixels).detach()
    expected = here.word_saliency(texts, lambda x: (x * direction).sum(1))
    with pretended():
        there = build_small(shape, 0).to(ACCELERATOR)
        with torch.no_grad(), frozen(there):
            seen = there.encode_image(pixels.to(ACCELERATOR))
        found = there.word_saliency(texts, lambda x: (x * seen).sum(1))
    torch.testing.assert_close(seen.cpu(), direction, atol=1e-5, rtol=0)
    for row, own in zip(found, expected, strict=True):
        assert row == pytest.approx(own, rel=1e-4)


def test_masks_of_a_gallery_lie_where_the_gallery_does() -> None:
    here = toy_gallery([2, 1, 3])
    with pretended():
        there = Gallery(
            here.pixels.to(ACCELERATOR), here.captions, here.relevant.to(ACCELERATOR),
            here.own.to(ACCELERATOR),
        )  # fmt: skip
        for mask, expected in (
            (there.own_mask, here.own_mask), (there.last_mask, here.last_mask)
        ):  # fmt: skip
            assert isinstance(mask, Remote) and torch.equal(mask.cpu(), expected)


def test_sentences_are_embedded_on_the_accelerator() -> None:
    shape = MaskedLMConfig(width=16, layers=1, heads=2, vocab_size=60, n_steps=1, batch_size=2)
    lm = train_masked_lm(["a red star", "a blue circle"], shape, seed=0)
    encoder = SentenceEncoder(lm.model.bert, lm.tokenizer)
    expected = encoder.encode_text(["a red star", "blue"])
    with pretended():
        encoder.model.to(ACCELERATOR)
        found = encoder.encode_text(["a red star", "blue"])
    torch.testing.assert_close(found.cpu(), expected, atol=1e-5, rtol=0)


def studies_lie_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Studies opened from now on compute on the accelerator, as on a machine with a GPU."""
    opened = Context.__init__

    def there(self: Context, *args: Any, **kwargs: Any) -> None:
        opened(self, *args, **kwargs)
        self.device = ACCELERATOR.type

    monkeypatch.setattr(Context, "__init__", there)


@pytest.mark.parametrize("name", list(DEFENCES))
def test_every_defence_trains_on_the_accelerator_and_goes_on_after_a_stop(
    name: str, tmp_path: Path
) -> None:
    data, schedule = toy_data(), Schedule(3, 4, 1e-3, checkpoint_every=1)

    def trained(encoder: OpenClipEncoder, stop: int = -1) -> Tensor:
        def stop_there(row: Mapping[str, float]) -> None:
            if row["step"] == stop:
                raise KeyboardInterrupt

        books = Bookkeeping(tmp_path / encoder.device.type, on_row=stop_there)
        train(
            encoder, data, defence(name), schedule, seed=0, inner=INNER,
            candidates=toy_candidates(data), books=books,
        )  # fmt: skip
        return torch.cat([p.detach().flatten() for p in encoder.parameters()])

    before = torch.cat([p.detach().flatten() for p in tiny_encoder().parameters()])
    expected = trained(tiny_encoder())
    with pretended():
        with pytest.raises(KeyboardInterrupt):
            trained(tiny_encoder().to(ACCELERATOR), stop=1)
        found = trained(tiny_encoder().to(ACCELERATOR)).cpu()
    assert not torch.equal(expected, before)
    # Adam moves a weight whose gradient is next to nothing by its sign
    assert float((found - expected).abs().le(1e-5).float().mean()) > 0.98


def test_a_model_is_evaluated_on_the_accelerator_as_on_the_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile = load_profile("smoke")
    encoder = build_small(profile.model.shape(profile.dataset.image_size), seed=3)
    save_weights(encoder, tmp_path / "own.safetensors")

    def evaluated(results: Path) -> pd.DataFrame:
        asked = ["evaluate", "--model", "small", "--pretrained", str(tmp_path / "own.safetensors"),
                 "--profile", "smoke", "--name", "own", "--dataset", "scenes",
                 "--results", str(results)]  # fmt: skip
        assert main(asked) == 0
        return pd.read_csv(results / "smoke" / "extra" / "own.csv")

    here = evaluated(tmp_path / "here")
    studies_lie_there(monkeypatch)
    with pretended() as traffic:
        there = evaluated(tmp_path / "there")
    assert traffic.launches > 1000
    assert list(there["attack"]) == list(here["attack"])
    # a rank rests on which of two similarities is larger: attention rounds in another kernel
    assert there["recall"].sub(here["recall"]).abs().max() <= 1 / 16


@pytest.mark.full
def test_the_smoke_studys_rows_on_the_accelerator_are_the_cpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rows(folder: Path) -> pd.DataFrame:
        return robustness_table(Study(load_profile("smoke"), folder))

    here = rows(tmp_path / "here")
    studies_lie_there(monkeypatch)
    with pretended() as traffic:
        there = rows(tmp_path / "there")
    assert traffic.launches > 10_000
    keys = [column for column in here.columns if here[column].dtype == object]
    assert here[keys].equals(there[keys])
    assert there["recall"].sub(here["recall"]).abs().mean() < 0.01


def test_the_pretended_accelerator_refuses_what_a_real_one_does() -> None:
    here = torch.ones(3)
    with pretended():
        there = here.to(ACCELERATOR)
        assert isinstance(there, Remote) and there.device == ACCELERATOR
        assert torch.equal((there * 2 + torch.tensor(1.0)).cpu(), here * 3)
        assert isinstance(torch.tensor([1.0, 2.0], device=ACCELERATOR), Remote)
        assert isinstance(there[torch.tensor([0, 2])], Remote) and there.sum().item() == 3
        with pytest.raises(RuntimeError, match=r"on the CPU those of shape \(3,\)"):
            there + here
        with pytest.raises(RuntimeError, match="one device"):
            here[there.long()]
        with pytest.raises(TypeError, match=r"move it with \.cpu\(\)"):
            there.numpy()
        with pytest.raises(RuntimeError, match="no generator of the CPU"):
            torch.rand(3, generator=torch.Generator(), device=ACCELERATOR)
        with torch.enable_grad():
            weight = there.clone().requires_grad_()
            (weight**2).sum().backward()
        assert isinstance(weight.grad, Remote) and torch.equal(weight.grad.cpu(), here * 2)


def test_what_an_accelerator_is_asked_is_counted() -> None:
    here = torch.ones(3)
    with pretended() as traffic:

        def asked(call: Callable[[], object]) -> tuple[int, int, int]:
            before = traffic.copy()
            call()
            found = traffic.since(before)
            return found.launches, found.waits, found.uploads

        there = here.to(ACCELERATOR)
        assert (traffic.uploads, traffic.upload_bytes) == (1, 12)
        assert asked(lambda: there * 2 + 1) == (2, 0, 0)
        assert asked(lambda: there.view(1, 3).T) == (0, 0, 0)
        assert asked(lambda: there[torch.tensor([0, 2])]) == (1, 0, 1)
        assert asked(lambda: there + torch.tensor(1.0)) == (1, 0, 0)  # travels with the launch
        for read in (there.sum().item, there.tolist, there.cpu, there.nonzero,
                     lambda: there[there > 0], lambda: bool(there.any())):  # fmt: skip
            assert asked(read)[1] == 1
