"""Weights as people save them are read whole, or refused in one line that names the file."""

from __future__ import annotations

import json
import zipfile
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import open_clip.factory
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from matlib import models
from matlib.models.checkpoints import read_tensors
from matlib.models.open_clip import OpenClipEncoder
from matlib.models.opening import checked_device
from matlib.models.small import load_small, save_small
from tests.models.named import (
    CAPTIONS,
    NAME,
    PIXELS,
    PLAIN,
    flat,
    image_features,
    registered,
    same,
    tagged,
    text_features,
)
from tests.toys import TINY, tiny_encoder

Wrap = Callable[[Mapping[str, Tensor]], Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A named model without tags, and other weights of it in `other.pt`."""
    found = tmp_path_factory.mktemp("named")
    with registered():
        torch.save(flat(9).state_dict(), found / "other.pt")
        yield found


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    return flat(5)


def whole(encoder: OpenClipEncoder, model: Any) -> bool:
    return images(encoder, model) and texts(encoder, model)


def images(encoder: OpenClipEncoder, model: Any) -> bool:
    how = encoder.settings
    return same(encoder.encode_image(PIXELS), image_features(model, how.mean, how.std))


def texts(encoder: OpenClipEncoder, model: Any) -> bool:
    return same(encoder.encode_text(CAPTIONS), text_features(model))


def prefixed(prefix: str) -> Wrap:
    return lambda state: {prefix + key: value for key, value in state.items()}


def compiled_towers(state: Mapping[str, Tensor]) -> Any:
    return {k.replace("visual.", "visual._orig_mod.").replace("resblocks", "module.resblocks"): v
            for k, v in state.items()}  # fmt: skip


LAYOUTS: dict[str, Wrap] = {
    "bare": lambda s: s,
    "DataParallel": lambda s: {"model": prefixed("module.")(s), "epoch": 1},
    "Lightning": lambda s: {"state_dict": prefixed("model.")(s), "pytorch-lightning_version": "2",
                            "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(3)}}}]},
    "compiled": prefixed("_orig_mod."),
    "compiled, parallel, owned": prefixed("model.module._orig_mod.clip_model."),
    "towers compiled": compiled_towers,
    "optimiser beside": lambda s: {"model_state_dict": s, "args": Namespace(lr=1.0),
                                   "optimizer_state_dict": {"state": {0: {"m": torch.ones(2)}}}},
    "nested": lambda s: {"model": {"state_dict": {"module": s}}, "best_acc1": torch.tensor(0.5)},
    "as we save it": prefixed("clip."),
    "half precision": lambda s: {k: v.bfloat16() for k, v in s.items()},
    "sizes beside": lambda s: {**s, "input_resolution": torch.tensor(16),
                               "context_length": torch.tensor(16)},
    "scale in a list": lambda s: {**s, "logit_scale": s["logit_scale"].reshape(1)},
    "empty prompter": lambda s: {"state_dict": {}, "add_prompter": {"p": torch.zeros(1, 0, 4)},
                                 "model": s},
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_whole_model_is_found_in_what_a_loop_saved(
    layout: str, model: Any, tmp_path: Path
) -> None:
    torch.save(LAYOUTS[layout](model.state_dict()), tmp_path / "w.pt")
    encoder = models.open(NAME, str(tmp_path / "w.pt"))
    if layout == "half precision":
        assert encoder.clip.visual.proj.dtype == torch.float32
        assert torch.equal(encoder.clip.visual.proj, model.visual.proj.bfloat16().float())
    else:
        assert whole(encoder, model)


TOWERS: dict[str, Wrap] = {
    "bare": lambda s: s,
    "named": lambda s: s,
    "vision_encoder_state_dict": lambda s: {"vision_encoder_state_dict": s, "state_dict": {}},
    "parallel": lambda s: {"state_dict": prefixed("module.")(s)},
    "half": lambda s: {k: v.half().float() for k, v in s.items()},
}


@pytest.mark.parametrize("layout", TOWERS)
def test_an_image_tower_alone_is_completed(
    layout: str, model: Any, folder: Path, tmp_path: Path
) -> None:
    tower = model.visual.state_dict()
    tower = prefixed("visual.")(tower) if layout == "named" else tower
    torch.save(TOWERS[layout](tower), tmp_path / "fare.pt")
    encoder = models.open(NAME, str(tmp_path / "fare.pt"), rest=str(folder / "other.pt"))
    assert texts(encoder, flat(9)) and (images(encoder, model) or layout == "half")
    with pytest.raises(ValueError, match="holds an image tower only"):
        models.open(NAME, str(tmp_path / "fare.pt"))


@pytest.mark.parametrize("prefix", ["", "text.", "module."])
@pytest.mark.parametrize("has_scale", [True, False])
def test_a_text_tower_alone_is_completed(
    prefix: str, has_scale: bool, model: Any, folder: Path, tmp_path: Path
) -> None:
    state = {k: v for k, v in model.state_dict().items() if not k.startswith("visual.")}
    state = {k if k == "logit_scale" else prefix + k: v
             for k, v in state.items() if has_scale or k != "logit_scale"}  # fmt: skip
    torch.save(state, tmp_path / "leaf.pt")
    encoder = models.open(NAME, str(tmp_path / "leaf.pt"), rest=str(folder / "other.pt"))
    assert texts(encoder, model) and images(encoder, flat(9))
    with pytest.raises(ValueError, match="holds a text tower only"):
        models.open(NAME, str(tmp_path / "leaf.pt"))


@pytest.mark.parametrize("keys", [("vision_encoder_state_dict", "text_encoder_state_dict"),
                                  ("visual", "text")])  # fmt: skip
def test_both_towers_apart_are_both_taken(
    keys: tuple[str, str], model: Any, folder: Path, tmp_path: Path
) -> None:
    state = model.state_dict()
    visual = {k.removeprefix("visual."): v for k, v in state.items() if k.startswith("visual.")}
    text = {k: v for k, v in state.items() if not k.startswith("visual.")}
    torch.save({keys[0]: visual, keys[1]: text, "epoch": 3}, tmp_path / "w.pt")
    assert whole(models.open(NAME, str(tmp_path / "w.pt"), rest=str(folder / "other.pt")), model)
    scale = text.pop("logit_scale")
    torch.save({keys[0]: visual, keys[1]: text, "logit_scale": scale}, tmp_path / "w.pt")
    assert whole(models.open(NAME, str(tmp_path / "w.pt")), model)
    torch.save({keys[0]: visual, keys[1]: text}, tmp_path / "w.pt")
    with pytest.raises(ValueError, match="lacks the logit scale: name the weights"):
        models.open(NAME, str(tmp_path / "w.pt"))


def test_the_rest_is_not_fetched_for_a_whole_file(model: Any, tmp_path: Path) -> None:
    torch.save(model.state_dict(), tmp_path / "w.pt")
    with tagged({"never": {**PLAIN, "file": str(tmp_path / "gone.pt")}}):
        assert whole(models.open(NAME, str(tmp_path / "w.pt"), rest="never"), model)


BROKEN: dict[str, tuple[Wrap, str]] = {
    "missing in a tower": (
        lambda s: {k: v for k, v in s.items() if k != "visual.proj"}, r"visual\.proj \(missing\)"),
    "missing text": (
        lambda s: {k: v for k, v in s.items() if k != "ln_final.bias"}, r"ln_final\.bias \(miss"),
    "one too many": (lambda s: {**s, "visual.adapter": torch.ones(2)}, "adapter .not in this mod"),
    "another shape": (lambda s: {**s, "visual.proj": torch.ones(3, 3)}, r"\(3, 3\) instead of"),
    "quantised": (
        lambda s: {**s, "visual.proj": s["visual.proj"].to(torch.int8)}, "int8 instead of"),
    "sparse": (
        lambda s: {**s, "visual.proj": s["visual.proj"].to_sparse()}, "sparse_coo, an array"),
    "without values": (lambda s: {k: v.to("meta") for k, v in s.items()}, "without values, an arr"),
    "of something else": (lambda s: {"layer.weight": torch.ones(2)}, "none of its 1 tensors"),
    "two models": (lambda s: {"model": s, "model_ema": s}, r"several states \(model, model_ema\)"),
    "an optimiser": (lambda s: {"state": {0: {"m": torch.ones(2)}}}, "names to tensors"),
    "a list": (lambda s: [1, 2], "names to tensors"),
    "nothing": (lambda s: {}, "holds no tensors"),
    "only an epoch": (lambda s: {"state_dict": {}, "epoch": 3}, "holds no tensors"),
    "not a number": (lambda s: {**s, "visual.proj": s["visual.proj"] * torch.nan}, "NaN"),
    "infinite scale": (lambda s: {**s, "logit_scale": torch.tensor(torch.inf)}, "logit_scale hold"),
    "huge scale": (lambda s: {**s, "logit_scale": torch.tensor(100.0)}, "logit_scale is 100"),
    "no scale left": (lambda s: {**s, "logit_scale": torch.tensor(-200.0)}, "logit_scale is -200"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_weights_that_do_not_fit_are_refused_in_one_line(
    case: str, model: Any, tmp_path: Path
) -> None:
    wrap, message = BROKEN[case]
    torch.save(wrap(model.state_dict()), tmp_path / "w.pt")
    with pytest.raises(ValueError, match=message) as caught:
        models.open(NAME, str(tmp_path / "w.pt"))
    assert "\n" not in str(caught.value) and str(tmp_path / "w.pt") in str(caught.value)


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


DAMAGED: dict[str, tuple[str, Callable[[bytes, bytes], bytes]]] = {
    "empty": ("w.pt", lambda pt, st: b""),
    "half a .pt": ("w.pt", lambda pt, st: cut(pt)),
    "a tenth of a .pt": ("w.pt", lambda pt, st: pt[: len(pt) // 10]),
    "half a safetensors": ("w.safetensors", lambda pt, st: cut(st)),
    "a bad header": ("w.safetensors", lambda pt, st: b"\x10\0\0\0\0\0\0\0{bad"),
    "eight bytes": ("w.safetensors", lambda pt, st: st[:8]),
    "a web page": ("w.pt", lambda pt, st: b"<!DOCTYPE html><html>not found</html>"),
    "a web page called so": ("w.safetensors", lambda pt, st: b"<!DOCTYPE html><html></html>"),
    "a pointer": ("w.bin", lambda pt, st: b"version https://git-lfs.github.com/spec/v1\noid sha"),
    "half an old pickle": ("w.pth", lambda pt, st: b"\x80\x02}q\x00(X\x05"),
}


@pytest.mark.parametrize("case", DAMAGED)
@pytest.mark.parametrize("as_rest", [False, True])
def test_damaged_files_are_refused_in_one_line(
    case: str, as_rest: bool, model: Any, tmp_path: Path
) -> None:
    torch.save(model.state_dict(), tmp_path / "good.pt")
    save_file({k: v.clone() for k, v in model.state_dict().items()}, str(tmp_path / "good.st"))
    name, damage = DAMAGED[case]
    bad = tmp_path / name
    bad.write_bytes(
        damage((tmp_path / "good.pt").read_bytes(), (tmp_path / "good.st").read_bytes())
    )
    torch.save(model.visual.state_dict(), tmp_path / "fare.pt")
    with pytest.raises(ValueError, match=name) as caught:
        if as_rest:
            models.open(NAME, str(tmp_path / "fare.pt"), rest=str(bad))
        else:
            models.open(NAME, str(bad))
    assert "\n" not in str(caught.value)


def test_a_suffix_does_not_matter(
    model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_file({k: v.clone() for k, v in model.state_dict().items()}, str(tmp_path / "w.pt"))
    assert whole(models.open(NAME, str(tmp_path / "w.pt")), model)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "w.pt").rename(tmp_path / "weights")
    assert whole(models.open(NAME, "weights"), model)


def test_a_rest_with_code_in_it_is_not_run(model: Any, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, tuple[Path]]:
            return Path.touch, (tmp_path / "was-run",)

    torch.save(model.visual.state_dict(), tmp_path / "fare.pt")
    torch.save({"state_dict": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(ValueError, match=r"evil\.pt is cut, or cannot be read as tensors alone"):
        models.open(NAME, str(tmp_path / "fare.pt"), rest=str(tmp_path / "evil.pt"))
    assert not (tmp_path / "was-run").exists()


def test_a_program_is_not_run(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "openai.pt", "w") as archive:  # as TorchScript lays it out
        for name in ("code/__torch__.py", "data.pkl", "constants.pkl"):
            archive.writestr(f"openai/{name}", "")
    with pytest.raises(ValueError, match=r"TorchScript program.*take the tag"):
        models.open(NAME, str(tmp_path / "openai.pt"))


def test_a_tag_that_cannot_be_fetched_is_one_line_with_the_file_to_fetch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def offline(*_: Any, **__: Any) -> str:
        raise OSError("We couldn't connect to the hub.\n" + "tried again\n" * 90)

    monkeypatch.setattr(open_clip.factory, "download_pretrained", offline)
    config = {**PLAIN, "hf_hub": "someone/clip.tag/"}
    with tagged({"tag": config}), pytest.raises(FileNotFoundError) as caught:
        models.open(NAME, "tag")
    said = str(caught.value)
    assert "\n" not in said
    assert "open_clip_model.safetensors of https://huggingface.co/someone/clip.tag" in said
    with pytest.raises(FileNotFoundError, match="has no such tag; its tags: none"):
        models.open(NAME, "nowhere")


def test_a_cut_file_of_a_tag_is_refused(model: Any, tmp_path: Path) -> None:
    torch.save(model.state_dict(), tmp_path / "w.pt")
    (tmp_path / "w.pt").write_bytes(cut((tmp_path / "w.pt").read_bytes()))
    tags = {"tag": {**PLAIN, "file": str(tmp_path / "w.pt")}}
    with tagged(tags), pytest.raises(ValueError, match=r"w\.pt, fetched as .*remove it"):
        models.open(NAME, "tag")


@pytest.mark.parametrize("device", ["cuda:99", "gpu", "meta"])
def test_a_device_that_is_not_here_is_refused_before_any_work(device: str) -> None:
    with pytest.raises(ValueError, match=f"device '{device}' cannot be used on this machine"):
        models.open(NAME, "no such weights", device)
    assert checked_device("cpu") == "cpu"


def test_a_small_models_files_are_checked(tmp_path: Path) -> None:
    save_small(tiny_encoder(), TINY, tmp_path)
    shape = json.loads((tmp_path / "model.json").read_text())
    weights = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(cut(weights))
    with pytest.raises(ValueError, match=r"model\.safetensors: cut, or no safetensors"):
        load_small(tmp_path / "model.safetensors")
    for wrong in ({**shape, "width": 3}, {**shape, "image_size": "16"}):
        (tmp_path / "model.json").write_text(json.dumps(wrong))
        with pytest.raises(ValueError, match="not the shape of a small model"):
            load_small(tmp_path / "model.safetensors")
    with pytest.raises(FileNotFoundError, match="no weights at"):
        read_tensors(tmp_path / "gone.safetensors")
