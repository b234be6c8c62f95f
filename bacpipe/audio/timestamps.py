"""When a recording was made: as the recorder wrote it into the file, or into its name.

A WAV file may hold the time in these chunks, looked for in this order, that of their precision:

=====  ======================  ============================================================
chunk  written by              time
=====  ======================  ============================================================
guan   bat detectors,          GUANO metadata: ``Timestamp``, usually with the offset from
       AudioMoth               UTC
wamd   Wildlife Acoustics      WAMD metadata: field 5, with or without the offset
LIST   AudioMoth               comment ``Recorded at 20:26:15 03/09/2024 (UTC+1) by ...``;
                               without a zone in the first firmware, whose clock was in UTC
bext   hand-held recorders,    Broadcast Wave (EBU Tech 3285): OriginationDate and
       SoundTrap, Zoom         OriginationTime, the recorder's clock
=====  ======================  ============================================================

What recorders write into names, by example:

====================================  =====================================================
``20240603_033731.wav``               AudioMoth, Song Meter, Swift and many others, with any
                                      prefix, also ``-``, ``T``, ``$`` or nothing in between
``2019-08-10 21-43-17.wav``           Anabat Swift; BirdNET-Pi with ``-birdnet-`` in between
``20180604T110000+1000_REC.flac``     BAR, with the offset from UTC
``20190801T120000.123Z.wav``          icListen and others, in UTC
``PAM_20190801_120000_123.wav``       PAMGuard, with milliseconds; behind other names such
                                      digits are a running number
``5146.190801123456.wav``             SoundTrap: serial number and a year of two digits
``SITE_140101_120000.x.wav``          HARP, year of two digits
``SITE_140131_120000.wav``            others, if only one order of year, month and day is a
                                      date since 2005, and that begins with the year
``5D0C9C4E.WAV``                      first AudioMoths: seconds since 1970 in UTC, in hex
====================================  =====================================================

A name that holds a date without a time, two dates, or digits that are no valid time, says
nothing.  Neither does a clock that was never set, which starts at the beginning of 1970, 1980 or
2000, nor a time after tomorrow, wherever it stands: no date is better than a wrong one.  The first
day of any other year in the metadata gives way to another day in the name.
"""

from __future__ import annotations

import logging
import os
import re
import struct
from collections.abc import Callable, Container
from datetime import UTC, datetime, timedelta, timezone
from pathlib import PurePosixPath
from typing import BinaryIO, Literal

from bacpipe.audio.headers import iterate_chunks
from bacpipe.audio.remote import open_bytes

logger = logging.getLogger(__name__)

_FIRST_YEAR = 1980
_UNSET_CLOCKS = ((1980, 1), (2000, 1))  # months in which those start that were never set
# If this computer's own clock was never set, it says nothing about the future.
_WRITTEN = datetime(2026, 1, 1)
_MAX_CHUNK = 2**20  # bytes; WAMD can hold voice notes, which come after the time
_WAMD_TIMESTAMP = 5
FLAC_COMMENTS = b"fLaC"
"""What the comments of a FLAC file are called among the chunks of a WAV file."""
_FLAC_COMMENT_BLOCK = 4
_AUDIOMOTH = re.compile(
    r"Recorded at (\d\d):(\d\d):(\d\d)(?:\.\d+)? (\d\d)/(\d\d)/(\d{4}) "
    r"(?:\(UTC(?:([+-])(\d{1,2})(?::(\d\d))?)?\)|by AudioMoth)"
)
_ISO = re.compile(
    r"(?P<time>[-\d]+[T ]\d[\d:.,]*)\s*(?P<utc>Z|UTC|GMT)?"
    r"(?:(?P<sign>[+-])(?P<hours>\d{1,2}):?(?P<minutes>\d\d)?)?"
)
# EBU Tech 3285 allows several separators.
_BEXT = re.compile(r"(\d{4})[-_:. /](\d\d)[-_:. /](\d\d)(\d\d)[-_:. ](\d\d)[-_:. ](\d\d)")
_BEXT_DATE = slice(320, 338)

