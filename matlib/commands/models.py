"""Any model from the command line: by name and tag, or from a checkpoint file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from matlib.config import load_profile
from matlib.models.open_clip import OpenClipEncoder, open_named
from matlib.models.small import SmallModel, build_small
from matlib.study.provenance import file_hash
from matlib.training.checkpoint import load_weights

SMALL = "small"


def is_file_name(weights: str) -> bool:
    """Whether weights are given as a file rather than as a tag of the hub."""
    return "/" in weights or "\\" in weights or Path(weights).suffix != ""


def open_model(
    name: str, weights: str, device: str, *, profile: str = "", rest: str = ""
) -> OpenClipEncoder:
    """A model in evaluation mode.

    Args:
        name: an open_clip model (`ViT-B-16`), or `small` for a model of this project.
        weights: a tag of the hub (`openai`), or a checkpoint file: safetensors, or `.pt` which
            is read as tensors only. A file with the image tower alone (as FARE and TeCoA are
            released) is completed from `rest`.
        profile: whose model shape `small` has where no model.json lies beside the weights.
        rest: weights of the towers that the file does not hold.

    Raises:
        ValueError: unknown model, or weights of another one.
        FileNotFoundError: no such file, or a tag that cannot be reached.
    """
    if is_file_name(weights) and not Path(weights).is_file():
        raise FileNotFoundError(f"no checkpoint file at {weights}")
    if name == SMALL:
        encoder = build_small(_small_shape(Path(weights), profile), seed=0)
        load_weights(encoder, Path(weights))
        return encoder.to(device).eval()
    if is_file_name(weights):
        image_tower = _image_tower(Path(weights))
        if image_tower is not None:
            return _completed(name, image_tower, weights, rest, device)
    return open_named(name, weights, device).eval()


def weights_identity(weights: str) -> str:
    """The hash of the file, whatever its name looks like; a tag is its own name."""
    return file_hash(Path(weights)) if Path(weights).is_file() else weights


def _small_shape(weights: Path, profile: str) -> SmallModel:
    beside = weights.with_name("model.json")
    if beside.is_file():
        return SmallModel(**json.loads(beside.read_text(encoding="utf-8")))
    if not profile:
        raise ValueError(
            f"no model.json beside {weights} says the model's shape: pass the profile that the "
            "model was trained with (--profile)"
        )
    chosen = load_profile(profile)
    if chosen.model.kind != "small":
        raise ValueError(f"profile {profile!r} has no small model but {chosen.model.name}")
    shape = chosen.model.model_dump(exclude={"kind", "name", "pretrained"})
    return SmallModel(image_size=chosen.dataset.image_size, **shape)


def _image_tower(path: Path) -> dict[str, torch.Tensor] | None:
    """The state of the image tower if the file holds nothing else."""
    if path.suffix == ".safetensors":
        state: Any = load_file(str(path))
    else:
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # whatever the unpickler refuses, it must not be run
            raise ValueError(
                f"{path} cannot be read as tensors alone ({str(error).splitlines()[0]}); convert "
                "it to safetensors on a machine where you trust the file"
            ) from error
    for wrapper in ("vision_encoder_state_dict", "state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise ValueError(f"{path}: expected a mapping from names to tensors")
    prefixes = ("module.", "model.", "visual.")
    bare = dict(state)
    for prefix in prefixes:
        if bare and all(key.startswith(prefix) for key in bare):
            bare = {key.removeprefix(prefix): value for key, value in bare.items()}
    return bare if "conv1.weight" in bare and "logit_scale" not in bare else None


def _completed(
    name: str, image_tower: dict[str, torch.Tensor], weights: str, rest: str, device: str
) -> OpenClipEncoder:
    if not rest:
        raise ValueError(
            f"{weights} holds an image tower only; name the weights of the other towers, those "
            "that it was fine-tuned from (--pretrained openai, or a file)"
        )
    encoder = open_named(name, rest, device)
    visual: torch.nn.Module = encoder.clip.visual  # type: ignore[assignment]
    try:
        visual.load_state_dict(image_tower)
    except RuntimeError as error:
        raise ValueError(f"{weights} does not hold the image tower of {name}: {error}") from error
    return encoder.eval()
