"""`python -m matlib export`: a model of a study as a folder that opens anywhere, with its zoo."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from matlib.files import file_hash, write_durably
from matlib.models.encoder import VisionLanguageModel
from matlib.models.opening import OPEN_CLIP_CONFIG
from matlib.models.settings import LOCAL, model_config
from matlib.models.small import WEIGHTS_FILE, save_small
from matlib.models.zoo import ZooEntry, read_zoo
from matlib.study.profile.profile import Profile
from matlib.study.recipes import train_attack_of
from matlib.study.study import open_study
from matlib.training.checkpoint import save_weights

ZOO_FILE = "zoo.yaml"
_SOURCE = "this project: matlib export"


def run_export(
    profile: str, row: str, out: Path, *, seed: int, results: str, data: str
) -> tuple[Path, str]:
    """Write a study's model into a folder of `out`, and its entry into `out/zoo.yaml`.

    A row that is not trained yet is trained. `matlib.models.open` opens the folder, and
    `evaluate --zoo NAME --zoo-file out/zoo.yaml` judges it.

    Returns:
        the folder, and the name in the zoo.

    Raises:
        ValueError, FileNotFoundError: an unknown profile or row, or a damaged zoo.
    """
    study = open_study(profile, results, data)
    zoo = read_zoo(out / ZOO_FILE) if (out / ZOO_FILE).is_file() else {}
    encoder = study.model(row, seed)
    name = f"{study.profile.name}.{row}.s{seed}"
    folder = out / name
    folder.mkdir(parents=True, exist_ok=True)
    model = study.profile.model
    if model.kind == "open_clip":
        save_open_clip(encoder, model.name, folder)
    else:
        save_small(encoder, model.shape(study.profile.dataset.image_size), folder)
    entry = ZooEntry(
        model=LOCAL + name, layout="a folder of this project", licence=None, citation=_SOURCE,
        sha256=file_hash(folder / WEIGHTS_FILE), source=_SOURCE,
        trained_for=_threat(study.profile, row),
    )  # fmt: skip
    entries = {key: each.model_dump() for key, each in {**zoo, name: entry}.items()}
    write_durably(out / ZOO_FILE, yaml.safe_dump({"models": entries}, sort_keys=False))
    return folder, name


def save_open_clip(encoder: VisionLanguageModel, name: str, folder: Path) -> None:
    """A model of open_clip's as its own folders have it: weights beside `open_clip_config.json`.

    Args:
        name: of `open_clip.list_models()`.
    """
    config = {**model_config(name), "quick_gelu": encoder.settings.quick_gelu}
    images = encoder.settings.preprocessing(encoder.image_size)
    content = {"model_cfg": config, "preprocess_cfg": images}
    write_durably(folder / OPEN_CLIP_CONFIG, json.dumps(content, indent=1) + "\n")
    save_weights(encoder, folder / WEIGHTS_FILE)


def _threat(profile: Profile, row: str) -> str:
    """The attack that a row was trained against, in words."""
    if row == "base":
        return "no attack"
    run = next(each for each in profile.every_run if each.row == row)
    budget = train_attack_of(profile, run)
    return f"{run.defence}: images up to {budget.eps_255:g}/255, words up to {budget.n_words}"
