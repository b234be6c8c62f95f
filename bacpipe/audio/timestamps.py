"""When a recording was made, from its name.

What recorders write into names, by example:

====================================  =====================================================
``20240603_033731.wav``               AudioMoth, Song Meter, Swift and many others, with any
                                      prefix, also ``-``, ``T``, ``$`` or nothing in between
``2019-08-10 21-43-17.wav``           Anabat Swift; BirdNET-Pi with ``-birdnet-`` in between
``20180604T110000+1000_REC.flac``     BAR, with the offset from UTC
``20190801T120000.123Z.wav``          icListen and others, in UTC
``5146.190801123456.wav``             SoundTrap: serial number and a year of two digits
``SITE_140101_120000.wav``            HARP and others, year of two digits
``5D0C9C4E.WAV``                      first AudioMoths: seconds since 1970 in UTC, in hex
====================================  =====================================================

A name that holds a date without a time, or digits that are no valid time, says nothing.
"""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime, timedelta, timezone
from pathlib import PurePosixPath

_FIRST_YEAR, _LAST_YEAR = 1980, 2099
_LARGEST_OFFSET = timedelta(hours=14)

_TIME = r"(?P<hour>\d\d){0}(?P<minute>\d\d){0}(?P<second>\d\d)"
_FRACTION = r"(?:[.,_](?P<fraction>\d{3}|\d{6})(?!\d))?"
_OFFSET = (
    r"(?:(?P<zone>Z)(?![a-zA-Z])|(?P<sign>[+-])(?P<off_hour>\d\d):?(?P<off_minute>\d\d)(?!\d))?"
)
_COMPACT_DATE = r"(?P<year>\d{4})(?P<month>\d\d)(?P<day>\d\d)"
_PARTED_DATE = r"(?P<year>\d{4})(?P<part>[-_.])(?P<month>\d\d)(?P=part)(?P<day>\d\d)"
_SHORT_DATE = r"(?P<short_year>\d\d)(?P<month>\d\d)(?P<day>\d\d)"
_BETWEEN = r"(?:[-_.T $]|_T|-T|--|__|-birdnet-)"

# From the most to the least specific; the first valid match counts.
_PATTERNS = tuple(
    re.compile(pattern)
    for pattern in (
        # 20240603_033731, 20240603T033731Z, 20240603033731
        rf"(?<!\d){_COMPACT_DATE}{_BETWEEN}?{_TIME.format('')}(?!\d){_FRACTION}{_OFFSET}",
        # 2024-06-03_03-37-31, 2024-06-03T03:37:31.123+0200, 2024_06_03_033731
        rf"(?<!\d){_PARTED_DATE}{_BETWEEN}{_TIME.format('[-_.:]?')}(?!\d){_FRACTION}{_OFFSET}",
        # 20240603_03-37-31
        rf"(?<!\d){_COMPACT_DATE}{_BETWEEN}{_TIME.format('[-_.:]')}(?!\d){_FRACTION}{_OFFSET}",
        # 5146.240603033731: only behind the serial number is so long a number a time
        rf"^\d+\.{_SHORT_DATE}{_TIME.format('')}(?!\d)",
        # 240603_033731
        rf"(?<!\d){_SHORT_DATE}[-_.T]{_TIME.format('')}(?!\d){_FRACTION}{_OFFSET}",
        # 20240603_0337, 2024-06-03_03-37: without seconds
        rf"(?<!\d){_COMPACT_DATE}[-_T ](?P<hour>\d\d)(?P<minute>\d\d)(?!\d){_OFFSET}",
        rf"(?<!\d){_PARTED_DATE}[-_T ](?P<hour>\d\d)[-_.:h](?P<minute>\d\d)(?![-_.:]?\d){_OFFSET}",
    )
)
# A letter is asked for: eight plain digits may be a date, or any number.
_HEX = re.compile(r"(?=\d*[A-F])[5-7][0-9A-F]{7}T?", re.IGNORECASE)
_FIRST_AUDIOMOTH = 2017


def get_dt_filename(file: str | os.PathLike[str]) -> datetime | None:
    """Time at which a recording starts, as its name tells it.

    Parameters
    ----------
    file : str or path
        Name or path of the recording; only its last part is looked at.

    Returns
    -------
    datetime or None
        With a time zone where the name has one (an offset, Z, or AudioMoth's hex time, which
        is UTC), otherwise the recorder's clock without one.  None when the name holds no time.

    Examples
    --------
    >>> import bacpipe
    >>> bacpipe.get_dt_filename("SMA00351_20210501_060000.wav")
    datetime.datetime(2021, 5, 1, 6, 0)
    >>> bacpipe.get_dt_filename("robin.wav") is None
    True
    """
    name = PurePosixPath(os.fspath(file).replace("\\", "/")).name
    for pattern in _PATTERNS:
        for match in pattern.finditer(name):
            if (time := _to_datetime(match)) is not None:
                return time
    return _from_hex(name.partition(".")[0])


def _to_datetime(match: re.Match[str]) -> datetime | None:
    parts = match.groupdict()
    # Recorders with two-digit years came after 2000, sound archives with older ones do not
    # name their files like that.
    year = int(parts["year"]) if parts.get("year") else 2000 + int(parts["short_year"])
    fraction = (parts.get("fraction") or "0").ljust(6, "0")
    if not _FIRST_YEAR <= year <= _LAST_YEAR:
        return None
    try:
        time = datetime(
            year,
            int(parts["month"]),
            int(parts["day"]),
            int(parts["hour"]),
            int(parts["minute"]),
            int(parts.get("second") or 0),
            int(fraction),
        )
    except ValueError:
        return None
    return time.replace(tzinfo=_zone(parts))


def _zone(parts: dict[str, str | None]) -> timezone | None:
    if parts.get("zone"):
        return UTC
    if not parts.get("sign"):
        return None
    hours, minutes = int(parts["off_hour"] or 0), int(parts["off_minute"] or 0)
    offset = timedelta(hours=hours, minutes=minutes)
    # Anything else is a number that happens to follow.
    if minutes % 15 or minutes >= 60 or offset > _LARGEST_OFFSET:
        return None
    return timezone(offset if parts["sign"] == "+" else -offset)


def _from_hex(stem: str) -> datetime | None:
    if not _HEX.fullmatch(stem):
        return None
    time = datetime.fromtimestamp(int(stem[:8], 16), UTC)
    return time if time.year >= _FIRST_AUDIOMOTH else None
