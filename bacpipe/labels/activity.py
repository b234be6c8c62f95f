"""When a class is heard: detections by hour, day and week, beside the time that was recorded.

A cell in which nothing was heard although somebody listened differs from one in which nobody
listened, so every count comes with the hours that were recorded.  Times are those of
`bacpipe.places.clock`.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from bacpipe.audio import remote
from bacpipe.errors import ResultsNotFoundError, SettingsError
from bacpipe.labels.default_labels import recording_starts
from bacpipe.places.clock import SunEvent, on_sun_clock
from bacpipe.store.detections import above
from bacpipe.store.entries import FinishedEntry
from bacpipe.store.loader import Loader
from bacpipe.store.tables import blocks_of

BY = {
    "hour_day": "hour × day",
    "hour_week": "hour × week",
    "day_week": "weekday × week",
    "sunrise_day": "hours after sunrise × day",
    "sunset_day": "hours after sunset × day",
}
"""What the rows and columns of a grid are, with a name for people."""

SUN: Mapping[str, SunEvent] = {"sunrise_day": "sunrise", "sunset_day": "sunset"}
"""Grids whose rows are hours from an event of the sun; for these, times are on a sun clock."""

_WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
# More empty columns than these become one, so that two surveys years apart fit on a page.
_LONGEST_GAP = 6
_MOST_DAYS = 62


class Stretches(NamedTuple):
    """Begin and end of times during which a recorder ran, datetime64[us], in any order.

    Those of several recorders may overlap.
    """

    begin: np.ndarray
    end: np.ndarray


def recorded_stretches(entries: Mapping[str, FinishedEntry], starts: np.ndarray) -> Stretches:
    """When recordings ran, from what the journal says of each.

    Of annotated segments, only these count.  `starts` (datetime64) is when each recording starts;
    those that do not tell (NaT) are left out.
    """
    owner, first, last = array("q"), array("d"), array("d")
    known = ~np.isnat(starts)
    for i, entry in enumerate(entries.values()):
        if not known[i]:
            continue
        for begin, end in entry.parts:
            owner.append(i)
            first.append(begin)
            last.append(end)
    start = starts.astype("datetime64[us]")[np.array(owner, np.int64)]
    return Stretches(start + _seconds(first), start + _seconds(last))


def _seconds(values: array[float] | np.ndarray) -> np.ndarray:
    return np.rint(np.asarray(values, np.float64) * 1e6).astype("timedelta64[us]")


@dataclass(frozen=True)
class ActivityGrid:
    """Cells of a heat map, and how long was recorded in each."""

    by: str  # a key of `BY`
    rows: tuple[str, ...]  # hours '00' to '23' or '-12' to '+11', or weekdays
    # datetime64[D], shape (columns,): First day of each column, ascending. NaT is a column for a
    # longer time without recordings
    columns: np.ndarray
    # float64, shape (rows, columns): Hours recorded, of all recorders together; 0 where nothing was
    # recorded
    hours: np.ndarray

    def count(self, times: np.ndarray) -> np.ndarray:
        """Number of times (datetime64) in each cell, int64 of shape (rows, columns).

        Those without a time (NaT), or outside of the grid, do not count.
        """
        counts = np.zeros(self.hours.shape, np.int64)
        row, column = self.cells(times)
        inside = column >= 0
        np.add.at(counts, (row[inside], column[inside]), 1)
        return counts

    def cells(self, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Row and column of each time, int64 of shape (n,); -1 for times outside of the grid."""
        row, day = _cell(times, self.by)
        column = _positions(self.columns, day)
        return np.where(column < 0, -1, row), column

    def describe(self, row: int, column: int) -> str:
        """Say when a cell is, such as '2024-05-01, 05 h'."""
        day = self.columns[column]
        if np.isnat(day):
            return "a time without recordings"
        if self.by == "day_week":
            return f"{self.rows[row]} {day + np.timedelta64(row, 'D')}"
        if self.by in SUN:
            return f"{day}, {self.rows[row]} h from {SUN[self.by]}"
        week = "" if self.by == "hour_day" else "week of "
        return f"{week}{day}, {self.rows[row]} h"

    def per_hour(self, counts: np.ndarray) -> np.ndarray:
        """Counts per recorded hour, float64; NaN where nothing was recorded."""
        hours = np.where(self.hours > 0, self.hours, np.nan)
        return np.asarray(counts / hours, np.float64)


def activity_grid(stretches: Stretches, by: str = "hour_day") -> ActivityGrid:
    """Lay out the cells of a heat map over the time that was recorded.

    Rows and columns are hours of the day by days ('hour_day'), hours of the day by weeks
    ('hour_week'), weekdays by weeks ('day_week'), or hours from sunrise or sunset by days
    ('sunrise_day', 'sunset_day'), for which stretches are those of
    `bacpipe.places.clock.on_sun_clock`.  Weeks begin on Mondays (ISO 8601).

    Raises
    ------
    SettingsError
        If `by` is something else.
    """
    if by not in BY:
        raise SettingsError(f"by={by!r} is not possible: expected one of {', '.join(BY)}.")
    hour, seconds = _by_hour(stretches)
    row, day = _cell(hour, by)
    step = 1 if by.endswith("_day") else 7
    columns = _columns(np.unique(day), step)
    rows = _WEEKDAYS if by == "day_week" else tuple(f"{i:02d}" for i in range(24))
    if by in SUN:
        rows = tuple(f"{i:+d}" for i in range(-12, 12))
    hours = np.zeros((len(rows), len(columns)))
    np.add.at(hours, (row, _positions(columns, day)), seconds / 3600)
    return ActivityGrid(by, rows, columns, hours)


