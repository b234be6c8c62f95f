"""The time of every moment of a recording during which the clocks are changed."""

from __future__ import annotations

import csv
import io
import zipfile
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

import bacpipe
from bacpipe.store.whereabouts import Place, clock_times

RATE, WINDOW = 100, 600
BERLIN = ZoneInfo("Europe/Berlin")
# On these days, 2:00 becomes 3:00, and 3:00 becomes 2:00.
SPRING, AUTUMN = "20240331_013000.wav", "20241027_013000.wav"


def place(start: datetime | None) -> Place:
    return Place("pond", 52.5, 13.4, None, start, {})


def test_clocks_that_are_changed() -> None:
    spring = place(datetime(2024, 3, 31, 1, 30, tzinfo=BERLIN))
    autumn = place(datetime(2024, 10, 27, 1, 30, tzinfo=BERLIN))
    assert spring.clock_changes(7200) == [(1800, 3600)]
    assert autumn.clock_changes(7200) == [(5400, -3600)]
    assert spring.clock_changes(1700) == autumn.clock_changes(5300) == []
    # A recording need not start on a full second.
    odd = place(datetime(2024, 3, 31, 1, 29, 59, 600_000, tzinfo=BERLIN))
    assert odd.clock_changes(7200) == odd.clock_changes(1800.4) == [(1800.4, 3600)]
    assert odd.clock_changes(1800.3) == []
    at = clock_times([odd], np.zeros(2, int), np.array([1800.3, 1800.4]))
    assert at.astype(str).tolist() == ["2024-03-31T01:59:59.900000", "2024-03-31T03:00:00.000000"]
    year = place(datetime(2024, 1, 1, tzinfo=BERLIN)).clock_changes(366 * 86400.0)
    assert [forward for _, forward in year] == [3600, -3600]
    assert spring.after(1800).isoformat() == "2024-03-31T03:00:00+02:00"
    naive, unknown = place(datetime(2024, 3, 31, 1, 30)), place(None)
    assert naive.after(3600) == datetime(2024, 3, 31, 2, 30) and unknown.after(0) is None
    assert naive.clock_changes(86400) == unknown.clock_changes(86400) == []
    places = [spring, autumn, naive, unknown]
    recording = np.repeat(np.arange(4), 3)
    shown = clock_times(places, recording, np.tile([0.0, 1800.0, 5400.0], 4))
    expected = [
        "2024-03-31T01:30", "2024-03-31T03:00", "2024-03-31T04:00", "2024-10-27T01:30",
        "2024-10-27T02:00", "2024-10-27T02:00", "2024-03-31T01:30", "2024-03-31T02:00",
        "2024-03-31T03:00", "NaT", "NaT", "NaT",
    ]  # fmt: skip
    np.testing.assert_array_equal(shown, np.array(expected, "datetime64[us]"))


class Slow(bacpipe.ModelBaseClass):
    """Ten minutes in a window, loud or quiet."""

    version = "1"

    def __init__(self, **kwargs: object) -> None:
        super().__init__(sr=RATE, segment_length=RATE * WINDOW, batch_size=4, **kwargs)
        self.classes = ["loud"]
        self.scientific_names = ["Turdus merula"]

    def preprocess(self, audio: torch.Tensor) -> torch.Tensor:
        return audio.abs().reshape(len(audio), 10, -1)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(dim=2)

    def classifier_predictions(self, embeddings: torch.Tensor) -> torch.Tensor:
        return embeddings.mean(dim=1, keepdim=True).clamp(0, 1)


@pytest.fixture(scope="module")
def nights(tmp_path_factory: pytest.TempPathFactory) -> bacpipe.Loader:
    """Four hours each, loud only after 150 minutes, when the clocks have been changed."""
    base = tmp_path_factory.mktemp("nights")
    for name in (SPRING, AUTUMN):
        samples = np.full(4 * 3600 * RATE, 0.01, np.float32)
        samples[9000 * RATE : (9000 + WINDOW) * RATE] = 0.9
        (base / "field").mkdir(exist_ok=True)
        soundfile.write(base / "field" / name, samples, RATE)
    return bacpipe.generate_embeddings(
        model_name="slow", CustomModel=Slow, audio_dir=base / "field", device="cpu",
        main_results_dir=base / "results", latitude=52.5, longitude=13.4, range_filter="off",
    )  # fmt: skip


TIMES = {SPRING: "2024-03-31T05:00:00+02:00", AUTUMN: "2024-10-27T03:00:00+01:00"}


def test_all_tables_tell_the_same_moment(nights: bacpipe.Loader, tmp_path: Path) -> None:
    table = bacpipe.detections_table(nights).set_index("recording")
    assert {name: time.isoformat() for name, time in table["datetime"].items()} == TIMES
    bacpipe.export(nights, "camtrap-dp", tmp_path)
    observed = pd.read_csv(tmp_path / "observations.csv").set_index("mediaID")
    assert observed["eventStart"].to_dict() == TIMES
    (path,) = bacpipe.export(nights, "darwin-core", tmp_path)
    with zipfile.ZipFile(path) as archive:
        rows = csv.DictReader(io.StringIO(archive.read("occurrence.csv").decode()))
        assert {row["eventID"]: row["eventDate"].split("/")[0] for row in rows} == TIMES
    (path,) = bacpipe.export(nights, "kaleidoscope", tmp_path)
    shown = pd.read_csv(path).set_index("IN FILE")
    clock = shown["DATE"] + "T" + shown["TIME"]
    assert clock.to_dict() == {name: time[:19] for name, time in TIMES.items()}
    stored = pd.read_parquet(nights.paths.preds_path / "slow_detections.parquet")
    moments = pd.to_datetime(stored["datetime"].astype(str), utc=True)
    assert [*moments] == [pd.Timestamp(TIMES[name]) for name in stored["recording"]]


def test_hours_are_those_of_the_clock(nights: bacpipe.Loader) -> None:
    table = bacpipe.survey_table(nights, by=("recording", "hour"))
    found = table[table["detections"] > 0]
    assert dict(zip(found["recording"], found["hour"], strict=True)) == {SPRING: "05", AUTUMN: "03"}
    listened = table.drop_duplicates(["recording", "hour"]).set_index(["recording", "hour"])
    hours = listened["hours_listened"].groupby(level=0).sum()
    assert hours.round(6).tolist() == [4.0, 4.0]
    assert listened.loc[(AUTUMN, "02"), "hours_listened"] == 2.0
    assert (SPRING, "02") not in listened.index
    history = bacpipe.detection_history(nights, "loud", occasion="1h")
    assert [f"{time:%m-%d %H}" for time in history.columns[(history == 1).any()]] == [
        "03-31 05", "10-27 03",
    ]  # fmt: skip
    for name, hour in ((SPRING, 5), (AUTUMN, 3)):
        query = (name, 9000.0)
        near = bacpipe.search(query, loader=nights, where={"hour": hour}, k=100)
        assert (name, 9600.0) in set(zip(near["recording"], near["start"], strict=True))
        other = bacpipe.search(query, loader=nights, where={"hour": 4}, k=100)
        assert (name, 9600.0) not in set(zip(other["recording"], other["start"], strict=True))
