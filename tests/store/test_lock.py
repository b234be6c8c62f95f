"""Locks, leases where the disk knows no locks, and what is said when it refuses."""

from __future__ import annotations

import errno
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import bacpipe
from bacpipe.errors import ResultsLockedError
from bacpipe.store import lock
from bacpipe.store.lock import exclusive

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows locks in another way")


@contextmanager
def flock_says(monkeypatch: pytest.MonkeyPatch, number: int) -> Iterator[None]:
    def refuse(file: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr("fcntl.flock", refuse)
        yield


def test_ctrl_c_while_a_lock_is_given_up_gives_it_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(path: Path, missing_ok: bool = False) -> None:
        monkeypatch.undo()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), exclusive(tmp_path, "tiny"):
        monkeypatch.setattr(Path, "unlink", interrupted)
    with exclusive(tmp_path, "tiny"):
        pass


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOLCK, "service that keeps the locks"),
        (errno.EOPNOTSUPP, "does not know locks"),
        (errno.EINVAL, "does not know locks"),
        (errno.EIO, "check it or mount it again"),
        (errno.ESTALE, "check it or mount it again"),
        (errno.EPERM, "give yourself write permission"),
    ],
)
def test_what_the_disk_says_against_locks_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, advice: str
) -> None:
    with (
        flock_says(monkeypatch, number),
        pytest.raises(bacpipe.BacpipeError) as caught,
        exclusive(tmp_path, "tiny"),
    ):
        raise AssertionError("nobody holds this lock")
    assert str(tmp_path / ".tiny.lock") in str(caught.value) and advice in str(caught.value)
    assert os.strerror(number) in str(caught.value) and caught.value.errno == number
    with exclusive(tmp_path, "tiny"):
        pass


@pytest.fixture
def no_locks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with flock_says(monkeypatch, errno.ENOSYS):
        yield


def owner(folder: Path, **changes: object) -> Path:
    """Lease of another computer."""
    path = folder / ".tiny.lease"
    here = {"host": "elsewhere", "process": 1, "user": "ada", "since": "today", "token": "x"}
    path.write_text(json.dumps({**here, **changes}))
    return path


def test_a_lease_excludes_others_and_ends_with_the_block(tmp_path: Path, no_locks: None) -> None:
    for _ in range(2):
        with exclusive(tmp_path, "tiny"):
            with pytest.raises(ResultsLockedError) as caught, exclusive(tmp_path, "tiny"):
                pass
            assert f"process {os.getpid()} of" in str(caught.value)
            assert str(tmp_path / ".tiny.lease") in str(caught.value)
            with exclusive(tmp_path, "other"):
                pass
        assert not (tmp_path / ".tiny.lease").exists()
        assert not (tmp_path / ".tiny.lock-owner").exists()


def test_a_lease_of_another_computer_expires(tmp_path: Path, no_locks: None) -> None:
    path = owner(tmp_path)
    said = pytest.raises(ResultsLockedError, match="5 minutes, or when you delete")
    with said, exclusive(tmp_path, "tiny"):
        pass
    os.utime(path, (time.time() - lock.LEASE_SECONDS - 60,) * 2)
    with exclusive(tmp_path, "tiny"):
        assert json.loads(path.read_text())["process"] == os.getpid()
    assert sorted(p.name for p in tmp_path.iterdir()) == [".tiny.lock"]


def test_a_lease_of_a_dead_process_of_this_computer_ends_at_once(
    tmp_path: Path, no_locks: None
) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    owner(tmp_path, host=platform.node(), process=dead.pid)
    with exclusive(tmp_path, "tiny"):
        pass
    owner(tmp_path, host=platform.node(), process=os.getpid())  # alive
    with pytest.raises(ResultsLockedError), exclusive(tmp_path, "tiny"):
        pass


@pytest.mark.parametrize("content", ["", "[]", "{" * 5000, '{"host": 1, "process": "x"}'])
def test_a_lease_that_says_nothing_is_somebodys_until_it_expires(
    tmp_path: Path, no_locks: None, content: str
) -> None:
    path = tmp_path / ".tiny.lease"
    path.write_text(content)
    with pytest.raises(ResultsLockedError, match="another run"), exclusive(tmp_path, "tiny"):
        pass
    os.utime(path, (0, 0))
    with exclusive(tmp_path, "tiny"):
        pass


def test_signs_of_life_are_given_and_a_lost_lease_is_told(
    tmp_path: Path, no_locks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "_SIGN_OF_LIFE", 0.01)

    def until(holds: object) -> None:
        stop = time.monotonic() + 20
        while not holds() and time.monotonic() < stop:  # type: ignore[operator]
            time.sleep(0.01)
        assert holds()  # type: ignore[operator]

    path = tmp_path / ".tiny.lease"
    with exclusive(tmp_path, "tiny"):
        os.utime(path, (0, 0))
        until(lambda: path.stat().st_mtime > 1)
    with pytest.raises(ResultsLockedError, match="taken over"), exclusive(tmp_path, "tiny"):
        owner(tmp_path)
        until(lambda: "bacpipe-lease" not in {t.name for t in lock.threading.enumerate()})
    assert json.loads(path.read_text())["user"] == "ada"  # it stays the other's
