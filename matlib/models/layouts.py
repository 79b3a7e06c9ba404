"""A checkpoint's tensors under the names of the model that they are for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from open_clip.convert import convert_state_dict
from torch import Tensor, nn

from matlib.models.transformers_clip import is_transformers, to_open_clip

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
        raise ValueError(f"{what}: none of its {len(known)} tensors is the model's ({shown} …)")
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
