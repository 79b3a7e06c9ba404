"""What a study starts from: the embedded world, or a data set on disk, behind one interface."""

from __future__ import annotations

from pathlib import Path

from matlib.study.profile.parts import Dataset
from matlib.study.sources.karpathy import KarpathySource
from matlib.study.sources.scenes import ScenesSource


def open_source(
    config: Dataset, folder: Path | None, kept: Path | None = None
) -> ScenesSource | KarpathySource:
    """The source a profile names.

    Args:
        folder: of a data set on disk.
        kept: as of `KarpathySource`.

    Raises:
        ValueError: a data set on disk is wanted but no folder was given.
        FileNotFoundError: the folder, its JSON or its images are missing.
    """
    if config.name == "scenes":
        return ScenesSource(config)
    if folder is None:
        raise ValueError(
            f"this profile reads {config.name} from disk: pass its folder (make study "
            f"DATA=<folder>, or --data), or fetch it with: python -m matlib data fetch "
            f"{config.name}"
        )
    if not folder.is_dir():
        raise FileNotFoundError(f"no data folder at {folder}")
    return KarpathySource(config, folder, kept)
