"""The store: computed once, whole or not at all, remade when damaged, killed without harm."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from matlib import files as durable
from matlib.files import DiskFullError
from matlib.study.store.store import ArtefactSpec, Store, StoreVersionError

SPEC = ArtefactSpec(
    "model",
    "mat+",
    seed=3,
    config={"eps_255": [1, 2], "lr": 1e-3, "caption": "größer"},
    inputs={"pairs": "ab" * 32},
    maker="masked-lm",
)


def _silent(line: str) -> None:
    """For those tests that do not look at what a person is told."""


def _maker(calls: list[Path], content: str = "weights") -> Callable[[Path], dict[str, float]]:
    def make(folder: Path) -> dict[str, float]:
        calls.append(folder)
        (folder / "weights.bin").write_text(content)
        (folder / "logs").mkdir()
        (folder / "logs" / "loss.csv").write_text("step,loss\n")
        return {"loss": 0.5}

    return make


def test_an_artefact_is_made_once_and_then_loaded(tmp_path: Path) -> None:
    calls: list[Path] = []
    made = Store(tmp_path).get_or_make(SPEC, _maker(calls))
    loaded = Store(tmp_path).get_or_make(SPEC, _maker(calls))
    assert len(calls) == 1
    assert made == loaded
    assert loaded.file("weights.bin").read_text() == "weights"
    assert loaded.file("logs/loss.csv").is_file()
    assert loaded.notes == {"loss": 0.5}
    assert made.path.name == f"model-mat+-s3-{SPEC.hash[:12]}"


def test_provenance_tells_what_made_it_and_names_no_machine(tmp_path: Path) -> None:
    artefact = Store(tmp_path).get_or_make(SPEC, _maker([]))
    text = (artefact.path / "provenance.json").read_text()
    record = json.loads(text)
    assert record["schema"] == 1
    assert record["config"] == SPEC.config
    assert record["inputs"] == SPEC.inputs
    assert {"python", "torch", "open_clip_torch", "transformers", "numpy"} <= set(
        record["versions"]
    )
    assert {"commit", "dirty", "device", "wall_seconds"} <= set(record)
    assert set(record["outputs"]) == {"weights.bin", "logs/loss.csv"}
    assert str(tmp_path) not in text and str(Path.home()) not in text


@pytest.mark.parametrize(
    "other",
    [
        replace(SPEC, kind="eval"),
        replace(SPEC, name="mat"),
        replace(SPEC, seed=4),
        replace(SPEC, config={**SPEC.config, "lr": 2e-3}),
        replace(SPEC, inputs={"pairs": "cd" * 32}),
        replace(SPEC, maker="captioner"),
    ],
)
def test_the_hash_covers_every_part_of_the_specification(other: ArtefactSpec) -> None:
    assert other.hash != SPEC.hash


def test_the_hash_does_not_depend_on_the_order_of_keys() -> None:
    assert replace(SPEC, config=dict(reversed(list(SPEC.config.items())))).hash == SPEC.hash


@pytest.mark.parametrize("value", [float("nan"), Path("x"), {1, 2}, "/data/flickr8k", "C:\\data"])
def test_a_configuration_that_is_not_portable_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="configuration"):
        _ = replace(SPEC, config={"a": [value]}).hash


def test_a_name_that_would_leave_the_folder_is_refused() -> None:
    with pytest.raises(ValueError, match="letters"):
        replace(SPEC, name="../x")


@pytest.mark.parametrize(
    "harm", ["change", "lose", "grow", "no provenance", "bad provenance", "[]", '{"schema": 1}']
)
def test_a_damaged_artefact_is_made_again_and_that_is_said(tmp_path: Path, harm: str) -> None:
    weights = Store(tmp_path).get_or_make(SPEC, _maker([])).file("weights.bin")
    provenance = weights.parent / "provenance.json"
    match harm:
        case "change":
            weights.write_text("WEIGHTS")
        case "lose":
            weights.unlink()
        case "grow":
            weights.write_text("weights!")
        case "no provenance":
            provenance.unlink()
        case "bad provenance":
            provenance.write_text(provenance.read_text()[:100])
        case content:
            provenance.write_text(content)
    lines: list[str] = []
    calls: list[Path] = []
    again = Store(tmp_path, say=lines.append).get_or_make(SPEC, _maker(calls))
    assert len(calls) == 1
    assert again.file("weights.bin").read_text() == "weights"
    assert len(lines) == 1 and "made again" in lines[0]
    assert [path.name for path in again.path.parent.glob(".making-*")] == []


def test_a_maker_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "half").write_text("x")
        raise RuntimeError("loss is nan at step 3")

    store = Store(tmp_path)
    with pytest.raises(RuntimeError, match="step 3"):
        store.get_or_make(SPEC, fail)
    assert store.find(SPEC) is None
    assert [path for path in store.runs.iterdir() if path.is_dir()] == []


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space"), RuntimeError("io: No space left on device")]
)
def test_a_full_disk_gives_a_clear_error_and_leaves_nothing(
    tmp_path: Path, error: Exception
) -> None:
    def fill(folder: Path) -> None:
        (folder / "half").write_text("x")
        raise error

    store = Store(tmp_path)
    with pytest.raises(DiskFullError, match="Free some space"):
        store.get_or_make(SPEC, fill)
    assert [path for path in store.runs.iterdir() if path.is_dir()] == []


def test_too_little_space_is_refused_before_work_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(durable, "MIN_FREE_BYTES", 2**62)
    calls: list[Path] = []
    with pytest.raises(DiskFullError, match="are expected before a run starts"):
        Store(tmp_path).get_or_make(SPEC, _maker(calls))
    assert calls == []


def test_a_maker_that_writes_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="wrote no file"):
        Store(tmp_path).get_or_make(SPEC, lambda folder: None)


def test_a_results_folder_of_another_version_is_refused(tmp_path: Path) -> None:
    Store(tmp_path)
    (tmp_path / "store.json").write_text('{"schema": 0}')
    with pytest.raises(StoreVersionError, match="Move or delete it"):
        Store(tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[]", "3", "[" * 100_000])
def test_a_damaged_marker_is_said_with_what_it_should_hold(tmp_path: Path, content: str) -> None:
    Store(tmp_path)
    (tmp_path / "store.json").write_text(content)
    with pytest.raises(StoreVersionError, match=r'store\.json is damaged: .*\{"schema": 1\}'):
        Store(tmp_path)


def test_a_file_is_written_whole_or_not_at_all_and_not_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "table.csv"
    durable.write_durably(path, "a\n")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("matlib.files.os.fsync", full)
    with pytest.raises(DiskFullError, match=r"while writing table\.csv"):
        durable.write_durably(path, "b\n")
    assert [each.name for each in tmp_path.iterdir()] == ["table.csv"]
    assert path.read_text() == "a\n"
    durable.write_durably(path, "a\n")  # nothing to do, on whatever disk


def test_artefacts_without_a_marker_are_refused(tmp_path: Path) -> None:
    Store(tmp_path).get_or_make(SPEC, _maker([]))
    (tmp_path / "store.json").unlink()
    with pytest.raises(StoreVersionError, match="another version"):
        Store(tmp_path)


def test_records_list_the_whole_artefacts(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.get_or_make(SPEC, _maker([]))
    store.get_or_make(replace(SPEC, seed=4), _maker([]))
    assert [record["seed"] for record in store.records()] == [3, 4]


CHILD = """
import sys
from pathlib import Path
from matlib.study.store.store import ArtefactSpec, Store

