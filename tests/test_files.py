"""Whether the locks of a folder hold is found out before a study relies on them."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
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
        ("//host/a {} cifs rw,vers=3.1.1,nobrl 0 0", "this cifs folder"),
        ("//host/a {} cifs rw,vers=3.1.1 0 0", ""),
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


SFTP = Path("/usr/lib/openssh/sftp-server")
HAS_MOUNTS = os.geteuid() == 0 and shutil.which("sshfs") is not None and SFTP.is_file()


@contextmanager
def mounted(folder: Path, at: Path) -> Iterator[Path]:
    """A folder as another host sees it that mounts it through sshfs, without a network."""
    at.mkdir()
    to_server, from_server = os.pipe(), os.pipe()
    server = subprocess.Popen([SFTP], stdin=to_server[0], stdout=from_server[1])
    client = subprocess.Popen(
        ["sshfs", f":{folder}", str(at), "-f", "-o", "passive,cache=no,dir_cache=no"],
        stdin=from_server[0], stdout=to_server[1],
    )  # fmt: skip
    for end in (*to_server, *from_server):
        os.close(end)
    try:
        deadline = time.monotonic() + 30
        while not os.path.ismount(at):
            assert client.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        yield at
    finally:
        subprocess.run(["umount", "--lazy", str(at)], check=True)
        for process in (client, server):
            process.terminate()
            process.wait()


@pytest.mark.full
@pytest.mark.skipif(not HAS_MOUNTS, reason="needs root, sshfs and sftp-server (Debian: sshfs)")
def test_two_hosts_that_do_not_see_each_others_locks_are_told_so(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    with ExitStack() as hosts:
        one, two = (hosts.enter_context(mounted(shared, tmp_path / name)) for name in ("a", "b"))
        with (one / "lock").open("w") as first, (two / "lock").open("w") as second:
            for held in (first, second):  # both have it: the fault is there
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert all("do not see its locks" in lock_fault(host) for host in (one, two))
        command = [sys.executable, "-m", "matlib", "study", "--profile", "smoke", "--shard", "9/9"]
        said = subprocess.run(
            [*command, "--results", str(two), "--workers", "1"], check=True, capture_output=True,
            text=True,
        ).stdout.splitlines()  # fmt: skip
    assert said[1].startswith("file locks cannot be trusted in") and "--workers 1" in said[1]


HOST = """
import socket, sys
from functools import partial
from pathlib import Path
from matlib.study.store.store import ArtefactSpec, Store

socket.sethostname(sys.argv[1])

def make(folder):
    (folder / "file").write_text(sys.argv[1])
    print("makes", flush=True)
    sys.stdin.readline()

say = partial(print, flush=True)
spec = ArtefactSpec("base", "base", 0, maker="base")
made = Store(Path(sys.argv[2]), say=say).get_or_make(spec, make)
say(made.file("file").read_text())
"""


@pytest.mark.full
@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="needs root")
def test_two_hosts_that_see_each_others_locks_make_an_artefact_once(tmp_path: Path) -> None:

    def host(name: str) -> subprocess.Popen[str]:
        command = ["unshare", "--uts", "--net", sys.executable, "-c", HOST, name, str(tmp_path)]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)

    with host("one") as one:
        assert one.stdout is not None and one.stdout.readline() == "makes\n"
        with host("two") as two:
            assert two.stdout is not None
            assert two.stdout.readline().startswith("waiting for another process that makes base")
            told, _ = one.communicate("go on\n", timeout=60)
            assert told == "one\n" and two.communicate(timeout=60)[0] == "one\n"
