"""What the journals of several models say of the recordings: times, lengths, failures, sizes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from bacpipe.audio.timestamps import get_dt_filename
from bacpipe.dashboard.shared.clock import zone_of
from bacpipe.dashboard.shared.labels import clock_times
from bacpipe.dashboard.shared.results import ModelResults
from bacpipe.errors import BacpipeError
from bacpipe.store.entries import FailedEntry, FinishedEntry
from bacpipe.store.journal import JournalContent

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Recordings:
    """Recordings of a data set.

    Attributes
    ----------
    table : pandas.DataFrame
        As `recordings_of` makes it, with start (datetime64[us], on the clock of `zone`; NaT
        where neither the file nor its name tells).
    failures : pandas.DataFrame
        recording, model, reason.
    totals : dict of Totals
        By model.
    zone : str
        Zone of the times, or whose clock it is; '' where nothing tells.
    """

    table: pd.DataFrame
    failures: pd.DataFrame
    totals: dict[str, Totals]
    zone: str = ""

    @property
    def without_time(self) -> int:
        """Recordings of which nobody knows when they were made."""
        return int(self.table["start"].isna().sum())

    def matching(self, search: str, only: str) -> pd.DataFrame:
        """Rows of the table whose name holds a text, upper and lower case alike.

        `only` says which recordings: 'all', 'failed' or those with 'no time'.
        """
        table = self.table
        chosen = np.ones(len(table), bool)
        if only == "failed":
            chosen = (table["failed"] > 0).to_numpy()
        elif only == "no time":
            chosen = table["start"].isna().to_numpy()
        if search:
            chosen &= table["recording"].str.contains(search, case=False, regex=False).to_numpy()
        return table[chosen]


@lru_cache(maxsize=4)
def read_recordings(models: tuple[ModelResults, ...]) -> Recordings:
    """Bring together what the results of several models say of the recordings."""
    journals: dict[str, JournalContent] = {
        results.name: results.loader.embedding_set.content
        for results in models
        if results.loader.embedding_set is not None
    }
    table = recordings_of(journals)
    table["start"] = _starts(models, table["recording"].tolist())
    totals = {name: totals_of(content) for name, content in journals.items()}
    zones = (zone for results in models if (zone := _zone(results)))
    return Recordings(table, failures_of(journals), totals, next(zones, ""))


def _zone(results: ModelResults) -> str:
    try:
        return zone_of(results)
    except BacpipeError:
        return ""


def _starts(models: tuple[ModelResults, ...], names: list[str]) -> np.ndarray:
    """When each recording begins; what the windows' labels hold needs no file to be opened."""
    known: dict[str, np.datetime64] = {}
    for results in models:
        counts = results.windows.counts
        if all(name in known for name in results.recordings):
            continue
        try:
            clock = clock_times(results)
        except BacpipeError:
            continue  # names tell, too
        filled = np.flatnonzero(counts)
        first = (np.cumsum(counts) - counts)[filled]
        begin = clock[first] - np.rint(results.start[first] * 1e6).astype("timedelta64[us]")
        for i, time in zip(filled, begin, strict=True):
            known.setdefault(results.recordings[i], time)
    return np.array([known.get(name, _by_name(name)) for name in names], "datetime64[us]")


def _by_name(name: str) -> np.datetime64:
    time = get_dt_filename(name)
    return np.datetime64("NaT" if time is None else time.replace(tzinfo=None), "us")


def recordings_of(journals: Mapping[str, JournalContent]) -> pd.DataFrame:
    """Table of the recordings that are in the journal of any model, sorted by name.

    Columns recording (posix path relative to the audio folder), folder (of the recording; '' for
    the audio folder itself), duration (seconds; NaN where no model has finished it), size (bytes;
    NaN likewise), models (number that are done), failed (number that failed).
    """
    import pandas as pd

    rows: dict[str, list[float]] = {}
    for content in journals.values():
        for name, entry in content.recordings.items():
            if isinstance(entry, FinishedEntry) and entry.is_done:
                row = rows.setdefault(name, [np.nan, np.nan, 0, 0])
                row[0] = entry.duration
                row[1] = row[1] if entry.size is None else entry.size
                row[2] += 1
            elif isinstance(entry, FailedEntry):
                rows.setdefault(name, [np.nan, np.nan, 0, 0])[3] += 1
    names = sorted(rows)
    values = np.array([rows[name] for name in names], float).reshape(-1, 4)
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
        (name, model, entry.reason)
        for model, content in journals.items()
        for name, entry in content.recordings.items()
        if isinstance(entry, FailedEntry)
    ]
    return pd.DataFrame(sorted(rows), columns=["recording", "model", "reason"])


class Totals(NamedTuple):
    """Sums over the recordings of a model that are done; `bytes` are those of its results."""

    recordings: int
    windows: int
    seconds: float
    bytes: int


def totals_of(content: JournalContent) -> Totals:
    """Sums over the recordings that are done."""
    entries = list(content.done.values())
    stored = [entry.predictions for entry in entries if entry.predictions is not None]
    return Totals(
        len(entries),
        sum(entry.windows for entry in entries),
        float(sum(entry.duration for entry in entries)),
        sum(entry.embeddings.bytes for entry in entries) + sum(item.bytes for item in stored),
    )
