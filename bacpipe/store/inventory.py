"""What the journals of several models say of the recordings: lengths, failures, sizes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from bacpipe.store.journal import JournalContent

if TYPE_CHECKING:
    import pandas as pd

_UNITS = {"hour": 3600, "day": 86_400, "week": 7 * 86_400}
# Weeks begin on Mondays, the epoch on a Thursday.
_SHIFT = {"hour": 0, "day": 0, "week": 3 * 86_400}
_MOST_BLOCKS = 400


def recordings_of(journals: Mapping[str, JournalContent]) -> pd.DataFrame:
    """Table of the recordings that are in the journal of any model.

    Parameters
    ----------
    journals : mapping of str to JournalContent
        By model.

    Returns
    -------
    pandas.DataFrame
        Sorted by name.  recording (posix path relative to the audio folder), folder (of the
        recording; '' for the audio folder itself), duration (seconds; NaN where no model has
        finished it), size (bytes; NaN likewise), models (number that are done), failed (number
        that failed).
    """
    import pandas as pd

    found: dict[str, list[float]] = {}
    for content in journals.values():
        for name, line in content.recordings.items():
            status = line["status"]
            if status not in {"done", "failed"}:
                continue
            row = found.setdefault(name, [np.nan, np.nan, 0, 0])
            if status == "done":
                row[0] = line["duration"]
                row[1] = line.get("size", row[1])
                row[2] += 1
            else:
                row[3] += 1
    names = sorted(found)
    values = np.array([found[name] for name in names], float).reshape(-1, 4)
    parents = [str(PurePosixPath(name).parent) for name in names]
    return pd.DataFrame(
        {
            "recording": np.array(names, object),
            "folder": np.array(["" if p == "." else p for p in parents], object),
            "duration": values[:, 0],
            "size": values[:, 1],
            "models": values[:, 2].astype(np.int64),
            "failed": values[:, 3].astype(np.int64),
        }
    )


def failures_of(journals: Mapping[str, JournalContent]) -> pd.DataFrame:
    """Table of what failed: recording, model and reason, sorted by recording."""
    import pandas as pd

    rows = [
        (name, model, str(line.get("reason", "")))
        for model, content in journals.items()
        for name, line in content.recordings.items()
        if line["status"] == "failed"
    ]
    return pd.DataFrame(sorted(rows), columns=["recording", "model", "reason"])


class Totals(NamedTuple):
    """Sums over the recordings of a model that are done.

    Attributes
    ----------
    recordings, windows : int
    seconds : float
        Of recordings.
    bytes : int
        Of embeddings and predictions on disk.
    """

    recordings: int
    windows: int
    seconds: float
    bytes: int


def totals_of(content: JournalContent) -> Totals:
    """Sums over the recordings that are done."""
    lines = list(content.done.values())
    return Totals(
        len(lines),
        sum(line["windows"] for line in lines),
        float(sum(line["duration"] for line in lines)),
        sum(
            (line.get(part) or {}).get("bytes") or 0
            for line in lines
            for part in ("embeddings", "predictions")
        ),
    )


def sites_of(folders: np.ndarray, most: int) -> tuple[np.ndarray, list[str]]:
    """Group recordings by folder, coarsely enough for a figure.

    Parameters
    ----------
    folders : np.ndarray of object, shape (n,)
        Folder of each recording, as in `recordings_of`.
    most : int
        Groups at most.

    Returns
    -------
    code : np.ndarray, int64, shape (n,)
        Index into `names`.
    names : list of str
        Folders, or their first parts if there are too many folders; beyond `most` of those, the
        ones with the fewest recordings are together in the last group.
    """
    names, code = np.unique(folders.astype(str), return_inverse=True)
    if len(names) > most:
        first = np.array([name.split("/", 1)[0] for name in names])[code]
        names, code = np.unique(first, return_inverse=True)
    if len(names) <= most:
        return code.astype(np.int64), names.tolist()
    by_size = np.argsort(-np.bincount(code), kind="stable")
    kept = np.sort(by_size[: most - 1])
    place = np.full(len(names), most - 1, np.int64)
    place[kept] = np.arange(most - 1)
    return place[code], [*names[kept].tolist(), f"{len(names) - most + 1} other folders"]


def recorded_time(
    start: np.ndarray, duration: np.ndarray, group: np.ndarray, unit: str | None = None
) -> tuple[pd.DataFrame, str]:
    """Add up how much was recorded per hour, day or week.

    Parameters
    ----------
    start : np.ndarray, datetime64, shape (n,)
        When each recording begins; those with NaT are left out.
    duration : np.ndarray, float, shape (n,)
        Seconds; NaN counts as nothing.
    group : np.ndarray, int, shape (n,)
        Site of each recording.
    unit : {'hour', 'day', 'week'}, optional
        Length of the blocks; the shortest that gives at most 400 from the first to the last
        recording unless given.

    Returns
    -------
    table : pandas.DataFrame
        group, begin and end (datetime64[s]), seconds (recorded) and recordings of every block in
        which something was recorded, sorted.
    unit : str
        Length of the blocks.
    """
    import pandas as pd

    known = ~np.isnat(start)
    begin = start[known].astype("datetime64[us]").astype(np.int64) / 1e6
    length = np.nan_to_num(duration[known])
    end = begin + length
    if unit is None:
        span = end.max(initial=-np.inf) - begin.min(initial=np.inf)
        unit = next((u for u, size in _UNITS.items() if span / size <= _MOST_BLOCKS), "week")
    size, shift = _UNITS[unit], _SHIFT[unit]
    first = np.floor((begin + shift) / size).astype(np.int64)
    last = np.maximum(np.ceil((end + shift) / size).astype(np.int64) - 1, first)
    count = last - first + 1
    row = np.repeat(np.arange(len(first)), count)
    block = first[row] + np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
    low = block * size - shift
    inside = np.minimum(end[row], low + size) - np.maximum(begin[row], low)
    table = pd.DataFrame({"group": group[known][row], "block": low, "seconds": inside})
    sums = table.groupby(["group", "block"])["seconds"].agg(["sum", "size"]).reset_index()
    return pd.DataFrame(
        {
            "group": sums["group"],
            "begin": sums["block"].to_numpy("datetime64[s]"),
            "end": (sums["block"] + size).to_numpy("datetime64[s]"),
            "seconds": sums["sum"].astype(float),
            "recordings": sums["size"].astype(np.int64),
        }
    ), unit
