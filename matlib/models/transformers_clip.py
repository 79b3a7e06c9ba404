"""CLIP as transformers writes it: a folder's settings, and its tensors by open_clip's names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from open_clip.convert import convert_state_dict
from open_clip.transformer import TextTransformer, VisionTransformer
from torch import Tensor, nn

from matlib.models.checkpoints import read_json_object
from matlib.models.layouts import found_layout
from matlib.models.settings import said_by_preprocessing

CONFIG = "config.json"
_KINDS = ("clip", "clip_text_model", "clip_vision_model")
_MARKS = ("text_model.", "vision_model.")
_ACTIVATIONS = {"quick_gelu": True, "gelu": False}
_RESAMPLES = {2: "bilinear", 3: "bicubic"}
_CLIP_END = 49407
_NAMES = (
    (r"^vision_model\.embeddings\.class_embedding$", "visual.class_embedding"),
    (r"^vision_model\.embeddings\.patch_embedding\.", "visual.conv1."),
    (r"^vision_model\.embeddings\.position_embedding\.weight$", "visual.positional_embedding"),
    (r"^vision_model\.pre_layrnorm\.", "visual.ln_pre."),  # spelt so in transformers
    (r"^vision_model\.post_layernorm\.", "visual.ln_post."),
    (r"^vision_model\.encoder\.layers\.", "visual.transformer.resblocks."),
    (r"^text_model\.embeddings\.token_embedding\.", "text.token_embedding."),
    (r"^text_model\.embeddings\.position_embedding\.weight$", "text.positional_embedding"),
    (r"^text_model\.final_layer_norm\.", "text.ln_final."),
    (r"^text_model\.encoder\.layers\.", "text.transformer.resblocks."),
    (r"\.layer_norm([12])\.", r".ln_\1."),
    (r"\.mlp\.fc1\.", ".mlp.c_fc."),
    (r"\.mlp\.fc2\.", ".mlp.c_proj."),
    (r"\.self_attn\.out_proj\.", ".attn.out_proj."),
)
_PROJECTIONS = {
    "visual_projection.weight": "visual.proj",
    "text_projection.weight": "text.text_projection",
}


def is_transformers(state: Mapping[str, Tensor]) -> bool:
    """Whether names are those of transformers' CLIP, or of one of its towers."""
    return any(key.startswith(_MARKS) for key in _with_towers(state))


