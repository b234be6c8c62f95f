"""Where a recording was made, as the recorder wrote it; time zones of places.

=====  ===============================================================================
chunk  position
=====  ===============================================================================
guan   GUANO metadata: ``Loc Position``, latitude and longitude
wamd   WAMD metadata (Wildlife Acoustics): field 6, ``WGS84, 52.1, N, 13.4, E``, or
       with signs instead of letters
iXML   ``LOCATION_GPS``, latitude and longitude
bext   Broadcast Wave (EBU Tech 3285) has no field for it, and no recorder is known that
       writes it into the free description; ``lat=52.1 lon=13.4`` and the like count
=====  ===============================================================================

Frontier Labs' recorders write it into FLAC files, as the comment ``SensorLocation``, and into
names: ``20221010T010000+0000_REC [-38.36231+145.31787].wav``.  What is in the file counts more.

All are degrees of WGS 84.  A position of exactly 0, 0 is that of a receiver without a fix.

References: https://github.com/riggsd/guano-spec, http://www.gallery.co.uk/ixml,
https://github.com/QutEcoacoustics/emu (metadata of Frontier Labs).
"""

from __future__ import annotations

import logging
import os
import re
import struct
from collections.abc import Callable
from datetime import UTC, tzinfo
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeGuard

from bacpipe.audio.timestamps import FLAC_COMMENTS, guano_field, metadata_chunks, wamd_field
from bacpipe.user_input import typed_zone

if TYPE_CHECKING:
    import timezonefinder

logger = logging.getLogger(__name__)

_WAMD_GPS = 6
_NUMBER = r"[-+]?\d{1,3}(?:\.\d*)?"
_PAIR = re.compile(rf"\(?\s*({_NUMBER})\s*[,;\s]\s*({_NUMBER})(?:[,;\s].*)?\)?", re.DOTALL)
_LETTERED = re.compile(
    rf"({_NUMBER})\s*[,;\s]?\s*([NS])[,;\s]+({_NUMBER})\s*[,;\s]?\s*([EW])", re.I
)
_IXML = re.compile(r"<LOCATION_GPS>([^<]{1,100})</LOCATION_GPS>")
_NAMED = re.compile(
    rf"\blat(?:itude)?\s*[=:]\s*({_NUMBER}).{{0,20}}?\blon(?:g|gitude)?\s*[=:]\s*({_NUMBER})",
    re.IGNORECASE | re.DOTALL,
)
_BEXT_DESCRIPTION = 256  # bytes
# The longitude has its sign, or stands apart.
_SIGNED = rf"([-+]\d{{1,2}}\.\d+)(?:(?=[-+])|[\s,]+)({_NUMBER})"
_IN_NAME = re.compile(rf"\[{_SIGNED}\]")
_SENSOR = re.compile(rf"SensorLocation=\s*{_SIGNED}", re.IGNORECASE)


class Position(NamedTuple):
    """Degrees of WGS 84, north and east positive."""

    latitude: float
    longitude: float


def valid_position(latitude: float, longitude: float) -> bool:
    """Whether there is such a place; false for NaN, too."""
    return -90 <= latitude <= 90 and -180 <= longitude <= 180


def recorder_position(path: str | os.PathLike[str]) -> Position | None:
    """Position in the metadata of a recording; None if there is none that can be true."""
    chunks = metadata_chunks(path, _PARSERS)
    for identifier, parse in _PARSERS.items():
        try:
            position = parse(chunks[identifier]) if identifier in chunks else None
        # Metadata are a help, not a must: damaged ones must not stop anybody.
        except (ValueError, struct.error) as error:
            logger.debug("%s: %s metadata cannot be read (%s)", path, identifier, error)
            continue
        if _is_fix(position):
            return position
    position = _signed(_IN_NAME.search(Path(path).name))
    return position if _is_fix(position) else None


def _is_fix(position: Position | None) -> TypeGuard[Position]:
    """Whether a receiver knew where it was."""
    return position is not None and valid_position(*position) and position != (0, 0)


def _signed(match: re.Match[str] | None) -> Position | None:
    return None if match is None else Position(float(match[1]), float(match[2]))


def _numbers(text: str | None) -> Position | None:
    """Two numbers, or two with the letters of their directions."""
    if text is None:
        return None
    if match := _LETTERED.search(text):
        north, east = match[2].upper() == "N", match[4].upper() == "E"
        latitude, longitude = abs(float(match[1])), abs(float(match[3]))
        return Position(latitude if north else -latitude, longitude if east else -longitude)
    pair = _PAIR.fullmatch(text.strip())
    return None if pair is None else Position(float(pair[1]), float(pair[2]))


def _parse_wamd(content: bytes) -> Position | None:
    text = wamd_field(content, _WAMD_GPS)
    return _numbers(None if text is None else text.partition(",")[2])  # the datum comes first


def _parse_ixml(content: bytes) -> Position | None:
    match = _IXML.search(content.decode(errors="replace"))
    return _numbers(None if match is None else match[1])


def _parse_bext(content: bytes) -> Position | None:
    return _signed(_NAMED.search(content[:_BEXT_DESCRIPTION].decode("latin-1")))


_PARSERS: dict[bytes, Callable[[bytes], Position | None]] = {
    b"guan": lambda content: _numbers(guano_field(content, "Loc Position")),
    b"wamd": _parse_wamd,
    b"iXML": _parse_ixml,
    b"bext": _parse_bext,
    FLAC_COMMENTS: lambda content: _signed(_SENSOR.search(content.decode(errors="replace"))),
}


# --- Time zones of positions --------------------------------------------------------------------


@lru_cache(maxsize=4096)
def zone_at(latitude: float, longitude: float) -> tzinfo:
    """Time zone of a position; at sea, that of the longitude."""
    name = _zone_finder().timezone_at(lng=longitude, lat=latitude)
    return UTC if name is None else typed_zone(name)


@cache
def _zone_finder() -> timezonefinder.TimezoneFinder:
    import timezonefinder  # opens maps of 30 MB, which few runs need

    return timezonefinder.TimezoneFinder()
