"""The file of an approximate index: embeddings in one bit a value, in lists of alike ones.

It lies in the folder of a set and is written only when asked for (`bacpipe.build_search_index`).
Its recordings are listed with the hashes of the embeddings that it was made from, as those of the
search codes are; rows of others are never found by it.  It is a safetensors file, so reading it
runs no code, nor any reader of another library.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bacpipe.errors import ResultsError, ResultsNotFoundError, first_line
from bacpipe.store.codes import CodedRecording
from bacpipe.store.layout import SEARCH_INDEX
from bacpipe.store.tensors import read_tensors, write_tensors

_FORMAT = 1
_ANEW = "build it again with bacpipe.build_search_index or bacpipe search --build-index."


class About(NamedTuple):
    """What is known of an index.

    Attributes
    ----------
    lists : int
        How many of the lists a query looks into.
    pool : int
        How many rows of these are computed anew.
    recall : float
        Share of the 50 nearest windows that it found, over windows of the data set, when it was
        built.
    seconds : float
        What building it took.
    built : str
        When, in ISO 8601.
    """

    lists: int
    pool: int
    recall: float
    seconds: float
    built: str


@dataclass(frozen=True, eq=False)
class StoredIndex:
    """An index as it is stored.

    Attributes
    ----------
    recordings : list of CodedRecording
        One below the other; a row's number is its place there.
    rotation : np.ndarray, float32, shape (dim, dim)
    centres : np.ndarray, float32, shape (lists, dim)
        Of the lists, rotated.
    sizes : np.ndarray, int64, shape (lists,)
    rows : np.ndarray, int64, shape (n,)
        Row numbers, list after list.
    codes : np.ndarray, uint8, shape (n, bytes)
        In the same order.
    about : About
    """

    recordings: list[CodedRecording]
    rotation: NDArray[np.float32]
    centres: NDArray[np.float32]
    sizes: NDArray[np.int64]
    rows: NDArray[np.int64]
    codes: NDArray[np.uint8]
    about: About


def write_index(index: StoredIndex, folder: Path) -> Path:
    """Write the index of a set, whole or not at all.

    Raises
    ------
    StorageError
        If the disk does not take it.
    """
    listed = json.dumps([*index.recordings], ensure_ascii=False).encode()
    arrays: dict[str, np.ndarray] = {
        "recordings": np.frombuffer(listed, np.uint8),
        "rotation": index.rotation,
        "centres": index.centres,
        "sizes": index.sizes,
        "rows": index.rows,
        "codes": index.codes,
    }
    words = {"format": _FORMAT, "sha256": _hash(arrays), **index.about._asdict()}
    path = folder / SEARCH_INDEX
    write_tensors(path, arrays, words)
    return path


def read_index(folder: Path, *, verify: bool = False) -> StoredIndex:
    """Read the index of a set; its hash is compared if `verify`.

    Raises
    ------
    ResultsNotFoundError
        If there is none.
    ResultsError
        If it is damaged, or was written by a newer bacpipe.
    """
    path = folder / SEARCH_INDEX
    try:
        words, arrays = read_tensors(path, _FORMAT)
        if verify and _hash(arrays) != words["sha256"]:
            raise ValueError("it has changed since it was written")
        listed = json.loads(arrays.pop("recordings").tobytes())
        recordings = [CodedRecording(str(p), str(stamp), int(n)) for p, stamp, n in listed]
        about = About(
            int(words["lists"]), int(words["pool"]), float(words["recall"]),
            float(words["seconds"]), str(words["built"]),
        )  # fmt: skip
        index = StoredIndex(recordings, **arrays, about=about)
        _check(index)
    except FileNotFoundError:
        raise ResultsNotFoundError(f"{path}: there is no approximate index; {_ANEW}") from None
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ResultsError(
            f"{path}: this approximate index is damaged ({first_line(error)}); {_ANEW}"
        ) from None
    return index


def _check(index: StoredIndex) -> None:
    """Raise a ValueError if what is there cannot be an index."""
    count = sum(recording.windows for recording in index.recordings)
    lists, dim = index.centres.shape
    kinds: dict[str, tuple[np.ndarray, type[np.generic], tuple[int, ...]]] = {
        "rotation": (index.rotation, np.float32, (dim, dim)),
        "centres": (index.centres, np.float32, (lists, dim)),
        "sizes": (index.sizes, np.int64, (lists,)),
        "rows": (index.rows, np.int64, (count,)),
        "codes": (index.codes, np.uint8, (count, *index.codes.shape[1:2])),
    }
    for name, (array, kind, shape) in kinds.items():
        if array.dtype != kind or array.shape != shape:
            raise ValueError(f"its {name} are {array.dtype} of shape {array.shape}")
    if (index.sizes < 0).any() or index.sizes.sum() != count:
        raise ValueError("its lists do not hold its rows")
    if count and not 0 <= index.rows.min() <= index.rows.max() < count:
        raise ValueError("its rows are of no recording")
    if index.about.lists < 1 or index.about.pool < 1 or not 0 <= index.about.recall <= 1:
        raise ValueError("its numbers are impossible")


def why_index_damaged(folder: Path) -> str | None:
    """One sentence on what is wrong with the index of a set; None if nothing is."""
    try:
        read_index(folder, verify=True)
    except ResultsError as error:
        return str(error)
    return None


def _hash(arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(name.encode() + np.ascontiguousarray(arrays[name]).data)
    return digest.hexdigest()
