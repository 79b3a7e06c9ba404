"""A study on Slurm: what is submitted, and, where Slurm can be started, that it ends the same."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import yaml

from matlib.cli import main
from matlib.study.profile.profile import load_profile
from matlib.study.store.store import PROVENANCE
from matlib.training.checkpoint import last_checkpoint
from tests.study.slurm_cluster import slurm, why_not
from tests.study.smoke_parts import NO_PAIRS

SBATCH = """#!/bin/sh
n=$(($(cat "$0.n" 2>/dev/null || echo 6) + 1)); echo $n > "$0.n"
cp "$1" "$0.$n"; echo "Submitted batch job $n"
"""


def _profile(path: Path, n_steps: int = 3) -> Path:
    """The smoke profile with one row, trained for so long, and the notebook of claims."""
    smoke = load_profile("smoke").model_dump(mode="json")
    smoke |= {**NO_PAIRS, "inside": [], "techniques": [], "sweeps": [], "architectures": {}}
    smoke |= {"name": "own", "runs": [{"defence": "mat"}]}
    smoke |= {"transfer_rows": [], "notebooks": ["90"]}
    smoke["finetune"] |= {"n_steps": n_steps, "checkpoint_every": 5, "validate_every": n_steps - 1}
    path.write_text(yaml.safe_dump(smoke))
    return path


@pytest.fixture
def pretended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], str]:
    """Commands of Slurm that keep the script; gives that of a job."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in (("sbatch", SBATCH), ("srun", "#!/bin/sh\n")):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return lambda job: (folder / f"sbatch.{job}").read_text()


def test_rows_become_an_array_between_what_they_share_and_the_report(
    tmp_path: Path, pretended: Callable[[int], str], capsys: pytest.CaptureFixture[str]
) -> None:
    results, profile = tmp_path / "results", _profile(tmp_path / "own.yaml")
    command = ["study", "--profile", str(profile), "--results", str(results)]
    command += ["--executor", "slurm", "--slurm", "partition=gpu", "--slurm", "time=90"]
    assert main(command) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[:3] == [
        "job 7: own-common", "job 8: own-rows, an array of 2", "job 9: own-report"
    ]  # fmt: skip
    assert str(results / "own" / "slurm") in told[3]
    scripts = [re.findall(r"^#SBATCH --(\S+)", pretended(job), re.MULTILINE) for job in (7, 8, 9)]
    for script in scripts:
        wanted = {"partition=gpu", "time=90", "gpus-per-node=1", "requeue"}
        assert wanted <= set(script)
    assert "array=0-1%2" in scripts[1] and not any("array=" in x for x in scripts[0] + scripts[2])
    after = [[x for x in script if x.startswith("dependency")] for script in scripts]
    assert after == [[], ["dependency=afterok:7"], ["dependency=afterok:8"]]
    assert (results / "own" / "slurm").stat().st_mode & 0o077 == 0  # pickles: no other writes them
    assert main([*command, "--array", "1"]) == 0  # one has nothing to share
    assert capsys.readouterr().out.splitlines()[:2] == ["job 10: own-rows", "job 11: own-report"]


def test_what_slurm_cannot_be_told_is_said_before_any_work(
    tmp_path: Path, pretended: Callable[[int], str], capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    profile = str(_profile(tmp_path / "own.yaml"))
    command = ["study", "--profile", profile, "--results", str(tmp_path / "r")]
    for wrong, told in (
        (["--executor", "slurm", "--slurm", "partition"], "NAME=VALUE"),
        (["--executor", "slurm", "--slurm", "mem=1\n2"], "NAME=VALUE"),
        (["--executor", "slurm", "--slurm", "time=1:00"], "minutes"),
        (["--executor", "slurm", "--shard", "1/2"], "--array"),
        (["--slurm", "partition=gpu"], "--executor slurm"),
        (["--executor", "cloud"], "local, slurm"),
    ):
        assert main([*command, *wrong]) > 0
        assert told in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "submitit", None)
    assert main([*command, "--executor", "slurm"]) == 1
    assert "pip install -e '.[slurm]'" in capsys.readouterr().err


REFUSED = why_not()
N_STEPS = 60


@pytest.mark.full
@pytest.mark.skipif(bool(REFUSED), reason=REFUSED or "there is Slurm")
def test_a_job_killed_in_the_middle_is_requeued_and_ends_with_the_same_numbers(
    tmp_path: Path,
) -> None:
    profile = _profile(tmp_path / "own.yaml", N_STEPS)
    study = [sys.executable, "-m", "matlib", "study", "--profile", str(profile), "--results"]
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    subprocess.run([*study, str(alone), "--shard", "1/1", "--workers", "1"], check=True)
    with slurm(tmp_path / "slurm") as environment:
        submitted = subprocess.run(
            [*study, str(shared), "--executor", "slurm", "--slurm", "gpus-per-node=0"],
            check=True, capture_output=True, text=True, env=environment,
        )  # fmt: skip
        array, report = re.findall(r"^job (\d+): own-(?:rows|report)", submitted.stdout, re.M)
        kept = _killed_in_training(shared / "own", array, environment)
        ended = ["srun", f"--dependency=afterany:{report}", "--ntasks=1", "true"]
        subprocess.run(ended, check=True, env=environment, timeout=1200)
    logs = {path.name: path.read_text() for path in (shared / "own" / "slurm").glob("*log*")}
    killed = [text for text in logs.values() if text.count("Starting with JobEnvironment") == 2]
    assert len(killed) == 1, logs
    page = shared / "own" / "report" / "index.html"
    assert page.is_file(), logs
    found, expected = _outputs(shared / "own"), _outputs(alone / "own")
    assert found == expected and any("model.safetensors" in name for name in found)
    history = next((shared / "own" / "runs").glob("model-mat-*/history.csv"))
    seconds = pd.read_csv(history)["seconds"].tolist()
    assert len(seconds) == N_STEPS and seconds[: len(kept)] == pytest.approx(kept, rel=1e-12)


def _killed_in_training(folder: Path, array: str, environment: dict[str, str]) -> list[float]:
    """Kill the job that trains `mat` as a preemption does, once it has left a checkpoint.

    Returns:
        the seconds of each step until the last checkpoint that it left.
    """
    job = f"{array}_1"  # of base and mat
    _wait_for(lambda: any((folder / "training").glob("model-mat-*/step-*")), 900)
    subprocess.run(["scontrol", "requeue", job], check=True, env=environment)
    state = ["squeue", "--noheader", f"--job={job}", "--format=%t"]
    _wait_for(lambda: subprocess.check_output(state, env=environment, text=True) == "PD\n", 60)
    (training,) = (folder / "training").glob("model-mat-*")
    found, damaged = last_checkpoint(training)
    assert found is not None and damaged == []
    rows = found.state["history"]["rows"]
    assert 0 < len(rows) < N_STEPS
    return [row["seconds"] for row in rows]


def _wait_for(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _outputs(folder: Path) -> dict[str, str]:
    """sha256 of every file of every artefact, but for those with times in them."""
    found = {}
    for path in sorted((folder / "runs").glob(f"[a-z]*/{PROVENANCE}")):
        for name, about in json.loads(path.read_text())["outputs"].items():
            if name.endswith((".safetensors", "ranks.csv", "captions.json", "checks.json")):
                found[f"{path.parent.name}/{name}"] = about["sha256"]
    return found
