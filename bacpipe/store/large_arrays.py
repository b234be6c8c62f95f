"""Arrays of whole data sets, which may be larger than the memory.

An array that takes at most a quarter of the free memory is an ordinary one.  A larger one is
a read-only `numpy.memmap` of a temporary file, filled piece by piece, so that it never is in
memory as a whole and never in two copies: the operating system reads what is looked at and
drops it again when memory gets scarce.  The file has no name (on Windows, it goes when it is
closed), so nothing is left of it when the array is gone, even if the process is killed.
"""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO

import numpy as np

from bacpipe.errors import REPAIR, ResultsError, StorageError
from bacpipe.store.storage import writing
from bacpipe.store.writer import TEMPORARY

_SHARE = 4  # of the free memory, for one array
_UNKNOWN_MEMORY = 2**32  # bytes that are assumed where the system does not tell


def stack_rows(parts: Iterable[np.ndarray], rows: int, *, folder: Path, what: str) -> np.ndarray:
    """Put arrays one below the other.

    Parameters
    ----------
    parts : iterable of np.ndarray, float32, shape (n, dim)
        Of any n; asked for one after the other, and not kept.
    rows : int
        Sum of the n.
    folder : Path
        Where a temporary file may go; the system's own folder for these is the second choice.
    what : str
        Of what the array is, for messages.

    Returns
    -------
    np.ndarray, float32, shape (rows, dim)
        A read-only `numpy.memmap` if it is large; see the module.

    Raises
    ------
    ResultsError
        If the parts differ in dim.
    StorageError
        If it is large and no disk has room for it.
    """
    left = iter(parts)
    first = next(left, None)
    if first is None:
        return np.zeros((0, 0), np.float32)
    shape = (rows, first.shape[1])
    size = 4 * rows * first.shape[1]
    if size > free_memory() // _SHARE:
        return _map_rows(itertools.chain([first], left), shape, folder, what)
    array, row = np.empty(shape, np.float32), 0
    for part in itertools.chain([first], left):
        _require_width(part, shape[1], what)
        array[row : row + len(part)] = part
        row += len(part)
    return array


def _require_width(part: np.ndarray, width: int, what: str) -> None:
    if part.shape[1] != width:
        raise ResultsError(
            f"{what}: has rows of {part.shape[1]} values among rows of {width}; {REPAIR}"
        )


def _map_rows(
    parts: Iterable[np.ndarray], shape: tuple[int, int], folder: Path, what: str
) -> np.ndarray:
    size = 4 * shape[0] * shape[1]
    # Written, not filled through the map, whose changed pages would count as this process's.
    with _temporary_file(folder, size, what) as file, writing(folder / what, size):
        for part in parts:
            _require_width(part, shape[1], what)
            file.write(np.ascontiguousarray(part, np.float32).data)
        file.flush()
        return np.memmap(file, np.float32, mode="r", shape=shape)


def free_memory() -> int:
    """Bytes of memory that are free, or could be made free at once."""
    try:
        with Path("/proc/meminfo").open(encoding="ascii") as file:
            for line in file:
                if line.startswith("MemAvailable:"):
                    return 1024 * int(line.split()[1])
    except (OSError, ValueError):
        pass  # another system than Linux
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    except (AttributeError, OSError, ValueError):
        return _UNKNOWN_MEMORY


def _temporary_file(folder: Path, size: int, what: str) -> IO[bytes]:
    """Nameless file on the first disk that has room."""
    room = 0
    for place in (folder, Path(tempfile.gettempdir())):
        try:
            free = shutil.disk_usage(place).free
            if free >= size:
                return tempfile.TemporaryFile(dir=place, suffix=TEMPORARY)
        except OSError:  # not there, or nobody may write there
            continue
        room = max(room, free)
    raise StorageError(
        f"{what} takes {size / 1e9:.1f} GB, more than a quarter of the free memory "
        f"({free_memory() / 1e9:.1f} GB) and more than the disks of {folder} and of "
        f"{tempfile.gettempdir()} have free ({room / 1e9:.1f} GB); make room, or read one "
        f"recording at a time with Loader.read_embedding_file and Loader.detections."
    )
