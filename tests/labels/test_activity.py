"""Detections by hour, day and week, and the time that was recorded at all."""

from __future__ import annotations

import numpy as np
import pytest

import bacpipe
from bacpipe.errors import ResultsNotFoundError, SettingsError
from bacpipe.labels.activity import (
    BY,
    Stretches,
    activity_grid,
    class_activity,
    recorded_stretches,
)
from tests.conftest import finished_entry


def times(*texts: str) -> np.ndarray:
    return np.array(texts, "datetime64[us]")


def test_recorded_time_is_shared_among_the_hours_it_covers():
    grid = activity_grid(Stretches(times("2024-05-01T22:30"), times("2024-05-02T01:15")))
    assert grid.columns.tolist() == times("2024-05-01", "2024-05-02").astype("M8[D]").tolist()
    assert grid.hours.shape == (24, 2)
    assert grid.hours[[22, 23], 0].tolist() == [0.5, 1]
    assert grid.hours[[0, 1], 1].tolist() == [1, 0.25]
    assert grid.hours.sum() == 2.75


def test_nothing_heard_differs_from_nothing_recorded():
    stretches = Stretches(times("2024-05-01T05:00"), times("2024-05-01T07:00"))
    grid = activity_grid(stretches)
    found = times("2024-05-01T05:10", "2024-05-01T05:20", "2024-05-01T05:59:59")
    counts = grid.count(found)
    assert counts[5, 0] == 3 and counts.sum() == 3
    rate = grid.per_hour(counts)
    assert rate[5, 0] == 3
    assert rate[6, 0] == 0
    assert np.isnan(np.delete(rate, [5, 6])).all()


def test_two_recorders_count_twice_as_recorded_time():
    begin = times("2024-05-01T05:00", "2024-05-01T05:00")
    grid = activity_grid(Stretches(begin, begin + np.timedelta64(30, "m")))
    assert grid.hours[5, 0] == 1
    assert grid.per_hour(grid.count(times("2024-05-01T05:10")))[5, 0] == 1


def test_weeks_begin_on_mondays():
    begin = times("2024-04-29T06:00", "2024-05-05T06:00", "2024-05-06T06:00")
    stretches = Stretches(begin, begin + np.timedelta64(1, "h"))
    by_week = activity_grid(stretches, "hour_week")
    assert by_week.columns.astype(str).tolist() == ["2024-04-29", "2024-05-06"]
    assert by_week.hours[6].tolist() == [2, 1]
    calendar = activity_grid(stretches, "day_week")
    assert calendar.rows[0] == "Mon" and calendar.rows[6] == "Sun"
    assert calendar.hours[:, 0].tolist() == [1, 0, 0, 0, 0, 0, 1]
    assert calendar.describe(6, 0) == "Sun 2024-05-05"
    assert calendar.count(begin).tolist() == calendar.hours.tolist()


def test_short_gaps_stay_and_long_ones_become_one_column():
    begin = times("2023-05-01T06:00", "2023-05-03T06:00", "2024-05-01T06:00")
    grid = activity_grid(Stretches(begin, begin + np.timedelta64(1, "h")))
    assert grid.columns.astype(str).tolist() == [
        "2023-05-01", "2023-05-02", "2023-05-03", "NaT", "2024-05-01",
    ]  # fmt: skip
    assert grid.hours[6].tolist() == [1, 0, 1, 0, 1]
    assert grid.count(begin)[6].tolist() == [1, 0, 1, 0, 1]


def test_times_that_are_unknown_or_outside_do_not_count():
    grid = activity_grid(Stretches(times("2024-05-01T05:00"), times("2024-05-01T06:00")))
    assert grid.count(times("NaT", "2024-04-30T05:00", "2030-01-01T05:00")).sum() == 0


@pytest.mark.parametrize("by", BY)
def test_no_recordings_with_a_time_give_an_empty_grid(by):
    grid = activity_grid(Stretches(times(), times()), by)
    assert grid.hours.shape[1] == 0
    assert grid.count(times("2024-05-01T05:00")).size == 0


def test_of_annotated_recordings_only_the_segments_were_looked_at():
    segments = ((60, 90, 1), (120, 150, 1))
    entries = {
        "a.wav": finished_entry("a.wav", duration=3600.0, windows=2, segments=segments),
        "b.wav": finished_entry("b.wav", duration=3600.0, windows=2),
    }
    stretches = recorded_stretches(entries, times("2024-05-01T05:00", "NaT"))
    assert activity_grid(stretches).hours.sum() == pytest.approx(1 / 60)


def test_a_wrong_kind_of_grid_is_refused():
    with pytest.raises(SettingsError, match="hour_day, hour_week, day_week"):
        activity_grid(Stretches(times(), times()), "month")


def test_every_stored_detection_is_counted_when_it_was_made(loader):
    activity = class_activity(loader, "hour_day")
    table = bacpipe.detections_table(loader)
    timed = table[table["recording"] != "quiet.wav"]
    counted = {name: int(counts.sum()) for name, counts in activity.counts.items() if counts.any()}
    assert counted == timed["common_name"].value_counts().to_dict()
    south = timed[timed["recording"].str.startswith("south")]
    assert sum(counts[18, 1] for counts in activity.counts.values()) == len(south) > 0
    # Two recordings of 23 and 7.5 s at 6 o'clock of the first day.
    assert activity.grid.hours[6, 0] == pytest.approx(30.5 / 3600)


def test_threshold_and_most_frequent_classes(loader):
    table = bacpipe.detections_table(loader)
    middle = float(table["score"].median())
    activity = class_activity(loader, threshold=middle, most=2)
    kept = table[table["score"] >= np.float32(middle)]["common_name"]
    assert activity.classes == kept.nunique()
    assert len(activity.counts) == min(2, activity.classes)
    assert next(iter(activity.counts)) in kept.mode().tolist()


def test_recordings_without_a_time_are_explained(run):
    with pytest.raises(ResultsNotFoundError, match="20240501_053000"):
        class_activity(run())
