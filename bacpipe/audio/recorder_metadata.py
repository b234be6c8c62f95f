"""When a recording was made, as the recorder wrote it into a WAV file.

Looked for in this order, which is that of their precision:

=====  ======================  ============================================================
chunk  written by              time
=====  ======================  ============================================================
guan   bat detectors,          GUANO metadata: ``Timestamp``, usually with the offset from
       AudioMoth               UTC; read by the `guano` package
wamd   Wildlife Acoustics      WAMD metadata: field 5, with or without the offset
LIST   AudioMoth               comment ``Recorded at 20:26:15 03/09/2024 (UTC+1) by ...``
bext   hand-held recorders,    Broadcast Wave (EBU Tech 3285): OriginationDate and
       SoundTrap, Zoom         OriginationTime, the recorder's clock
=====  ======================  ============================================================
"""

from __future__ import annotations

import logging
import os
import re
import struct
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import BinaryIO

import guano

from bacpipe.audio.headers import iterate_chunks
from bacpipe.audio.timestamps import get_dt_filename

logger = logging.getLogger(__name__)

_MAX_CHUNK = 2**20  # bytes; WAMD can hold voice notes, which come after the time
_FIRST_YEAR = 1980  # clocks that were never set start in 1970
_WAMD_TIMESTAMP = 5
_AUDIOMOTH = re.compile(
    r"Recorded at (\d\d):(\d\d):(\d\d)(?:\.\d+)? (\d\d)/(\d\d)/(\d{4}) "
    r"\(UTC(?:([+-])(\d{1,2})(?::(\d\d))?)?\)"
)
# EBU Tech 3285 allows several separators.
_BEXT = re.compile(r"(\d{4})[-_:. /](\d\d)[-_:. /](\d\d)(\d\d)[-_:. ](\d\d)[-_:. ](\d\d)")
_BEXT_DATE = slice(320, 338)


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
    return recorder_time(path) or get_dt_filename(path)


def recorder_time(path: str | os.PathLike[str]) -> datetime | None:
    """Time at which a recording starts, from the recorder's metadata in a WAV file.

    Parameters
    ----------
    path : path
        The recording.

    Returns
    -------
    datetime or None
        As for `recording_start`.
    """
    try:
        with Path(path).open("rb") as file:
            chunks = _read_chunks(file)
    except OSError as error:
        logger.debug("%s: no metadata (%s)", path, error)
        return None
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
        if time is not None and time.year >= _FIRST_YEAR:
            return time.replace(tzinfo=None if offset is None else timezone(offset))
    return None


def _read_chunks(file: BinaryIO) -> dict[bytes, bytes]:
    magic = file.read(12)
    if magic[:4] not in (b"RIFF", b"RF64") or magic[8:] != b"WAVE":
        return {}
    chunks: dict[bytes, bytes] = {}
    for identifier, size, _ in iterate_chunks(file, "<"):
        if identifier in _PARSERS:  # there can be several lists
            found = chunks.get(identifier, b"")
            chunks[identifier] = found + file.read(min(size, _MAX_CHUNK - len(found)))
    return chunks


def _parse_guano(content: bytes) -> datetime | None:
    time = guano.GuanoFile.from_string(content).get("Timestamp")
    return time if isinstance(time, datetime) else None


def _parse_wamd(content: bytes) -> datetime | None:
    """Fields are a number, a size and that many bytes."""
    position = 0
    while position + 6 <= len(content):
        field, size = struct.unpack_from("<HI", content, position)
        position += 6
        if field == _WAMD_TIMESTAMP:
            return datetime.fromisoformat(content[position : position + size].decode().strip("\0 "))
        position += size
    return None


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
