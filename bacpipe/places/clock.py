"""When recordings began, on one clock, and how far sunrise and sunset were.

A recording tells its time in its metadata or its name (`bacpipe.audio.timestamps`), with a zone or
without.  Where it tells none, its clock counts as in the ``time_zone`` of its row in the table of
sites, else of the settings, else in the zone of its position.  What cannot be resolved is said
once, with counts.

Sun and moon are computed with astral (after Meeus, Astronomical Algorithms), zones of positions
found with timezonefinder; both work without a network.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from functools import cache, lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bacpipe.audio import remote
from bacpipe.audio.clock_jumps import ClockJumps, find_clock_jumps
from bacpipe.audio.timestamps import Source, find_start
from bacpipe.errors import counted
from bacpipe.options import Options
from bacpipe.places.positions import Position, zone_at
from bacpipe.places.sites import Site, Sites
from bacpipe.user_input import typed_zone

logger = logging.getLogger(__name__)

ZoneSource = Literal["metadata", "name", "site", "setting", "position", "nothing"]
SunEvent = Literal["dawn", "sunrise", "sunset"]
"""Dawn is civil: the sun is 6° below the horizon, and rises."""

_NOON = datetime.min.replace(hour=12).time()
_MOON_CYCLE = 28  # of astral's phases: 0 is new, 14 full


@dataclass(frozen=True)
class Start:
    """When and where a recording starts.

    Attributes
    ----------
    time : datetime or None
        With a zone where any is known; None where nothing tells the time.
    source : str
        Where the time comes from: metadata, name or nothing.
    zone_source : str
        Where its zone comes from: metadata, name, site, setting, position or nothing.
    site : Site or None
        Where it was made, if that is known.
    """

    time: datetime | None
    source: Source
    zone_source: ZoneSource
    site: Site | None

    @property
    def local(self) -> datetime | None:
        """The same moment by the clock of the place, where its position is known."""
        if self.time is None or self.time.tzinfo is None or self.site is None:
            return self.time
        position = self.site.position
        return self.time if position is None else self.time.astimezone(zone_at(*position))


class Clock:
    """Says for every recording when and where it starts.

    Parameters
    ----------
    audio_dir : Path
        Folder of recordings.
    options : Options
        ``time_zone``, and what `Sites` takes.
    stored : Path, optional
        Copy of the table of sites in the results.
    """

    def __init__(self, audio_dir: Path, options: Options, stored: Path | None = None) -> None:
        self.audio_dir = audio_dir
        self.sites = Sites(audio_dir, options, stored)
        self.time_zone = options.time_zone
        self._starts: dict[str, Start] = {}

    def of(self, recording: str) -> Start:
        """Start of a recording, a posix path relative to the folder of recordings."""
        if recording not in self._starts:
            self._starts[recording] = self._start(recording)
        return self._starts[recording]

    def _start(self, recording: str) -> Start:
        time, source = find_start(self.audio_dir / recording)
        site = self.sites.of(recording, time)
        if time is None:
            return Start(None, source, "nothing", site)
        if time.tzinfo is not None:
            return Start(time, source, "name" if source == "name" else "metadata", site)
        if site is not None and site.time_zone is not None:
            return Start(time.replace(tzinfo=typed_zone(site.time_zone)), source, "site", site)
        if self.time_zone is not None:
            return Start(time.replace(tzinfo=typed_zone(self.time_zone)), source, "setting", site)
        if site is not None and site.position is not None:
            zone = zone_at(*site.position)
            return Start(time.replace(tzinfo=zone), source, "position", site)
        return Start(time, source, "nothing", site)


# --- One clock for all -------------------------------------------------------------------------


def on_one_clock(
    audio_dir: Path, recordings: Sequence[str], starts: Sequence[Start]
) -> NDArray[np.datetime64]:
    """Clock time at which each recording starts, datetime64[us]; NaT where nothing tells.

    Recordings whose zone is known keep their order and distance, and are shown in local time
    where a position is known.  If there are several zones, as before and after a change to
    daylight saving time, all of these are shown in the most frequent one, and a warning says so.
    Where only the recorder's clock is known, it counts as it is.
    """
    times = [start.local for start in starts]
    offsets = Counter(time.utcoffset() for time in times if time is not None)
    zoned = {offset: count for offset, count in offsets.items() if offset is not None}
    common = max(zoned, key=lambda offset: zoned[offset], default=None)
    shown = np.full(len(starts), np.datetime64("NaT", "us"))
    for i, time in enumerate(times):
        if time is not None:
            if time.tzinfo is not None and common is not None:
                time = time.astimezone(timezone(common))
            shown[i] = np.datetime64(time.replace(tzinfo=None), "us")
    _tell_sources(audio_dir, recordings, [start.source for start in starts])
    _tell_zones(audio_dir, zoned, offsets[None], common)
    tell_assumptions(audio_dir, recordings, starts)
    _tell_jumps(audio_dir, find_clock_jumps(recordings, shown))
    return shown


def _tell_jumps(audio_dir: Path, jumps: ClockJumps) -> None:
    """Warn of clocks that seem to have been reset, without changing a date."""
    parts = []
    if jumps.early:
        parts.append(
            f"{counted(len(jumps.early), 'recording')} dated long before all others of the same "
            f"folder, such as {jumps.early[0]}"
        )
    if jumps.backwards:
        before, after = jumps.backwards[0]
        parts.append(
            f"{counted(len(jumps.backwards), 'recording')} that by number follow another and by "
            f"date are earlier, such as {after} after {before}"
        )
    if parts:
        say_once(
            logging.WARNING,
            f"{remote.shown(audio_dir)}: "
            f"{', and '.join(parts)}; the clock of a recorder may have been reset. "
            f"The dates are taken as they are.",
        )


def _tell_sources(audio_dir: Path, recordings: Sequence[str], sources: Sequence[str]) -> None:
    """Say how many recordings their metadata date, how many their names, and how many nothing."""
    counts = Counter(sources)
    if not counts.keys() - {"metadata"}:
        return
    parts = [f"{counts['metadata']} from their metadata, {counts['name']} from their names"]
    if counts["nothing"]:
        example = recordings[sources.index("nothing")]
        parts.append(f"{counts['nothing']} tell no time, such as {example}")
    say_once(
        logging.WARNING if counts["nothing"] else logging.INFO,
        f"{remote.shown(audio_dir)}: "
        f"times of {counted(len(sources), 'recording')}: {', '.join(parts)}.",
    )


def _tell_zones(
    audio_dir: Path, zoned: dict[timedelta, int], unknown: int, common: timedelta | None
) -> None:
    """Warn of clocks in several zones, or of which some tell their zone and others do not."""
    named = ", ".join(f"{timezone(offset)}: {count}" for offset, count in zoned.items())
    if common is not None and len(zoned) > 1:
        say_once(
            logging.WARNING,
            f"{remote.shown(audio_dir)}: "
            f"recordings are in several time zones ({named}); all of these are shown "
            f"in {timezone(common)}.",
        )
    if zoned and unknown:
        say_once(
            logging.WARNING,
            f"{remote.shown(audio_dir)}: "
            f"some recordings tell their time zone ({named}), {unknown} do not; these "
            f"count by their clocks, which may be of another zone. Name it with time_zone, in the "
            f"table of sites or in the settings.",
        )


def tell_assumptions(audio_dir: Path, recordings: Sequence[str], starts: Sequence[Start]) -> None:
    """Say once which zones were taken from positions, and which times do not fit their zone."""
    assumed = Counter(
        str(start.time.tzinfo)
        for start in starts
        if start.zone_source == "position" and start.time is not None
    )
    if assumed:
        named = ", ".join(f"{zone}: {count}" for zone, count in assumed.most_common(5))
        say_once(
            logging.INFO,
            f"{remote.shown(audio_dir)}: "
            f"{counted(sum(assumed.values()), 'recording')} without a time zone; "
            f"these count by local time ({named}). If the recorders ran in another, such as "
            f"UTC, name it with time_zone, in the table of sites or in the settings.",
        )
    odd = [
        name
        for name, start in zip(recordings, starts, strict=True)
        if start.time is not None and not _is_one_moment(start.time)
    ]
    if odd:
        say_once(
            logging.WARNING,
            f"{remote.shown(audio_dir)}: "
            f"{counted(len(odd), 'recording')} in an hour that the clocks of their "
            f"time zone show twice or leave out in the night of a change, such as {odd[0]}; if "
            f"the recorders did not follow daylight saving time, name their zone as an offset, "
            f"such as time_zone=UTC+1.",
        )


def _is_one_moment(time: datetime) -> bool:
    """Whether a clock with a zone shows this exactly once."""
    other = time.replace(fold=1 - time.fold)
    return time.utcoffset() == other.utcoffset()


@cache
def say_once(level: int, text: str) -> None:
    """Log a text unless it has been, such as for another model."""
    logger.log(level, "%s", text)


# --- Sun and moon -----------------------------------------------------------------------


@dataclass(frozen=True)
class SunAndMoon:
    """Sun and moon of a day; None where the sun does not rise, set or get so low.

    Attributes
    ----------
    dawn, sunrise, sunset, dusk : datetime or None
        In the zone asked for; dawn and dusk are civil, with the sun 6° below the horizon.
    moon : float
        Illuminated share of the moon's disc, 0 to 1.
    """

    dawn: datetime | None
    sunrise: datetime | None
    sunset: datetime | None
    dusk: datetime | None
    moon: float


@lru_cache(maxsize=2**14)
def sun_and_moon(position: Position, day: date, zone: tzinfo) -> SunAndMoon:
    """Sun and moon at a position on a day of its zone."""
    from astral import Observer, sun

    observer = Observer(*position)
    times: list[datetime | None] = []
    for event in (sun.dawn, sun.sunrise, sun.sunset, sun.dusk):
        try:
            times.append(event(observer, day, tzinfo=zone))
        except ValueError:  # polar day or night
            times.append(None)
    dawn, sunrise, sunset, dusk = times
    return SunAndMoon(dawn, sunrise, sunset, dusk, moon_illumination(day))


@lru_cache(maxsize=2**12)
def moon_illumination(day: date) -> float:
    """Illuminated share of the moon's disc on a day, 0 to 1."""
    from astral import moon

    return (1 - math.cos(2 * math.pi * moon.phase(day) / _MOON_CYCLE)) / 2


