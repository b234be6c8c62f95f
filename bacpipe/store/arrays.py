"""Reading ``.npy`` files whose headers may lie."""

from __future__ import annotations

import math
import os
import tokenize
from pathlib import Path

import numpy as np

_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


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
        version = np.lib.format.read_magic(file)
        if version not in _HEADERS:
            raise ValueError(f"this is numpy format {version}, expected (1, 0) or (2, 0)")
        try:
            shape, _, kind = _HEADERS[version](file)
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
        file.seek(0)
        array: np.ndarray = np.lib.format.read_array(file, allow_pickle=False)
        return array
