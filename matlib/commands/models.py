"""Any model from the command line: by name and tag, or from a checkpoint file or folder."""

from __future__ import annotations

from pathlib import Path

from matlib.models import door
from matlib.models.checkpoints import read_metadata
from matlib.models.encoder import VisionLanguageModel
from matlib.models.opening import checked_device
from matlib.models.settings import Settings, said_by_metadata
from matlib.models.small import SmallModel, load_small
from matlib.study.profile.profile import load_profile

SMALL = "small"


def open_any(
    name: str, weights: str, device: str, *, profile: str = "", rest: str = ""
) -> VisionLanguageModel:
    """A model in evaluation mode.

    Args:
        name: an open_clip model (`ViT-B-16`), or `small` for a model of this project.
        weights: a tag of the hub (`openai`), a checkpoint file or a folder, as of
            `matlib.models.open`.
        device: `cpu`, `cuda`, `mps`; checked before anything is read.
        profile: whose model shape `small` has where no model.json lies beside the weights, and
            whose way to resize images where the weights do not tell it.
        rest: the weights that `weights` stem from: they give the towers that it lacks (FARE and
            TeCoA are released as an image tower), and tell its settings where nothing else does.

    Raises:
        ValueError: unknown model or device, or weights of another model.
        FileNotFoundError: no such file, or a tag that cannot be reached.
    """
    if name != SMALL:
        return door.open(name, weights, device, rest=rest)
    checked_device(device)
    path = Path(weights)
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint file at {weights}")
    shape, settings = _small_shape(path, profile), _small_settings(path, profile)
    return load_small(path, shape, settings).to(device)


def _small_shape(weights: Path, profile: str) -> SmallModel | None:
    """None where `model.json` says it."""
    if weights.with_name("model.json").is_file():
        return None
    if not profile:
        raise ValueError(
            f"no model.json beside {weights} says the model's shape: pass the profile that the "
            "model was trained with (--profile)"
        )
    chosen = load_profile(profile)
    if chosen.model.kind != "small":
        raise ValueError(f"profile {profile!r} has no small model but {chosen.model.name}")
    return chosen.model.shape(chosen.dataset.image_size)


def _small_settings(weights: Path, profile: str) -> Settings:
    said = said_by_metadata(read_metadata(weights), str(weights))
    if not said and profile:
        data = load_profile(profile).dataset
        said = {"image_mode": data.image_mode, "interpolation": data.interpolation}
    return Settings(**said)
