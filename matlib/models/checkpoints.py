"""Weights from disk: a mapping from names to tensors, out of whatever a training loop saved.

Nothing is executed: safetensors, or PyTorch's files read as tensors alone. What cannot be read
is refused in one line that names the file.
"""

from __future__ import annotations

import warnings
import zipfile
from argparse import Namespace
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from matlib.data import strict

# Where the weights lie in a folder of open_clip's or of transformers; the first that is there.
WEIGHT_FILES = tuple(
    f"{stem}.{suffix}"
    for stem in ("open_clip_model", "open_clip_pytorch_model", "model", "pytorch_model")
    for suffix in ("safetensors", "safetensors.index.json", "bin", "bin.index.json")
)
# Around a model's state: what loops call it, what wrapped the model, what lies beside it.
_TOWERS = {
    f"{tower}{end}": prefix
    for prefix, towers in (
        ("visual.", ("vision_encoder", "image_encoder", "visual", "vision", "image")),
        ("text.", ("text_encoder", "textual", "text")),
    )
    for tower in towers
    for end in ("", "_state_dict", "_model_state_dict")
}
_WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
_OWNERS = ("model", "clip", "clip_model", "net", "network", "backbone", "encoder", "state_dict")
_BESIDE = (
    "optim", "sched", "lr_", "scaler", "amp", "rng", "args", "config", "hyper", "callbacks",
    "loops",
)  # fmt: skip
_SCALES = ("logit_scale", "logit_bias")


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint file, or of a folder of open_clip's or transformers' layout.

    Found inside any nesting of what training loops wrap around a model (`state_dict`,
    `model_state_dict`, both towers apart …), their names without what wrapped the model
    (`module.`, `_orig_mod.`, `model.` …).

    Returns:
        names -> tensors on the CPU, of the file's own types.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: empty, cut, of another kind, not readable as tensors alone, or with more
            than one model in it.
    """
    parts = [_unwrapped(_content(file), file) for file in _files(path)]
    state: dict[str, Tensor] = {}
    for part in parts:
        state.update(part)
    return state


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of one safetensors file, as they were saved.

    Raises:
        FileNotFoundError, ValueError: no such file, or cut or of another kind.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no weights at {path}")
    try:
        return load_file(str(path))
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(f"{path}: cut, or no safetensors ({_line(error)}); {_AGAIN}") from error


def read_metadata(path: Path) -> dict[str, str]:
    """What a safetensors file says of itself; nothing if it is of another kind."""
    try:
        with safe_open(str(path), framework="pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError, ValueError):
        return {}


def read_json_object(path: Path) -> dict[str, Any]:
    """A JSON object beside weights.

    Raises:
        ValueError: it holds something else.
    """
    found = strict.read_json(path)
    if not isinstance(found, dict):
        raise ValueError(f"{path}: expected a JSON object, got {type(found).__name__}")
    return found


def check_architecture(
    stored: Mapping[str, Tensor], expected: Mapping[str, Tensor], what: str
) -> None:
    """Refuse weights of another model.

    Raises:
        ValueError: names, shapes or kinds of numbers differ; the message counts what is missing
            and what is left over, and lists the first tensors.
    """
    differ = [
        name
        for name in sorted(stored.keys() | expected.keys())
        if name not in stored or name not in expected or not _fits(stored[name], expected[name])
    ]
    if differ:
        shown = ", ".join(_difference(n, stored, expected) for n in differ[:5])
        more = " …" if len(differ) > 5 else ""
        missing, left = len(expected.keys() - stored.keys()), len(stored.keys() - expected.keys())
        raise ValueError(
            f"{what}: {len(differ)} tensors do not fit this model, {missing} missing, {left} that "
            f"it has no place for, {len(differ) - missing - left} of another shape or kind: "
            f"{shown}{more}"
        )


def check_numbers(module: nn.Module, what: str) -> None:
    """Refuse weights with which no embedding or no gradient can be computed.

    Raises:
        ValueError: a weight or the factor of similarities is infinite or not a number.
    """
    for name, value in module.state_dict().items():
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise ValueError(
                f"{what}: {name} holds infinite values or NaN: the training that wrote it "
                "diverged, or the file is damaged; take an earlier checkpoint"
            )
        if name.rpartition(".")[2] == "logit_scale":
            factor = value.float().exp()
            if not bool((factor.isfinite() & (factor > 0)).all()):
                raise ValueError(
                    f"{what}: {name} is {float(value.max()):g}, whose exponential is "
                    f"{float(factor.max()):g}: expected the logarithm of a positive factor, at "
                    "most 88; take an earlier checkpoint"
                )


_AGAIN = "fetch or write it again"


def _files(path: Path) -> list[Path]:
    """The file itself, or those that hold a folder's weights."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise FileNotFoundError(f"no checkpoint file at {path}")
    found = [path / name for name in WEIGHT_FILES if (path / name).is_file()]
    if not found:
        raise FileNotFoundError(
            f"{path}: no weights in this folder (expected {WEIGHT_FILES[0]} or such)"
        )
    if found[0].suffix != ".json":
        return found[:1]
    shards = read_json_object(found[0]).get("weight_map")
    names = sorted(set(map(str, shards.values()))) if isinstance(shards, dict) else []
    missing = [n for n in names if Path(n).name != n or not (path / n).is_file()]
    if missing or not names:
        raise FileNotFoundError(f"{found[0]} names files that are not there: {', '.join(missing)}")
    return [path / name for name in names]


