"""What `evaluate` writes of one model on one folder of pairs, and `board` reads."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from matlib.data.manifest import Count, Sha256
from matlib.data.strict import read_json
from matlib.evaluation.reranking import RERANKED
from matlib.evaluation.statistics import in_percent

RecallName = Literal["TR@1", "IR@1", "mean"]
RECALLS: tuple[RecallName, ...] = get_args(RecallName)
FORMAT = "matlib evaluation 1"

Share = Annotated[float, Field(ge=0, le=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Interval(_Strict):
    """A share of 1 and its 95 % interval over images."""

    value: Share
    low: Share
    high: Share

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.low - 1e-9 <= self.value <= self.high + 1e-9:
            raise ValueError(f"{self.value} lies outside [{self.low}, {self.high}]")
        return self


class RecallRow(_Strict):
    """What one attack leaves, and what it may use."""

    attack: str
    eps_255: float = Field(ge=0)
    n_words: Count
    recall: dict[RecallName, Interval] = Field(min_length=3)


class JudgedModel(_Strict):
    """Which model; `weights` and `rest` are tags or the hashes of files.

    `about`: what a zoo says of it (trained for, licence, citation, source).
    """

    name: str
    model: str
    weights: str
    rest: str
    trained_with: dict[str, Any]
    about: dict[str, str] = Field(default_factory=dict)

    @property
    def short(self) -> str:
        """The tag, or the beginning of a hash."""
        return self.weights[:12] if re.fullmatch(r"[0-9a-f]{64}", self.weights) else self.weights


class JudgedPairs(_Strict):
    """On what: `identity` is that of all image files with their captions."""

    name: str
    split: str
    n_images: Count
    n_captions: Count
    images: Sha256
    captions: Sha256
    identity: Sha256


class JudgedUnder(_Strict):
    """Under what; `words` says by content where they come from.

    `attacks` were asked for: those on the fusion are rows of fusion models alone, as is `rerank`.
    """

    eps_255: float = Field(ge=0)
    n_steps: Count
    step_255: float | None
    n_words: Count
    words: dict[str, str | int]
    conventions: Literal["matlib", "released"]
    seed: Count
    attacks: tuple[str, ...]
    rerank: Count = RERANKED

    def __str__(self) -> str:
        step = "" if self.step_255 is None else f" of {self.step_255:g}/255"
        words = ", ".join(f"{key} {str(value)[:20]}" for key, value in self.words.items())
        return (
            f"eps {self.eps_255:g}/255, {self.n_steps} steps{step}, words per caption: "
            f"{self.n_words} ({words}), conventions: {self.conventions}, seed {self.seed}"
        )


class Record(_Strict):
    """One model's table with everything that it depends on."""

    format: Literal["matlib evaluation 1"]
    model: JudgedModel
    data: JudgedPairs
    threat: JudgedUnder
    rows: tuple[RecallRow, ...] = Field(min_length=1)
    device: str
    version: str
    code: Sha256
    notes: tuple[str, ...]

    @property
    def cells(self) -> dict[str, dict[str, str]]:
        """attack -> recall's name -> `48.4 [45.0, 51.9]`, in percent."""
        return {
            row.attack: {name: in_percent(**row.recall[name].model_dump()) for name in RECALLS}
            for row in self.rows
        }


def recorded(table: pd.DataFrame) -> list[dict[str, Any]]:
    """A table of `matlib.benchmark` as the rows of a record."""
    return [
        {
            "attack": row["attack"],
            "eps_255": row["eps_255"],
            "n_words": row["n_words"],
            "recall": {
                name: {"value": row[name], "low": row[f"{name} low"], "high": row[f"{name} high"]}
                for name in RECALLS
            },
        }
        for row in table.reset_index().to_dict("records")
    ]


def read_record(path: Path) -> Record | None:
    """A record from its file; None if the file is another JSON.

    Raises:
        ValueError: no JSON, or a record that is damaged; the message names the first fault.
    """
    content = read_json(path)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        return None
    try:
        return Record.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the record"
        raise ValueError(
            f"{path} is a damaged evaluation ({where}: {first['msg']:.120}); make it again by "
            "`evaluate --out`, or move it away"
        ) from error