Source = Literal["metadata", "name", "nothing"]


def recording_start(path: str | os.PathLike[str]) -> datetime | None:
    """Time at which a recording starts: from its metadata if it has some, else from its name.

    Parameters
    ----------
    path : path
        The recording; the name is used if there is no such file (any more).

    Returns
    -------
    datetime or None
        With a time zone where it is known, else the recorder's clock without one.  None when
        neither the file nor its name tells.

    Examples
    --------
    >>> import bacpipe
    >>> bacpipe.recording_start("recordings/SITE-A/20250504_043000.wav")
    datetime.datetime(2025, 5, 4, 4, 30)
    """
    return find_start(path)[0]


def find_start(path: str | os.PathLike[str]) -> tuple[datetime | None, Source]:
    """Do what `recording_start` does; also return what tells: metadata, name or nothing."""
    inside, name = recorder_time(path), get_dt_filename(path)
    if inside is None or (name is not None and _is_new_year(inside) and _are_apart(inside, name)):
        return name, "nothing" if name is None else "name"
    return inside, "metadata"


def _is_new_year(time: datetime) -> bool:
    """Whether a clock may have been reset, which most do to the first day of some year."""
    return (time.month, time.day) == (1, 1)


def _are_apart(one: datetime, other: datetime) -> bool:
    """Whether two times, of any zones, are not of the same night."""
    return abs(one.replace(tzinfo=None) - other.replace(tzinfo=None)) > timedelta(days=2)


def _is_credible(time: datetime) -> bool:
    """Whether a recorder with a working clock may have written a time."""
    latest = max(_WRITTEN, datetime.now(UTC).replace(tzinfo=None)) + timedelta(days=2)
    # In the west, a clock that starts with 2000 in UTC shows the evening before.
    zones = [time] if time.tzinfo is None else [time, time - (time.utcoffset() or timedelta())]
    return (
        time.year >= _FIRST_YEAR
        and not any((shown.year, shown.month) in _UNSET_CLOCKS for shown in zones)
        and time.replace(tzinfo=None) < latest
    )


# --- In the file ------------------------------------------------------------------------------


def recorder_time(path: str | os.PathLike[str]) -> datetime | None:
    """Time at which a recording starts, from the recorder's metadata in a WAV file."""
    chunks = metadata_chunks(path, _PARSERS)
    for identifier, parse in _PARSERS.items():
        if identifier not in chunks:
            continue
        try:
            time = parse(chunks[identifier])
            offset = None if time is None else time.utcoffset()
        # Metadata are a help, not a must: damaged ones must not stop anybody.
        except (ValueError, LookupError, OverflowError, struct.error) as error:
            logger.debug("%s: %s metadata cannot be read (%s)", path, identifier, error)
            continue
        if time is not None and _is_credible(time):
            return time.replace(tzinfo=None if offset is None else timezone(offset))
    return None


def metadata_chunks(path: str | os.PathLike[str], wanted: Container[bytes]) -> dict[bytes, bytes]:
    """Content of the chunks of a WAV file with these identifiers; nothing of other files.

    Of a FLAC file, it is that of the block of comments, named `FLAC_COMMENTS`.
    """
    try:
        with open_bytes(path) as file:
            return _read_chunks(file, wanted)
    except OSError as error:
        logger.debug("%s: no metadata (%s)", path, error)
        return {}


def _read_chunks(file: BinaryIO, wanted: Container[bytes]) -> dict[bytes, bytes]:
    magic = file.read(12)
    if magic[:4] == b"fLaC" and FLAC_COMMENTS in wanted:
        return {FLAC_COMMENTS: _flac_comments(file)}
    if magic[:4] not in (b"RIFF", b"RF64", b"BW64") or magic[8:] != b"WAVE":
        return {}
    chunks: dict[bytes, bytes] = {}
    for identifier, size, offset in iterate_chunks(file, "<"):
        if identifier in wanted:  # there can be several lists
            earlier = chunks.get(identifier, b"")
            file.seek(offset)
            chunks[identifier] = earlier + file.read(min(size, _MAX_CHUNK - len(earlier)))
    return chunks


