"""All views show one clock, that of the place, and say its zone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bacpipe.dashboard.predictions.detections_by_class import CLASSIFIER, read_detections
from bacpipe.dashboard.recordings.recordings_table import read_recordings
from bacpipe.dashboard.review.clip_card import clip_card
from bacpipe.dashboard.review.queue import queue_of
from bacpipe.dashboard.shared.clock import clock_of, zone_of
from bacpipe.dashboard.shared.results import ModelResults
from bacpipe.dashboard.shared.spectrogram_figure import SpectrogramSettings
from bacpipe.dashboard.shared.to_review import ClipsToReview
from tests.dashboard.conftest import make_small_field


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> ModelResults:
    """Recorders in Berlin, whose clocks showed UTC."""
    made = make_small_field(tmp_path_factory.mktemp("clock"), 5410)
    table = "site,latitude,longitude,time_zone\nnorth,52.5,13.4,UTC\nsouth,52.6,13.5,UTC\n"
    (Path(made.audio_dir) / "sites.csv").write_text(table, encoding="utf-8")
    return made.model("tiny")


def test_every_view_has_the_clock_of_the_place(results: ModelResults) -> None:
    row = results.row_at("north/rec_20240501_040000.wav", 3.0)
    said = clock_of(results, row)
    assert said == "2024-05-01 06:00:03 (UTC+02:00)"
    assert zone_of(results) == "UTC+02:00"
    queue = queue_of(results, ClipsToReview(results, np.array([row]), "these"))
    assert clip_card(queue, 0, 0.0, SpectrogramSettings())["clock"] == said
    detections = read_detections(results, CLASSIFIER)
    assert (str(detections.clock[row]), detections.zone) == (
        "2024-05-01T06:00:03.000000",
        "UTC+02:00",
    )
    recordings = read_recordings((results,))
    table = recordings.table.set_index("recording")
    assert str(table.loc["north/rec_20240501_040000.wav", "start"]) == "2024-05-01 06:00:00"
    assert recordings.zone == "UTC+02:00"


def test_where_some_zones_are_not_known_that_is_said(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    made = make_small_field(tmp_path_factory.mktemp("mixed"), 5411)
    table = "site,latitude,longitude,time_zone\nnorth,52.5,13.4,UTC\n"
    (Path(made.audio_dir) / "sites.csv").write_text(table, encoding="utf-8")
    mixed = made.model("tiny")
    assert zone_of(mixed) == "UTC+02:00; the recorder's clock where its zone is not known"
    row = mixed.row_at("south/rec_20240501_040000.wav", 0.0)
    assert clock_of(mixed, row) == "2024-05-01 04:00:00 (recorder's clock)"
