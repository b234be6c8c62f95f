"""What to say when results cannot be written: disks that are full, read-only or gone."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bacpipe.errors import StorageError

_FULL = {errno.ENOSPC, errno.EDQUOT}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}
# Another file of the same run may well be written: it is this one that the disk does not take.
_ONE_FILE = {
    errno.ENAMETOOLONG,
    errno.EINVAL,
    errno.EILSEQ,
    errno.EISDIR,
    errno.ENOTDIR,
    errno.EFBIG,
    errno.ENOTEMPTY,
}


@contextmanager
def writing(path: Path, needed: int = 0) -> Iterator[None]:
    """Explain what the operating system says against writing a file.

    Parameters
    ----------
    path : Path
        What is written.
    needed : int
        Its size in bytes, if that is known.

    Raises
    ------
    StorageError
        For every `OSError` of the block.
    """
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        raise storage_error(path, error, needed) from error


def storage_error(path: Path, error: OSError, needed: int = 0, rest: int = 0) -> StorageError:
    """Make the error that explains why a file could not be written.

    Parameters
    ----------
    path : Path
        The file.
    error : OSError
        What the operating system says.
    needed, rest : int
        Bytes for this file, and for what is still to be written after it; 0 if unknown.
    """
    if error.errno in _FULL:
        text = _full_disk(path, needed, rest)
    elif error.errno in _FORBIDDEN:
        text = (
            f"{path}: cannot be written ({_reason(error)}); give yourself write permission for "
            f"{_existing(path)}, or choose another main_results_dir."
        )
    elif error.errno in _ONE_FILE:
        text = (
            f"{path}: the disk does not take a file of this name and size ({_reason(error)}); "
            f"rename the recording, or choose another main_results_dir."
        )
    else:
        text = (
            f"{path}: cannot be written ({_reason(error)}); check the disk {_disk(path)} and run "
            f"the same command again: what is finished is kept."
        )
    explained = StorageError(text)
    explained.errno = error.errno
    explained.path, explained.needed = path, needed
    return explained


def is_disk_full(error: OSError) -> bool:
    """Whether a disk, or somebody's share of it, is full."""
    return error.errno in _FULL


def concerns_one_file(error: OSError) -> bool:
    """Whether other files may well be written although this one cannot."""
    return error.errno in _ONE_FILE


def _full_disk(path: Path, needed: int, rest: int) -> str:
    disk, folder = _disk(path), _existing(path)
    try:
        usage = shutil.disk_usage(folder)
        room = f" ({_size(usage.free)} free of {_size(usage.total)})"
    except OSError:
        room = ""  # the sentence is worth saying without the figures
    wanted = [f"this file needs {_size(needed)}"] if needed else []
    wanted += [f"the rest of this run about {_size(rest)}"] if rest else []
    return (
        f"{path}: the disk {disk} is full{room}{': ' if wanted else ''}{', '.join(wanted)}. Make "
        f"room and run the same command again: what is finished is kept."
    )


def _reason(error: OSError) -> str:
    return error.strerror or str(error)


def _existing(path: Path) -> Path:
    """The file's folder, or the nearest folder above it that exists."""
    folders = path.absolute().parents
    return next((folder for folder in folders if os.access(folder, os.F_OK)), folders[-1])


def _disk(path: Path) -> Path:
    """Where the disk is mounted."""
    folder = _existing(path)
    return next(disk for disk in [folder, *folder.parents] if os.path.ismount(disk))


def _size(amount: int) -> str:
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if amount >= factor:
            return f"{amount / factor:.1f} {unit}"
    return f"{amount} bytes"
