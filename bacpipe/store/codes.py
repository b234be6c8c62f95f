"""Search codes: embeddings in a quarter of their size, by which a search finds candidates.

A row x of length |x| becomes ``scale * c + shift`` for x / |x|, where c are whole numbers from -128
to 127 (`encode`).  What is lost is kept, too: `error` bounds the distance between x / |x| and its
code, so whoever searches knows how far a similarity computed from codes can be off.  Every row
stands for itself; nothing is trained on the data set, so new recordings are added by appending.

The codes of a set lie in its folder in a few packs, ``search-<number>.codes``, and not in a file
for each recording: a set may have a hundred thousand recordings, and opening as many files takes
longer than searching them.  A pack is written once and never changed.  It ends with a list of its
recordings, each with the hash of the embeddings that it was made from; codes of other embeddings
than those the journal names are not read.  New recordings come in a new pack, which takes over the
packs that are smaller than itself, so that there are never many.

A pack is: the codes, int8 (rows, dim); the numbers of each row, float32 (5, rows); the list, as
JSON; its hash, the number of its bytes, and `_MAGIC`.
"""

from __future__ import annotations

import hashlib
import json
import logging
import mmap
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bacpipe.errors import StorageError, counted
from bacpipe.machine import free_memory
from bacpipe.store.embedding_set import EmbeddingSet, read_embeddings
from bacpipe.store.entries import FinishedEntry
from bacpipe.store.files import replacing
from bacpipe.store.layout import CODES

logger = logging.getLogger(__name__)

_MAGIC = b"bacpipe search 1"
_TRAILER = 32 + 8 + len(_MAGIC)  # bytes
NUMBERS = 5  # of each row, beside its codes
_PACK = 2**28  # bytes of codes, beyond which another pack is begun
_AT_ONCE = 2**20  # values that are encoded at a time
_BLOCK = 2**22  # bytes hashed at a time
_SAID = 100_000  # windows, from which on the user is told that it takes a moment
_SHARE = 4  # of the free memory, for codes that cannot be written

Floats = NDArray[np.float32]


class Codes(NamedTuple):
    """Rows of embeddings as codes.

    Attributes
    ----------
    codes : np.ndarray, int8, shape (n, dim)
    numbers : np.ndarray, float32, shape (5, n)
        scale, shift, total, error and norm of each row.  The total is the sum of
        ``scale * codes + shift``; an error of NaN marks a row that holds values that are not
        numbers.
    """

    codes: NDArray[np.int8]
    numbers: Floats


def encode(rows: Floats) -> Codes:
    """Codes of embeddings.

    Parameters
    ----------
    rows : np.ndarray, float32, shape (n, dim)
        Of either sign; rows of equal values and of zeros, too.

    Returns
    -------
    Codes
        ``scale * codes + shift`` differs from a row of length one by a vector no longer than
        ``error``, which also covers that a product with these is rounded to float32.
    """
    codes = np.empty(rows.shape, np.int8)
    numbers = np.zeros((NUMBERS, len(rows)), np.float32)
    step = max(1, _AT_ONCE // max(1, rows.shape[1]))
    for first in range(0, len(rows), step):
        part = slice(first, first + step)
        codes[part], numbers[:, part] = _encode(np.ascontiguousarray(rows[part], np.float32))
    return Codes(codes, numbers)


def _encode(rows: Floats) -> tuple[NDArray[np.int8], NDArray[np.float64]]:
    dim = rows.shape[1]
    if not dim:
        return rows.astype(np.int8), np.zeros((NUMBERS, len(rows)))
    with np.errstate(invalid="ignore", over="ignore"):
        low, high = rows.min(axis=1).astype(np.float64), rows.max(axis=1).astype(np.float64)
        norm = np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))
        scale = ((high - low) / 255).astype(np.float32)
        shift = (low + 128 * scale).astype(np.float32)
        divisor = np.where(scale > 0, scale, np.float32(1))
        rest = rows - shift[:, None]
        whole = np.rint(rest / divisor[:, None])
        np.clip(whole, -128, 127, out=whole)
        # 0.1 % for what is lost in computing the error itself.
        rest -= scale[:, None] * whole
        error = 1.001 * np.sqrt(np.einsum("ij,ij->i", rest, rest)).astype(np.float64)
        error += 1e-6 * (norm + np.abs(shift) * dim**0.5)
        length = np.where(norm > 0, norm, 1)
        total = scale * whole.sum(axis=1, dtype=np.float64) + dim * shift.astype(np.float64)
        numbers = np.stack([scale, shift, total, error, norm])
        numbers[:4] /= length
        finite = np.isfinite(norm)
        numbers[:, ~finite] = np.array([[0], [0], [0], [np.nan], [0]])
        codes = np.where(finite[:, None], whole, 0).astype(np.int8)
    return codes, numbers


