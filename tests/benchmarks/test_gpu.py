"""`make gpu` refuses a machine without a card, and its code runs on a CPU at toy size."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import device_checks
from benchmarks.device_checks import check_resume, check_workers, checks_of, cpu_load
from benchmarks.gpu import SIZES, Rates, app, faults, measure
from benchmarks.load import Load
from benchmarks.memory import TOY
from matlib.training.log import Bookkeeping

CPU = torch.device("cpu")


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        app(list(arguments))
    return int(ended.value.code or 0)


@pytest.fixture(scope="module")
def toy() -> Load:
    return cpu_load(4, TOY)


def test_without_a_card_it_says_so_and_how_to_try_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert run("--out", str(tmp_path / "gpu.json")) == 1
    told = capsys.readouterr().err
    assert "no CUDA device here" in told and "--device cpu --size tiny" in told
    assert list(tmp_path.iterdir()) == []
    assert run("--device", "tpu") == 2


def test_the_same_code_runs_on_a_cpu_and_tells_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(SIZES, "tiny", replace(SIZES["tiny"], rows=("base",)))
    monkeypatch.setattr(device_checks, "check_workers", lambda: {"holds": True})  # below
    out = tmp_path / "deep" / "gpu.json"
    assert run("--device", "cpu", "--size", "tiny", "--out", str(out)) == 0, capsys.readouterr().err
    found = json.loads(out.read_text())
    assert set(found["checks"]) == set(checks_of(cpu_load(2, TOY), CPU))
    assert found["not_reached"] == [] and "gpu" in found["machine"]
    ways = [f"{what}_{name}" for name in ("float32", "bf16") for what in ("pgd", "text", "sga")]
    for way in ways:
        row = found["rates"][way]
        assert row["per_second"] > 0
        peak = found["rates"]["matmul_peak_tflops"][way.rpartition("_")[2]]
        assert row["share_of_matmul_peak"] == pytest.approx(row["tflops"] / peak, rel=1e-2)
    step = found["rates"]["mat_step"]
    assert step["share_of_necessary"] * step["mat_step_over_necessary"] == pytest.approx(1, 1e-2)
    base = found["rows"]["base"]
    assert base["seconds"] == pytest.approx(sum(base["of"].values()), rel=1e-2)
    assert {"base s0: model", "base s0: judged (test)"} <= set(base["of"])


def test_what_ends_early_or_fails_leaves_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, seen = tmp_path / "gpu.json", list[dict[str, Any]]()
    nothing = measure(SIZES["tiny"], CPU, out, -1, lambda _: None)
    assert json.loads(out.read_text())["not_reached"] == nothing["not_reached"]
    assert len(nothing["not_reached"]) == 5 + 8 + 2

    def calls(*_: object) -> dict[str, Any]:
        def fail() -> None:
            seen.append(json.loads(out.read_text()))  # the one before is there already
            raise RuntimeError("out of memory")

        return {"first": lambda: {"holds": False}, "second": fail}

    monkeypatch.setattr("benchmarks.gpu.checks_of", calls)
    monkeypatch.setattr(Rates, "measures", lambda _: iter(()))
    found = measure(replace(SIZES["tiny"], rows=()), CPU, out, 1, lambda _: None)
    assert seen[0]["checks"] == {"first": {"holds": False}}
    assert len(faults(found)) == 2 and "out of memory" in faults(found)[1]


def test_checks_see_what_differs(toy: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    true_captions, n = device_checks._captions, iter(range(10))
    monkeypatch.setattr(
        device_checks, "_captions",
        lambda load: [f"{c} {next(n)}" for c in true_captions(load)[:1]] + true_captions(load)[1:],
    )  # fmt: skip
    found = checks_of(toy, CPU)["attacks_float64"]()
    assert found["pgd_pixels_equal"] == 1.0 and not found["holds"]
    true_trained, seeds = device_checks._trained, iter((0, 1, 2))

    def trained(load: Load, device: torch.device, books: Bookkeeping) -> dict[str, torch.Tensor]:
        weights = true_trained(load, device, books)
        next(iter(weights.values())).add_(next(seeds))
        return weights

    monkeypatch.setattr(device_checks, "_trained", trained)
    found = check_resume(toy, CPU)
    assert found["tensors_that_differ"] == 1 and not found["holds"]


@pytest.mark.full
def test_two_workers_on_one_device_find_what_one_finds() -> None:
    found = check_workers()
    assert found["holds"] and found["attacks"] > 10
