"""The one door: whatever somebody has of a vision-language model, opened behind the contract."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from matlib.models.checkpoints import read_json_object, read_metadata, read_weights
from matlib.models.encoder import VisionLanguageModel
from matlib.models.fusion import Blip
from matlib.models.hub import fetched
from matlib.models.in_memory import ClipInMemory
from matlib.models.layouts import found_layout
from matlib.models.opening import OPEN_CLIP_CONFIG, checked_device, open_named
from matlib.models.settings import LOCAL, Settings, said_by_metadata, tags_of
from matlib.models.small import SHAPE_FILE, WEIGHTS_FILE, load_small
from matlib.models.transformers_clip import CONFIG
from matlib.models.transformers_model import TransformersEncoder
from matlib.models.whole import load_pretrained, load_whole

HUB = "hf-hub:"
"""What begins the name of a model on the hub, as in open_clip."""


ALBEF = "albef"
"""The name that opens a released checkpoint of ALBEF or TCL."""


def open(
    model: str | Path | nn.Module,
    weights: Any = "",
    device: str | None = None,
    *,
    rest: str | Path = "",
    settings: Settings | None = None,
) -> VisionLanguageModel:
    """Any model, in evaluation mode (one in memory stays in its own).

    Activation, statistics of the pixels, size, resizing, context length and tokenizer are those
    of the weights' own configuration.

    Args:
        model: one of
            a name of `open_clip.list_models()` (`weights`: a tag, a file, a folder; None: random);
            a folder, or `local-dir:` and its path, of open_clip's, transformers' or this
            project's layout; `hf-hub:` and the name of such a folder on the hub;
            a model of open_clip in memory (`weights`: its tokenizer);
            transformers' `CLIPModel`, `SiglipModel` or `BlipForImageTextRetrieval` in memory
            (`weights`: its processor);
            `albef` (`weights`: a released checkpoint of ALBEF or TCL, `rest`: BERT's tokenizer).
        weights: see there; a folder brings its own.
        device: `cpu` by default; a model in memory stays where it is.
        rest: the weights that a checkpoint stems from: they complete a tower that it lacks, and
            tell settings that nothing else tells. Of a folder of transformers without a
            processor: the folder, or name on the hub, of a model that has the processor.
        settings: of an open_clip model, instead of what its weights tell.

    Raises:
        ValueError: an unknown model; a file that cannot be read or holds another model, half a
            tower, or numbers that are not finite; settings that nothing tells or that contradict
            each other; a tokenizer or a processor of another model.
        FileNotFoundError: the weights are neither here nor reachable on the hub.
    """
    if isinstance(model, nn.Module):
        found = _in_memory(model, weights)
        return found if device is None else found.to(checked_device(device))
    device, name = checked_device(device or "cpu"), str(model)
    if name.startswith(HUB):
        name = LOCAL + str(fetched(name.removeprefix(HUB)))
    path = Path(name.removeprefix(LOCAL))
    if name.startswith(LOCAL) or (weights == "" and path.is_dir()):
        return _from_folder(path, weights, str(rest), settings).to(device).eval()
    if weights == "":
        raise _without_weights(name)
    if name == ALBEF:
        from matlib.models.albef import open_albef  # needs timm and BERT, slow

        return open_albef(Path(weights or ""), str(rest)).to(device)
    weights = None if weights is None else str(weights)
    return open_named(name, weights, device, rest=str(rest), settings=settings)


def _in_memory(model: nn.Module, beside: Any) -> VisionLanguageModel:
    if isinstance(model, VisionLanguageModel):
        return model
    kind = str(getattr(getattr(model, "config", None), "model_type", ""))
    if kind in _KINDS:
        return _KINDS[kind].of(model, beside)
    return ClipInMemory(model, beside)


def _from_folder(
    folder: Path, weights: Any, rest: str, settings: Settings | None
) -> VisionLanguageModel:
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder at {folder}")
    if weights not in ("", None):
        raise ValueError(f"{folder} brings its own weights: leave {str(weights)!r:.80} out")
    if (folder / SHAPE_FILE).is_file():
        file = folder / WEIGHTS_FILE
        said = said_by_metadata(read_metadata(file), str(file))
        return load_small(file, settings=settings or Settings(**said))
    if (folder / OPEN_CLIP_CONFIG).is_file():
        given = None if weights is None else str(folder)
        return open_named(LOCAL + str(folder), given, rest=rest, settings=settings)
    config = folder / CONFIG
    kind = read_json_object(config).get("model_type") if config.is_file() else None
    if kind not in _KINDS:
        there = ", ".join(sorted(path.name for path in folder.iterdir())[:6]) or "nothing"
        known = ", ".join(_KINDS)
        what = f"a model of the type {kind!r}" if kind else f"no configuration ({there})"
        raise ValueError(
            f"{folder} holds {what}; expected {OPEN_CLIP_CONFIG} of open_clip, {CONFIG} of "
            f"transformers with one of the types {known}, or {SHAPE_FILE} of this project. Of a "
            "tower alone: models.open(NAME, FILE, rest=WEIGHTS)"
        )
    return _KINDS[str(kind)].from_folder(folder, rest)


class Kind:
    """A class of transformers that can be opened.

    Args:
        behind: puts a model and its processor behind the contract.
        load: the class's `from_pretrained`, by the class's name.
        unread: regular expression of weights that this project never reads.
    """

    def __init__(
        self, behind: Callable[[Any, Any], VisionLanguageModel], class_name: str, unread: str = ""
    ) -> None:
        self._behind, self._class_name, self._unread = behind, class_name, unread

    def of(self, model: nn.Module, processor: Any) -> VisionLanguageModel:
        """A model in memory.

        Raises:
            ValueError: another class of that type, or no processor.
        """
        if type(model).__name__ != self._class_name or not processor:
            fault = "without a processor" if not processor else ""
            raise ValueError(
                f"expected transformers' {self._class_name} and its processor "
                f"(AutoProcessor.from_pretrained); got {type(model).__name__} {fault}".rstrip()
            )
        return self._behind(model, processor)

    def from_folder(self, folder: Path, rest: str) -> VisionLanguageModel:
        """A folder that `save_pretrained` wrote, with the processor beside it or in `rest`.

        Raises:
            FileNotFoundError: no processor.
            ValueError: weights missing, left over or of other shapes.
        """
        import transformers  # slow

        source = rest.removeprefix(HUB).removeprefix(LOCAL) or str(folder)
        try:
            processor = load_pretrained(
                transformers.AutoProcessor.from_pretrained, source, "processor"
            )
        except (FileNotFoundError, ValueError) as error:
            raise FileNotFoundError(
                f"{folder} has no processor (preprocessor_config.json and the tokenizer's files): "
                "name the model that it was fine-tuned from, which has one, such as "
                "rest=openai/clip-vit-large-patch14 or its folder (attack: --rest, evaluate: "
                f"--pretrained, Python: rest=); {error!s:.160}"
            ) from error
        kind = getattr(transformers, self._class_name)
        model = load_whole(kind.from_pretrained, str(folder), "model", unread=self._unread)
        return self._behind(model.float(), processor)


_KINDS: Mapping[str, Kind] = {
    "clip": Kind(TransformersEncoder, "CLIPModel", r"position_ids$"),
    "siglip": Kind(TransformersEncoder, "SiglipModel", r"position_ids$"),
    "blip": Kind(Blip.with_processor, "BlipForImageTextRetrieval", r"position_ids$"),
}
"""transformers' `model_type` -> what opens it."""


def _without_weights(name: str) -> Exception:
    path = Path(name)
    if path.is_file():
        return ValueError(
            f"{path} does not say which model it is; {found_layout(read_weights(path))}"
        )
    if len(path.parts) > 1 or path.suffix:
        return FileNotFoundError(f"no checkpoint file or folder at {name}")
    tags = ", ".join(tags_of(name)) or "none are known"
    return ValueError(
        f"name the weights of {name} too: a tag ({tags}), a file or a folder; None for random ones"
    )
