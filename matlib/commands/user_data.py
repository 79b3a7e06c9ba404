"""A user's own images and captions: a folder, and a file that says what belongs together.

Rows of one's own beside a study's: their names, whose they are, and one table of both.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from matlib.data.caption_files import read_caption_file
from matlib.data.images import Fit, Interpolation, decode_image, find_images, one_spelling
from matlib.data.karpathy import KarpathyEntry, read_entries
from matlib.data.pairs import ImageFiles, ImageTextPairs, n_readers
from matlib.data.strict import check_whole, read_json
from matlib.progress import Progress
from matlib.study.store.provenance import canonical_json, file_hash, text_hash
from matlib.study.store.store import ArtefactSpec
from matlib.study.study import Study
from matlib.study.tables.results import ROBUSTNESS_COLUMNS

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"})


def read_user_data(images: Path, captions: Path, split: str = "test") -> ImageTextPairs:
    """Images of a folder with their captions, everything checked before anything is decoded.

    Images are decoded as they are asked for; say first at which size (`sized`), 224 by default.

    Args:
        images: folder that the file names are relative to.
        captions: a mapping from image file name to a list of captions (read in the order of
            the names), as JSON, table or `.token` file (see `read_caption_file`); or a data set
            in the Karpathy format (in the order of the file).
        split: of a Karpathy file, the images that are taken; `all` for every split.

    Raises:
        FileNotFoundError: the folder, the captions or an image file is missing.
        ValueError: no such file of captions, no captions at all, an image without captions or
            under two names, or a caption that no file can hold.
    """
    if not images.is_dir():
        raise FileNotFoundError(f"no folder of images at {images}")
    if not captions.is_file():
        raise FileNotFoundError(f"no captions file at {captions}")
    content = read_caption_file(captions)
    if isinstance(content, dict) and isinstance(content.get("images"), list):
        entries = _of_split(read_entries(captions), split, captions)
        names = one_spelling([f"{e.filepath}/{e.filename}".lstrip("/") for e in entries], captions)
        per_image = [e.captions for e in entries]
        also: Sequence[KarpathyEntry] = entries
    else:
        names, per_image = _mapping(content, captions)
        also = ()
    paths = find_images(images, names, captions)
    own = [i for i, texts in enumerate(per_image) for _ in texts]
    return ImageTextPairs(
        name=captions.stem,
        split=split if also else "all",
        images=ImageFiles(paths, partial(decode_image, size=224)),
        captions=tuple(text for texts in per_image for text in texts),
        image_of=torch.tensor(own, dtype=torch.long),
        image_ids=tuple(names),
        relevant=_relevant(also, own),
        notes=_notes(images, names) if not also else (),
    )


def sized(
    pairs: ImageTextPairs,
    image_size: int,
    mode: Fit = "crop",
    interpolation: Interpolation = "bicubic",
) -> ImageTextPairs:
    """The same pairs, their images brought to a model's size in its way (see `decode_image`)."""
    assert isinstance(pairs.images, ImageFiles)
    decode = partial(decode_image, size=image_size, mode=mode, interpolation=interpolation)
    files = ImageFiles(pairs.images.paths, decode)
    return replace(pairs, images=files)


def file_hashes(pairs: ImageTextPairs) -> list[str]:
    """The hash of every image file."""
    assert isinstance(pairs.images, ImageFiles)
    with ThreadPoolExecutor(n_readers()) as pool:
        return list(pool.map(file_hash, pairs.images.paths))


def identity(pairs: ImageTextPairs, files: Sequence[str], rows: torch.Tensor | None = None) -> str:
    """Hash of the captions, of the images that each is true of, and of every image file.

    Args:
        files: hash of each image's file.
        rows: int64, the images that count, with all their captions; all by default.
    """
    rows = torch.arange(len(pairs)) if rows is None else rows
    columns = torch.isin(pairs.image_of, rows).nonzero().flatten()
    content = {
        "images": [[pairs.image_ids[i], files[i]] for i in rows.tolist()],
        "captions": [pairs.captions[i] for i in columns.tolist()],
        "image_of": pairs.image_of[columns].tolist(),
        "relevant": _pairs_of(pairs.relevant, rows, columns),
    }
    return text_hash(json.dumps(content))


def _pairs_of(relevant: torch.Tensor | None, rows: torch.Tensor, columns: torch.Tensor) -> Any:
    return None if relevant is None else relevant[rows][:, columns].nonzero().tolist()


