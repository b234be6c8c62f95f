from __future__ import annotations

import io
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import panel as pn
import pytest
import soundfile as sf

import bacpipe
from bacpipe.dashboard.recordings.recordings_table import read_recordings
from bacpipe.dashboard.recordings.view import RecordingsView
from bacpipe.dashboard.recordings.whole_recording import long_spectrogram
from bacpipe.dashboard.server import open_data_set
from bacpipe.dashboard.shared.clips import from_axis
from bacpipe.dashboard.shared.results import DataSetResults
from tests.conftest import TinyModel, write_recording
from tests.dashboard.conftest import eventually


@pytest.fixture
def view(data_set: DataSetResults) -> RecordingsView:
    """The view outside of a browser, where everything is computed at once."""
    opened = RecordingsView(data_set)
    opened.controls(), opened.body()
    opened.opened()
    return opened


def test_it_opens_with_totals_and_a_time_line(visit: Any) -> None:
    page = visit("?view=data")
    page.wait_for_selector(".bp-card")
    for number, what in (("7", "recordings"), ("1", "recordings failed")):
        text = re.compile(rf"^\s*{number}\s*{what}\s*$")
        page.locator(".bp-card", has_text=text).wait_for()
    eventually(page, page.locator(".bk-Figure").count, 2)
    page.locator(".bp-say", has_text="not in the time line: 1 recording (Rec").wait_for()


def test_failures_name_the_file_and_the_reason(visit: Any) -> None:
    page = visit("?view=data&data=failures")
    page.locator(".tabulator-cell", has_text="broken.wav").first.wait_for()
    for text in ("tiny", "other", re.compile("cannot be|not audio")):
        page.locator(".tabulator-row", has_text=text).first.wait_for()
    with page.expect_download() as download:
        page.get_by_text("Download as CSV").click()
    table = pd.read_csv(download.value.path())
    assert table["recording"].tolist() == ["broken.wav", "broken.wav"]


def test_recordings_are_searched_and_opened_in_explore(visit: Any) -> None:
    page = visit("?view=data&data=recordings")
    page.locator(".tabulator-cell", has_text="site1/rec_20240501_040000.wav").wait_for()
    page.get_by_label("Search").fill("site2/")
    page.get_by_label("Search").press("Enter")
    page.get_by_text("3 of 7 recordings").wait_for()
    page.wait_for_url("**search=site2**")
    page.locator(".tabulator-cell", has_text="site2/rec_20240502_180000.wav").click()
    link = page.get_by_text("show in Explore")
    link.wait_for()
    assert "recording=site2%2Frec_20240502_180000.wav" in link.get_attribute("href")
    assert "view=explore" in link.get_attribute("href")


def test_settings_tell_what_results_were_made_with(visit: Any) -> None:
    page = visit("?view=data&data=settings")
    page.locator(".bp-model").first.wait_for()
    for text in ("0.5 s at 8 kHz", f"bacpipe {bacpipe.__version__}", "scores from 0.3"):
        page.locator(".bp-model", has_text=text).first.wait_for()


def test_the_table_holds_what_the_run_did(view: RecordingsView) -> None:
    assert view._recordings is not None
    table = view._recordings.table.set_index("recording")
    assert table.loc["broken.wav", ["models", "failed"]].tolist() == [0, 2]
    assert pd.isna(table.loc["broken.wav", "start"])
    first = table.loc["site1/rec_20240501_040000.wav"]
    assert first["start"] == pd.Timestamp("2024-05-01 04:00:00")
    assert (first["duration"], first["models"], first["failed"]) == (12.0, 2, 0)


def test_searching_is_for_text_and_not_for_patterns(view: RecordingsView) -> None:
    assert view._recordings is not None
    assert len(view._recordings.matching("SITE1/", "all")) == 3
    assert len(view._recordings.matching("rec.*", "all")) == 0
    assert view._recordings.matching("", "failed")["recording"].tolist() == ["broken.wav"]
    assert view._recordings.matching("", "no time")["recording"].tolist() == ["broken.wav"]
    view.part, view.search = "recordings", "("
    assert "No recording is like that" in view._content.objects[0].object


def test_all_parts_and_blocks_can_be_shown(view: RecordingsView) -> None:
    for part in ("recordings", "failures", "settings", "overview"):
        view.part = part
        assert len(view._content.objects) >= 2
    for block in ("hour", "day", "week"):
        view.block = block
        shown, *_ = view._content.select(pn.pane.Bokeh)
        assert f"per {block}" in shown.object.title.text


