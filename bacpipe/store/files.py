"""Files that appear complete or not at all.

Every file is written under a temporary name in the folder of its final name, flushed to the
disk and renamed, so that a crash at any moment leaves either the old file, the new file or
no file, and a temporary one that the next run removes.

Failure policy: whatever the operating system says against writing becomes a `StorageError`, one
sentence that names the file, the reason (a disk that is full, read-only or gone) and what to do.
The log of a run (`RunLog`) is the exception: it complains once, and the run goes on.
"""

from __future__ import annotations

import csv
import errno
import hashlib
import json
import logging
import os
import secrets
import shutil
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import yaml

from bacpipe.annotations.cells import escaped
from bacpipe.errors import BacpipeError, ResultsError, StorageError, counted
from bacpipe.user_input import TypedDumper

logger = logging.getLogger(__name__)
if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

TEMPORARY = ".bacpipe-tmp"

_CREATE = os.O_CREAT | os.O_WRONLY | os.O_TRUNC | getattr(os, "O_BINARY", 0)
# A link of this name would lead to a file that is not ours.
_CREATE |= getattr(os, "O_NOFOLLOW", 0)
_MODE = 0o666  # less what the umask forbids: by default, files could be executed
_WAITING_ROWS = 2**22  # bytes of embeddings that wait in memory
_AT_ONCE = 2**16  # bytes that are copied together, to be written by one call
_NPY_HEADER = 128
_NPY_MAGIC = b"\x93NUMPY\x01\x00"

BOM = b"\xef\xbb\xbf"

# What the operating system says against writing a file.
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
    errno.EBUSY,
}
# On Windows a file that a virus scanner, OneDrive or a spreadsheet has open cannot be replaced
# (ERROR_ACCESS_DENIED, ERROR_SHARING_VIOLATION, ERROR_LOCK_VIOLATION); most let go soon.
_IN_USE = {5, 32, 33}
_PAUSES = (0.05, 0.1, 0.2, 0.4, 0.6, 0.65)  # seconds; two altogether
_WINDOWS_PATH = 259  # characters
_TEMPORARY_ADDS = len(f"..{'0' * 8}{TEMPORARY}")


def temporary_name(path: Path) -> Path:
    """Name under which a file is written before it is complete.

    Each writer has one of its own: two processes that write the same file replace it one after
    the other, and never write into each other's.
    """
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}{TEMPORARY}")


def give_name(temporary: Path | str, path: Path | str) -> None:
    """Rename a file that is complete, in place of one that may be there.

    Raises
    ------
    OSError
        EBUSY if another program has had the earlier file open for two seconds.
    """
    for pause in (*_PAUSES, None):
        try:
            os.replace(temporary, path)  # noqa: PTH105
            return
        except PermissionError as error:
            if getattr(error, "winerror", None) not in _IN_USE:
                raise
            if pause is None:
                raise OSError(errno.EBUSY, "another program has it open") from error
            time.sleep(pause)


def longest_path() -> int | None:
    """Characters that a path may have on this machine, if it is few; None if it is not."""
    if sys.platform != "win32":
        return None
    import winreg

    place = r"SYSTEM\CurrentControlSet\Control\FileSystem"
    try:
        with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, place) as key:
            allowed, _ = winreg.QueryValueEx(key, "LongPathsEnabled")
    except OSError:
        allowed = 0
    return None if allowed else _WINDOWS_PATH


def check_lengths(folder: Path, names: Iterable[str]) -> None:
    """Make sure that files of these names can be written below a folder, before a run begins.

    Raises
    ------
    StorageError
        If the longest path, with what is added while a file is written, is too long for Windows.
    """
    name = max(names, key=len, default="")
    if name and (text := _too_long(folder / name)):
        raise StorageError(text)


