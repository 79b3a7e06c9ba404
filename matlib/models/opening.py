"""Models by name with the settings that their weights were trained with: by tag, file or folder."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import open_clip
import open_clip.factory
import torch
from open_clip.coca_model import CoCa
from open_clip.model import CustomTextCLIP, set_model_preprocess_cfg
from open_clip.pretrained import get_pretrained_cfg
from torch import Tensor, nn

from matlib.models import transformers_clip
from matlib.models.checkpoints import (
    check_architecture,
    check_numbers,
    read_json_object,
    read_metadata,
    read_weights,
)
from matlib.models.open_clip import OpenClipEncoder
from matlib.models.packaged import (
    PACKAGED_MODELS,
    load_packaged,
    packaged_config,
    packaged_tokenizer,
    with_fixed_heads,
)
from matlib.models.settings import (
    Settings,
    is_packaged,
    model_config,
    said_by_metadata,
    said_by_preprocessing,
    settings_of_tag,
    settled,
    tags_of,
)
from matlib.models.transformers_clip import arranged, parts_of

OPEN_CLIP_CONFIG = "open_clip_config.json"
_HUB_FILES = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")
_HEADS = {"text.text_projection", "visual.proj"}
_PARTS = {"visual": "image tower", "text": "text tower", "logit_scale": "logit scale"}


def open_named(
    name: str,
    pretrained: str | None,
    device: str = "cpu",
    *,
    rest: str = "",
    settings: Settings | None = None,
) -> OpenClipEncoder:
    """An open_clip model, `name` as in `open_clip.list_models()`, in evaluation mode.

    Or one whose `open_clip_config.json` lies in a folder (`local-dir:` and its path).

    Or towers whose weights lie in packages (`PACKAGED_MODELS`, tag `packaged`): their heads are
    drawn at random, the same every time, and their batch statistics stay as they are.

    Activation, statistics of the pixels and the way to resize are those that the weights were
    trained with: a tag's are known to open_clip (`ViT-B-16` with `openai` has QuickGELU); a
    file's are told by what lies beside it (`open_clip_config.json`, transformers' `config.json`
    and `preprocessor_config.json`, or its own metadata where this project wrote it), else by
    `rest`, else by the name if all its known weights agree.

    Args:
        pretrained: a tag (`openai`); a checkpoint file, of safetensors or PyTorch's (read as
            tensors alone), whatever a training loop wrapped around it; a folder of open_clip's
            or transformers' layout; or None for random weights.
        device: `cpu`, `cuda`, `cuda:1`, `mps`.
        rest: tag, file or folder of the weights that `pretrained` stems from: they complete
            towers that it lacks, and tell settings that nothing else tells.
        settings: instead of all that.

    Raises:
        ValueError: unknown model or device; a file that cannot be read or holds another model,
            half a tower, or numbers that are not finite; settings that nothing tells.
        FileNotFoundError: the weights are neither here nor reachable on the hub.
    """
    checked_device(device)
    size = image_size_of(name)
    given = _located(name, pretrained) if pretrained else None
    stem = _located(name, rest) if rest else None
    if settings is None:
        settings = _settings(name, given, stem)
    read = read_weights(given) if isinstance(given, Path) else None  # what fails soonest, first
    tokenizer = _tokenizer(name)
    clip = built(name, settings)
    if given is not None:
        _load(clip, name, given, stem, read)
        check_numbers(clip, str(pretrained))
    set_model_preprocess_cfg(clip, settings.preprocessing(size))
    keeps = name in PACKAGED_MODELS
    encoder = OpenClipEncoder(clip, tokenizer, size, settings, keeps_statistics=keeps)
    return encoder.to(device).eval()


def settings_of(name: str, pretrained: str | None, rest: str = "") -> Settings:
    """The settings of weights, without reading the weights.

    Raises:
        ValueError, FileNotFoundError: as `open_named`.
    """
    stem = _located(name, rest) if rest else None
    return _settings(name, _located(name, pretrained) if pretrained else None, stem)


def checked_device(device: str) -> str:
    """The device's name, once a number on it could be read.

    Raises:
        ValueError: no such device on this machine.
    """
    try:
        float(torch.zeros(1, device=device))
    except Exception as error:  # each backend has errors of its own for "not here"
        reason = (str(error).strip().splitlines() or [""])[0]
        there = ["cpu", *["cuda"] * torch.cuda.is_available()]
        there += ["mps"] * torch.backends.mps.is_available()
        raise ValueError(
            f"device {device!r} cannot be used on this machine ({reason:.80}); "
            f"here: {', '.join(there)}"
        ) from error
    return device


def _located(name: str, weights: str) -> str | Path:
    model_config(name)
    if is_packaged(name, weights) or get_pretrained_cfg(name, weights):
        return weights
    path = Path(weights)
    if path.exists():
        return path
    if len(path.parts) > 1 or path.suffix or "\\" in weights:
        raise FileNotFoundError(f"no checkpoint file at {weights}")
    known = ", ".join(tags_of(name)) or "none"
    raise FileNotFoundError(f"no file {weights}, and {name} has no such tag; its tags: {known}")


def image_size_of(name: str) -> int:
    """Side in pixels of the images that a model takes.

    Raises:
        ValueError: unknown model, or one whose images are not square.
    """
    size = model_config(name)["vision_cfg"].get("image_size", 224)
    sides = {size} if isinstance(size, int) else set(size)
    if len(sides) > 1:
        raise ValueError(
            f"{name} takes images of {' x '.join(map(str, size))} pixels; only square ones are "
            "supported: take a model of one side"
        )
    return int(sides.pop())


def _settings(name: str, given: str | Path | None, stem: str | Path | None) -> Settings:
    if isinstance(given, str):
        return settings_of_tag(name, given)
    origin = _settings(name, stem, None) if stem is not None else None
    if given is None:
        return origin or Settings(bool(model_config(name).get("quick_gelu")))
    return settled(name, _said(name, given), origin, str(given))


def _said(name: str, path: Path) -> dict[str, Any]:
    """What the weights' own file, or the files beside it, say of their settings."""
    folder = path if path.is_dir() else path.parent
    own = said_by_metadata(read_metadata(path), str(path)) if path.is_file() else {}
    if own:
        return own
    beside = folder / OPEN_CLIP_CONFIG
    if beside.is_file():
        config = read_json_object(beside)
        model = config.get("model_cfg", config)
        if path.is_dir() or (isinstance(model, dict) and _same_shape(model, model_config(name))):
            quick = bool(isinstance(model, dict) and model.get("quick_gelu", False))
            images = config.get("preprocess_cfg") or {}
            return {"quick_gelu": quick, **said_by_preprocessing(images, str(beside))}
    if path.is_dir() or path.name in _HUB_FILES:
        return transformers_clip.said_by_folder(folder)
    return {}


