"""Where recorders stood: the table ``sites.csv`` beside the recordings, settings, and metadata.

=============  ==============================================================================
column         content
=============  ==============================================================================
``site``       a folder, a pattern such as ``A/2024*``, or a recording; as paths in the folder
               of recordings, or as the last parts of such paths.  ``.`` is all of them
``latitude``   degrees of WGS 84, north positive; empty where it is not known yet
``longitude``  the same, east positive
``time_zone``  optional: of the recorder's clock, where recordings do not tell it
``start``      optional: first day, or time, of a deployment, by the recorder's clock
``end``        optional: its last day, or time
...            others, such as habitat or elevation, are carried along
=============  ==============================================================================

Of several rows for one recording, that of the recording itself counts most, then that of the
innermost folder.  Without a row, a recording is at ``latitude``, ``longitude`` of the settings,
else where the run that made the results was told that it is, else where its own metadata say
(`bacpipe.places.positions`).
"""

from __future__ import annotations

import csv
import fnmatch
import io
import itertools
import logging
import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, tzinfo
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Literal, get_args

from bacpipe.errors import SitesError, counted
from bacpipe.options import Options
from bacpipe.places.positions import Position, recorder_position, zone_at
from bacpipe.user_input import is_file, typed_path, typed_setting, typed_text, typed_zone

logger = logging.getLogger(__name__)

SITES = "sites.csv"
COLUMNS = ("site", "latitude", "longitude", "time_zone", "start", "end")
_ALIASES = {
    "lat": "latitude", "lon": "longitude", "long": "longitude", "lng": "longitude",
    "timezone": "time_zone", "tz": "time_zone", "location": "site",
}  # fmt: skip
_REQUIRED = ("site", "latitude", "longitude")
_SOURCE = "position_from"  # in the copy beside the results only
_EXCEL_SEPARATOR = re.compile(r'\A"?sep=."?\s*?\r?\n')  # a line that tells Excel what parts cells
_ONE_DIGIT = re.compile(r"(?<=\d)([- T:])(\d)(?=$|[- T:])")
_NEAR = 0.01  # degrees, about a kilometre: a recorder whose receiver wanders has not moved

PositionSource = Literal["sites", "setting", "metadata"]


@dataclass(frozen=True)
class Site:
    """A place where a recorder stood, for the time of a deployment.

    Attributes
    ----------
    name : str
        As the table has it; else the folder of the recording.
    latitude, longitude : float or None
        Degrees of WGS 84, north and east positive; None where they are not known.
    time_zone : str or None
        Of the recorder's clock.
    start, end : datetime or None
        First and last moment of the deployment; without a zone they are by the recorder's clock.
    columns : mapping of str to str
        Further columns of the table, by name.
    source : str
        Where the position comes from: sites (the table), setting or metadata.
    """

    name: str
    latitude: float | None = None
    longitude: float | None = None
    time_zone: str | None = None
    start: datetime | None = None
    end: datetime | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    source: PositionSource = "sites"

    @property
    def position(self) -> Position | None:
        """Latitude and longitude, if they are known."""
        if self.latitude is None or self.longitude is None:
            return None
        return Position(self.latitude, self.longitude)

    @property
    def zone(self) -> tzinfo | None:
        """Time zone of the recorder's clock, else that of the position."""
        if self.time_zone is not None:
            return typed_zone(self.time_zone)
        return None if self.position is None else zone_at(*self.position)

    def covers(self, time: datetime) -> bool:
        """Whether a time is in the deployment."""
        if time.tzinfo is not None and (self.start or self.end) and (zone := self.zone) is not None:
            time = time.astimezone(zone)
        after = self.start is None or not _before(time, self.start)
        return after and (self.end is None or not _before(self.end, time))


def _before(one: datetime, other: datetime) -> bool:
    if one.tzinfo is None or other.tzinfo is None:
        return one.replace(tzinfo=None) < other.replace(tzinfo=None)
    return one < other


