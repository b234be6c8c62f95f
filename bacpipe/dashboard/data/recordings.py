"""The recordings behind the results: when they were made, and what became of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from bacpipe.audio.timestamps import get_dt_filename
from bacpipe.dashboard.data.labels import clock_times
from bacpipe.dashboard.data.results import ModelResults
from bacpipe.errors import BacpipeError
from bacpipe.store.inventory import Totals, failures_of, recordings_of, totals_of
from bacpipe.store.journal import JournalContent

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Recordings:
    """Recordings of a data set.

    Attributes
    ----------
    table : pandas.DataFrame
        As `bacpipe.store.inventory.recordings_of` makes it, with start (datetime64[us], by the
        recorder's clock; NaT where neither the file nor its name tells).
    failures : pandas.DataFrame
        recording, model, reason.
    totals : dict of Totals
        By model.
    """

    table: pd.DataFrame
    failures: pd.DataFrame
    totals: dict[str, Totals]

    @property
    def without_time(self) -> int:
        """Recordings of which nobody knows when they were made."""
        return int(self.table["start"].isna().sum())

    def matching(self, search: str, only: str) -> pd.DataFrame:
        """Rows of the table whose name holds a text, upper and lower case alike.

        Parameters
        ----------
        search : str
            The text; '' for all.
        only : {'all', 'failed', 'no time'}
            Which recordings.
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
    return Recordings(table, failures_of(journals), totals)


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