def _same_shape(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return all(a.get(key) == b.get(key) for key in ("embed_dim", "vision_cfg"))


def built(name: str, settings: Settings) -> nn.Module:
    """open_clip's model with a text tower of its own (which takes trimmed tokens)."""
    if name in PACKAGED_MODELS:
        return with_fixed_heads(CustomTextCLIP, **packaged_config(name))
    config = model_config(name)
    config.pop("custom_text", None)
    config["quick_gelu"] = settings.quick_gelu
    # towers of other libraries would fetch weights that are overwritten
    config["text_cfg"]["hf_model_pretrained"] = False
    config["vision_cfg"]["timm_model_pretrained"] = False
    kind = CoCa if "multimodal_cfg" in config else CustomTextCLIP
    with _one_line(f"{name} needs the configuration of {_named_text(config)}"):
        try:
            clip: nn.Module = kind(**config)
        except TypeError as error:  # settings of another version
            raise ValueError(f"open_clip cannot build {name}: {error!s:.160}") from error
    return clip


def _tokenizer(name: str) -> Any:
    if name in PACKAGED_MODELS:
        return packaged_tokenizer()
    with _one_line(f"{name} needs the tokenizer of {_named_text(model_config(name))}"):
        tokenizer = open_clip.get_tokenizer(name)
    return tokenizer


def _named_text(config: dict[str, Any]) -> str:
    text = config["text_cfg"]
    return str(text.get("hf_model_name") or text.get("hf_tokenizer_name") or "its text tower")


def _load(
    clip: nn.Module,
    name: str,
    given: str | Path,
    stem: str | Path | None = None,
    read: dict[str, Tensor] | None = None,
) -> None:
    """Fill the model; what the weights lack comes from those that they stem from."""
    if isinstance(given, str):
        return _load_tag(clip, name, given)
    read = read or read_weights(given)
    state, own = arranged(read, clip, str(given)), clip.state_dict()
    lacking = parts_of(own) - parts_of(state)
    headless = set()  # of transformers' towers without a projection, which have none to give
    if transformers_clip.is_transformers(read):
        transformers_clip.check_shape(given if given.is_dir() else given.parent, clip, name)
        headless = _HEADS & (own.keys() - state.keys())
    if lacking or (headless and stem is not None):
        if stem is None:
            raise ValueError(_lacks(str(given), parts_of(state), lacking))
        _load(clip, name, stem)
        whole = clip.state_dict()
        state |= {k: v for k, v in whole.items() if k.partition(".")[0] in lacking or k in headless}
    held = "the " + " and the ".join(sorted(_PARTS.get(p, p) for p in parts_of(own) - lacking))
    what = f"{given} does not hold {'weights' if not lacking else held} of {name}"
    check_architecture(state, own, what)
    clip.load_state_dict(state)


def _lacks(given: str, present: set[str], lacking: set[str]) -> str:
    towers = [_PARTS[part] for part in ("visual", "text") if part in present]
    parts = " and ".join(sorted(_PARTS.get(part, part) for part in lacking))
    if len(towers) == 1:
        kind = "an image tower" if towers == ["image tower"] else "a text tower"
        return (
            f"{given} holds {kind} only; name the weights of the other towers, those that it was "
            "fine-tuned from (attack: --rest, evaluate: --pretrained, a profile: model.rest, "
            "Python: rest=; a tag such as openai, or a file)"
        )
    return (
        f"{given} lacks the {parts}: name the weights that it was fine-tuned from (attack: "
        "--rest, evaluate: --pretrained, a profile: model.rest, Python: rest=)"
    )


def _load_tag(clip: nn.Module, name: str, tag: str) -> None:
    if is_packaged(name, tag):
        return load_packaged(clip)
    config = get_pretrained_cfg(name, tag)
    try:
        with _quiet():
            path = open_clip.factory.download_pretrained(config)
    except Exception as error:  # of the hub, of the network, of the cache's disk
        raise FileNotFoundError(_to_fetch(name, tag, config, error)) from error
    try:
        # open_clip's own way for its own files, which knows each one's history; it is strict
        open_clip.factory.load_checkpoint(clip, path, strict=True)
    except Exception as error:  # whatever a cut or foreign file makes a library raise
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"{path}, fetched as {name} / {tag}, cannot be read ({line:.160}); remove it, and it "
            "is fetched again"
        ) from error


def _to_fetch(name: str, tag: str, config: dict[str, Any], error: Exception) -> str:
    folder, _, file = str(config.get("hf_hub", "")).rpartition("/")
    where = f"{file or 'open_clip_model.safetensors'} of https://huggingface.co/{folder}"
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return (
        f"{name} / {tag} is neither in the hub's cache nor could it be fetched ({line:.120}): "
        f"fetch {where if folder else config.get('url')} and pass its path, with {tag} as the "
        "weights that it stems from (attack: --rest, evaluate: --pretrained, Python: rest=)"
    )


@contextmanager
def _one_line(needs: str) -> Iterator[None]:
    """What a tower or a tokenizer on the hub raises, in one line."""
    try:
        with _quiet():
            yield
    except (OSError, RuntimeError) as error:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise FileNotFoundError(
            f"{needs}, which is neither in the hub's cache nor could it be fetched ({line:.120})"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the hub's own account of every attempt."""
    logger = logging.getLogger("huggingface_hub")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)