class Sites:
    """Says for every recording where it was made.

    Parameters
    ----------
    audio_dir : Path
        Folder of recordings.
    options : Options
        ``sites`` names the table, ``latitude`` and ``longitude`` are those of all recordings that
        it has no row for.
    stored : Path, optional
        What an earlier run used, in the results.

    Raises
    ------
    SitesError
        If the table is missing or cannot be understood, or deployments of a site overlap.
    """

    def __init__(self, audio_dir: Path, options: Options, stored: Path | None = None) -> None:
        self.audio_dir = audio_dir
        self.path = find_sites_table(audio_dir, options)
        self._places = _by_place(() if self.path is None else read_sites(self.path))
        known = read_sites(stored) if stored is not None and stored.is_file() else ()
        self._asked_before = _by_place(row for row in known if row.source != "metadata")
        self._read_before = _by_place(row for row in known if row.source == "metadata")
        self._time_zone = options.time_zone
        self._setting: Position | None = None
        if options.latitude is not None and options.longitude is not None:
            self._setting = Position(options.latitude, options.longitude)
            if self._setting == (0, 0):
                warn_of_origin("latitude=0, longitude=0 of the settings")
        self._metadata: dict[str, Position | None] = {}
        self._rivals: set[tuple[str, ...]] = set()

    def of(self, recording: str, start: datetime | None) -> Site | None:
        """Site of a recording.

        Parameters
        ----------
        recording : str
            Posix path relative to the folder of recordings.
        start : datetime or None
            When it starts by its recorder's clock, which decides between deployments.

        Returns
        -------
        Site or None
            None where nothing tells.
        """
        rows = _fitting(self._places, recording, start)
        if len({row.position for row in rows}) > 1:
            self._tell_rivals(recording, tuple(row.name for row in rows))
        row = rows[0] if rows else None
        if row is None or row.position is None:
            elsewhere = self._elsewhere(recording, start)
            if row is None or elsewhere is None:
                return row or elsewhere
            place = {key: getattr(elsewhere, key) for key in ("latitude", "longitude", "source")}
            return replace(row, **place)
        return row

    def _elsewhere(self, recording: str, start: datetime | None) -> Site | None:
        """Where a recording was made that the table gives no position for."""
        if self._setting is not None:
            return Site(folder_of(recording), *self._setting, source="setting")
        before = _fitting(self._asked_before, recording, start)
        if before and before[0].position is not None:
            return before[0]
        if recording not in self._metadata:
            self._metadata[recording] = recorder_position(self.audio_dir / recording)
        position = self._metadata[recording]
        if position is not None:
            return Site(folder_of(recording), *position, source="metadata")
        # Rows for single recordings are for where their receivers were, not names of sites.
        read = _fitting(self._read_before, recording, start)
        return replace(read[0], name=folder_of(recording)) if read else None

    def _tell_rivals(self, recording: str, names: tuple[str, ...]) -> None:
        """Say once that several rows mean a recording equally closely."""
        if names not in self._rivals:
            self._rivals.add(names)
            logger.warning(
                "%s: the rows %s mean %s equally closely; the first of them counts. Name its "
                "folder in full in one of them.",
                self.path,
                " and ".join(names),
                recording,
            )

    @property
    def named(self) -> bool:
        """Whether a recording may have another site than its folder."""
        return bool(self._places or self._asked_before)

    def has_row(self, recording: str) -> bool:
        """Whether the table names a recording, be it for another time."""
        return bool(_matching(self._places, recording))

    def table(self, recordings: Iterable[tuple[str, datetime | None]]) -> list[Site]:
        """What was used for these recordings, in the form of the table itself.

        Rows of the table that no recording needs are left out.  Positions in metadata have a row
        for the folder, or for each recording where they are apart.
        """
        used: dict[str, Site] = {}
        loose: dict[str, list[tuple[str, Site]]] = defaultdict(list)
        for recording, start in recordings:
            site = self.of(recording, start)
            if site is not None and site.source == "sites":
                used[sites_text([site])] = site
            elif site is not None:
                zone = site.time_zone or self._time_zone
                loose[site.name].append((recording, replace(site, time_zone=zone)))
        rows = list(used.values())
        for group in loose.values():
            if common_position(site.position for _, site in group) is not None:
                rows.append(group[0][1])
            else:
                rows += [replace(site, name=recording) for recording, site in group]
        return rows