def to_open_clip(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same weights under the names of open_clip's model with a text tower of its own.

    Queries, keys and values become one matrix, projections are transposed; a name that is not
    known stays as it is, for the check of names to find.
    """
    found: dict[str, Tensor] = {}
    parts: dict[str, dict[str, Tensor]] = {}
    for key, value in _with_towers(state).items():
        if key.endswith("position_ids"):
            continue
        if key in _PROJECTIONS:
            found[_PROJECTIONS[key]] = value.T.contiguous()
            continue
        for pattern, name in _NAMES:
            key = re.sub(pattern, name, key)
        attention = re.fullmatch(r"(.*)\.self_attn\.([qkv])_proj\.(weight|bias)", key)
        if attention is None:
            found[key] = value
        else:
            block, which, kind = attention.groups()
            parts.setdefault(f"{block}.attn.in_proj_{kind}", {})[which] = value
    for name, own in parts.items():
        if set(own) == set("qkv"):
            found[name] = torch.cat([own["q"], own["k"], own["v"]])
        else:
            found.update({f"{name} ({which})": value for which, value in own.items()})
    return found


def said_by_folder(folder: Path) -> dict[str, Any]:
    """The settings that the files beside the weights tell, in the fields of `Settings`.

    Nothing if `config.json` is not there or not of CLIP; what a missing
    `preprocessor_config.json` would tell is left out.

    Raises:
        ValueError: damaged, or settings that this project cannot follow.
    """
    config = _config(folder)
    if config is None:
        return {}
    quick = {_activation(tower, folder) for tower in _towers(config)}
    if len(quick) > 1:
        raise ValueError(f"{folder / CONFIG}: one tower has QuickGELU and the other GELU")
    return {"quick_gelu": quick.pop(), **_said_by_processor(folder)}


def check_shape(folder: Path, clip: nn.Module, name: str) -> None:
    """Refuse a folder of a model that differs where no tensor's shape tells.

    Raises:
        ValueError: other numbers of attention heads, or another end of the text.
    """
    config = _config(folder)
    for tower in _towers(config) if config is not None else ():
        is_text = tower.model_type == "clip_text_model"
        own = clip.text if is_text else clip.visual
        if not isinstance(own, (TextTransformer, VisionTransformer)):
            raise ValueError(f"{folder} holds transformers' CLIP, and {name} has another tower")
        heads = own.transformer.resblocks[0].attn.num_heads
        if heads != tower.num_attention_heads:
            raise ValueError(
                f"{folder / CONFIG} has {tower.num_attention_heads} attention heads, {name} {heads}"
            )
        if is_text and tower.eos_token_id not in (2, _CLIP_END, None):  # 2: in older folders
            raise ValueError(
                f"{folder / CONFIG}: texts end with token {tower.eos_token_id}; CLIP's end is "
                f"{_CLIP_END}"
            )


def _with_towers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A tower that was saved alone may lack its prefix."""
    for mark, prefix in (("token_embedding", "text_model."), ("patch_embedding", "vision_model.")):
        if f"embeddings.{mark}.weight" in state:
            return {k if k in _PROJECTIONS else prefix + k: v for k, v in state.items()}
    return dict(state)


def _config(folder: Path) -> Any | None:
    path = folder / CONFIG
    if not path.is_file() or read_json_object(path).get("model_type") not in _KINDS:
        return None
    from transformers import AutoConfig  # its defaults; slow to import

    try:
        return AutoConfig.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # each version has errors of its own for a damaged file
        line = (str(error).strip().splitlines() or [""])[0]
        raise ValueError(f"{folder / CONFIG}: not a configuration of CLIP ({line:.160})") from error


def _towers(config: Any) -> list[Any]:
    return [config.text_config, config.vision_config] if config.model_type == "clip" else [config]


def _activation(tower: Any, folder: Path) -> bool:
    if tower.hidden_act not in _ACTIVATIONS:
        raise ValueError(
            f"{folder / CONFIG}: hidden_act {tower.hidden_act!r}; open_clip's towers have "
            f"{' or '.join(_ACTIVATIONS)}"
        )
    return _ACTIVATIONS[tower.hidden_act]


def _said_by_processor(folder: Path) -> dict[str, Any]:
    path = folder / "preprocessor_config.json"
    if path.is_file():
        return said_by_image_processor(read_json_object(path), path)
    path = folder / "processor_config.json"  # of newer versions
    content = read_json_object(path).get("image_processor") if path.is_file() else None
    return said_by_image_processor(content, path) if isinstance(content, dict) else {}


def said_by_image_processor(content: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The settings that an image processor of transformers tells, in the fields of `Settings`.

    Args:
        content: as its JSON has it.
        path: of that JSON, or the processor's name, for messages.

    Raises:
        ValueError: settings that this project cannot follow.
    """
    size, resample = content.get("size", {"shortest_edge": 224}), content.get("resample", 3)
    if resample not in _RESAMPLES:
        raise ValueError(f"{path}: resample {resample!r} is not 2 (bilinear) or 3 (bicubic)")
    to_short_side = isinstance(size, int) or (
        isinstance(size, dict) and bool(size.get("shortest_edge"))
    )
    if to_short_side and not content.get("do_center_crop", True):
        raise ValueError(f"{path}: images of any shape (do_center_crop false) are not supported")
    said: dict[str, Any] = {
        "resize_mode": "shortest" if to_short_side else "squash",
        "interpolation": _RESAMPLES[resample],
    }
    if content.get("do_normalize", True):
        said |= {"mean": content.get("image_mean"), "std": content.get("image_std")}
    else:
        said |= {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
    return said_by_preprocessing(said, str(path))


_TEXT = ("text_projection", "positional_embedding", "token_embedding", "transformer", "ln_final")
# Settings that OpenAI's files hold as tensors, and positions that transformers once stored.
_NO_WEIGHTS = ("input_resolution", "context_length", "vocab_size")
_SCALES = ("logit_scale", "logit_bias")


def arranged(state: Mapping[str, Tensor], clip: nn.Module, what: str) -> dict[str, Tensor]:
    """A whole model's tensors, or those of one tower, under the names of `clip`.

    Known layouts: with a text tower of its own or flat, as open_clip's two classes have it; the
    image tower or the text tower alone; transformers' CLIP; Apple's MobileCLIP.

    Raises:
        ValueError: not one name is the model's.
    """
    expected = clip.state_dict()
    known = {
        key: value
        for key, value in state.items()
        if key not in _NO_WEIGHTS and (key in expected or not key.endswith("position_ids"))
    }
    if is_transformers(known):
        known = to_open_clip(known)
    known = convert_state_dict(clip, known)
    ways = [{_renamed(key, way): value for key, value in known.items()} for way in _WAYS]
    best = max(ways, key=lambda way: sum(_is_there(key, way, expected) for key in way))
    if not expected.keys() & (best.keys() - set(_SCALES)):
        shown = ", ".join(list(known)[:3])
        raise ValueError(
            f"{what}: none of its {len(known)} tensors is the model's ({shown} …); "
            f"{found_layout(known)}"
        )
    for key in _SCALES:  # a number, or a list of one
        if key in best and key in expected and best[key].numel() == expected[key].numel():
            best[key] = best[key].reshape(expected[key].shape)
    return best


def parts_of(names: Iterable[str]) -> set[str]:
    """The parts that names belong to: `visual`, `text`, `logit_scale` …"""
    return {name.partition(".")[0] for name in names}


_WAYS = ("whole", "visual.", "text.")


def _renamed(key: str, way: str) -> str:
    if key in _SCALES:
        return key
    if way == "whole":
        return f"text.{key}" if key.startswith(_TEXT) else key
    return key if key.startswith(way) else way + key


def _is_there(key: str, way: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> int:
    """2 for a tensor that fits, 1 for a name that is there."""
    if key not in expected:
        return 0
    return 1 + (way[key].shape == expected[key].shape)
