"""Whether a study's images are made as its models were trained to see them."""

from __future__ import annotations

from matlib.models.opening import image_size_of, settings_of
from matlib.models.settings import Settings
from matlib.study.profile.parts import Dataset
from matlib.study.profile.profile import Profile


def check_models(profile: Profile) -> None:
    """Check every named model of a profile against its data, before any work.

    Weights that are not on this machine are not missed here: finished results need none.

    Raises:
        ValueError: a model takes images of another size, or made in another way.
    """
    for model in (profile.model, *profile.architectures.values()):
        if model.kind != "open_clip":
            continue
        check_size(profile, model.name, image_size_of(model.name))
        try:
            settings = settings_of(model.name, model.pretrained or None, model.rest)
        except FileNotFoundError:
            continue
        if model.pretrained:
            check_images(profile.dataset, settings, f"{model.name} / {model.pretrained}")


def check_size(profile: Profile, what: str, image_size: int) -> None:
    """Raises ValueError: the profile's images have another size than the model's."""
    wanted = profile.dataset.image_size
    if image_size != wanted:
        raise ValueError(
            f"{what} takes images of {image_size} px, profile {profile.name} has {wanted} px: pass "
            f"a profile with dataset.image_size {image_size} (a YAML file will do)"
        )


def check_images(dataset: Dataset, settings: Settings, what: str) -> None:
    """Check how image files are resized; the embedded world draws its images in their size.

    Raises:
        ValueError: the weights were trained with another way.
    """
    if dataset.name == "scenes":
        return
    for key in ("image_mode", "interpolation"):
        has, wants = getattr(dataset, key), getattr(settings, key)
        if has != wants:
            raise ValueError(
                f"{what} was trained with images made by {wants}, the profile's are made by {has}: "
                f"pass a profile with dataset.{key} {wants} (a YAML file will do)"
            )
