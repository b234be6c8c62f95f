"""Results with the fingerprint of what they were made from: JSON and Parquet files."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bacpipe.store.files import write_json, write_table
from bacpipe.store.parquet import read_parquet

if TYPE_CHECKING:
    import pyarrow as pa

logger = logging.getLogger(__name__)


def fingerprint_of(content: object) -> str:
    """SHA-256 of what a result was made from, as JSON has it."""
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def write_result(path: Path, result: Mapping[str, Any], fingerprint: str) -> None:
    """Write a result as JSON; whatever is not a number must be None in it."""
    write_json(path, {**result, "fingerprint": fingerprint})


def read_result(path: Path, fingerprint: str | None = None) -> dict[str, Any] | None:
    """Read a JSON result.

    Parameters
    ----------
    path : Path
        The JSON file.
    fingerprint : str, optional
        What it must have been made from.

    Returns
    -------
    dict or None
        None if it is missing, unreadable or made from something else.
    """
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        stored = result.pop("fingerprint")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        _log_unreadable(path, error)
        return None
    return dict(result) if fingerprint is None or _is_current(path, stored, fingerprint) else None


def write_result_table(
    path: Path, table: pa.Table, fingerprint: str, about: Mapping[str, Any] | None = None
) -> None:
    """Write a table as Parquet, with the fingerprint and what else is said about it in its schema.

    Parameters
    ----------
    path : Path
        Where to.
    table : pyarrow.Table
        The table; other metadata of its schema is kept.
    fingerprint : str
        What it was made from.
    about : mapping, optional
        What else is kept with it, as JSON.
    """
    content = json.dumps({"fingerprint": fingerprint, **(about or {})}, ensure_ascii=False)
    metadata = {**(table.schema.metadata or {}), b"bacpipe": content}
    write_table(path, table.replace_schema_metadata(metadata))


def read_result_table(
    path: Path, fingerprint: str | None
) -> tuple[pa.Table, dict[str, Any]] | None:
    """Read a Parquet table and what is said about it, of any fingerprint if that is None.

    Returns
    -------
    tuple of pyarrow.Table and dict, or None
        None if it is missing, unreadable or made from something else.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        metadata = pq.read_schema(path).metadata or {}
        about = dict(json.loads(metadata.get(b"bacpipe", b"{}")))
        # The scores of benchmarks had a key of their own in version 2.0.
        stored = about.get("fingerprint", metadata.get(b"fingerprint", b"").decode())
        if fingerprint is None or _is_current(path, stored, fingerprint):
            return read_parquet(path), about
    except FileNotFoundError:
        pass
    except (OSError, pa.ArrowException, ValueError, TypeError, RecursionError) as error:
        _log_unreadable(path, error)
    return None


def _is_current(path: Path, stored: object, wanted: str) -> bool:
    if stored != wanted:
        logger.info("%s: made again, because its data or settings have changed.", path)
    return stored == wanted


def _log_unreadable(path: Path, error: Exception) -> None:
    logger.warning("%s: cannot be read and is made again (%s).", path, error)