# ---------------------------------------------------------------------- packs


class CodedRecording(NamedTuple):
    """A recording of a pack.

    Attributes
    ----------
    path : str
        Its embeddings, relative to the folder of the set.
    stamp : str
        Their hash.  Versions of bacpipe before 2.0 kept none; there, it is size and time of the
        file.
    windows : int
    """

    path: str
    stamp: str
    windows: int


@dataclass
class Pack:
    """Codes of some recordings, one below the other.

    Attributes
    ----------
    path : Path or None
        The file; None if the codes are only in memory.
    recordings : list of CodedRecording
    codes, numbers : np.ndarray
        As in `Codes`, mapped and not in memory.
    """

    path: Path | None
    recordings: list[CodedRecording]
    codes: NDArray[np.int8]
    numbers: Floats

    def parts(self) -> Iterator[tuple[CodedRecording, int, int]]:
        """Recordings, each with its first row and the one behind its last."""
        last = 0
        for recording in self.recordings:
            first, last = last, last + recording.windows
            yield recording, first, last


class DamagedPackError(ValueError):
    """A pack is not what it was when it was written; the message says why."""


def open_pack(path: Path) -> Pack:
    """Open a pack; what is read is only its list.

    Raises
    ------
    OSError
        If it is gone or cannot be read.
    DamagedPackError
        If it is no complete pack.
    """
    with path.open("rb") as file:
        size = file.seek(0, 2)
        if size < _TRAILER:
            raise DamagedPackError(f"it has only {counted(size, 'byte')}")
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    trailer = content[size - _TRAILER :]
    length = int.from_bytes(trailer[32:40], "little")
    listed = content[max(0, size - _TRAILER - length) : size - _TRAILER]
    if trailer[40:] != _MAGIC or hashlib.sha256(listed).digest() != trailer[:32]:
        raise DamagedPackError("it does not end as it was written")
    recordings, dim = _read_list(listed)
    rows = sum(item.windows for item in recordings)
    first = _aligned(rows * dim)
    if first + 4 * NUMBERS * rows + length + _TRAILER != size:
        raise DamagedPackError(f"its {size} bytes do not fit its {counted(rows, 'window')}")
    codes = np.frombuffer(content, np.int8, rows * dim).reshape(rows, dim)
    numbers = np.frombuffer(content, np.float32, NUMBERS * rows, first).reshape(NUMBERS, rows)
    return Pack(path, recordings, codes, numbers)


def _read_list(listed: bytes) -> tuple[list[CodedRecording], int]:
    try:
        about = json.loads(listed)
        recordings = [CodedRecording(*item) for item in about["recordings"]]
        numbers = [about["dim"], *(item.windows for item in recordings)]
        if all(type(number) is int and number >= 0 for number in numbers):
            return recordings, about["dim"]
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    raise DamagedPackError("its list of recordings is none")


def why_damaged(path: Path) -> str | None:
    """Read a pack as a whole; returns what is wrong with it, None if nothing is."""
    try:
        pack = open_pack(path)
        digest = hashlib.sha256()
        with path.open("rb") as file:
            left = _aligned(pack.codes.size) + pack.numbers.nbytes
            while left:
                block = file.read(min(_BLOCK, left))
                digest.update(block)
                left -= len(block)
            file.seek(-_TRAILER - 8, 2)
            listed = int.from_bytes(file.read(_TRAILER + 8)[40:48], "little")
            file.seek(-_TRAILER - listed, 2)
            expected = json.loads(file.read(listed))["sha256"]
    except OSError as error:
        return f"it cannot be read ({error.strerror or error})"
    except DamagedPackError as error:
        return str(error)
    return None if digest.hexdigest() == expected else "it has changed since it was written"


def coded_as(embedding_set: EmbeddingSet, entry: FinishedEntry) -> CodedRecording:
    """What a pack says of codes that were made from the embeddings as they are now."""
    stored = entry.embeddings
    if stored.sha256 is not None:
        return CodedRecording(stored.path, stored.sha256, entry.windows)
    try:
        status = embedding_set.embedding_path(entry).stat()
    except OSError:
        return CodedRecording(stored.path, "missing", entry.windows)
    stamp = f"{status.st_size} bytes at {status.st_mtime_ns} ns"
    return CodedRecording(stored.path, stamp, entry.windows)


