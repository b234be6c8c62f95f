from __future__ import annotations

import numpy as np
import pytest

from bacpipe.dashboard.recordings.recordings_table import (
    failures_of,
    recordings_of,
    totals_of,
)
from bacpipe.dashboard.recordings.time_line import recorded_time, sites_of
from bacpipe.store.entries import (
    FAILED,
    REMOVED,
    Entries,
    FailedEntry,
    FinishedEntry,
    StoredEmbeddings,
)
from bacpipe.store.journal import JournalContent
from tests.conftest import finished_entry


def done(name: str, duration: float, windows: int, size: int = 100) -> FinishedEntry:
    stored = StoredEmbeddings("x.npy", 7, 1)
    return finished_entry(name, duration=duration, windows=windows, size=size, embeddings=stored)


JOURNALS = {
    "one": JournalContent(
        {},
        Entries(
            {
                "north/a.wav": done("north/a.wav", 10.0, 4),
                "b.wav": FailedEntry("b.wav", FAILED, "b.wav: no audio"),
                "gone.wav": finished_entry("gone.wav", status=REMOVED),
            }
        ),
    ),
    "two": JournalContent(
        {},
        Entries(
            {
                "north/a.wav": done("north/a.wav", 10.0, 20),
                "b.wav": FailedEntry("b.wav", FAILED, "b.wav: no audio either"),
                "c.wav": done("c.wav", 5.0, 10, size=50),
            }
        ),
    ),
}


def test_recordings_of_all_models_are_in_one_table() -> None:
    table = recordings_of(JOURNALS)
    assert table["recording"].tolist() == ["b.wav", "c.wav", "north/a.wav"]
    assert table["folder"].tolist() == ["", "", "north"]
    assert table["models"].tolist() == [0, 1, 2]
    assert table["failed"].tolist() == [2, 0, 0]
    assert np.isnan(table["duration"][0])
    assert table["duration"].tolist()[1:] == [5.0, 10.0]
    assert table["size"].tolist()[1:] == [50, 100]


def test_failures_name_recording_model_and_reason() -> None:
    assert failures_of(JOURNALS).to_numpy().tolist() == [
        ["b.wav", "one", "b.wav: no audio"],
        ["b.wav", "two", "b.wav: no audio either"],
    ]


def test_totals_count_what_is_done() -> None:
    assert totals_of(JOURNALS["two"]) == (2, 30, 15.0, 14)


def test_no_journal_is_an_empty_table() -> None:
    assert len(recordings_of({})) == 0
    assert len(failures_of({})) == 0


def test_many_folders_are_grouped_by_their_first_part_and_then_by_size() -> None:
    folders = np.array(["a/x", "a/y", "b/x", "b/y", "b/z", "c"], object)
    code, names = sites_of(folders, 6)
    assert [names[i] for i in code] == folders.tolist()
    code, names = sites_of(folders, 3)
    assert [names[i] for i in code] == ["a", "a", "b", "b", "b", "c"]
    code, names = sites_of(folders, 2)
    assert [names[i] for i in code] == ["2 other folders"] * 2 + ["b"] * 3 + ["2 other folders"]


def test_recorded_time_is_divided_among_the_blocks_that_a_recording_crosses() -> None:
    start = np.array(["2024-05-01T23:30", "2024-05-02T01:00", "NaT"], "datetime64[us]")
    table, unit = recorded_time(start, np.array([5400.0, np.nan, 60.0]), np.array([0, 1, 0]))
    assert unit == "hour"
    assert table["begin"].astype(str).tolist() == [
        "2024-05-01 23:00:00", "2024-05-02 00:00:00", "2024-05-02 01:00:00",
    ]  # fmt: skip
    assert table["seconds"].tolist() == [1800.0, 3600.0, 0.0]
    assert table["recordings"].tolist() == [1, 1, 1]
    assert table["group"].tolist() == [0, 0, 1]


@pytest.mark.parametrize(("unit", "first"), [("day", "2024-05-01"), ("week", "2024-04-29")])
def test_days_begin_at_midnight_and_weeks_on_mondays(unit: str, first: str) -> None:
    rng = np.random.default_rng(3)
    begin = np.datetime64("2024-05-01T00:00:00", "us")
    start = begin + (rng.uniform(0, 40 * 86_400, 200) * 1e6).astype("timedelta64[us]")
    start[0] = begin
    duration = rng.uniform(1, 2 * 86_400, 200)
    table, used = recorded_time(start, duration, np.zeros(200, np.int64), unit)
    assert used == unit
    assert table["begin"].astype(str)[0] == first
    assert table["seconds"].sum() == pytest.approx(duration.sum())
    assert (table["end"] - table["begin"]).nunique() == 1


def test_blocks_get_longer_with_the_time_that_was_recorded() -> None:
    def unit_of(days: int) -> str:
        start = np.array(["2024-01-01", "2024-01-01"], "datetime64[us]")
        start[1] += np.timedelta64(days, "D")
        return recorded_time(start, np.array([1.0, 1.0]), np.array([0, 0]))[1]

    assert [unit_of(days) for days in (2, 100, 3000)] == ["hour", "day", "week"]