def _too_long(path: Path) -> str:
    """What is to be done about a path that is too long for Windows; empty where it is not."""
    most, length = longest_path(), len(str(path.absolute())) + _TEMPORARY_ADDS
    if most is None or length <= most:
        return ""
    return (
        f"{path.absolute()}: Windows takes paths of {most} characters, but this one has {length} "
        f"while it is written; choose a main_results_dir with a path that is "
        f"{counted(length - most, 'character')} shorter, such as C:\\b, or allow long paths in "
        f"Windows (LongPathsEnabled)."
    )


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
            with os.fdopen(os.open(temporary, _CREATE, _MODE), "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            give_name(temporary, path)
        except BaseException:
            _drop(temporary)
            raise


class StagedFile:
    """A file that is written, but neither safe on the disk nor under its final name yet.

    Waiting for the disk is what writing small files costs most.  It is less for many files at a
    time, if the disk is told of all of them before the first is waited for, and nothing else, such
    as a name, changes on it meanwhile.

    Parameters
    ----------
    path : Path
        Final name.
    *parts : bytes or memoryview
        The content.

    Attributes
    ----------
    size : int
        Bytes.

    Raises
    ------
    StorageError
        If the disk does not take the file.
    """

    def __init__(self, path: Path, *parts: bytes | memoryview) -> None:
        self.path = path
        self._temporary = str(temporary_name(path))
        with writing(path, sum(memoryview(part).nbytes for part in parts)):
            try:
                self._descriptor: int | None = os.open(self._temporary, _CREATE, _MODE)
            except FileNotFoundError:
                path.parent.mkdir(parents=True, exist_ok=True)
                self._descriptor = os.open(self._temporary, _CREATE, _MODE)
            try:
                views = [memoryview(part).cast("B") for part in parts]
                if sum(map(len, views)) <= _AT_ONCE:
                    views = [memoryview(b"".join(views))]
                self.size = sum(write_all(self._descriptor, view) for view in views)
            except BaseException:
                self.discard()
                raise

    def begin_sync(self) -> None:
        """Have the disk begin to write the file."""
        if self._descriptor is not None:
            begin_sync(self._descriptor)

    def wait(self) -> None:
        """Wait until the disk has the file."""
        if self._descriptor is None:
            return
        descriptor, self._descriptor = self._descriptor, None
        with writing(self.path, self.size):
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def commit(self) -> None:
        """Give the file its final name, once the disk has it."""
        with writing(self.path, self.size):
            try:
                self.wait()
                give_name(self._temporary, self.path)
            except BaseException:
                _drop(Path(self._temporary))
                raise

    def discard(self) -> None:
        """Forget the file instead."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        _drop(Path(self._temporary))


def begin_sync(descriptor: int) -> None:
    """Have the disk begin to write a file, without waiting for it."""
    if hasattr(os, "posix_fadvise"):
        with suppress(OSError):  # the disk says it again when the file is waited for
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


def write_bytes(path: Path, *parts: bytes | memoryview) -> int:
    """Write a small file at once; returns its size in bytes.

    The same as `replacing`, with system calls alone: a run over many short recordings spends
    its time here.
    """
    staged = StagedFile(path, *parts)
    staged.commit()
    return staged.size


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


def write_json(path: Path, content: object) -> None:
    """Write a JSON file at once."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def write_yaml(path: Path, content: object) -> None:
    """Write a YAML file at once, keys in the order given."""
    write_text(path, yaml_text(content))


def yaml_text(content: object) -> str:
    """YAML of some values, keys in the order given."""
    text: str = yaml.dump(content, Dumper=TypedDumper, sort_keys=False, allow_unicode=True)
    return text


def write_csv(
    path: Path,
    table: pd.DataFrame | Iterable[pd.DataFrame],
    *,
    quote: bool | None = None,
    escape_formulas: bool = False,
    bom: bool = False,
) -> None:
    """Write a pandas table, or the pieces of one, as CSV (UTF-8) at once.

    csv does not quote a carriage return that stands alone, but readers end the line there; `quote`
    says whether texts hold one.  It is found out for a single table.  `escape_formulas` is what
    `without_formulas` does; `bom` puts a byte order mark at the beginning, by which Excel knows
    UTF-8.
    """
    import pandas as pd

    if isinstance(table, pd.DataFrame):
        texts = table.select_dtypes(exclude="number")
        quote = any(
            text.astype(str).str.contains("\r", regex=False).any() for _, text in texts.items()
        )
        table = [table]
    quoting: Literal[0, 2] = csv.QUOTE_NONNUMERIC if quote else csv.QUOTE_MINIMAL
    with replacing(path) as file:
        file.write(BOM if bom else b"")
        for number, piece in enumerate(table):
            plain = without_formulas(piece) if escape_formulas else piece
            plain.to_csv(
                file, mode="wb", index=False, header=not number, lineterminator="\n",
                quoting=quoting,
            )  # fmt: skip


def without_formulas(table: pd.DataFrame) -> pd.DataFrame:
    """Table whose texts no spreadsheet takes for formulas: these begin with an apostrophe.

    So do names of columns, which may be those of sites or classes.  `unescaped` takes it off again.

    Examples
    --------
    >>> import pandas as pd
    >>> table = without_formulas(pd.DataFrame({"audiofilename": ["-12_site.wav", "a.wav"]}))
    >>> table["audiofilename"].tolist()
    ["'-12_site.wav", 'a.wav']
    """
    import pandas as pd

    table = table.rename(columns=escaped)
    for place, kind in enumerate(table.dtypes):
        if kind.kind not in "biufcmM":  # else numbers and times
            texts = [escaped(cell) for cell in table.iloc[:, place]]
            table.isetitem(place, pd.Series(texts, dtype=object).array)
    return table


def write_table(path: Path, table: pa.Table) -> None:
    """Write a pyarrow table as Parquet at once."""
    stage_table(path, table)[0].commit()


def stage_table(path: Path, table: pa.Table) -> tuple[StagedFile, str]:
    """Do what `write_table` does, but leave it to the caller to commit the file.

    Returns
    -------
    file : StagedFile
    sha256 : str
        Hash of the whole file.
    """
    import pyarrow
    import pyarrow.parquet

    # Into memory first: Arrow would call back into Python for every piece of a Python file.
    buffer = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(table, buffer, compression="snappy")
    data = memoryview(buffer.getvalue())
    return StagedFile(path, data), hashlib.sha256(data).hexdigest()


def remove_temporaries(*folders: Path) -> None:
    """Remove what interrupted writes left below folders; only their lock's owner may."""
    for folder in folders:
        if folder.is_dir():
            for path in folder.rglob(f".*{TEMPORARY}"):
                path.unlink(missing_ok=True)


def remove_temporaries_of(paths: Iterable[Path]) -> None:
    """Remove what interrupted writes left of certain files, and of no others."""
    by_folder: dict[Path, set[str]] = {}
    for path in paths:
        by_folder.setdefault(path.parent, set()).add(path.name)
    for folder, names in by_folder.items():
        for path in folder.glob(f".*{TEMPORARY}"):
            if path.name[1 : -len(f".{'0' * 8}{TEMPORARY}")] in names:
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


class WrittenRows(NamedTuple):
    """A complete ``.npy`` file: its bytes, the hash of its rows without the header, their width."""

    bytes: int
    sha256: str
    dim: int


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
        self._staged: StagedFile | None = None

    @property
    def dim(self) -> int:
        """Numbers in a row; 0 as long as there is none."""
        return self._dim or 0

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

    def stage(self) -> None:
        """Write what waits in memory; nothing may be appended any more."""
        if self._file is not None:
            self._spill()
        elif self._staged is None:
            header = npy_header(self.windows, self._dim or 0)
            self._staged = StagedFile(self.path, header, *map(_bytes, self._rows))
            self._rows = []

    def begin_sync(self) -> None:
        """Have the disk begin to write the file."""
        if self._staged is not None:
            self._staged.begin_sync()
        elif self._file is not None:
            begin_sync(self._file.fileno())

    def wait(self) -> None:
        """Wait until the disk has the file, if it is written at once."""
        if self._staged is not None:
            self._staged.wait()

    def commit(self) -> WrittenRows:
        """Complete the file under its final name."""
        try:
            self.stage()
            size = self._complete()
        except BaseException:
            self.discard()
            raise
        return WrittenRows(size, self._digest.hexdigest(), self._dim or 0)

    def discard(self) -> None:
        """Forget what was taken."""
        self._rows = []
        if self._staged is not None:
            self._staged.discard()
            self._staged = None
        if self._file is not None:
            self._file.close()
            _drop(self._temporary)

    def _spill(self) -> None:
        """Append what waits to the temporary file."""
        with writing(self.path, self._waiting):
            if self._file is None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                # Without a buffer, closing the file has nothing left to write that could fail.
                self._file = self._temporary.open("wb", buffering=0)
                write_all(self._file.fileno(), bytes(_NPY_HEADER))
            for rows in self._rows:
                write_all(self._file.fileno(), _bytes(rows))
            self._rows, self._waiting = [], 0

    def _complete(self) -> int:
        """Give what is written its final name; returns its size."""
        if self._staged is not None:
            staged, self._staged = self._staged, None
            staged.commit()
            return staged.size
        assert self._file is not None
        with writing(self.path):
            size = self._file.tell()
            self._file.seek(0)
            write_all(self._file.fileno(), npy_header(self.windows, self._dim or 0))
            os.fsync(self._file.fileno())
            self._file.close()
            give_name(self._temporary, self.path)
        return size


def _bytes(rows: np.ndarray) -> memoryview:
    return rows.data.cast("B") if rows.size else memoryview(b"")


def file_hash(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def array_hash(array: np.ndarray) -> str:
    """SHA-256 of an array's float32 rows, as the journal holds it."""
    return hashlib.sha256(_bytes(np.ascontiguousarray(array, dtype="<f4"))).hexdigest()


def npy_header(windows: int, dim: int) -> bytes:
    """Header of a ``.npy`` file with float32 rows, as `EmbeddingFile` writes it."""
    # Format 1.0 of numpy's files; the padding makes room for any number of rows.
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({windows}, {dim}), }}"
    room = _NPY_HEADER - len(_NPY_MAGIC) - 2
    return _NPY_MAGIC + room.to_bytes(2, "little") + text.ljust(room - 1).encode() + b"\n"


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
    except BacpipeError:  # of what is read meanwhile, some of which are an OSError, too
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
    folders = path.absolute().parents
    in_the_way = next((folder for folder in folders if os.path.isfile(folder)), None)  # noqa: PTH113
    if error.errno in _FULL:
        text = _full_disk(path, needed, rest)
    elif error.errno == errno.ENOENT and (too_long := _too_long(path)):  # so Windows calls it
        text = too_long
    elif in_the_way is not None:
        text = (
            f"{path}: cannot be written, because {in_the_way} is a file where a folder is needed; "
            f"move it away, or choose another main_results_dir."
        )
    elif error.errno in _FORBIDDEN:
        text = (
            f"{path}: cannot be written ({_reason(error)}); give yourself write permission for "
            f"{_existing(path)}, or choose another main_results_dir (for exports, another "
            f"destination)."
        )
    elif error.errno == errno.EBUSY:
        text = (
            f"{path}: cannot be written, because another program has it open (a spreadsheet, "
            f"OneDrive, a virus scanner); close it there and run the same command again: what is "
            f"finished is kept."
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


class RunLog(logging.FileHandler):
    """A log whose disk may fill up: that is said once, and the run goes on.

    Parameters
    ----------
    path : Path
        The file; its folder exists.

    Raises
    ------
    StorageError
        If it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._complained = False
        with writing(path):
            super().__init__(path, encoding="utf-8", errors="backslashreplace")
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))

    def handleError(self, record: logging.LogRecord) -> None:
        """Say what is wrong with the disk, instead of printing a traceback per message."""
        error = sys.exc_info()[1]
        if isinstance(error, OSError):
            self._complain(error)
        else:
            super().handleError(record)

    def close(self) -> None:
        """Write what waits, if there is room, and close the file."""
        try:
            super().close()
        except OSError as error:
            self._complain(error)

    def _complain(self, error: OSError) -> None:
        if not self._complained:
            self._complained = True  # first, because this message goes to the log, too
            logger.warning(
                "The log is not complete: %s", storage_error(Path(self.baseFilename), error)
            )
