"""What a run tells: a row per step, a CSV and TensorBoard scalars, a line for a person."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from matlib.progress import mode, note

LOG_COLUMNS = (
    "step", "loss", "clean_recall", "robust_recall", "lr", "samples_per_second",
    "text_attack_share", "image_attack_share", "rest_share",
)  # fmt: skip


@dataclass(frozen=True)
class Bookkeeping:
    """What a run keeps and tells beside its weights; nothing of it moves a weight.

    Attributes:
        keep_in: folder for the last two checkpoints. Where it holds one of this same run,
            training goes on from there. They are removed when training is done.
        log_in: folder for `steps.csv`, `warnings.txt` and TensorBoard's events.
        on_row: called with each new row of the history, on the first process.
        clean_recall_every: steps between clean passes made only to log clean recall where the
            loss embeds no clean pairs; 0: never.
    """

    keep_in: Path | None = None
    log_in: Path | None = None
    on_row: Callable[[Mapping[str, float]], None] | None = None
    clean_recall_every: int = 0


@dataclass
class History:
    """What happened in a run, from its first step on, also over resumptions.

    Attributes:
        rows: one per step: `step`; `loss`; `lr`; `seconds` and, of these, `attack_seconds`,
            `text_attack_seconds`, `image_attack_seconds`; `clean_recall` and `robust_recall`,
            recall at 1 within the batch, in [0, 1], NaN where the step embedded no such pairs.
        held_out: one per measurement: `step`, `held_out` and `train` robust recall, and
            `clean` recall on the held-out pairs (NaN where it was not measured).
        warnings: signs of trouble, as sentences.
    """

    rows: list[dict[str, float]] = field(default_factory=list)
    held_out: list[dict[str, float]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def add(self, **row: float) -> None:
        self.rows.append(row)

    def mean_robust_recall(self) -> float:
        """Of the batches since the last measurement on held-out pairs; NaN if unknown."""
        last = self.held_out[-1]["step"] if self.held_out else -1.0
        new = [row["robust_recall"] for row in self.rows if row["step"] > last]
        return sum(new) / len(new) if new else math.nan


def scalars(row: Mapping[str, float], batch_size: int) -> dict[str, float]:
    """A history's row as the CSV and TensorBoard have it, by `LOG_COLUMNS`."""
    seconds = max(row["seconds"], 1e-9)
    text, image = row["text_attack_seconds"] / seconds, row["image_attack_seconds"] / seconds
    kept = {name: row[name] for name in ("step", "loss", "clean_recall", "robust_recall", "lr")}
    return {
        **kept,
        "samples_per_second": batch_size / seconds,
        "text_attack_share": text,
        "image_attack_share": image,
        "rest_share": 1 - text - image,
    }


def describe(row: Mapping[str, float], batch_size: int) -> str:
    """One line for a person: `loss 1.23, recall 0.81 clean 0.42 attacked, 310 pairs/s`."""
    parts = [f"loss {row['loss']:.2f}"]
    recalls = [
        f"{row[name]:.2f} {word}"
        for name, word in (("clean_recall", "clean"), ("robust_recall", "attacked"))
        if not math.isnan(row[name])
    ]
    if recalls:
        parts.append("recall " + " ".join(recalls))
    parts.append(f"{batch_size / max(row['seconds'], 1e-9):.0f} pairs/s")
    return ", ".join(parts)


class StepLog:
    """Writes `steps.csv`, `warnings.txt` and, where tensorboard is installed, its events.

    Use it in a `with` block.

    Args:
        folder: where to; None: nowhere.
        batch_size: pairs per step.
        history: rows and warnings of the steps before a resumption, which the files get anew.
    """

    def __init__(self, folder: Path | None, batch_size: int, history: History) -> None:
        self._batch_size, self._history = batch_size, history
        self._csv: IO[str] | None = None
        self._warnings: Path | None = None
        self._board: Any = None
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            self._csv = (folder / "steps.csv").open("w", encoding="utf-8", newline="", buffering=1)
            self._rows = csv.DictWriter(self._csv, LOG_COLUMNS)
            self._rows.writeheader()
            self._rows.writerows(scalars(row, batch_size) for row in history.rows)
            self._warnings = folder / "warnings.txt"
            self._warnings.write_text("".join(f"{w}\n" for w in history.warnings), encoding="utf-8")
            self._board = _tensorboard(folder, len(history.rows))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._csv is not None:
            self._csv.close()
        if self._board is not None:
            self._board.close()
            _forget_the_machine(Path(self._board.log_dir), len(self._history.rows))

    def write(self, row: Mapping[str, float]) -> None:
        """A step is done."""
        if self._csv is None:
            return
        found = scalars(row, self._batch_size)
        self._rows.writerow(found)
        if self._board is not None:
            for name in LOG_COLUMNS[1:]:
                if not math.isnan(found[name]):
                    self._board.add_scalar(name, found[name], int(row["step"]))

    def write_held_out(self, step: int, robust: float, clean: float) -> None:
        """Recall was measured on held-out pairs."""
        for name, recall in (("robust", robust), ("clean", clean)):
            if self._board is not None and not math.isnan(recall):
                self._board.add_scalar(f"held_out_{name}_recall", recall, step)

    def warn(self, text: str) -> None:
        """Something looks wrong; said to the person who waits, unless progress is off."""
        if self._warnings is not None:
            with self._warnings.open("a", encoding="utf-8") as file:
                file.write(text + "\n")
        if mode() != "off":
            note(text)


def _forget_the_machine(folder: Path, n_steps: int) -> None:
    """Rename event files, which carry the host's name and the time; TensorBoard finds them."""
    for path in sorted(folder.glob("events.out.tfevents.*")):
        path.replace(folder / f"events-to-{n_steps}.tfevents")


def _tensorboard(folder: Path, first_step: int) -> Any:
    """A writer of events, which hides those of steps that are done again; None without it."""
    if find_spec("tensorboard") is None:
        return None
    from torch.utils.tensorboard import SummaryWriter

    maker: Callable[..., Any] = SummaryWriter
    return maker(log_dir=str(folder), purge_step=first_step)
