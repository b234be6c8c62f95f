"""One writer per model and data set.

The operating system holds the lock for the process and drops it when the process ends,
however it ends, so a lock never outlives its owner.  A file beside it names the owner for
those who have to wait.

Some disks know no locks (`ENOSYS`).  There, a file is the lock, and a lease: its owner touches it
every half minute, and when it was not touched for five minutes, by the clock of the disk, another
run may take it.  An owner that is found to be dead on this computer loses it at once.
"""

from __future__ import annotations

import errno
import getpass
import json
import os
import platform
import secrets
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from glob import escape
from pathlib import Path
from typing import Any, Protocol

from bacpipe.errors import ResultsLockedError, StorageError
from bacpipe.store.files import TEMPORARY, storage_error, write_text, writing

SECONDS_FOR_OTHERS = 120.0
"""How long to wait for runs of other models, where all write a few files to one folder."""

LEASE_SECONDS = 300.0
"""After how long without a sign of life the owner of a lease has lost it."""

_SIGN_OF_LIFE = 30.0  # seconds
_POLL = 0.05  # seconds
_HELD = {errno.EAGAIN, errno.EWOULDBLOCK}
if sys.platform == "win32":
    _HELD |= {errno.EACCES, errno.EDEADLOCK}

_SERVICE = "the service that keeps the locks of this disk does not answer, so ask who runs the disk"
_UNKNOWN = "this disk does not know locks, without which two runs would write over each other"
_TROUBLE = "the disk or the network is in trouble, so check it or mount it again"
_REASONS = {
    errno.ENOLCK: _SERVICE,
    errno.EOPNOTSUPP: _UNKNOWN,
    errno.ENOTSUP: _UNKNOWN,
    errno.EINVAL: _UNKNOWN,
    errno.EIO: _TROUBLE,
    errno.ESTALE: _TROUBLE,
}


@contextmanager
def exclusive(folder: Path, what: str, *, wait: float = 0) -> Iterator[None]:
    """Hold the lock ``<folder>/.<what>.lock`` for the length of the block.

    Parameters
    ----------
    folder : Path
        Where the results are.
    what : str
        Which of them.
    wait : float
        Seconds to wait for another run that holds it.

    Raises
    ------
    ResultsLockedError
        Naming the owner, if another run holds it for longer, or has taken over its lease.
    StorageError
        If nothing can be written to the folder, or nothing can be locked there.
    """
    with writing(folder / what):
        folder.mkdir(parents=True, exist_ok=True)
    lock = _acquire(folder, what, time.monotonic() + wait)
    owner_file = _owner_file(folder, what)
    try:
        for path in folder.glob(f".{escape(owner_file.name)}.*{TEMPORARY}"):
            path.unlink(missing_ok=True)  # of an owner that was killed while it wrote its name
        write_text(owner_file, json.dumps(_owner()))
        yield
    finally:
        try:
            if not lock.lost:
                owner_file.unlink(missing_ok=True)
        finally:
            lock.release()
    if lock.lost:
        raise ResultsLockedError(
            f"{folder}: another run has taken over {what}, because this one gave no sign of life "
            f"for {LEASE_SECONDS / 60:.0f} minutes (was the computer asleep?); run bacpipe verify "
            f"on these results, then the same command again."
        )


class _Lock(Protocol):
    lost: bool

    def release(self) -> None: ...


def _acquire(folder: Path, what: str, until: float) -> _Lock:
    path, lease = folder / f".{what}.lock", folder / f".{what}.lease"
    while True:
        with writing(path):
            try:
                lock: _Lock | None = _SystemLock.take(path)
            except OSError as error:
                if error.errno != errno.ENOSYS:
                    raise _explained(path, error) from error
                lock = _Lease.take(lease)
        if lock is not None:
            return lock
        if time.monotonic() >= until:
            raise ResultsLockedError(_who_has_it(folder, what, lease))
        time.sleep(_POLL)


def _explained(path: Path, error: OSError) -> StorageError:
    """Make the error that says why a file cannot be locked."""
    reason = _REASONS.get(error.errno or 0)
    if reason is None:
        return storage_error(path, error)
    explained = StorageError(
        f"{path}: cannot be locked ({error.strerror or error}): {reason}, or choose a "
        f"main_results_dir on another disk; what is finished is kept."
    )
    explained.errno, explained.path = error.errno, path
    return explained