def test_models_of_the_zoo_have_licence_and_citation(
    results: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from bacpipe.dashboard.recordings.view import run_settings
    from bacpipe.models.zoo import CARDS

    audio, stored = results
    data_set = open_data_set(["tiny"], audio_dir=audio, main_results_dir=stored)
    found = data_set.model("tiny")
    totals = read_recordings((found,)).totals["tiny"]
    monkeypatch.setattr(found, "name", "birdnet")
    made = run_settings(found, totals)
    assert made["Cite"] == CARDS["birdnet"].citation
    assert made["Licence"].startswith(CARDS["birdnet"].licence)
    assert made["Window"] == "1 s at 8 kHz"
    assert made["Hop"] == "1 s (windows follow one another)"


def test_recordings_whose_names_tell_no_time_leave_out_the_time_line(tmp_path: Path) -> None:
    write_recording(tmp_path / "field" / "a.wav", 3.0)
    bacpipe.generate_embeddings(
        audio_dir=tmp_path / "field",
        main_results_dir=tmp_path / "results",
        CustomModel=TinyModel,
        model_name="tiny",
        device="cpu",
    )
    data_set = open_data_set(
        ["tiny"], audio_dir=tmp_path / "field", main_results_dir=tmp_path / "results"
    )
    view = RecordingsView(data_set)
    view.opened()
    assert view._recordings is not None and view._recordings.without_time == 1
    assert len(view._content.objects) == 2
    assert np.isfinite(view._recordings.table["duration"]).all()
    view.part = "failures"
    assert "Nothing failed" in view._content.objects[0].object


def test_a_whole_recording_is_computed_once(
    view: RecordingsView, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed = []

    def read(*given: Any) -> Any:
        computed.append(given[1])
        return long_spectrogram(*given)

    monkeypatch.setattr("bacpipe.dashboard.recordings.whole_recording.long_spectrogram", read)
    told = []
    view.param.watch(lambda event: told.append(event.new), "whole")  # as the address does
    view.part = "whole"
    first, second = view._offered.options[:2]
    assert computed == told == [first]
    view._offered.value = second
    assert computed == told == [first, second]


def test_a_whole_recording_shows_what_is_where_and_plays_from_a_click(tmp_path: Path) -> None:
    rate = 24_000
    times = np.arange(40 * rate) / rate
    samples = np.random.default_rng(0).normal(0, 0.01, len(times))
    samples[20 * rate : 25 * rate] += 0.1 * np.sin(2 * np.pi * 700 * times[: 5 * rate])
    (tmp_path / "field").mkdir()
    sf.write(tmp_path / "field" / "a.wav", samples, rate)
    settings = {"audio_dir": tmp_path / "field", "main_results_dir": tmp_path / "results"}
    bacpipe.generate_embeddings(
        model_name="tiny", CustomModel=TinyModel, device="cpu", classifier_threshold=0.3, **settings
    )
    row = {"recording": "a.wav", "start": 20.0, "end": 25.0, "label": "tone"}
    bacpipe.label_windows(tmp_path / "field", row, annotator="Ana",
                          main_results_dir=tmp_path / "results")  # fmt: skip
    opened = RecordingsView(open_data_set(["tiny"], **settings))
    opened.opened()
    opened.part = "whole"
    whole = opened._whole_recording
    (levels,), (low,), (height,) = (whole._image.data[name] for name in ("image", "y", "height"))
    heard = opened._models[0].highest_heard  # 4 kHz of 12
    assert from_axis(np.array([low + height]), "mel") == pytest.approx(heard)
    band, column = np.unravel_index(levels.astype(int).argmax(), levels.shape)
    place = low + (band + 0.5) * height / len(levels)
    assert from_axis(np.array([place]), "mel")[0] == pytest.approx(700, abs=40)
    assert 20 <= column * 40 / levels.shape[1] <= 25
    marks = whole._marks.data
    people = marks["lane"].index("people")
    assert [marks[name][people] for name in ("left", "right", "text")] == [20.0, 25.0, "tone"]
    names = set(opened._models[0].predictions.names)
    assert set(marks["lane"]) == {"people", *names} and names
    whole._tapped(SimpleNamespace(x=22.0, y=0.0))
    heard_samples, heard_rate = sf.read(io.BytesIO(whole._player.object))
    assert len(heard_samples) == 10 * heard_rate and not whole._player.paused
    found = np.abs(np.fft.rfft(heard_samples[: 2 * heard_rate])).argmax() / 2
    assert found == pytest.approx(700, abs=2)