def check_readable(pairs: ImageTextPairs, rows: Sequence[int]) -> None:
    """Decode the images at `rows` once, so that a bad one is found before the long work.

    Raises:
        ValueError: images that cannot be decoded; all of them are counted.
    """
    assert isinstance(pairs.images, ImageFiles)
    files = pairs.images

    def fault(row: int) -> str:
        try:
            files.decode(files.paths[row])
        except (OSError, ValueError) as error:
            return str(error)
        return ""

    faults = []
    with ThreadPoolExecutor(n_readers()) as pool, Progress("check images", len(rows)) as progress:
        for found in pool.map(fault, rows):
            faults += [found] if found else []
            progress.advance()
    if faults:
        more = f"\n  and {len(faults) - 5:,} more" if len(faults) > 5 else ""
        raise ValueError(
            f"{len(faults):,} of {len(rows):,} images cannot be used; what is finished is kept:"
            + "".join(f"\n  {found}" for found in faults[:5])
            + more
        )


def read_mapping(path: Path, what: str) -> Mapping[str, Any]:
    """A JSON object from a file.

    Raises:
        FileNotFoundError, ValueError: no such file, or it holds something else.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no {what} at {path}")
    content = read_json(path)
    if not isinstance(content, dict) or not content:
        raise ValueError(f"{path}: expected a JSON object that is not empty, for {what}")
    return content


def settings_hash(settings: Mapping[str, Any]) -> str:
    """Identity of a run's settings."""
    return text_hash(canonical_json(settings))


def _mapping(content: Any, path: Path) -> tuple[list[str], list[tuple[str, ...]]]:
    if not isinstance(content, dict):
        raise ValueError(
            f"{path}: expected a mapping from image file names to lists of captions, or a "
            f"Karpathy file with the key 'images'; got {type(content).__name__}"
        )
    if not content:
        raise ValueError(f"{path}: no captions: the mapping is empty")
    for name, texts in content.items():
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise ValueError(f"{path}: expected a list of captions for {name!r}; got {texts!r:.60}")
    without = sorted(name for name, texts in content.items() if not texts)
    if without:
        raise ValueError(
            f"{path}: {len(without)} images without captions, e.g. {', '.join(without[:3])}; "
            "give each at least one caption or leave it out"
        )
    for name, texts in content.items():
        for text in texts:
            check_whole(text, f"{path}: image {name!a}")
    of = dict(zip(one_spelling(list(content), path), content.values(), strict=True))
    return sorted(of), [tuple(" ".join(text.split()) for text in of[name]) for name in sorted(of)]


def _of_split(entries: Sequence[KarpathyEntry], split: str, path: Path) -> list[KarpathyEntry]:
    chosen = [entry for entry in entries if split in ("all", entry.split)]
    if not chosen:
        present = ", ".join(sorted({entry.split for entry in entries}))
        raise ValueError(f"{path}: no {split} images; --split is one of: {present}, all")
    return chosen


def _relevant(entries: Sequence[KarpathyEntry], own: Sequence[int]) -> torch.Tensor | None:
    """bool (N, M) if the file says that captions are true of further images, else None."""
    if not any(any(entry.also_true_of) for entry in entries):
        return None
    row_of = {entry.imgid: i for i, entry in enumerate(entries)}
    relevant = torch.zeros(len(entries), len(own), dtype=torch.bool)
    relevant[torch.tensor(own), torch.arange(len(own))] = True
    others = [numbers for entry in entries for numbers in entry.also_true_of]
    for caption, numbers in enumerate(others):
        relevant[[row_of[n] for n in numbers if n in row_of], caption] = True
    return relevant


def _notes(folder: Path, names: Sequence[str]) -> tuple[str, ...]:
    present = {
        unicodedata.normalize("NFC", path.relative_to(folder).as_posix())
        for path in folder.rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES
    }
    extra = len(present - set(names))
    return (f"{extra:,} images of the folder have no captions and are left out",) if extra else ()


KIND = "extra"
ROBUSTNESS = "robustness.csv"
LONGEST_NAME = 100
_LIMITED = ".limit-"
_MODEL = ["defence", "augmentation", "seed", "source_model"]
_NUMBERS = ("train_eps_255", "eps_255", "recall", "ci_low", "ci_high")
_COUNTS = ("n_words", "k", "n_queries", "n_gallery")
_CONDITIONS = [
    "dataset", "split", "attack", "text_threat", "eps_255", "n_words", "direction", "k",
    "n_queries", "n_gallery",
]  # fmt: skip
"""What two recalls must have in common to stand in one column."""


