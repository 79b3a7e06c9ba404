"""What a model's weights were trained with and do not hold: activation, pixels, resizing.

A wrong one gives other embeddings and no error, so each is taken from where the weights come
from: open_clip's record of a tag, a file that lies beside the weights, or the weights that they
were fine-tuned from. Where nothing tells, they are asked for.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, cast

import open_clip
from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model

from matlib.data import strict
from matlib.data.images import Fit, Interpolation
from matlib.models.packaged import PACKAGED, PACKAGED_MODELS

METADATA = "matlib"
"""Key of a safetensors file's metadata under which settings are kept as JSON."""
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
_FITS: Mapping[str, Fit] = {"shortest": "crop", "squash": "squash"}
_RESIZE_MODES: Mapping[Fit, str] = {fit: mode for mode, fit in _FITS.items()}
_WORDS = {
    "quick_gelu": "activation",
    "mean": "mean of the pixels",
    "std": "deviation of the pixels",
    "image_mode": "image_mode",
    "interpolation": "interpolation",
}


@dataclass(frozen=True)
class Settings:
    """How a model computes and how its images are made.

    Attributes:
        quick_gelu: QuickGELU instead of GELU in open_clip's own towers.
        mean, std: per channel, of pixels in [0, 1].
        image_mode, interpolation: how an image file comes to the model's size (`decode_image`).
    """

    quick_gelu: bool = False
    mean: tuple[float, ...] = CLIP_MEAN
    std: tuple[float, ...] = CLIP_STD
    image_mode: Fit = "crop"
    interpolation: Interpolation = "bicubic"

    def as_json(self) -> dict[str, Any]:
        """All of it in JSON's types."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in vars(self).items()}

    def preprocessing(self, size: int) -> dict[str, Any]:
        """The same in open_clip's words, for a square image of `size` pixels."""
        return {
            "size": size, "mode": "RGB", "mean": self.mean, "std": self.std,
            "interpolation": self.interpolation, "resize_mode": _RESIZE_MODES[self.image_mode],
            "fill_color": 0,
        }  # fmt: skip


_HALVES: Mapping[str, Any] = {"mean": (0.5,) * 3, "std": (0.5,) * 3}
"""How the packaged image tower's pixels were scaled: to [-1, 1]."""
CLIP_SETTINGS = Settings()
"""Those of open_clip where nothing else is said."""


LOCAL = "local-dir:"
"""What begins the name of a model whose configuration lies in a folder, as in open_clip."""


def model_config(name: str) -> dict[str, Any]:
    """open_clip's configuration of a model, that of a folder, or of packaged towers; a copy.

    Raises:
        ValueError: there is no model of this name, or a folder says nothing of its model.
    """
    if name.startswith(LOCAL):
        path = Path(name.removeprefix(LOCAL)) / "open_clip_config.json"
        own = strict.read_json(path)
        found = own.get("model_cfg", own) if isinstance(own, dict) else None
        if not isinstance(found, dict) or not {"vision_cfg", "text_cfg"} <= found.keys():
            raise ValueError(f"{path}: expected open_clip's `model_cfg` with both towers")
        return found
    if name in PACKAGED_MODELS:
        return copy.deepcopy(PACKAGED_MODELS[name])
    found = open_clip.get_model_config(name) if name in open_clip.list_models() else None
    if found is None:
        raise ValueError(
            f"open_clip has no model {name!r}; see open_clip.list_models(). Of packaged weights: "
            f"{', '.join(PACKAGED_MODELS)}"
        )
    return found


def is_packaged(name: str, tag: str) -> bool:
    """Whether a tag means the weights that lie in packages."""
    return name in PACKAGED_MODELS and tag == PACKAGED


def tags_of(name: str) -> list[str]:
    """The tags of the weights that are known for a model."""
    return [PACKAGED] if name in PACKAGED_MODELS else list(list_pretrained_tags_by_model(name))


def settings_of_tag(name: str, tag: str) -> Settings:
    """The settings that the weights `tag` of the model `name` were trained with.

    A tag that does not speak of QuickGELU leaves it to the model's configuration, with which
    the weights were trained.

    Raises:
        ValueError: unknown model or tag, or a way to resize that is not known here.
    """
    own = model_config(name)
    config = _HALVES if is_packaged(name, tag) else get_pretrained_cfg(name, tag)
    if not config:
        raise ValueError(f"{name} has no weights {tag!r}; its tags: {', '.join(tags_of(name))}")
    quick = bool(own.get("quick_gelu") or config.get("quick_gelu"))
    return Settings(quick, **said_by_preprocessing(config, f"{name} / {tag}"))


