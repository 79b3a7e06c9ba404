"""Settings that every test shares."""

from __future__ import annotations

import pytest
import torch
from hypothesis import settings

# Same examples on every machine, and no deadline: a slow machine is not a failing test.
settings.register_profile("matlib", derandomize=True, deadline=None)
settings.load_profile("matlib")

torch.set_num_threads(1)
torch.set_flush_denormal(True)


def pytest_collectstart(collector: pytest.Collector) -> None:
    """nbval compares stderr and HTML too; both carry timings and temporary paths."""
    if collector.path.suffix == ".ipynb" and hasattr(collector, "skip_compare"):
        collector.skip_compare += ("stderr", "text/html")