def _flac_comments(file: BinaryIO) -> bytes:
    """Block of comments of a FLAC file (RFC 9639, 8.6), as it is; empty without one."""
    position, last = 4, False
    while not last:
        file.seek(position)
        head = file.read(4)
        if len(head) < 4:
            break
        last, kind, size = head[0] > 127, head[0] & 127, int.from_bytes(head[1:])
        if kind == _FLAC_COMMENT_BLOCK:
            return file.read(min(size, _MAX_CHUNK))
        position += 4 + size
    return b""


def guano_field(content: bytes, name: str) -> str | None:
    """One of the fields of GUANO metadata, which are lines ``key: value`` in UTF-8."""
    for line in re.split(r"[\r\n]+", content.decode(errors="replace")):
        key, _, value = line.partition(":")
        if key.strip().casefold() == name.casefold():
            return value.strip("\0 \t")
    return None


def wamd_field(content: bytes, number: int) -> str | None:
    """One of the fields of WAMD metadata, which are a number, a size and that many bytes."""
    position = 0
    while position + 6 <= len(content):
        field, size = struct.unpack_from("<HI", content, position)
        position += 6
        if field == number:
            return content[position : position + size].decode()
        position += size
    return None


def _parse_guano(content: bytes) -> datetime | None:
    text = guano_field(content, "Timestamp")
    return None if text is None else _parse_iso(text)


def _parse_iso(text: str) -> datetime:
    """ISO 8601, also with slashes, and with an offset that is set apart or has few digits.

    A date without a time is refused.
    """
    match = _ISO.fullmatch(text.strip("\0 \t").upper().replace("/", "-").replace("\u2212", "-"))
    if match is None:
        raise ValueError(f"{text!r} is no time")
    time = datetime.fromisoformat(match["time"])
    if match["utc"] is None and match["sign"] is None:
        return time
    offset = timedelta(hours=int(match["hours"] or 0), minutes=int(match["minutes"] or 0))
    return time.replace(tzinfo=timezone(-offset if match["sign"] == "-" else offset))


def _parse_wamd(content: bytes) -> datetime | None:
    text = wamd_field(content, _WAMD_TIMESTAMP)
    return None if text is None else _parse_iso(text)


def _parse_audiomoth(content: bytes) -> datetime | None:
    match = _AUDIOMOTH.search(content.decode("latin-1"))
    if match is None:
        return None
    hour, minute, second, day, month, year = map(int, match.groups()[:6])
    sign, off_hours, off_minutes = match.groups()[6:]
    offset = timedelta(hours=int(off_hours or 0), minutes=int(off_minutes or 0))
    zone = timezone(-offset if sign == "-" else offset)
    return datetime(year, month, day, hour, minute, second, tzinfo=zone)


def _parse_bext(content: bytes) -> datetime | None:
    match = _BEXT.fullmatch(content[_BEXT_DATE].decode("latin-1"))
    return datetime(*map(int, match.groups())) if match else None  # type: ignore[arg-type]  # six


_PARSERS: dict[bytes, Callable[[bytes], datetime | None]] = {
    b"guan": _parse_guano,
    b"wamd": _parse_wamd,
    b"LIST": _parse_audiomoth,
    b"bext": _parse_bext,
}


# --- In the name ------------------------------------------------------------------------------

_LARGEST_OFFSET = timedelta(hours=14)