def _by_place(rows: Iterable[Site]) -> Mapping[str, list[Site]]:
    """Rows by what their ``site`` says."""
    places: dict[str, list[Site]] = defaultdict(list)
    for row in rows:
        places[row.name].append(row)
    return places


def _matching(places: Mapping[str, list[Site]], recording: str) -> list[tuple[int, list[Site]]]:
    """Rows that mean a recording, and how closely; those that do most closely first."""
    plain = _plain(recording)
    ranked = [(closeness(plain, place), rows) for place, rows in places.items()]
    return [item for item in sorted(ranked, key=lambda item: -item[0]) if item[0]]


def _fitting(
    places: Mapping[str, list[Site]], recording: str, start: datetime | None
) -> list[Site]:
    """Rows for a recording that starts at a time: several only if they fit equally closely."""
    rows: list[Site] = []
    closest = 0
    for close, same in _matching(places, recording):
        if close < closest:
            break
        fitting = [row for row in same if start is not None and row.covers(start)]
        # Without a time, any deployment may be meant, unless all were at one place.
        if start is None and len({row.position for row in same}) == 1:
            fitting = same
        if fitting:
            closest, row = close, fitting[0]
            rows.append(row if row.name != "." else replace(row, name=folder_of(recording)))
    return rows


def _near(one: Position, other: Position) -> bool:
    return all(abs(a - b) <= _NEAR for a, b in zip(one, other, strict=True))


def folder_of(recording: str) -> str:
    """Folder of a recording, which is its site where nothing else is said; ``.`` is the top."""
    return str(PurePosixPath(recording).parent)


def _plain(place: str) -> str:
    """A place as recordings are named: letters that look the same are the same."""
    text = unicodedata.normalize("NFC", place.strip()).replace("\\", "/")
    return text.removeprefix("./").rstrip("/") or "."


def closeness(recording: str, place: str) -> int:
    """How closely a place means a recording: 0 not at all, the more the deeper, most by name."""
    if place == ".":
        return 1
    parts, wanted = recording.split("/"), place.split("/")
    named = 10_000
    for depth in range(len(parts), 0, -1):
        # A pattern may also mean a part of the path, as the name of a folder does.
        inside = parts[:depth]
        if (
            len(wanted) <= depth
            and all(
                part == pattern or fnmatch.fnmatchcase(part, pattern)  # names may hold [ and ]
                for part, pattern in zip(inside[-len(wanted) :], wanted, strict=True)
            )
        ):
            exact = inside[-len(wanted) :] == wanted
            return 2 * depth + exact + (named if depth == len(parts) and exact else 0)
    return 2 if any(c in place for c in "*?[") and fnmatch.fnmatchcase(recording, place) else 0


@cache
def warn_of_origin(what: str) -> None:
    """Say once that 0, 0 lies in the Gulf of Guinea."""
    logger.warning(
        "%s is a place in the sea off Africa, which most often means that there is no position; "
        "leave it empty then.",
        what,
    )


# --- The table ----------------------------------------------------------------------------------


def find_sites_table(audio_dir: Path, options: Options) -> Path | None:
    """The table that the settings name, or that beside the recordings."""
    if options.sites is None:
        beside = audio_dir / SITES
        # Results are read without the recordings, too, which may lie where nobody may look.
        return beside if os.path.isfile(beside) else None  # noqa: PTH113
    path = typed_path(options.sites)
    if not is_file(path) and is_file(audio_dir / path):
        path = audio_dir / path
    if not is_file(path):
        raise SitesError(
            f"{path}: there is no such file, which sites names; write a draft with: bacpipe sites "
            f"{typed_setting('audio_dir', audio_dir)} {typed_setting('sites', path)}"
        )
    return path


def read_sites(path: Path) -> tuple[Site, ...]:
    """Rows of a table of sites.

    Raises
    ------
    SitesError
        If it cannot be understood, naming the first row that cannot and how many there are.
    """
    rows, wrong = check_sites(path)
    if wrong:
        more = f" ({counted(len(wrong) - 1, 'more mistake')})" if len(wrong) > 1 else ""
        raise SitesError(f"{path}: {wrong[0]}{more}.")
    return tuple(rows)


