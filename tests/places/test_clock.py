"""When recordings began: one clock for all, and the sun."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from bacpipe.errors import SettingsError
from bacpipe.options import Options
from bacpipe.places import clock as clock_module
from bacpipe.places.clock import (
    Clock,
    Start,
    hours_after,
    on_one_clock,
    on_sun_clock,
    sun_and_moon,
)
from bacpipe.places.positions import Position
from bacpipe.places.sites import Site
from tests.places.test_sites import write_wave

BERLIN = Position(52.52, 13.40)


@pytest.fixture(autouse=True)
def _forget():
    clock_module.say_once.cache_clear()


def start(time, site=None, source="name", zone_source="name"):
    return Start(time, source, zone_source, site)


def test_where_times_and_zones_come_from(tmp_path):
    text = "site,latitude,longitude,time_zone\nu,52.5,13.4,UTC\np,52.5,13.4,\n"
    (tmp_path / "sites.csv").write_text(text, encoding="utf-8")
    local = datetime(2025, 6, 1, 4)
    told = b"GUANO|Version:1.0\nTimestamp:2025-06-01T04:00:00+03:00\n"
    write_wave(tmp_path / "p" / "told.wav", (b"guan", told))
    wanted = {
        "u/20250601_040000.wav": (local.replace(tzinfo=UTC), "name", "site"),
        "p/20250601_040000.wav": (local - timedelta(hours=2), "name", "position"),
        "p/20250601T040000+0100_REC.wav": (local - timedelta(hours=1), "name", "name"),
        "x/20250601_040000.wav": (local, "name", "nothing"),
        "p/robin.wav": (None, "nothing", "nothing"),
        "p/told.wav": (local - timedelta(hours=3), "metadata", "metadata"),
    }
    clock = Clock(tmp_path, Options())
    for name, (time, source, zone_source) in wanted.items():
        found = clock.of(name)
        assert (found.source, found.zone_source) == (source, zone_source), name
        if time is None or zone_source == "nothing":
            assert found.time == time
        else:
            assert found.time == time.replace(tzinfo=UTC)
    # A recorder in UTC and one by local time come to one clock, that of the place.
    shown = [clock.of(f"{site}/20250601_040000.wav").local for site in "up"]
    assert [f"{time:%H:%M%z}" for time in shown] == ["06:00+0200", "04:00+0200"]
    assert on_one_clock(tmp_path, list(wanted), [clock.of(name) for name in wanted])[0].astype(
        object
    ) == datetime(2025, 6, 1, 6)
    said = Clock(tmp_path, Options(time_zone="UTC+3"))
    assert said.of("x/20250601_040000.wav").time.utcoffset() == timedelta(hours=3)
    assert said.of("p/20250601_040000.wav").zone_source == "setting"
    assert said.of("u/20250601_040000.wav").zone_source == "site"


def test_recorders_in_utc_and_local_time_come_to_one_clock(tmp_path, caplog):
    berlin = ZoneInfo("Europe/Berlin")
    starts = [
        start(datetime(2025, 10, 26, 2, 30, tzinfo=timezone(timedelta(hours=2)))),
        start(datetime(2025, 10, 26, 2, 30, tzinfo=timezone(timedelta(hours=1)))),
        start(datetime(2025, 10, 26, 1, 30, tzinfo=UTC)),
        start(datetime(2025, 10, 26, 12, tzinfo=berlin)),
        start(datetime(2025, 10, 26, 12)),
        start(None, source="nothing"),
    ]
    names = [f"{i}.wav" for i in range(len(starts))]
    with caplog.at_level("INFO"):
        shown = on_one_clock(tmp_path, names, starts)
        on_one_clock(tmp_path, names, starts)
    assert shown[1] - shown[0] == np.timedelta64(1, "h")
    assert shown[2] == shown[1] and np.isnat(shown[5])
    assert shown[3] - shown[2] == np.timedelta64(570, "m")
    texts = [record.getMessage() for record in caplog.records]
    assert sum("several time zones" in text for text in texts) == 1
    assert sum("1 do not" in text for text in texts) == 1
    assert sum("1 tell no time, such as 5.wav" in text for text in texts) == 1


def test_assumed_zones_and_impossible_hours_are_said_with_counts(tmp_path, caplog):
    berlin, site = ZoneInfo("Europe/Berlin"), Site("p", *BERLIN)
    times = [
        datetime(2025, 10, 26, 2, 30, tzinfo=berlin),  # shown twice
        datetime(2025, 3, 30, 2, 30, tzinfo=berlin),  # left out
        datetime(2025, 5, 1, 2, 30, tzinfo=berlin),
    ]
    starts = [start(time, site, zone_source="position") for time in times]
    with caplog.at_level("INFO"):
        on_one_clock(tmp_path, ["a.wav", "b.wav", "c.wav"], starts)
    told = " ".join(record.getMessage() for record in caplog.records)
    assert "3 recordings without a time zone" in told and "Europe/Berlin: 3" in told
    assert "2 recordings in an hour that the clocks" in told and "such as a.wav" in told


@pytest.mark.parametrize("zone", ["Berlin", "Europe", "UTC+15", "+99:00", "../etc/passwd", " ", 1])
def test_unknown_zones_are_refused(zone):
    with pytest.raises(SettingsError, match="time_zone="):
        Options(time_zone=zone)


def test_sun_and_moon_of_a_day():
    """As almanacs have it for Berlin."""
    sky = sun_and_moon(BERLIN, date(2025, 6, 21), ZoneInfo("Europe/Berlin"))
    shown = [f"{time:%H:%M}" for time in (sky.dawn, sky.sunrise, sky.sunset, sky.dusk)]
    minutes = [int(text[:2]) * 60 + int(text[3:]) for text in shown]
    assert np.abs(np.array(minutes) - [233, 283, 1293, 1343]).max() <= 3
    assert sun_and_moon(BERLIN, date(2025, 6, 11), UTC).moon > 0.95  # full on that day
    assert sun_and_moon(BERLIN, date(2025, 6, 25), UTC).moon < 0.1  # new
    polar = sun_and_moon(Position(80, 20), date(2025, 6, 21), UTC)
    assert polar.sunrise is None and polar.sunset is None


def test_hours_from_the_nearest_sunrise():
    midnight = datetime(2025, 6, 21, tzinfo=ZoneInfo("Europe/Berlin"))
    hours = hours_after("sunrise", BERLIN, midnight, 3600 * np.arange(0.0, 48.0))
    assert hours.min() >= -12.1 and hours.max() <= 12.1
    assert abs(hours[4] + 43 / 60) < 0.06 and abs(hours[5] - 17 / 60) < 0.06
    evening = hours_after("sunset", BERLIN, midnight, 3600 * np.array([2.0, 21.0]))
    assert abs(evening[0] - 4.45) < 0.06 and abs(evening[1] + 0.55) < 0.06
    assert np.isnan(hours_after("sunrise", Position(80, 20), midnight, np.zeros(2))).all()
    assert hours_after("sunset", BERLIN, midnight, np.zeros(0)).shape == (0,)
    for longitude in (-179.9, 179.9):  # where a day of UTC is not that of the place
        there = hours_after("sunrise", Position(-17, longitude), midnight, 3600 * np.arange(24.0))
        assert np.abs(there).max() < 12.1


def test_sun_clock_shows_noon_at_sunrise():
    site = Site("p", *BERLIN)
    sunrise = sun_and_moon(BERLIN, date(2025, 6, 21), ZoneInfo("Europe/Berlin")).sunrise
    before = start(sunrise - timedelta(hours=2), site)
    shown = on_sun_clock([before, start(datetime(2025, 6, 21), None), start(None, site)], "sunrise")
    assert abs(shown[0] - np.datetime64("2025-06-21T10:00")) < np.timedelta64(2, "s")
    assert np.isnat(shown[1:]).all()