def _content(path: Path) -> Any:
    """What a file holds, by its first bytes: a suffix may say anything."""
    with path.open("rb") as file:
        head = file.read(64)
    if not head:
        raise ValueError(f"{path} is empty; {_AGAIN}")
    if head.startswith(b"version https://git-lfs"):
        raise ValueError(f"{path} is a pointer of Git LFS, not the weights; fetch the file itself")
    if head[:2] == b"PK" or head[:1] == b"\x80":
        return _torch_content(path, is_zip=head[:2] == b"PK")
    if path.suffix != ".safetensors" and head[8:9] != b"{":
        raise ValueError(f"{path}: expected safetensors or a file of torch.save; {_AGAIN}")
    return read_tensors(path)


def _torch_content(path: Path, *, is_zip: bool) -> Any:
    if is_zip:
        try:
            with zipfile.ZipFile(path) as archive:
                inside = {Path(name).name for name in archive.namelist()}
        except (zipfile.BadZipFile, OSError) as error:
            raise ValueError(f"{path} is cut or damaged ({_line(error)}); {_AGAIN}") from error
        if "constants.pkl" in inside:
            raise ValueError(
                f"{path} is a TorchScript program, which would have to be run; take the tag "
                "(openai), or save its state_dict() where you trust the file"
            )
        if "data.pkl" not in inside:
            raise ValueError(f"{path}: expected safetensors or a file of torch.save; {_AGAIN}")
    try:
        with torch.serialization.safe_globals([Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever the unpickler refuses, it must not be run
        raise ValueError(
            f"{path} is cut, or cannot be read as tensors alone ({_line(error)}); fetch it again, "
            "or convert it to safetensors on a machine where you trust the file"
        ) from error


def _unwrapped(found: Any, path: Path) -> dict[str, Tensor]:
    """The one state in what a training loop saved, whatever lies around it."""
    if not isinstance(found, Mapping) or not all(isinstance(key, str) for key in found):
        raise ValueError(
            f"{path}: expected a mapping from names to tensors, got {type(found).__name__}"
        )
    states = {k: v for k, v in found.items() if _is_state(v) and not _is_beside(k)}
    own = {k: v for k, v in found.items() if isinstance(v, Tensor)}
    if not states:
        if not any(v.numel() for v in own.values()):
            raise ValueError(f"{path} holds no tensors: expected a mapping from names to tensors")
        return _bare(own, path)
    scales = {k: v for k, v in own.items() if k in _SCALES}
    if all(key in _TOWERS for key in states):
        towers = {k: _unwrapped(v, path) for k, v in states.items()}
        if len({_TOWERS[key] for key in towers}) == len(towers):
            parts = [_of_tower(part, _TOWERS[key]) for key, part in towers.items()]
            return {**parts[0], **parts[-1], **scales}
    if len(states) > 1:
        raise ValueError(
            f"{path} holds several states ({', '.join(sorted(states))}) and nothing tells which is "
            "meant; save that one alone"
        )
    return {**_unwrapped(next(iter(states.values())), path), **scales}


def _is_state(value: Any) -> bool:
    if not isinstance(value, Mapping):
        return False
    return any(_is_state(v) or (isinstance(v, Tensor) and v.numel() > 0) for v in value.values())


def _is_beside(key: str) -> bool:
    return key.lower().startswith(_BESIDE)


def _of_tower(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors of a tower that was saved on its own, under the whole model's names."""
    return {
        key if key in _SCALES or key.startswith(prefix) else prefix + key: value
        for key, value in state.items()
    }


def _bare(state: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Names without what wrapped the model, inside or around it."""
    names = {key: ".".join(p for p in key.split(".") if p not in _WRAPPERS) for key in state}
    while (first := _shared_owner(names.values())) is not None:
        names = {key: name.removeprefix(f"{first}.") for key, name in names.items()}
    if len(set(names.values())) < len(names):
        raise ValueError(f"{path} holds some tensors twice, under different wrappers; save one")
    return {names[key]: value for key, value in state.items()}


def _shared_owner(names: Iterable[str]) -> str | None:
    firsts = {name.partition(".")[0] for name in names if name not in _SCALES}
    first = firsts.pop() if len(firsts) == 1 else ""
    return first if first in _OWNERS and all("." in n for n in names if n not in _SCALES) else None


def _fits(stored: Tensor, expected: Tensor) -> bool:
    alike = stored.is_floating_point() == expected.is_floating_point()
    return stored.shape == expected.shape and alike and not _kind(stored)


def _kind(stored: Tensor) -> str:
    """What a tensor is instead of an array of numbers; empty for one that is."""
    if stored.is_meta:
        return "without values"
    return "" if stored.layout == torch.strided else str(stored.layout)


def _difference(name: str, stored: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str:
    if name not in stored:
        return f"{name} (missing)"
    if name not in expected:
        return f"{name} (not in this model)"
    if kind := _kind(stored[name]):
        return f"{name} ({kind}, an array of numbers is expected)"
    if stored[name].shape == expected[name].shape:
        return f"{name} {stored[name].dtype} instead of {expected[name].dtype}"
    return f"{name} {tuple(stored[name].shape)} instead of {tuple(expected[name].shape)}"


def _line(error: BaseException) -> str:
    """The first line of a library's words."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