def current_packs(embedding_set: EmbeddingSet) -> list[Pack]:
    """Packs that together hold the codes of every recording that is done.

    What is missing is made from the embeddings and written.  Where nothing can be written, it is
    kept in memory.

    Parameters
    ----------
    embedding_set : EmbeddingSet
        The set.

    Raises
    ------
    ResultsError
        If embeddings are missing or damaged.
    StorageError
        If the codes can neither be written nor kept in memory.
    """
    packs = []
    for path in sorted(embedding_set.folder.glob(CODES)):
        try:
            packs.append(open_pack(path))
        except FileNotFoundError:
            continue  # another search has put it into a larger one just now
        except (OSError, DamagedPackError) as error:
            logger.warning("%s: damaged (%s); these search codes are made again.", path, error)
            discard(path)
    done = embedding_set.content.done
    wanted = {coded_as(embedding_set, entry): entry for entry in done.sorted().values()}
    have = {recording for pack in packs for recording in pack.recordings}
    new = [recording for recording in wanted if recording not in have]
    return _add(embedding_set, packs, wanted, new) if new else packs


def discard(path: Path) -> None:
    """Delete a pack; its codes can be made again."""
    with suppress(OSError):  # not ours, or open in another program
        path.unlink()


def _add(
    embedding_set: EmbeddingSet,
    packs: list[Pack],
    wanted: Mapping[CodedRecording, FinishedEntry],
    new: Sequence[CodedRecording],
) -> list[Pack]:
    """Write codes of new recordings, together with those of packs that are smaller."""
    rows = sum(recording.windows for recording in new)
    if rows > _SAID:
        logger.info(
            "%s: making search codes of %s; this is done once.",
            embedding_set.folder,
            counted(rows, "window"),
        )
    taken: list[Pack] = []
    kept = sorted(packs, key=lambda pack: len(pack.codes))
    while kept and len(kept[0].codes) <= rows and kept[0].codes.nbytes < _PACK // 2:
        rows += len(kept[0].codes)
        taken.append(kept.pop(0))
    made = []
    for group in _grouped(_coded(embedding_set, taken, wanted, new)):
        try:
            made.append(
                _write(embedding_set.folder / CODES.replace("*", secrets.token_hex(4)), group)
            )
        except StorageError as error:
            made.append(_in_memory(group, error))
    for pack in taken:
        if pack.path is not None:
            discard(pack.path)
    return kept + made


_Coded = tuple[CodedRecording, Codes]


def _coded(
    embedding_set: EmbeddingSet,
    taken: Sequence[Pack],
    wanted: Mapping[CodedRecording, FinishedEntry],
    new: Sequence[CodedRecording],
) -> Iterator[_Coded]:
    seen: set[CodedRecording] = set()
    for pack in taken:
        for recording, first, last in pack.parts():
            if recording in wanted and recording not in seen:
                seen.add(recording)
                yield recording, Codes(pack.codes[first:last], pack.numbers[:, first:last])
    for recording in new:
        yield recording, encode(read_embeddings(embedding_set, wanted[recording], verify=True))


def _grouped(items: Iterable[_Coded]) -> Iterator[list[_Coded]]:
    """Recordings of a pack each; those of another width have one of their own."""
    group: list[_Coded] = []
    size = 0
    for item in items:
        codes = item[1].codes
        if group and (codes.shape[1] != group[0][1].codes.shape[1] or size >= _PACK):
            yield group
            group, size = [], 0
        group.append(item)
        size += codes.nbytes
    if group:
        yield group


def _write(path: Path, group: Sequence[_Coded]) -> Pack:
    digest = hashlib.sha256()
    numbers = np.concatenate([codes.numbers for _, codes in group], axis=1)
    dim = group[0][1].codes.shape[1]
    size = dim * numbers.shape[1]
    with replacing(path) as file:
        for part in (*(codes.codes for _, codes in group), bytes(_aligned(size) - size), numbers):
            data = part if isinstance(part, bytes) else np.ascontiguousarray(part).tobytes()
            digest.update(data)
            file.write(data)
        about = {"dim": dim, "sha256": digest.hexdigest(), "recordings": [r for r, _ in group]}
        listed = json.dumps(about).encode()
        file.write(listed + hashlib.sha256(listed).digest())
        file.write(len(listed).to_bytes(8, "little") + _MAGIC)
    return open_pack(path)


def _in_memory(group: Sequence[_Coded], reason: StorageError) -> Pack:
    pack = Pack(
        None,
        [item for item, _ in group],
        np.concatenate([codes.codes for _, codes in group]),
        np.concatenate([codes.numbers for _, codes in group], axis=1),
    )
    if pack.codes.nbytes > free_memory() // _SHARE:
        raise reason
    logger.warning("search codes are not kept, so the next search makes them again: %s", reason)
    return pack


def _aligned(size: int) -> int:
    return -(-size // 64) * 64
