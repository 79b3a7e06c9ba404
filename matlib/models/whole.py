"""Pretrained models of transformers and diffusers: loaded whole, or refused with the remedy.

Their loaders draw what a file does not hold at random and leave what the model has no place
for, with a log line. Such a model is half of one: its answers look like answers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from transformers.utils import logging as transformers_logging

_Loaded = TypeVar("_Loaded")


def load_pretrained(
    load: Callable[..., _Loaded], source: str, what: str, **options: Any
) -> _Loaded:
    """`load(source)` from a local folder or a hub, with errors that say what to do.

    Args:
        load: a `from_pretrained`.
        what: for messages, such as `captioner`.

    Raises:
        FileNotFoundError: no such folder here, and no such model on a hub that can be reached.
        ValueError: the folder is there and holds something else, or a damaged file.
    """
    try:
        return load(source, **options)
    except ImportError:
        raise
    except Exception as error:  # the libraries raise whatever their parsers do
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if Path(source).is_dir() and not isinstance(error, OSError):
            raise ValueError(
                f"the {what} in {source!r} cannot be read ({reason}). Save it again with "
                "save_pretrained, or download it again."
            ) from error
        raise FileNotFoundError(
            f"no {what} at {source!r}, and none of that name on a hub that can be reached "
            f"({reason}). Pass a local folder with its safetensors, or download it first."
        ) from error


def load_whole(
    load: Callable[..., Any], source: str, what: str, *, unread: str = "", **options: Any
) -> Any:
    """A model from safetensors, every weight of which is in its files and every one used.

    Args:
        load: `from_pretrained` of the model's class.
        unread: regular expression of weights that are never read, such as those of another
            head; they may be missing or left over.

    Raises:
        FileNotFoundError: as `load_pretrained`.
        ValueError: weights are missing or left over; or as `load_pretrained`.
    """
    with _without_reports():
        model, found = load_pretrained(
            load, source, what, use_safetensors=True, output_loading_info=True, **options
        )
    ignored = re.compile(unread or r"(?!)")
    for kind, says in (
        ("missing_keys", "lacks weights, which would be drawn at random"),
        ("mismatched_keys", "has weights of other shapes than its configuration says"),
        ("unexpected_keys", "holds weights that a model of this kind has no place for"),
    ):
        names = sorted(str(each) for each in found.get(kind) or ())
        names = [name for name in names if not ignored.search(name)]
        if names:
            raise ValueError(
                f"the {what} at {source!r} {says}: {', '.join(names[:3])}"
                f"{f' and {len(names) - 3} more' if len(names) > 3 else ''}. Its config.json and "
                f"its weights must be those of one {what} ({type(model).__name__}): take the "
                "folder that save_pretrained of the whole model wrote."
            )
    return model


@contextmanager
def _without_reports() -> Iterator[None]:
    """Without transformers' table of missing weights and its bars: one message is enough."""
    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(before)
