"""The one clock that all views show, and its zone."""

from __future__ import annotations

from datetime import UTC, timedelta, timezone

import numpy as np

from bacpipe.dashboard.shared.labels import clock_times
from bacpipe.dashboard.shared.results import ModelResults

_OWN = "recorder's clock"
_MINUTE = timedelta(minutes=1)
_ASKED = 200  # recordings


def clock_of(results: ModelResults, row: int) -> str:
    """Date, time and zone at which a window starts; '' where nothing tells."""
    time = clock_times(results)[row]
    if np.isnat(time):
        return ""
    return f"{time.item():%Y-%m-%d %H:%M:%S} ({_zone(results, row, time)})"


def zone_of(results: ModelResults) -> str:
    """Zone of the clock, such as UTC+02:00, or whose clock it is; '' without any time.

    Recordings of which no zone is known stay on the clock of their recorder.  Many recordings are
    judged by some of them, from the first to the last: each has to be opened.
    """
    times = clock_times(results)
    counts = results.windows.counts
    first = (np.cumsum(counts) - counts)[counts > 0]
    first = first[~np.isnat(times[first])]
    some = first[np.unique(np.linspace(0, len(first) - 1, min(_ASKED, len(first)), dtype=np.int64))]
    zones = {_zone(results, row, times[row]) for row in some.tolist()}
    known = " or ".join(sorted(zones - {_OWN}))
    if _OWN not in zones or not known:
        return known or next(iter(zones), "")
    return f"{known}; the {_OWN} where its zone is not known"


def _zone(results: ModelResults, row: int, time: np.datetime64) -> str:
    """Zone in which a window's time is given: how far it is from the moment itself."""
    begin = results.loader.clock.of(results.recording_of(row)).time
    if begin is None or begin.tzinfo is None:
        return _OWN
    moment = begin.astimezone(UTC).replace(tzinfo=None) + timedelta(
        seconds=float(results.start[row])
    )
    offset = _MINUTE * round((time.item() - moment) / _MINUTE)
    return timezone(offset).tzname(None)
