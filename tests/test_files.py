"""Whether the locks of a folder hold is found out before a study relies on them."""

from __future__ import annotations

import errno
import fcntl
from pathlib import Path

import pytest

from matlib.files import lock_fault
from matlib.study.profile.profile import load_profile
from matlib.study.run.pipeline import _look_around
from matlib.study.study import Study

NONE = Path("no table of mounts")


def test_locks_of_a_local_disk_hold_and_the_probe_leaves_nothing(tmp_path: Path) -> None:
    assert lock_fault(tmp_path) == "" and list(tmp_path.iterdir()) == []


def test_locks_that_are_given_twice_or_not_at_all_are_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)
    assert "two processes can hold one lock" in lock_fault(tmp_path, NONE)
    for number, text in ((errno.ENOLCK, "cannot be taken"), (errno.ENOSYS, "no flock here")):

        def refuse(*_: object, number: int = number) -> None:
            raise OSError(number, "refused")

        monkeypatch.setattr(fcntl, "flock", refuse)
        assert text in lock_fault(tmp_path, NONE)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("mounted", "fault"),
    [
        ("host:/a {} nfs4 rw,vers=4.2,local_lock=none 0 0", ""),
        ("host:/a {} nfs rw,vers=3,nolock,local_lock=all 0 0", "this nfs folder"),
        ("host:/a {} lustre rw,localflock 0 0", "this lustre folder"),
        ("host:/a {} lustre rw,flock 0 0", ""),
        ("host:/a {} fuse.sshfs rw 0 0", "this fuse.sshfs folder"),
        ("host:/a {}/other nfs rw,nolock 0 0", ""),
        ("host:/a / nfs rw,nolock 0 0\n/dev/sda {} ext4 rw 0 0", ""),
    ],
)
def test_locks_that_other_machines_do_not_see_are_noticed(
    tmp_path: Path, mounted: str, fault: str
) -> None:
    folder, table = tmp_path / "a b" / "results", tmp_path / "mounts"
    folder.mkdir(parents=True)
    table.write_text(mounted.format(str(folder.parent).replace(" ", "\\040")))
    found = lock_fault(folder, table)
    assert found.startswith(fault) and bool(found) == bool(fault)


def test_a_study_says_it_once_at_its_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study, told = Study(load_profile("smoke"), tmp_path), list[str]()
    _look_around(study, told.append)
    assert told == []
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)
    _look_around(study, told.append)
    (line,) = told
    assert str(study.root) in line and "--workers 1" in line