def check_name(name: str) -> None:
    """Whether a row may have this name, as far as the name alone tells.

    Raises:
        ValueError: it may not.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.+-]*", name) or len(name) > LONGEST_NAME:
        raise ValueError(
            f"--name becomes a row and a file: at most {LONGEST_NAME} letters, digits and "
            f"_ . + - are expected; got {name!r:.120}"
        )
    if _LIMITED in name:
        raise ValueError(f"{_LIMITED!r} in a name is for rows on fewer images; got {name!r}")


def new_row_name(name: str, study: Study) -> str:
    """The row's name: what was asked for, with the number of images where they are fewer.

    Raises:
        ValueError: the study has a row of that name, or had one when its table was written.
    """
    profile = study.profile
    taken = {"base", "self", "mean", *profile.architectures}
    for run in profile.every_run:
        taken |= {run.row, run.defence, run.label or run.row}
    with suppress(ValueError, OSError):  # a table that cannot be read is not shown either
        taken |= {*read_rows(study.root / ROBUSTNESS)["defence"]}
    if name.casefold() in {each.casefold() for each in taken}:
        raise ValueError(
            f"the study has {name!r} itself, and two models would be read as one; choose another "
            f"--name, such as {name}-own"
        )
    return f"{name}{_LIMITED}{profile.dataset.n_test}" if profile.limit else name


def refuse_other_model(study: Study, spec: ArtefactSpec) -> None:
    """Let a name stand for one model under one attack.

    Raises:
        ValueError: the name is taken.
    """
    mine = _owner(spec.config, spec.inputs)
    for record in study.store.records():
        name = str(record.get("name"))
        if record.get("kind") != KIND or name.casefold() != spec.name.casefold():
            continue
        different = [
            f"{key}: {value:.12} there, {mine[key]:.12} now"
            for key, value in _owner(record.get("config"), record.get("inputs")).items()
            if value != mine[key]
        ]
        if different or name != spec.name:
            about = "; ".join(different) or f"its name is {name}"
            raise ValueError(
                f"{study.root / 'extra' / name}.csv is the row of another model or of another "
                f"attack ({about}); choose another --name, or delete "
                f"{study.store.runs / f'{KIND}-{name}-*'}"
            )


def _owner(config: Any, inputs: Any) -> dict[str, str]:
    """What a name stands for; code, profile and data may change under it."""
    both = [(config, "model"), (config, "source"), (inputs, "weights"), (inputs, "rest")]
    return {key: str(part.get(key) if isinstance(part, dict) else None) for part, key in both}


def read_rows(path: Path) -> pd.DataFrame:
    """A table of recalls (`COLUMNS`), checked.

    Names such as `NA` or `007` stay text.

    Raises:
        ValueError: cut, damaged, or of other columns.
    """
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        if tuple(table.columns) != ROBUSTNESS_COLUMNS or not len(table):
            raise ValueError("its columns are other ones, or it has no rows")
        for column in (*_NUMBERS, *_COUNTS):
            table[column] = pd.to_numeric(table[column].mask(table[column] == ""))
        needed = table[[*_COUNTS, "recall"]]
        if needed.isna().any().any() or not table["recall"].between(0, 1).all():
            raise ValueError("a row is cut, or a recall is not in [0, 1]")
    except (ValueError, pd.errors.ParserError) as error:
        raise ValueError(
            f"{path} is not a whole table of recalls ({error}); make it again: run the study, or "
            "move the file away"
        ) from error
    return table


def _judged_alike(theirs: pd.DataFrame, own: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """The rows of models that have all of `own`'s conditions, and how many models have not."""
    conditions = own[_CONDITIONS].drop_duplicates()
    alike = theirs.merge(conditions, on=_CONDITIONS)
    alike = alike.groupby(_MODEL, sort=False).filter(lambda rows: len(rows) == len(conditions))
    return alike, len(theirs[_MODEL].drop_duplicates()) - len(alike[_MODEL].drop_duplicates())


def beside_the_study(study: Study, own: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Mean of TR@1 and IR@1 (percent), clean and under the deciding attack, per model.

    The deciding attack is the worst of the suite under the profile's primary threat. The
    study's rows are there once its `robustness.csv` is; only those judged as the own one was
    (gallery, budget) and whole.

    Returns:
        the table, and lines that say what is left out and why.
    """
    threat, notes = study.profile.evaluation.primary_threat, []
    endpoints = {"clean": ("clean", ""), f"worst of {threat}": ("worst", threat)}
    top = (own["split"] == "test") & (own["k"] == 1)
    asked = pd.MultiIndex.from_frame(own[["attack", "text_threat"]]).isin(endpoints.values())
    own = own[top & asked]
    rows = own
    if (study.root / ROBUSTNESS).is_file():
        try:
            theirs, n_left_out = _judged_alike(read_rows(study.root / ROBUSTNESS), own)
        except ValueError as error:
            notes.append(f"without the study's rows: {error}")
        else:
            rows = pd.concat([theirs, own], ignore_index=True)
            if n_left_out:
                notes.append(
                    f"{n_left_out} rows of the study are left out: they were judged on another "
                    "gallery, within another budget, or not to the end"
                )
    found = {
        label: 100
        * rows[(rows["attack"] == attack) & (rows["text_threat"] == text_threat)]
        .groupby(_MODEL, sort=False)["recall"]
        .mean()
        .round(4)
        for label, (attack, text_threat) in endpoints.items()
    }
    return pd.DataFrame(found).reset_index(), notes