def make(folder):
    for i in range(200):
        (folder / f"part-{i}").write_bytes(bytes([i]) * 20_000)
        if i == int(sys.argv[2]):
            print("halfway", flush=True)
            sys.stdin.read()
    print("written", flush=True)

spec = ArtefactSpec("model", "killed", seed=0, maker="masked-lm")
print("starting", flush=True)
Store(Path(sys.argv[1]), say=lambda line: None).get_or_make(spec, make)
print("published", flush=True)
sys.stdin.read()
"""


def _start_child(root: Path, pause_at: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(root), str(pause_at)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _make_parts(folder: Path) -> None:
    for i in range(200):
        (folder / f"part-{i}").write_bytes(bytes([i]) * 20_000)


def _assert_recovers(root: Path) -> None:
    spec = ArtefactSpec("model", "killed", seed=0, maker="masked-lm")
    before = [path.name for path in (root / "runs").glob("model-*")]
    store = Store(root, say=_silent)
    assert (store.find(spec) is not None) == bool(before), "a half artefact was in place"
    artefact = store.get_or_make(spec, _make_parts)
    assert artefact.file("part-199").read_bytes() == bytes([199]) * 20_000
    assert len(artefact.provenance["outputs"]) == 200
    assert list(store.runs.glob(".making-*")) == []


def test_a_process_killed_halfway_leaves_no_half_artefact_and_the_next_one_recovers(
    tmp_path: Path,
) -> None:
    with _start_child(tmp_path, pause_at=100) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "starting\n"
        assert child.stdout.readline() == "halfway\n"
        making = list((tmp_path / "runs").glob(".making-*"))
        assert len(making) == 1 and (making[0] / "part-100").exists()
        # What another process is making is left alone ...
        Store(tmp_path, say=_silent)
        assert making[0].exists()
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
    # ... and what a killed one left is removed, when the store is opened again.
    Store(tmp_path, say=_silent)
    assert not making[0].exists()
    _assert_recovers(tmp_path)


@pytest.mark.full
def test_a_process_killed_at_any_moment_leaves_no_half_artefact(tmp_path: Path) -> None:
    moments = random.Random(0)
    for attempt in range(25):
        root = tmp_path / str(attempt)
        with _start_child(root, pause_at=-1) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == "starting\n"
            try:
                child.wait(timeout=moments.uniform(0, 0.12))
            except subprocess.TimeoutExpired:
                os.kill(child.pid, signal.SIGKILL)
                child.wait()
        _assert_recovers(root)
