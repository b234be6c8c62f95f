"""Where and when recordings were made, as searches filter and show it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING

from bacpipe.places.sites import folder_of
from bacpipe.store.loader import Loader

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Circumstances:
    """Of one recording.

    Attributes
    ----------
    site : str
        As ``sites.csv`` names it, else its folder.
    start : datetime or None
        When it begins; None if nothing tells.
    columns : mapping of str to str
        What else the table of sites has, position and time zone too.
    """

    site: str
    start: datetime | None
    columns: Mapping[str, str]


class CircumstancesOf:
    """Looks up recordings, each once.

    Parameters
    ----------
    loader : Loader
        Results of these recordings.
    """

    def __init__(self, loader: Loader) -> None:
        self._clock = loader.range_filter().clock
        self.of = cache(self._of)

    def _of(self, recording: str) -> Circumstances:
        start = self._clock.of(recording)
        site = start.site
        if site is None:
            return Circumstances(folder_of(recording), start.time, {})
        place = {"latitude": site.latitude, "longitude": site.longitude}
        known = {key: str(value) for key, value in place.items() if value is not None}
        if site.time_zone is not None:
            known["time_zone"] = site.time_zone
        return Circumstances(site.name, start.time, {**known, **site.columns})


def times_after(begins: Iterable[datetime | None], seconds: Iterable[float]) -> pd.Series:
    """Times some seconds after others, as a column.

    Returns
    -------
    pandas.Series
        datetime64, in the zone of all times, or in UTC if they have several; without a zone if
        none is known.  Where some have a zone and others none, single `pandas.Timestamp` objects.
    """
    import pandas as pd

    times = [
        pd.NaT if begin is None else pd.Timestamp(begin) + pd.Timedelta(seconds=later)
        for begin, later in zip(begins, seconds, strict=True)
    ]
    column = pd.Series(times, dtype=object)
    offsets = {time.utcoffset() for time in times if not pd.isna(time)}
    if offsets <= {None}:
        return column.astype("datetime64[us]")
    return column if None in offsets else pd.to_datetime(column, utc=len(offsets) > 1)
