"""The machinery's own costs are measured on what it really writes and reads."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import growth
from matlib.study.store.store import Store


def test_growth_is_measured_as_a_user_asks_for_it(tmp_path: Path) -> None:
    out = tmp_path / "growth.json"
    command = [sys.executable, "-m", "benchmarks.growth", "--tiny", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    assert set(found["engine_by_workers"]) == {"1", "2"}
    assert set(found["store_by_artefacts"]) == {"2", "5"}
    assert found["records"]["queries"] == 9 and "records.queries" in done.stdout


def test_artefacts_written_for_it_are_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    class Watched(Store):
        def find(self, spec):  # type: ignore[no-untyped-def]
            seen.append(super().find(spec))
            return seen[-1]

    monkeypatch.setattr(growth, "Store", Watched)
    growth.store((4,))
    assert seen[0] is not None and seen[0].hash == growth.synthetic(3).hash