def said_by_preprocessing(config: Mapping[str, Any], what: str) -> dict[str, Any]:
    """What an open_clip configuration of images says, in the fields of `Settings`.

    Raises:
        ValueError: a way to resize that is not known here, or not three channels.
    """
    said: dict[str, Any] = {}
    for key in ("mean", "std"):
        if config.get(key) is not None:
            said[key] = three_numbers(config[key], f"{what}: {key}")
    if (mode := config.get("resize_mode")) is not None:
        if mode not in _FITS:
            raise ValueError(f"{what}: resize_mode {mode!r} is not one of {', '.join(_FITS)}")
        said["image_mode"] = _FITS[mode]
    if (interpolation := config.get("interpolation")) is not None:
        if interpolation not in ("bicubic", "bilinear"):
            raise ValueError(f"{what}: interpolation {interpolation!r} is not bicubic or bilinear")
        said["interpolation"] = cast(Literal["bicubic", "bilinear"], interpolation)
    return said


def three_numbers(value: Any, what: str) -> tuple[float, ...]:
    """Raises ValueError: not three numbers."""
    numbers = tuple(value) if isinstance(value, (list, tuple)) else ()
    if len(numbers) != 3 or not all(isinstance(v, (int, float)) for v in numbers):
        raise ValueError(f"{what}: expected three numbers, one for each channel; got {value!r:.60}")
    return tuple(map(float, numbers))


def metadata_of(settings: Settings) -> dict[str, str]:
    """What a safetensors file says of the settings of its weights."""
    return {METADATA: json.dumps(settings.as_json())}


def said_by_metadata(metadata: Mapping[str, str], what: str) -> dict[str, Any]:
    """The settings in a safetensors file's metadata; nothing if there are none.

    Raises:
        ValueError: they are not what `metadata_of` writes.
    """
    if METADATA not in metadata:
        return {}
    try:
        found = json.loads(metadata[METADATA])
        said = {key: found[key] for key in ("quick_gelu", "mean", "std", "interpolation")}
        said["resize_mode"] = _RESIZE_MODES[found["image_mode"]]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{what}: its metadata hold no settings ({error!r:.80})") from error
    return {"quick_gelu": said["quick_gelu"] is True, **said_by_preprocessing(said, what)}


def settled(name: str, said: Mapping[str, Any], origin: Settings | None, what: str) -> Settings:
    """The settings of weights that are no tag.

    Args:
        said: what lies beside the weights says, in the fields of `Settings`.
        origin: settings of the weights that they stem from, where these are named.
        what: the weights, for messages.

    Raises:
        ValueError: they contradict each other, or nothing tells which of several settings it is.
    """
    _agree(name, said, origin, what)
    if origin is not None:
        return Settings(**{**vars(origin), **said})
    known = _known(name)
    fitting = [s for s in known.values() if all(getattr(s, k) == v for k, v in said.items())]
    values = {
        field.name: {getattr(s, field.name) for s in fitting or known.values()}
        for field in fields(Settings)
    }
    open_ones = [key for key, found in values.items() if key not in said and len(found) > 1]
    if open_ones:
        raise ValueError(_ask(name, what, open_ones, known))
    return Settings(**{**{key: found.pop() for key, found in values.items()}, **said})


def _known(name: str) -> dict[str, Settings]:
    """Every way in which weights of this model are known to be used, each under one name."""
    known = {settings_of_tag(name, tag): tag for tag in reversed(tags_of(name))}
    quick = bool(model_config(name).get("quick_gelu"))
    if not known:
        return {"": Settings(quick)}
    # weights that somebody trained from open_clip's configuration of this name
    if all(s.quick_gelu != quick for s in known):
        known[Settings(**{**vars(next(iter(known))), "quick_gelu": quick})] = "own training"
    return {tag: s for s, tag in known.items()}


def _agree(name: str, said: Mapping[str, Any], origin: Settings | None, what: str) -> None:
    for key, value in said.items():
        if origin is not None and getattr(origin, key) != value:
            raise ValueError(
                f"{what} says {_WORDS[key]} {_shown(key, value)}, and the weights that shall "
                f"complete it have {_shown(key, getattr(origin, key))}: they do not stem from one "
                "model; name those that it was fine-tuned from"
            )
    if model_config(name).get("quick_gelu") and said.get("quick_gelu") is False:
        raise ValueError(
            f"{what} was trained with GELU, and {name} has QuickGELU: "
            f"take the model {name.removesuffix('-quickgelu')}"
        )


def _ask(name: str, what: str, keys: list[str], known: Mapping[str, Settings]) -> str:
    ways = "; ".join(
        f"{tag}: {', '.join(_shown(key, getattr(settings, key)) for key in keys)}"
        for tag, settings in known.items()
    )
    tag = next(iter(known))
    quick = f"{name}-quickgelu"
    also = f" (or take the model {quick})" if quick in open_clip.list_models() else ""
    return (
        f"nothing beside {what} tells its {' and '.join(_WORDS[key] for key in keys)}, and weights "
        f"of {name} differ ({ways}): name the weights that it was fine-tuned from, e.g. {tag} "
        f"(attack: --rest, evaluate: --pretrained, a profile: model.rest, Python: rest=){also}"
    )


def _shown(key: str, value: Any) -> str:
    if key == "quick_gelu":
        return "QuickGELU" if value else "GELU"
    return ", ".join(f"{v:g}" for v in value) if isinstance(value, tuple) else str(value)