def _by_hour(stretches: Stretches) -> tuple[np.ndarray, np.ndarray]:
    """Clock hours that stretches touch, and the seconds recorded in each."""
    kept = stretches.end > stretches.begin
    begin, end = stretches.begin[kept], stretches.end[kept]
    first = begin.astype("datetime64[h]")
    last = (end - np.timedelta64(1, "us")).astype("datetime64[h]")
    counts = (last - first).astype(np.int64) + 1
    owner = np.repeat(np.arange(len(counts)), counts)
    step = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
    hour = first[owner] + step.astype("timedelta64[h]")
    inside = np.minimum(end[owner], hour + np.timedelta64(1, "h")) - np.maximum(begin[owner], hour)
    return hour, inside / np.timedelta64(1, "s")


def _cell(times: np.ndarray, by: str) -> tuple[np.ndarray, np.ndarray]:
    """Row of each time, and the first day of its column."""
    day = times.astype("datetime64[D]")
    # The first day of numpy's calendar, 1970-01-01, was a Thursday.
    weekday = (day.astype(np.int64) + 3) % 7
    monday = day - weekday.astype("timedelta64[D]")
    if by == "day_week":
        return weekday, monday
    hour = times.astype("datetime64[h]").astype(np.int64) % 24
    return hour, day if by.endswith("_day") else monday


def _columns(used: np.ndarray, step: int) -> np.ndarray:
    """Columns from the first to the last that is used, long gaps shortened."""
    if not len(used):
        return used
    parts = [used[:1]]
    for before, after in pairwise(used):
        missing = int((after - before).astype(np.int64)) // step - 1
        if missing > _LONGEST_GAP:
            parts.append(np.array(["NaT"], "datetime64[D]"))
        else:
            parts.append(before + step * np.arange(1, missing + 1).astype("timedelta64[D]"))
        parts.append(np.array([after]))
    return np.concatenate(parts)


def _positions(columns: np.ndarray, days: np.ndarray) -> np.ndarray:
    """Column that begins on each day; -1 for none."""
    known = np.flatnonzero(~np.isnat(columns))
    if not len(known):
        return np.full(len(days), -1)
    place = np.searchsorted(columns[known], days).clip(max=len(known) - 1)
    nearest = known[place]
    return np.where(columns[nearest] == days, nearest, -1)


# ---------------------------------------------------------------------- of classes


def starts_for(loader: Loader, recordings: Sequence[str], by: str | None) -> np.ndarray:
    """When recordings start, datetime64, on the clock that a grid has."""
    if by is None or by not in SUN:
        return recording_starts(loader, recordings)
    return on_sun_clock([loader.clock.of(name) for name in recordings], SUN[by])


class Activity(NamedTuple):
    """When classes were found."""

    grid: ActivityGrid  # the cells, and how long was recorded in each
    # Detections (windows) of each class in each cell, the most frequent class first
    counts: dict[str, np.ndarray]
    classes: int  # number of classes that were found, of which `counts` may hold only some


def class_activity(
    loader: Loader,
    by: str | None = None,
    *,
    classes: Sequence[str] | None = None,
    most: int | None = None,
    threshold: float = 0.0,
) -> Activity:
    """Count the stored detections of a model by hour, day or week.

    Parameters
    ----------
    loader : Loader
    by : {'hour_day', 'hour_week', 'day_week', 'sunrise_day', 'sunset_day'}, optional
        As for `activity_grid`; by default hours by days, or by weeks when there are too many
        days to be told apart in a figure.
    classes : sequence of str, optional
        Which classes; by default all.
    most : int, optional
        Only the most frequent ones.
    threshold : float
        Lowest score that counts; scores below the threshold of the run are not stored.

    Raises
    ------
    ResultsNotFoundError
        If there are no predictions, or no recording tells when, and for the sun where, it was
        made.
    """
    entries = loader.entries.where(lambda entry: entry.predictions is not None)
    blocks = blocks_of(above(item, threshold) for item in loader.detections())
    names = list(entries)
    starts = starts_for(loader, names, by)
    if by is not None and by in SUN and np.isnat(starts).all():
        raise ResultsNotFoundError(
            f"{remote.shown(loader.audio_dir)}: no recording here tells both when and where it was "
            f"made, so the hours from {SUN[by]} are not known; give latitude and longitude, or a "
            f"table of sites (bacpipe sites audio_dir=...)."
        )
    if np.isnat(starts).all():
        raise ResultsNotFoundError(
            f"{remote.shown(loader.audio_dir)}: no recording here tells when it was made, so "
            f"activity over time is not known; expected a time in the recorder's metadata or in "
            f"the name, such as 20240501_053000.wav."
        )
    stretches = recorded_stretches(entries, starts)
    grid = activity_grid(stretches, by or "hour_day")
    if by is None and len(grid.columns) > _MOST_DAYS:
        grid = activity_grid(stretches, "hour_week")
    number_of: dict[str, int] = {}
    codes, times = [np.zeros(0, np.int32)], [np.zeros(0, "datetime64[us]")]
    for block in blocks:
        numbers = [number_of.setdefault(name, len(number_of)) for name in block.classes]
        codes.append(np.array(numbers, np.int32)[block.label])
        own = starts[[bisect_left(names, name) for name in block.names]]
        times.append(own[block.recording] + _seconds(block.start))
    code, time = np.concatenate(codes), np.concatenate(times)
    totals = np.bincount(code, minlength=len(number_of))
    wanted = set(number_of if classes is None else classes)
    order = sorted(number_of, key=lambda name: (-totals[number_of[name]], name))
    shown = [name for name in order if name in wanted][:most]
    counts = {name: grid.count(time[code == number_of[name]]) for name in shown}
    return Activity(grid, counts, len(number_of))
