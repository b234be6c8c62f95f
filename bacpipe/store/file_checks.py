"""Whether a file is complete: every format that bacpipe writes, read without keeping anything."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import yaml

from bacpipe.errors import first_line
from bacpipe.store.arrays import read_header
from bacpipe.user_input import load_yaml

_BLOCK = 2**22  # bytes read at a time


class _IncompleteError(ValueError):
    """A file ends too early, or holds what it must not."""


def why_unreadable(path: Path) -> str | None:
    """Why a file cannot be read; None if it is complete.

    The format follows from the suffix; of formats that bacpipe does not write, nothing is said.
    Memory does not grow with the file, except for JSON, YAML and pictures, which are small.

    Parameters
    ----------
    path : Path
        An ``npy``, ``parquet``, ``json``, ``jsonl``, ``yml``, ``safetensors``, ``csv``, ``txt``,
        ``png`` or ``svg`` file.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "results.json"
    >>> _ = file.write_text('{"accuracy": 0.')
    >>> why_unreadable(file) is None
    False
    """
    check = _CHECKS.get(path.suffix.lower())
    if check is None:
        return None
    try:
        check(path)
    except OSError as error:
        return error.strerror or str(error)
    except (ValueError, EOFError, RecursionError, yaml.YAMLError, csv.Error) as error:
        return first_line(error)
    return None


def _check_npy(path: Path) -> None:
    with path.open("rb") as file:
        read_header(file)


def _check_parquet(path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            for _ in file.iter_batches(batch_size=65536):
                pass
    except pa.ArrowException as error:
        raise _IncompleteError(str(error)) from None


def _check_json(path: Path) -> None:
    json.loads(path.read_bytes())


def _check_journal(path: Path) -> None:
    """Check all lines but the last, which a kill may cut and readers leave out."""
    with path.open("rb") as file:
        for raw in file:
            if raw.endswith(b"\n"):
                json.loads(raw)


def _check_yaml(path: Path) -> None:
    if load_yaml(path.read_text(encoding="utf-8")) is None:
        raise _IncompleteError("the file is empty")


def _check_safetensors(path: Path) -> None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            file.keys()
    except SafetensorError as error:
        raise _IncompleteError(str(error)) from None


def _check_picture(path: Path) -> None:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as picture:
            picture.verify()
    except (UnidentifiedImageError, SyntaxError) as error:
        raise _IncompleteError(str(error)) from None


def _check_svg(path: Path) -> None:
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - 64))
        if not file.read().rstrip().endswith(b"</svg>"):
            raise _IncompleteError("ends too early")


def _check_csv(path: Path) -> None:
    _check_ending(path)
    with path.open(newline="", encoding="utf-8") as file:
        rows = csv.reader(file)
        width = len(next(rows))
        for number, row in enumerate(rows, start=2):
            if len(row) != width:
                raise _IncompleteError(f"row {number} has {len(row)} columns instead of {width}")


def _check_ending(path: Path) -> None:
    with path.open("rb") as file:
        last = b""
        while block := file.read(_BLOCK):
            last = block
    if not last.endswith(b"\n"):
        raise _IncompleteError("ends within a line" if last else "the file is empty")


_CHECKS: dict[str, Callable[[Path], None]] = {
    ".npy": _check_npy,
    ".parquet": _check_parquet,
    ".json": _check_json,
    ".jsonl": _check_journal,
    ".yml": _check_yaml,
    ".yaml": _check_yaml,
    ".safetensors": _check_safetensors,
    ".png": _check_picture,
    ".svg": _check_svg,
    ".csv": _check_csv,
    ".txt": _check_ending,
}
