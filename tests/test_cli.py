from __future__ import annotations

from pathlib import Path

import pytest

from matlib.cli import main


def test_unknown_profile_is_one_clear_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study", "--profile", "nope"]) == 1
    assert "no profile 'nope'" in capsys.readouterr().err


def test_study_on_disk_without_its_folder_says_what_to_pass(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["study", "--profile", "flickr8k", "--results", str(tmp_path)]) == 1
    assert "DATA=<folder>" in capsys.readouterr().err
    gone = ["--data", str(tmp_path / "gone")]
    assert main(["study", "--profile", "flickr8k", "--results", str(tmp_path), *gone]) == 1
    assert "no data folder" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []  # nothing half-written


@pytest.mark.parametrize("bad", [["--limit", "-1"], ["--shard", "3/2"], ["--shard", "x"]])
def test_bad_options_are_refused(bad: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["study", *bad])
    assert stopped.value.code == 2


def test_world_is_exported_and_verify_reports_missing_data(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["data", "export", str(tmp_path / "world"), "--n-test", "5"]) == 0
    assert "5 test images" in capsys.readouterr().out
    assert (tmp_path / "world" / "dataset_scenes.json").is_file()
    assert main(["data", "verify", "coco", "--root", str(tmp_path / "none")]) == 1
