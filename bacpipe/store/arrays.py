"""Reading ``.npy`` files whose headers may lie."""

from __future__ import annotations

import hashlib
import math
import os
import tokenize
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
_BLOCK = 2**22  # bytes read at a time by `scan_npy`


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
