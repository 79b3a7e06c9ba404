"""The models that a profile names: on a hub, or in local files and folders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from matlib.config.parts import Model, Part

if TYPE_CHECKING:
    from matlib.config.profile import Profile

SomePart = TypeVar("SomePart", bound=Part)

GENERATORS = ("captioner", "rewriter", "image_to_image", "text_to_image")
WEIGHTS = (".bin", ".ckpt", ".pt", ".pth", ".safetensors")
"""Ends of the names of files: a name with one of them is not one of a hub."""


def map_places(profile: Profile, change: Callable[[str, str], str]) -> Profile:
    """The profile with every name of a model changed.

    Args:
        change: (key, name) -> the name to stand there; empty names are not asked about.
    """

    def with_names(part: SomePart, key: str, *names: str) -> SomePart:
        found = {name: getattr(part, name) for name in names}
        return part.model_copy(
            update={n: change(f"{key}.{n}", value) for n, value in found.items() if value}
        )

    def model(part: Model, key: str) -> Model:
        return with_names(part, key, "pretrained", "rest")

    generators = with_names(profile.generators, "generators", *GENERATORS)
    there = (change("generators.translators", name) for name in generators.translators)
    return profile.model_copy(update={
        "model": model(profile.model, "model"),
        "architectures": {name: model(each, f"architectures.{name}")
                          for name, each in profile.architectures.items()},
        "masked_lm": with_names(profile.masked_lm, "masked_lm", "name"),
        "generators": generators.model_copy(update={"translators": tuple(there)}),
        "evaluation": with_names(profile.evaluation, "evaluation", "sentence_encoder"),
    })  # fmt: skip


def with_places(profile: Profile, folder: Path) -> Profile:
    """Absolute paths in place of relative ones, so that every process finds the same files.

    A relative path is looked for beside the profile, then in the working folder; what lies in
    neither is a name on a hub, unless it can only be a path.

    Args:
        folder: of the profile.

    Raises:
        FileNotFoundError: a path at which there is nothing.
    """

    def place(key: str, name: str) -> str:
        path = Path(name).expanduser()
        places = [path] if path.is_absolute() else [folder / path, Path.cwd() / path]
        # of open_clip: a tag, a file or a folder; no tag has a separator in it
        may_be_tag = key.endswith((".pretrained", ".rest")) and len(path.parts) == 1
        for found in places:
            if found.is_file() or (found.is_dir() and not may_be_tag):
                return str(found.resolve())
        if path.is_absolute() or name.startswith((".", "~")) or path.suffix in WEIGHTS:
            looked = " and in ".join(sorted({str(each.parent) for each in places}))
            raise FileNotFoundError(
                f"{key}: there is no {name!r} (looked in {looked}); a path is relative to the "
                "profile's folder"
            )
        return name

    return map_places(profile, place)
