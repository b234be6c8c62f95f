"""Where and when the recordings of a loader were made, and which classes can be there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bacpipe.places.sites import Site, folder_of
from bacpipe.store.detections import Detections
from bacpipe.store.loader import Loader
from bacpipe.store.range_filter import OPTIONS

if TYPE_CHECKING:
    import pandas as pd

_DAY = 86400.0


class Place(NamedTuple):
    """Where and when a recording was made.

    Attributes
    ----------
    site : str
        Name of the site: the folder of the recording, unless the table of sites has another.
    latitude, longitude : float or None
        Degrees of WGS 84.
    time_zone : str or None
        Of the recorder's clock, if the table of sites has it.
    start : datetime or None
        When the recording starts, by the clock of the place if its position is known, else by that
        of the recorder; with a zone where one is known.
    columns : mapping of str to str
        Further columns of the table of sites.
    """

    site: str
    latitude: float | None
    longitude: float | None
    time_zone: str | None
    start: datetime | None
    columns: Mapping[str, str]

    @property
    def all_columns(self) -> Mapping[str, str]:
        """What is known of the site, as texts: position and time zone beside the columns."""
        known = {key: getattr(self, key) for key in ("latitude", "longitude", "time_zone")}
        told = {key: str(value) for key, value in known.items() if value is not None}
        return {**told, **self.columns}

    @property
    def local(self) -> np.datetime64:
        """Clock time of the start, datetime64[us]; NaT where it is not known."""
        plain = None if self.start is None else self.start.replace(tzinfo=None)
        return np.datetime64(plain, "us") if plain is not None else np.datetime64("NaT", "us")

    @property
    def offset(self) -> str:
        """Offset of the clock from UTC, such as ``+02:00``; empty where it is not known."""
        return "" if self.start is None else self.start.isoformat("T")[19:].lstrip(".0123456789")

    def after(self, seconds: float) -> datetime | None:
        """The time so many seconds into the recording, by the clock of its place.

        That may be changed meanwhile.
        """
        if self.start is None or self.start.tzinfo is None:
            return None if self.start is None else self.start + timedelta(seconds=seconds)
        # Python adds on the clock, which may be changed meanwhile.
        moment = self.start.astimezone(UTC) + timedelta(seconds=seconds)
        return moment.astimezone(self.start.tzinfo)

    def clock_changes(self, seconds: float) -> list[tuple[float, float]]:
        """When, in so many seconds of the recording, its place changes to another time.

        Returns
        -------
        list of (float, float)
            Seconds since the start, and seconds by which the clock is put forward.
        """
        zone = None if self.start is None else self.start.tzinfo
        if zone is None or isinstance(zone, timezone):  # always so far from UTC
            return []
        if seconds < _DAY and self.start is not None:  # most recordings, of which there are many
            moment = self.after(seconds)
            if moment is not None and moment.utcoffset() == self.start.utcoffset():
                return []
        changes: list[tuple[float, float]] = []
        low, before = 0.0, self._offset(0.0)
        for end in (*np.arange(_DAY, seconds, _DAY).tolist(), seconds):
            high, now = end, self._offset(end)
            if now != before:
                while high - low > 1e-3:
                    middle = (low + high) / 2
                    low, high = (middle, high) if self._offset(middle) == before else (low, middle)
                changes.append((self._whole_second(high), now - before))
            low, before = end, now
        return changes

    def _whole_second(self, seconds: float) -> float:
        """The seconds into the recording at the nearest full second of the clock."""
        start, moment = self.after(0.0), self.after(seconds)
        assert start is not None and moment is not None
        full = (moment.astimezone(UTC) + timedelta(seconds=0.5)).replace(microsecond=0)
        return (full - start.astimezone(UTC)).total_seconds()

    def _offset(self, seconds: float) -> float:
        """Seconds of the clock before UTC, so many seconds into the recording."""
        moment = self.after(seconds)
        offset = None if moment is None else moment.utcoffset()
        return 0.0 if offset is None else offset.total_seconds()


class Whereabouts:
    """Looks every recording of a loader up once.

    Parameters
    ----------
    loader : Loader
    settings : mapping, optional
        Settings of a call, which come before those of the loader.
    """

    def __init__(self, loader: Loader, settings: Mapping[str, Any] | None = None) -> None:
        self._loader = loader
        self._range_filter = loader.range_filter(**(settings or {}))
        self._places: dict[str, Place] = {}

    def of(self, recording: str) -> Place:
        """Where and when a recording was made."""
        if recording not in self._places:
            start = self._range_filter.clock.of(recording)
            site = start.site or Site(folder_of(recording))
            self._places[recording] = Place(
                site.name,
                *(site.latitude, site.longitude, site.time_zone),
                start.local,
                site.columns,
            )
        return self._places[recording]

    @property
    def columns(self) -> list[str]:
        """Further columns of the table of sites."""
        return sorted({key for name in self._loader.entries for key in self.of(name).columns})

    def range_probability(self, *items: Detections) -> np.ndarray:
        """How probable the classes are there at that time of the year, float32 of shape (n,).

        NaN where it is not known.
        """
        parts = [np.full(len(item.label), np.nan, np.float32) for item in items]
        if self._range_filter.options.range_filter != "off":
            self._range_filter.prepare(item.recording for item in items if len(item.label))
            parts = [self._range_filter.probabilities(item) for item in items]
        return np.concatenate([np.zeros(0, np.float32), *parts])

    @property
    def listed_species(self) -> list[str]:
        """Classes that ``species_list`` asks for; empty without it."""
        return self._range_filter.listed

    @property
    def is_selective(self) -> bool:
        """Whether what is shown is another choice than what is stored with the places."""
        return self._range_filter.hides or self._range_filter.options.range_filter == "off"

    @property
    def provenance(self) -> dict[str, Any]:
        """Settings that decide what is shown of places and species."""
        options = self._range_filter.options
        values = {key: getattr(options, key) for key in OPTIONS if key != "model_base_path"}
        return {key: value for key, value in values.items() if value is not None}


def clock_times(places: Sequence[Place], recording: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """Times by the clocks of places, which may be changed during a recording.

    Parameters
    ----------
    places : sequence of Place
        Of recordings.
    recording : np.ndarray, int, shape (n,)
        Which of them.
    seconds : np.ndarray, float64, shape (n,)
        Since its start.

    Returns
    -------
    np.ndarray, datetime64[us], shape (n,)
        NaT where nothing tells when the recording starts.
    """
    latest = np.zeros(len(places))
    np.maximum.at(latest, recording, seconds)
    shown = np.array(seconds, np.float64)
    for number, place in enumerate(places):
        for change, forward in place.clock_changes(float(latest[number])):
            shown[(recording == number) & (seconds >= change)] += forward
    starts = np.array([place.local for place in places], "datetime64[us]")
    times: np.ndarray = starts[recording] + np.rint(shown * 1e6).astype("timedelta64[us]")
    return times


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
    if None in offsets:
        return column
    zones = {str(time.tzinfo) for time in times if not pd.isna(time)}
    if len(offsets) == 1 and len(zones) > 1:  # by name and as an offset: pandas takes one of them
        offset = next(offset for offset in offsets if offset is not None)
        return pd.to_datetime(column, utc=True).dt.tz_convert(timezone(offset))
    return pd.to_datetime(column, utc=len(offsets) > 1)
