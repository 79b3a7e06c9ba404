"""One progress reporter: bars for a person who watches, rare lines for a log.

At a terminal and in JupyterLab a bar is drawn. Under papermill, in a pipe or with
`MATLIB_PROGRESS=log`, a line is printed about every 15 seconds instead, because a log keeps
every redraw of a bar. `MATLIB_PROGRESS=bar` and `=off` force the other two.
"""

from __future__ import annotations

import io
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from types import TracebackType
from typing import Literal, Self, TypeVar, cast, get_args

from tqdm.auto import tqdm

_T = TypeVar("_T")
Mode = Literal["bar", "log", "off"]

LOG_EVERY_SECONDS = 15.0

MARK = "· "
"""Begins every line for the person who waits. The notebook runner shows such lines while it runs
and leaves them out of published notebooks: they tell of a machine, not of a result."""


def note(text: str) -> None:
    """Tell the person who waits; not part of any result."""
    print(MARK + text, flush=True)


def speak_utf8() -> None:
    """Print in UTF-8 from here on, whatever the locale: our lines hold more than ASCII.

    What UTF-8 cannot hold either (half a character in a file's name) is shown as its number.
    Every line is written when it is said, in a log as well: who waits reads along.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)


def mode() -> Mode:
    """How progress is shown here: the environment decides, else whether anyone watches."""
    asked = os.environ.get("MATLIB_PROGRESS", "")
    for known in get_args(Mode):
        if asked == known:
            return cast(Mode, known)
    if asked:
        raise ValueError(f"MATLIB_PROGRESS is expected to be bar, log or off; got {asked!r}")
    return "bar" if _is_watched() else "log"


def _is_watched() -> bool:
    return sys.stderr.isatty() or _is_kernel()


def _is_kernel() -> bool:
    """Whether this process is a notebook kernel, whose streams are never terminals."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and hasattr(shell, "kernel")


class Progress:
    """Counts `total` steps of a stage named `description`; use it in a `with` block.

    A line reads `· train mat s0: 120/250, 31 s, about 34 s left, loss 1.23`. A stage that is
    over before the first line was due prints nothing.

    Args:
        description: the stage, short.
        total: number of steps; None when unknown (then no time left is given).
        clock: seconds, monotonic.
    """

    def __init__(
        self, description: str, total: int | None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.description = description
        self.total = total
        self.n_done = 0
        self._clock = clock
        self._started = self._last_line = clock()
        self._n_said = 0
        self._mode = mode()
        self._bar: tqdm | None = None  # type: ignore[type-arg]  # generic in the stubs only
        if self._mode == "bar":
            self._bar = tqdm(total=total, desc=description, leave=False, mininterval=0.5)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()
        elif self._n_said and error is None and self._n_said != self.n_done:
            self._say("")

    def advance(self, n: int = 1, metric: str = "") -> None:
        """`n` more steps are done; `metric` is the one number that matters, as text."""
        self.n_done += n
        if self._bar is not None:
            if metric:
                self._bar.set_postfix_str(metric, refresh=False)
            self._bar.update(n)
        elif self._mode == "log" and self._clock() - self._last_line >= LOG_EVERY_SECONDS:
            self._say(metric)

    def _say(self, metric: str) -> None:
        now = self._clock()
        seconds = now - self._started
        parts = [f"{self.n_done}/{'?' if self.total is None else self.total}", f"{seconds:.0f} s"]
        if self.total and 0 < self.n_done < self.total:
            left = seconds / self.n_done * (self.total - self.n_done)
            parts.append(f"about {left:.0f} s left")
        if metric:
            parts.append(metric)
        note(f"{self.description}: {', '.join(parts)}")
        self._last_line, self._n_said = now, self.n_done


def track(iterable: Iterable[_T], description: str, total: int | None = None) -> Iterator[_T]:
    """`iterable`, with its progress shown; `total` defaults to its length if it has one."""
    if total is None and isinstance(iterable, Sized):
        total = len(iterable)
    with Progress(description, total) as progress:
        for item in iterable:
            yield item
            progress.advance()
