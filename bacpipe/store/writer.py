"""Files that appear complete or not at all.

Every file is written under a temporary name in the folder of its final name, flushed to the
disk and renamed, so that a crash at any moment leaves either the old file, the new file or
no file, and a temporary one that the next run removes.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
import yaml

from bacpipe.errors import ResultsError
from bacpipe.store.storage import writing

TEMPORARY = ".bacpipe-tmp"

_CREATE = os.O_CREAT | os.O_WRONLY | os.O_TRUNC | getattr(os, "O_BINARY", 0)
# A link of this name would lead to a file that is not ours.
_CREATE |= getattr(os, "O_NOFOLLOW", 0)
_WAITING_ROWS = 2**22  # bytes of embeddings that wait in memory
_NPY_HEADER = 128
_NPY_MAGIC = b"\x93NUMPY\x01\x00"


def temporary_name(path: Path) -> Path:
    """Name under which a file is written before it is complete.

    Each writer has one of its own: two processes that write the same file replace it one after
    the other, and never write into each other's.
    """
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}{TEMPORARY}")


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Binary file that takes `path`'s place when the block ends without an error.

    Raises
    ------
    StorageError
        If the disk does not take the file.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> target = pathlib.Path(tempfile.mkdtemp()) / "new" / "table.csv"
    >>> with replacing(target) as file:
    ...     _ = file.write(b"a,b")
    >>> target.read_bytes()
    b'a,b'
    """
    temporary = temporary_name(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with os.fdopen(os.open(temporary, _CREATE), "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            _drop(temporary)
            raise


def write_bytes(path: Path, *parts: bytes | memoryview) -> int:
    """Write a small file at once; returns its size in bytes.

    The same as `replacing`, with system calls alone: a run over many short recordings spends
    its time here.
    """
    with writing(path, sum(memoryview(part).nbytes for part in parts)):
        return _write_bytes(path, parts)


def _write_bytes(path: Path, parts: tuple[bytes | memoryview, ...]) -> int:
    name, temporary = str(path), str(temporary_name(path))
    try:
        descriptor = os.open(temporary, _CREATE)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(temporary, _CREATE)
    try:
        try:
            size = sum(write_all(descriptor, memoryview(part).cast("B")) for part in parts)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(temporary, name)  # noqa: PTH105
    except BaseException:
        _drop(Path(temporary))
        raise
    return size


def _drop(temporary: Path) -> None:
    """Remove a file that could not be completed; what kept it from that is the error to show."""
    with suppress(OSError):
        temporary.unlink(missing_ok=True)


def write_all(descriptor: int, data: bytes | memoryview) -> int:
    """Write all of some bytes to a file descriptor; returns how many there are."""
    written = 0
    while written < len(data):
        written += os.write(descriptor, data[written:])
    return written


def write_text(path: Path, text: str) -> None:
    """Write a text file (UTF-8) at once."""
    write_bytes(path, text.encode())


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file at once."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def write_yaml(path: Path, content: Any) -> None:
    """Write a YAML file at once, keys in the order given."""
    # libyaml's dumper is ten times faster, but not in every build of PyYAML.
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    write_text(path, yaml.dump(content, Dumper=dumper, sort_keys=False, allow_unicode=True))


def write_table(path: Path, table: Any) -> dict[str, Any]:
    """Write a pyarrow table as Parquet at once.

    Returns
    -------
    dict
        ``bytes`` (size of the file) and ``sha256`` (of the whole file).
    """
    import pyarrow
    import pyarrow.parquet

    # Into memory first: Arrow would call back into Python for every piece of a Python file.
    buffer = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(table, buffer, compression="snappy")
    data = memoryview(buffer.getvalue())
    return {"bytes": write_bytes(path, data), "sha256": hashlib.sha256(data).hexdigest()}


def remove_temporaries(*folders: Path) -> None:
    """Remove what interrupted writes left below folders; only their lock's owner may."""
    for folder in folders:
        if folder.is_dir():
            for path in folder.rglob(f".*{TEMPORARY}"):
                path.unlink(missing_ok=True)


def remove_unfinished(folder: Path, *names: str) -> None:
    """Remove a result folder that a killed run left, if nothing else is in it.

    Parameters
    ----------
    folder : Path
        Whose last file was never written.
    *names : str
        Files that are worth nothing without that one.
    """
    paths = list(folder.iterdir())
    if all(path.name in names or path.name.endswith(TEMPORARY) for path in paths):
        for path in paths:
            path.unlink(missing_ok=True)
        folder.rmdir()


def remove_empty_folders(folder: Path) -> None:
    """Remove folders that hold no file, from a folder downwards and the folder itself."""
    for path, _, _ in os.walk(folder, topdown=False):
        with suppress(OSError):  # something is in it
            Path(path).rmdir()


class EmbeddingFile:
    """A ``.npy`` file that grows window by window, so that memory stays flat.

    Embeddings of short recordings wait in memory and are written at once; those of long ones
    go to a temporary file as they come.

    Parameters
    ----------
    path : Path
        Final name.

    Attributes
    ----------
    windows : int
        Rows taken so far.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.windows = 0
        self._temporary = temporary_name(path)
        self._dim: int | None = None
        self._digest = hashlib.sha256()
        self._rows: list[np.ndarray] = []
        self._waiting = 0
        self._file: IO[bytes] | None = None

    def append(self, embeddings: np.ndarray) -> None:
        """Append rows, float32 of shape (n, dim)."""
        rows = np.ascontiguousarray(embeddings, dtype="<f4")
        if rows.ndim != 2 or (self._dim is not None and rows.shape[1] != self._dim):
            raise ResultsError(
                f"{self.path.name}: the model returned embeddings of shape {rows.shape}; expected "
                f"(windows, {self._dim or 'dim'})."
            )
        self._dim = rows.shape[1]
        self.windows += len(rows)
        self._digest.update(_bytes(rows))
        # A batch's rows must not keep the whole batch in memory.
        self._rows.append(rows.copy() if rows.base is not None else rows)
        self._waiting += rows.nbytes
        if self._waiting > _WAITING_ROWS:
            self._spill()

    def commit(self) -> dict[str, Any]:
        """Complete the file under its final name.

        Returns
        -------
        dict
            ``bytes`` (size of the file), ``sha256`` (of the rows, without the header) and
            ``dim``.
        """
        header = _npy_header(self.windows, self._dim or 0)
        try:
            if self._file is None:
                size = write_bytes(self.path, header, *map(_bytes, self._rows))
            else:
                size = self._complete(header)
        except BaseException:
            self.discard()
            raise
        self._rows = []
        return {"bytes": size, "sha256": self._digest.hexdigest(), "dim": self._dim or 0}

    def discard(self) -> None:
        """Forget what was taken."""
        self._rows = []
        if self._file is not None:
            self._file.close()
            _drop(self._temporary)

    def _spill(self) -> int:
        """Append what waits to the temporary file; returns the size of that file."""
        with writing(self.path, self._waiting):
            if self._file is None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                # Without a buffer, closing the file has nothing left to write that could fail.
                self._file = self._temporary.open("wb", buffering=0)
                write_all(self._file.fileno(), bytes(_NPY_HEADER))
            for rows in self._rows:
                write_all(self._file.fileno(), _bytes(rows))
            self._rows, self._waiting = [], 0
            return self._file.tell()

    def _complete(self, header: bytes) -> int:
        size = self._spill()
        assert self._file is not None
        with writing(self.path):
            self._file.seek(0)
            write_all(self._file.fileno(), header)
            os.fsync(self._file.fileno())
            self._file.close()
            self._temporary.replace(self.path)
        return size


def _bytes(rows: np.ndarray) -> memoryview:
    return rows.data.cast("B") if rows.size else memoryview(b"")


def array_hash(array: np.ndarray) -> str:
    """SHA-256 of an array's float32 rows, as the journal holds it."""
    return hashlib.sha256(_bytes(np.ascontiguousarray(array, dtype="<f4"))).hexdigest()


def _npy_header(windows: int, dim: int) -> bytes:
    # Format 1.0 of numpy's files; the padding makes room for any number of rows.
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({windows}, {dim}), }}"
    room = _NPY_HEADER - len(_NPY_MAGIC) - 2
    return _NPY_MAGIC + room.to_bytes(2, "little") + text.ljust(room - 1).encode() + b"\n"