def check_sites(path: Path) -> tuple[list[Site], list[str]]:
    """Rows of a table of sites that can be understood, and a sentence on each mistake in it.

    Raises
    ------
    SitesError
        If it cannot be read at all or lacks a column.
    """
    try:
        text = typed_text(path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SitesError(f"{path}: this table of sites cannot be read: {reason}.") from None
    text = text.replace("\r\n", "\n").replace("\r", "\n")  # Macs of old, and Excel for them
    text = _EXCEL_SEPARATOR.sub("\n", text)
    first = next((line for line in text.splitlines() if line.strip()), "")
    delimiter = max(",;\t", key=first.count)
    try:
        lines = list(csv.reader(io.StringIO(text), delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise SitesError(
            f"{path}: this table of sites cannot be read ({error}); is there a quotation mark that "
            f"does not close?"
        ) from None
    if not any(any(cell.strip() for cell in line) for line in lines):
        raise SitesError(f"{path}: this table is empty; expected the columns {', '.join(COLUMNS)}.")
    number = next(i for i, line in enumerate(lines) if any(cell.strip() for cell in line))
    names = [cell.strip() for cell in lines[number]]
    known = [_ALIASES.get(name.lower(), name.lower()) for name in names]
    header = [new if new in COLUMNS else name for name, new in zip(names, known, strict=True)]
    missing = [name for name in _REQUIRED if name not in header]
    if missing:
        raise SitesError(
            f"{path}: there is no column {' and no column '.join(missing)}; expected "
            f"{', '.join(COLUMNS)} (the last three are optional), with commas, semicolons or tabs "
            f"between them, but found {', '.join(names)}."
        )
    twice = [name for name in header if name and header.count(name) > 1]
    if twice:
        raise SitesError(f"{path}: there are several columns {twice[0]}; leave one of them.")
    rows: list[Site] = []
    wrong: list[str] = []
    for i, line in enumerate(lines[number + 1 :], start=number + 2):
        if any(cell.strip() for cell in line[len(header) :]):
            wrong.append(
                f"row {i}: it has {len(line)} values for {len(header)} columns; write decimal "
                f"points, or put semicolons between the columns"
            )
        elif any(cell.strip() for cell in line):
            cells = {name: cell.strip() for name, cell in zip(header, line, strict=False) if name}
            try:
                rows.append(_site(cells, f"row {i}"))
            except ValueError as error:
                wrong.append(f"row {i}: {error}")
    return rows, wrong + list(_overlaps(rows))


def _site(cells: Mapping[str, str], where: str) -> Site:
    """One row; a ValueError says what is wrong with it."""
    name = cells.get("site", "")
    if not name:
        raise ValueError("it has no site; expected a folder, a pattern or a recording")
    latitude = _degrees(cells, "latitude", 90)
    longitude = _degrees(cells, "longitude", 180)
    if (latitude is None) != (longitude is None):
        lacking = "latitude" if latitude is None else "longitude"
        raise ValueError(f"{name} has no {lacking}; fill in both, or none")
    if (latitude, longitude) == (0, 0):
        warn_of_origin(f"0, 0 of {name} ({where})")
    time_zone = cells.get("time_zone") or None
    if time_zone is not None:
        try:
            typed_zone(time_zone)
        except ValueError as error:
            raise ValueError(f"time_zone={time_zone!r} of {name} is not known: {error}") from None
    start, end = _time(cells, "start", name), _time(cells, "end", name)
    if start is not None and end is not None and _before(end, start):
        raise ValueError(f"{name} ends on {cells['end']}, before it starts on {cells['start']}")
    columns = {key: text for key, text in cells.items() if key not in (*COLUMNS, _SOURCE)}
    kinds: tuple[PositionSource, ...] = get_args(PositionSource)
    source = next((kind for kind in kinds if kind == cells.get(_SOURCE)), kinds[0])
    return Site(_plain(name), latitude, longitude, time_zone, start, end, columns, source)


def _degrees(cells: Mapping[str, str], key: str, most: int) -> float | None:
    text = cells.get(key, "").rstrip("°").strip()
    if not text or text.lower() in {"na", "nan", "null", "none"}:
        return None
    expected = f"expected degrees from -{most} to {most}, such as 52.52"
    try:
        value = float(text.replace(",", "."))
    except ValueError:
        raise ValueError(f"{key}={text!r} is no number; {expected}") from None
    if not -most <= value <= most:
        raise ValueError(f"{key}={text} is no place on Earth; {expected}")
    return value


def _time(cells: Mapping[str, str], key: str, name: str) -> datetime | None:
    """A day or a time; the end of a deployment includes its last day."""
    text = cells.get(key, "")
    if not text:
        return None
    plain = _ONE_DIGIT.sub(r"\g<1>0\2", text.replace("/", "-"))  # spreadsheets write 2025-5-1 4:30
    try:
        time = datetime.fromisoformat(plain)
    except ValueError:
        raise ValueError(
            f"{key}={text!r} of {name} is no date; expected one such as 2025-05-31 or "
            f"2025-05-31 04:30"
        ) from None
    whole_day = len(plain) <= len("2025-05-31")
    return datetime.combine(time, datetime.max.time()) if whole_day and key == "end" else time


def _overlaps(rows: Iterable[Site]) -> Iterator[str]:
    """Sentences on deployments of one site that are at the same time."""
    by_name: dict[str, list[Site]] = defaultdict(list)
    for row in rows:
        by_name[row.name].append(row)
    earliest = datetime.min
    for name, same in by_name.items():
        ordered = sorted(same, key=lambda row: (row.start or earliest).replace(tzinfo=None))
        for one, other in itertools.pairwise(ordered):
            if not (one.start or one.end or other.start or other.end):
                yield (
                    f"{name} has several rows without start and end; leave one of them, or give "
                    f"the days of each deployment"
                )
            elif one.end is None or other.start is None or not _before(one.end, other.start):
                yield (
                    f"two deployments of {name} overlap, {_span(one)} and {_span(other)}; a "
                    f"recording must belong to one of them only, so give hours where a recorder "
                    f"was moved within a day"
                )


def _span(site: Site) -> str:
    start, end = (time.isoformat(" ", "minutes") if time else "" for time in (site.start, site.end))
    return f"{start or 'the beginning'} to {end or 'the end'}"


# --- Drafts and checks --------------------------------------------------------------------------


def common_position(positions: Iterable[Position | None]) -> Position | None:
    """The first of some positions, if all are known and near to it: a recorder that stood still."""
    places = list(positions)
    first = places[0] if places else None
    if first is None or not all(place is not None and _near(first, place) for place in places):
        return None
    return first


def missing_positions(sites: Sites, starts: Mapping[str, datetime | None]) -> dict[str, list[str]]:
    """Recordings of which no position is known, by the reason."""
    reasons: dict[str, list[str]] = defaultdict(list)
    for name, start in starts.items():
        site = sites.of(name, start)
        if site is not None and site.position is not None:
            continue
        if site is not None:
            reason = "of sites whose position is not filled in"
        elif not sites.has_row(name):
            reason = "of no site in the table"
        elif start is None:
            reason = "without a time, which would have to decide between deployments"
        else:
            reason = "made outside of all deployments of their site"
        reasons[reason].append(name)
    return reasons


def sites_text(rows: Iterable[Site], *, sources: bool = False) -> str:
    """Rows as a table, which `read_sites` reads; `sources` adds where positions come from."""
    kept = list(rows)
    extra = list(dict.fromkeys(key for row in kept for key in row.columns))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*COLUMNS, *extra, *([_SOURCE] if sources else [])])
    for row in kept:
        times = [time.isoformat(" ") if time else "" for time in (row.start, row.end)]
        position = ["" if value is None else repr(value) for value in (row.latitude, row.longitude)]
        others = [row.columns.get(key, "") for key in extra] + ([row.source] if sources else [])
        writer.writerow([row.name, *position, row.time_zone or "", *times, *others])
    return out.getvalue()
