"""Progress: what a log gets, and that nothing is swallowed."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest

from matlib.progress import Progress, mode, track


@pytest.fixture
def ticking() -> Iterator[list[float]]:
    """A clock under the test's control: `now[0]` is the time in seconds."""
    yield [0.0]


def test_a_log_gets_one_line_about_every_fifteen_seconds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], ticking: list[float]
) -> None:
    monkeypatch.setenv("MATLIB_PROGRESS", "log")
    with Progress("train", 10, clock=lambda: ticking[0]) as progress:
        for _ in range(10):
            ticking[0] += 4
            progress.advance(metric="loss 1.25")
    assert capsys.readouterr().out.splitlines() == [
        "· train: 4/10, 16 s, about 24 s left, loss 1.25",
        "· train: 8/10, 32 s, about 8 s left, loss 1.25",
        "· train: 10/10, 40 s",
    ]


def test_a_short_stage_prints_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MATLIB_PROGRESS", "log")
    assert list(track(range(5), "short")) == [0, 1, 2, 3, 4]
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("asked", ["bar", "log", "off"])
def test_every_item_is_handed_on_in_every_mode(monkeypatch: pytest.MonkeyPatch, asked: str) -> None:
    monkeypatch.setenv("MATLIB_PROGRESS", asked)
    assert list(track((i * i for i in range(4)), "squares")) == [0, 1, 4, 9]


def test_an_unknown_total_gives_no_time_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], ticking: list[float]
) -> None:
    monkeypatch.setenv("MATLIB_PROGRESS", "log")
    with Progress("scan", None, clock=lambda: ticking[0]) as progress:
        ticking[0] += 20
        progress.advance(3)
    assert capsys.readouterr().out == "· scan: 3/?, 20 s\n"


def test_output_into_a_pipe_is_a_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MATLIB_PROGRESS", raising=False)
    monkeypatch.setattr("sys.stderr", io.StringIO())
    assert mode() == "log"


def test_an_unknown_mode_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MATLIB_PROGRESS", "loud")
    with pytest.raises(ValueError, match="bar, log or off"):
        mode()
