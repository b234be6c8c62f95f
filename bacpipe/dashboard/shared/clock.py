"""The one clock that all views show, and its zone."""

from __future__ import annotations

from datetime import UTC, timedelta, timezone

import numpy as np

from bacpipe.dashboard.shared.labels import clock_times
from bacpipe.dashboard.shared.results import ModelResults

_OWN = "recorder's clock"
_MINUTE = timedelta(minutes=1)


def clock_of(results: ModelResults, row: int) -> str:
    """Date, time and zone at which a window starts; '' where nothing tells."""
    time = clock_times(results)[row]
    if np.isnat(time):
        return ""
    return f"{time.item():%Y-%m-%d %H:%M:%S} ({_zone(results, row, time)})"


def zone_of(results: ModelResults) -> str:
    """Zone of the clock, such as UTC+02:00, or whose clock it is; '' without any time.

    Recordings of which no zone is known stay on the clock of their recorder.
    """
    times = clock_times(results)
    known = ~np.isnat(times)
    return _zone(results, int(known.argmax()), times[known.argmax()]) if known.any() else ""


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