def _who_has_it(folder: Path, what: str, lease: Path) -> str:
    text = f"{folder}: {what} is being written by {_read_owner(_owner_file(folder, what))}"
    if not lease.exists():
        return (
            f"{text}, which holds {folder / f'.{what}.lock'}; wait until that run is done, or "
            f"choose another main_results_dir."
        )
    return (
        f"{text}, which holds {lease}; wait until that run is done. If it was killed, this ends "
        f"by itself after {LEASE_SECONDS / 60:.0f} minutes, or when you delete that file."
    )


class _SystemLock:
    """A lock that the operating system holds for this process."""

    lost = False

    def __init__(self, file: int) -> None:
        self._file = file

    @classmethod
    def take(cls, path: Path) -> _SystemLock | None:
        """Take the lock; None if another has it, an OSError if there are no locks."""
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _lock(file)
        except OSError as error:
            os.close(file)
            if error.errno in _HELD:
                return None
            raise
        except BaseException:
            os.close(file)
            raise
        return cls(file)

    def release(self) -> None:
        """Give it up."""
        os.close(self._file)


if sys.platform == "win32":

    def _lock(file: int) -> None:
        import msvcrt

        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
else:

    def _lock(file: int) -> None:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


class _Lease:
    """A file that is the lock as long as its owner touches it."""

    def __init__(self, path: Path, token: str) -> None:
        self.lost = False
        self._path, self._token = path, token
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._touch, name="bacpipe-lease", daemon=True)
        self._thread.start()

    @classmethod
    def take(cls, path: Path) -> _Lease | None:
        """Take the lease; None if another has it."""
        token = secrets.token_hex(8)
        text = json.dumps({**_owner(), "token": token}).encode()
        for _ in range(2):
            with suppress(FileExistsError):
                file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
                try:
                    os.write(file, text)
                finally:
                    os.close(file)
                return cls(path, token)
            if not _drop_if_over(path):
                return None
        return None

    def release(self) -> None:
        """Give it up."""
        self._released.set()
        try:
            self._thread.join()
        finally:
            if not self.lost and _content(self._path).get("token") == self._token:
                self._path.unlink(missing_ok=True)

    def _touch(self) -> None:
        while not self._released.wait(_SIGN_OF_LIFE):
            with suppress(OSError):  # a disk that is away for a while
                if _content(self._path, self._token).get("token") != self._token:
                    self.lost = True
                    return
                os.utime(self._path)


def _drop_if_over(path: Path) -> bool:
    """Remove a lease whose owner is dead; whether it is gone."""
    owner = _content(path)
    try:
        changed = path.stat().st_mtime
    except FileNotFoundError:
        return True
    here = owner.get("host") == platform.node() and isinstance(owner.get("process"), int)
    if not (here and not is_running(owner["process"])) and (
        _now_on_disk(path) - changed < LEASE_SECONDS
    ):
        return False
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}{TEMPORARY}")
    try:
        path.rename(aside)
    except FileNotFoundError:
        return True
    if _content(aside).get("token") != owner.get("token"):  # another was quicker, and has it now
        with suppress(OSError):
            aside.rename(path)
        return False
    aside.unlink(missing_ok=True)
    return True


def _now_on_disk(path: Path) -> float:
    """What the clock of the disk says, which every computer that uses it sees alike."""
    probe = path.with_name(f".{path.name}.{secrets.token_hex(4)}{TEMPORARY}")
    probe.touch()
    try:
        return probe.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)


def is_running(process: int) -> bool:
    """Whether a process of this computer may still write."""
    if sys.platform == "win32":
        return True  # asking would end it
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True  # it is another user's
    with suppress(OSError, IndexError):  # killed, and not yet noticed by whoever started it
        status = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
        return status not in {"Z", "X"}
    return True


def _owner_file(folder: Path, what: str) -> Path:
    return folder / f".{what}.lock-owner"


def user_name() -> str:
    """Name of the user of this computer."""
    try:
        return getpass.getuser()
    except (ImportError, KeyError, OSError):
        return "unknown user"  # containers lack a table of users, Windows may lack USERNAME


def _owner() -> dict[str, str | int]:
    return {
        "user": user_name(),
        "host": platform.node(),
        "process": os.getpid(),
        "since": datetime.now().isoformat(" ", "seconds"),
    }


def _content(path: Path, token: str = "") -> dict[str, Any]:
    """What a lease says; a disk that does not answer has nothing against `token`."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except OSError:
        return {"token": token}
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _read_owner(path: Path) -> str:
    try:
        owner = json.loads(path.read_text(encoding="utf-8"))
        return "process {process} of {user} on {host} since {since}".format(**owner)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return "another run"  # it has only just started