def _event(position: Position, ordinal: int, event: SunEvent) -> float | None:
    """Seconds since 1970 of a dawn, sunrise or sunset; None if there is none on that day."""
    sky = sun_and_moon(position, date.fromordinal(ordinal), UTC)
    time = {"dawn": sky.dawn, "sunrise": sky.sunrise, "sunset": sky.sunset}[event]
    return None if time is None else time.timestamp()


def hours_after(
    event: SunEvent, position: Position, start: datetime, seconds: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Hours from the nearest dawn, sunrise or sunset, from -12 to 12; negative before it.

    Parameters
    ----------
    event : {'dawn', 'sunrise', 'sunset'}
        Which.
    position : Position
        Where.
    start : datetime
        With a zone.
    seconds : np.ndarray, float64, shape (n,)
        Times since `start`.

    Returns
    -------
    np.ndarray, float64, shape (n,)
        NaN where the sun does not rise or set within a day.
    """
    times = start.timestamp() + seconds
    if not len(times):
        return np.zeros(0)
    first = datetime.fromtimestamp(times.min(), UTC).toordinal() - 1
    last = datetime.fromtimestamp(times.max(), UTC).toordinal() + 1
    moments = {_event(position, day, event) for day in range(first, last + 1)} - {None}
    if not moments:
        return np.full(len(times), np.nan)
    events = np.array(sorted(time for time in moments if time is not None))
    after = np.searchsorted(events, times).clip(1, max(len(events) - 1, 1))
    before, behind = events[after - 1], events[np.minimum(after, len(events) - 1)]
    nearest = np.where(times - before <= behind - times, before, behind)
    hours = (times - nearest) / 3600
    return np.where(np.abs(hours) <= 24, hours, np.nan)


def on_sun_clock(starts: Sequence[Start], event: SunEvent) -> NDArray[np.datetime64]:
    """When recordings start on a clock that shows noon at every sunrise, or at every sunset.

    Parameters
    ----------
    starts : sequence of Start
        Of the recordings.
    event : {'sunrise', 'sunset'}
        What happens at noon; the one nearest to a recording's start counts for all of it.

    Returns
    -------
    np.ndarray, datetime64[us], shape (recordings,)
        On the date of that sunrise or sunset; NaT where the time or the place is not known, or
        the sun does not rise or set.
    """
    shown = np.full(len(starts), np.datetime64("NaT", "us"))
    for i, start in enumerate(starts):
        position = None if start.site is None else start.site.position
        if position is None or start.time is None:
            continue
        hours = hours_after(event, position, start.time, np.zeros(1))[0]
        if np.isnan(hours):
            continue
        after = timedelta(hours=float(hours))
        day = (start.time.astimezone(UTC) - after).astimezone(start.time.tzinfo).date()
        noon = datetime.combine(day, _NOON)
        shown[i] = np.datetime64(noon + after, "us")
    return shown


def week_of(time: datetime | date) -> int:
    """Week of BirdNET and eBird, of which each month has four: 1 to 48."""
    return (time.month - 1) * 4 + min((time.day - 1) // 7, 3) + 1
