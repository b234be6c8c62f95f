"""Reading ``.npy`` files whose headers may lie, and arrays of whole data sets.

A file is read only if its size is the one that its header promises, so that a damaged header costs
neither memory nor a crash.

An array of a whole data set that takes at most a quarter of the free memory is an ordinary one.  A
larger one is a read-only `numpy.memmap` of a temporary file, filled piece by piece, so that it
never is in memory as a whole and never in two copies: the operating system reads what is looked at
and drops it again when memory gets scarce.  The file has no name (on Windows, it goes when it is
closed), so nothing is left of it when the array is gone, even if the process is killed.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import os
import shutil
import tempfile
import tokenize
from collections.abc import Iterable
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from bacpipe.errors import REPAIR, ResultsError, StorageError
from bacpipe.machine import free_memory
from bacpipe.store.files import TEMPORARY, writing

_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
_BLOCK = 2**22  # bytes read at a time by `scan_npy`
_SHARE = 4  # of the free memory, for one array


def read_npy(path: Path) -> np.ndarray:
    """Array of numbers in a ``.npy`` file.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it is no such file, is cut off, or holds anything else than numbers.
    """
    with path.open("rb") as file:
        read_header(file)
        file.seek(0)
        array: np.ndarray = np.lib.format.read_array(file, allow_pickle=False)
        return array


class Scan(NamedTuple):
    """What a ``.npy`` file holds.

    Attributes
    ----------
    shape : tuple of int
    sha256 : str
        Hash of its rows as float32, as the journal holds it.
    not_finite : int or None
        First row with a value that is not finite.
    """

    shape: tuple[int, ...]
    sha256: str
    not_finite: int | None


def scan_npy(path: Path) -> Scan:
    """Read a ``.npy`` file with rows of numbers piece by piece, keeping nothing.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it is no such file, is cut off, or holds anything else than rows of numbers.
    """
    with path.open("rb") as file:
        shape, in_columns, kind = read_header(file)
        if len(shape) != 2 or in_columns:
            raise ValueError(f"it holds an array of shape {shape}, expected rows of numbers")
        digest, not_finite, row = hashlib.sha256(), None, 0
        step = max(1, _BLOCK // max(1, shape[1] * kind.itemsize))
        while row < shape[0]:
            count = min(step, shape[0] - row)
            rows = np.fromfile(file, kind, count * shape[1]).reshape(count, shape[1])
            finite = np.isfinite(rows).all(axis=1)
            if not_finite is None and not finite.all():
                not_finite = row + int(np.argmin(finite))
            digest.update(np.ascontiguousarray(rows, dtype="<f4").tobytes())
            row += count
    return Scan(shape, digest.hexdigest(), not_finite)


def read_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Read the header of an open ``.npy`` file.

    Returns
    -------
    shape : tuple of int
    in_columns : bool
        Whether values of a column, not of a row, lie beside one another.
    kind : np.dtype
        Type of the numbers.

    Raises
    ------
    ValueError
        If this is no such file, or its size is not the one that the header promises.
    """
    version = np.lib.format.read_magic(file)
    if version not in _HEADERS:
        raise ValueError(f"this is numpy format {version}, expected (1, 0) or (2, 0)")
    try:
        shape, in_columns, kind = _HEADERS[version](file)
    # numpy tries to repair headers of Python 2, and gives up in these ways.
    except (tokenize.TokenError, SyntaxError, TypeError, RecursionError, MemoryError) as error:
        raise ValueError(f"its header cannot be read: {error}") from None
    if kind.kind not in "fiu":
        raise ValueError(f"it holds {kind}, expected numbers")
    if any(length < 0 for length in shape):
        raise ValueError(f"its shape is {shape}")
    # Before numpy asks for the memory.
    expected = file.tell() + math.prod(shape) * kind.itemsize
    size = os.fstat(file.fileno()).st_size
    if size != expected:
        raise ValueError(f"it has {size} bytes, its header promises {expected}")
    return shape, in_columns, kind


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
