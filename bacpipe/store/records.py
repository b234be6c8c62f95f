"""What the lines of a journal must hold before anybody relies on them.

A journal may come from another machine, from a damaged disk or from somebody who wishes us
ill.  Lines that pass here can be read without further questions, except that the files that
they name must lie inside their folder (`bacpipe.store.layout.path_inside`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeGuard


def is_header(line: Mapping[str, Any]) -> bool:
    """Whether the first line of a journal is one that we wrote."""
    identity, provenance = line.get("identity"), line.get("provenance", {})
    return (
        "old_metadata" not in line  # which stands for a journal where there is none
        and isinstance(identity, dict)
        and isinstance(provenance, dict)
        # Embeddings that were computed elsewhere have neither rate nor window.
        and all(_is_count(identity.get(key, 1), least=1) for key in ("sample_rate", "window"))
        and (identity.get("hop") is None or _is_size(identity["hop"]))
        and _is_size(identity.get("speed", 1))
    )


def is_record(line: Mapping[str, Any]) -> bool:
    """Whether the line of a recording is complete and does not contradict itself."""
    if not (_is_name(line.get("file")) and isinstance(line.get("status"), str)):
        return False
    if line["status"] not in {"done", "removed"}:
        return True
    windows = line.get("windows")
    return (
        _is_count(windows)
        and _is_number(line.get("duration"))
        and _is_count(line.get("padded", 0))
        and _are_embeddings(line.get("embeddings"), windows, adopted=bool(line.get("adopted")))
        and _are_predictions(line.get("predictions"))
        and _are_segments(line.get("segments"), windows)
        and (
            bool(line.get("adopted"))
            or (isinstance(line.get("size"), int) and isinstance(line.get("mtime_ns"), int))
        )
    )


def _are_embeddings(stored: Any, windows: int, *, adopted: bool) -> bool:
    if not (isinstance(stored, dict) and _is_name(stored.get("path"))):
        return False
    size, dim = stored.get("bytes"), stored.get("dim")
    if not (_is_count(size) and _is_count(dim)):
        return False
    # Older versions wrote other types of numbers.
    least = windows if adopted else 4 * windows * dim
    return size >= least and isinstance(stored.get("sha256", ""), str)


def _are_predictions(stored: Any) -> bool:
    if stored is None:
        return True
    return (
        isinstance(stored, dict)
        and "path" in stored
        and (stored["path"] is None or _is_name(stored["path"]))
        and _is_count(stored.get("bytes"))
    )


def _are_segments(segments: Any, windows: int) -> bool:
    if segments is None:
        return True
    return (
        isinstance(segments, list)
        and all(
            isinstance(segment, list)
            and len(segment) == 3
            and _is_number(segment[0])
            and _is_number(segment[1])
            and _is_count(segment[2])
            for segment in segments
        )
        and sum(count for _, _, count in segments) == windows
    )


def _is_name(value: Any) -> bool:
    if not isinstance(value, str) or not value or "\0" in value:
        return False
    if value.isascii():
        return True
    try:
        value.encode(errors="surrogateescape")  # file names need not be valid text
    except UnicodeEncodeError:
        return False
    return True


def _is_count(value: Any, least: int = 0) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value < 2**53


def _is_number(value: Any) -> bool:
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and 0 <= value < 2**53
        and math.isfinite(value)
    )


def _is_size(value: Any) -> bool:
    return _is_number(value) and 1e-9 < value < 1e9
