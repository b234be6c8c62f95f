"""``bacpipe sites``: a table of where the recorders stood, to be filled in and checked."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING

from bacpipe.commands.arguments import HelpFormatter, add_settings, place, read_settings
from bacpipe.errors import SettingsError, SitesError, counted
from bacpipe.options import make_options
from bacpipe.user_input import is_there, typed_path

if TYPE_CHECKING:
    from bacpipe.options import Options
    from bacpipe.places.clock import Start
    from bacpipe.places.sites import Site

_NAMED = 3  # recordings in a message


def run(arguments: Sequence[str]) -> int:
    """Write a draft where there is no table, else check that; 1 if something is wrong."""
    parser = argparse.ArgumentParser(
        prog="bacpipe sites",
        description="Say where the recordings of audio_dir were made. Without a table of sites, a "
        "draft is written to --to, or where sites=FILE says, or into audio_dir, with a row for "
        "each folder and the positions and times that recordings tell. An existing table is "
        "checked: recordings without a site, positions out of range, deployments that overlap.",
        epilog="example:  bacpipe sites audio_dir=/data/2025",
        formatter_class=HelpFormatter,
    )
    parser.add_argument("--to", type=place, metavar="FILE", help="where the draft goes")
    add_settings(parser)
    parsed = parser.parse_intermixed_args(arguments)
    options = make_options(**read_settings(parsed))
    if options.audio_dir is None:
        raise SettingsError("audio_dir is missing; expected the folder with the recordings.")
    # What follows loads NumPy.
    from bacpipe.audio.remote import url_of
    from bacpipe.places.sites import SITES, find_sites_table
    from bacpipe.store.loader import Loader

    loader = Loader(options.audio_dir, options=options)
    audio_dir, recordings = loader.audio_dir, loader.recording_names
    target = parsed.to
    if target is None and options.sites is not None:
        named = typed_path(options.sites)
        target = None if is_there(named) or is_there(audio_dir / named) else named
    table = find_sites_table(audio_dir, options) if target is None else None
    if table is not None:
        return _check(audio_dir, table, recordings, options)
    beside = audio_dir if url_of(audio_dir) is None else Path()  # nothing is written to a URL
    return _draft(audio_dir, target or beside / SITES, recordings, options)


def _draft(audio_dir: Path, target: Path, recordings: Sequence[str], options: Options) -> int:
    from bacpipe.places.positions import recorder_position
    from bacpipe.places.sites import SITES, Site, common_position, folder_of, sites_text
    from bacpipe.store.files import write_text
    from bacpipe.store.typed_command import typed_command

    named = {} if target == audio_dir / SITES else {"sites": target}
    check = typed_command("sites", audio_dir, options, **named)
    if is_there(target):
        raise SitesError(
            f"{target}: this file is there already; name another with --to, or check it with: "
            f"{check}"
        )
    by_folder: dict[str, list[str]] = {}
    for name in recordings:
        by_folder.setdefault(folder_of(name), []).append(name)
    rows = []
    told = 0
    for folder, names in by_folder.items():
        positions = [recorder_position(audio_dir / name) for name in names]
        place = common_position(positions)
        told += place is not None
        rows.append(Site(folder) if place is None else Site(folder, *place))
    write_text(target, sites_text(rows))
    print(  # noqa: T201
        f"{target}: a draft with {counted(len(rows), 'site')}, one for each folder; in "
        f"{told} of them, the recordings themselves tell their position.\n"
        f"Fill in latitude and longitude (degrees, north and east positive, such as 52.52 and "
        f"13.40); time_zone (such as Europe/Berlin, or UTC) where the recorder's clock was not in "
        f"local time; start and end (such as 2025-05-31) where a recorder was moved, with a row "
        f"for each deployment. Add columns as you like. Then check it with:\n  {check}"
    )
    return 0


def _check(audio_dir: Path, table: Path, recordings: Sequence[str], options: Options) -> int:
    from bacpipe.places.clock import Clock, on_one_clock
    from bacpipe.places.sites import check_sites, missing_positions

    rows, wrong = check_sites(table)
    for sentence in wrong:
        print(f"{table}: {sentence}.")  # noqa: T201
    if wrong:
        return 1
    clock = Clock(audio_dir, options)
    starts = [clock.of(name) for name in recordings]
    on_one_clock(audio_dir, recordings, starts)  # says which zones there are
    print(f"{table}: {counted(len(rows), 'row')}, {counted(len(recordings), 'recording')}.")  # noqa: T201
    by_site: dict[str, list[Start]] = {}
    for start in starts:
        if start.site is not None:
            by_site.setdefault(start.site.name, []).append(start)
    for name, group in by_site.items():
        print(f"  {name}: {_about(group)}")  # noqa: T201
    named = {row.name for row in rows}
    unused = [row.name for row in rows if not any(_is(row, start, named) for start in starts)]
    if unused:
        print(f"Rows without recordings: {_some(unused)}.")  # noqa: T201
    missing = missing_positions(
        clock.sites, {n: s.time for n, s in zip(recordings, starts, strict=True)}
    )
    for reason, names in missing.items():
        print(f"{counted(len(names), 'recording')} {reason}: {_some(names)}.")  # noqa: T201
    return 1 if missing else 0


def _is(row: Site, start: Start, named: Set[str]) -> bool:
    """Whether a recording is of a row, where the table has rows of these names."""
    site = start.site
    if site is None or (row.start, row.end) != (site.start, site.end):
        return False
    # The row of the whole folder gives each site the name of its own.
    return row.name == site.name or (row.name == "." and site.name not in named)


def _about(starts: Sequence[Start]) -> str:
    """One site: how many recordings, where, when, and how high the sun is then."""
    from bacpipe.places.clock import sun_and_moon
    from bacpipe.places.positions import zone_at

    parts = [counted(len(starts), "recording")]
    places = Counter(s.site.position for s in starts if s.site is not None)
    position = next(iter(places))
    more = f" and {len(places) - 1} more" if len(places) > 1 else ""
    parts.append("no position" if position is None else f"{position[0]:g}, {position[1]:g}{more}")
    times = sorted((s.time for s in starts if s.time is not None), key=lambda t: t.isoformat())
    zones = Counter(str(time.tzinfo) for time in times if time.tzinfo is not None)
    parts += [f"clock {' and '.join(zones)}" if zones else "no time zone"]
    if times:
        parts.append(f"{times[0]:%Y-%m-%d %H:%M} to {times[-1]:%Y-%m-%d %H:%M}")
        if position is not None:
            sky = sun_and_moon(position, times[0].date(), zone_at(*position))
            events = (("civil dawn", sky.dawn), ("sunrise", sky.sunrise), ("sunset", sky.sunset))
            shown = [f"{name} {time:%H:%M}" for name, time in events if time is not None]
            where = f"on the first day, by {zone_at(*position)}"
            parts.append(
                f"{', '.join(shown) or 'no sunrise or sunset'} {where}, moon {sky.moon:.0%}"
            )
    return "; ".join(parts)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{', '.join(names[:_NAMED])}{more}"