_TIME = r"(?P<hour>\d\d)(?P<colon>{0})(?P<minute>\d\d)(?P=colon)(?P<second>\d\d)"
_FRACTION = r"(?:[.,](?P<fraction>\d{3}|\d{6}|\d{1,6}(?=Z|[+-]\d\d:?\d\d))(?!\d))?"
_OFFSET = (
    r"(?:(?P<zone>Z)(?![a-zA-Z])|(?P<sign>[+-])(?P<off_hour>\d\d):?(?P<off_minute>\d\d)(?!\d))?"
)
_COMPACT_DATE = r"(?P<year>\d{4})(?P<month>\d\d)(?P<day>\d\d)"
_PARTED_DATE = r"(?P<year>\d{4})(?P<part>[-_.])(?P<month>\d\d)(?P=part)(?P<day>\d\d)"
_SHORT_DATE = r"(?P<short_year>\d\d)(?P<month>\d\d)(?P<day>\d\d)"
_BETWEEN = r"(?:[-_.T $]|_T|-T|--|__|-birdnet-(?:RTSP_\d+-)?)"

# From the most to the least specific; the first valid match counts.
_PATTERNS = tuple(
    re.compile(pattern)
    for pattern in (
        # PAM_20190801_120000_123
        rf"^PAM_?{_COMPACT_DATE}_{_TIME.format('')}_(?P<fraction>\d{{3}})(?!\d)",
        # 20240603_033731, 20240603T033731Z, 20240603033731
        rf"(?<!\d){_COMPACT_DATE}{_BETWEEN}?{_TIME.format('')}(?!\d){_FRACTION}{_OFFSET}",
        # 2024-06-03_03-37-31, 2024-06-03T03:37:31.123+0200, 2024_06_03_033731
        rf"(?<!\d){_PARTED_DATE}{_BETWEEN}{_TIME.format('[-_.:]?')}(?!\d){_FRACTION}{_OFFSET}",
        # 20240603_03-37-31
        rf"(?<!\d){_COMPACT_DATE}{_BETWEEN}{_TIME.format('[-_.:]')}(?!\d){_FRACTION}{_OFFSET}",
        # 5146.240603033731: only behind the serial number is so long a number a time
        rf"^\d+\.{_SHORT_DATE}{_TIME.format('')}(?!\d)",
        # SOCAL_140101_120000.x, SOCAL_140101_120000.d100.x: so HARP data are named
        rf"(?<!\d){_SHORT_DATE}_{_TIME.format('')}(?:\.\w+)?\.x\.",
        # 240603_033731
        rf"(?<!\d)(?P<any_order>){_SHORT_DATE}[-_.T]{_TIME.format('')}(?!\d){_FRACTION}{_OFFSET}",
        # 20240603_0337, 2024-06-03_03-37: without seconds
        rf"(?<!\d){_COMPACT_DATE}[-_T ](?P<hour>\d\d)(?P<minute>\d\d)(?!\d){_OFFSET}",
        rf"(?<!\d){_PARTED_DATE}[-_T ](?P<hour>\d\d)[-_.:h](?P<minute>\d\d)"
        rf"(?:m(?P<second>\d\d)s?)?(?![-_.:m]?\d){_OFFSET}",
    )
)
# A letter is asked for: eight plain digits may be a date, or any number.
_HEX = re.compile(r"(?=\d*[A-F])[5-7][0-9A-F]{7}T?", re.IGNORECASE)
_FIRST_AUDIOMOTH = 2017
_FIRST_SHORT_YEAR = 2005  # before, hardly any recorder named its files


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
    if "any_order" in parts and not _begins_with_year(parts):
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
    return time.replace(tzinfo=_zone(parts)) if _is_credible(time) else None


def _begins_with_year(parts: dict[str, str | None]) -> bool:
    """Whether six digits are a date if they begin with the year, and in no other order."""
    first, second, third = (int(parts[key] or 0) for key in ("short_year", "month", "day"))
    return [_is_recent(*order) for order in (
        (first, second, third), (third, second, first), (third, first, second),
    )] == [True, False, False]  # fmt: skip


def _is_recent(short_year: int, month: int, day: int) -> bool:
    try:
        date = datetime(2000 + short_year, month, day)
    except ValueError:
        return False
    return date.year >= _FIRST_SHORT_YEAR and _is_credible(date)


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
    return time if time.year >= _FIRST_AUDIOMOTH and _is_credible(time) else None
