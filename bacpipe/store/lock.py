"""One writer per model and data set.

The operating system holds the lock for the process and drops it when the process ends,
however it ends, so a lock never outlives its owner.  A file beside it names the owner for
those who have to wait.
"""

from __future__ import annotations

import getpass
import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from glob import escape
from pathlib import Path

from filelock import FileLock, Timeout

from bacpipe.errors import ResultsLockedError
from bacpipe.store.files import TEMPORARY, write_text, writing

SECONDS_FOR_OTHERS = 120.0
"""How long to wait for runs of other models, where all write a few files to one folder."""


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
        Naming the owner, if another run holds it for longer.
    StorageError
        If nothing can be written to the folder.
    """
    lock = FileLock(folder / f".{what}.lock")
    owner_file = folder / f".{what}.lock-owner"
    with writing(folder / what):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=wait)
        except Timeout:
            raise ResultsLockedError(
                f"{folder}: {what} is being written by {_read_owner(owner_file)}; wait until that "
                f"run is done, or choose another main_results_dir."
            ) from None
    try:
        for path in folder.glob(f".{escape(owner_file.name)}.*{TEMPORARY}"):
            path.unlink(missing_ok=True)  # of an owner that was killed while it wrote its name
        write_text(owner_file, json.dumps(_owner()))
        yield
    finally:
        owner_file.unlink(missing_ok=True)
        lock.release()


def _owner() -> dict[str, str | int]:
    try:
        user = getpass.getuser()
    except (ImportError, KeyError, OSError):
        user = "unknown user"  # containers lack a table of users, Windows may lack USERNAME
    return {
        "user": user,
        "host": platform.node(),
        "process": os.getpid(),
        "since": datetime.now().isoformat(" ", "seconds"),
    }


def _read_owner(path: Path) -> str:
    try:
        owner = json.loads(path.read_text(encoding="utf-8"))
        return "process {process} of {user} on {host} since {since}".format(**owner)
    except (OSError, ValueError, KeyError, TypeError):
        return "another run"  # it has only just started
