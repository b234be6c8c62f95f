"""Where every channel was heard by itself, that one is shown, played, found and marked."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile as sf
from bokeh.events import Tap

import bacpipe
from bacpipe.dashboard.background import Background
from bacpipe.dashboard.explore.view import ExploreView
from bacpipe.dashboard.predictions.view import PredictionsView
from bacpipe.dashboard.recordings.whole_recording import WholeRecording
from bacpipe.dashboard.review.clip_card import clip_card
from bacpipe.dashboard.review.queue import BEST, NOBODY, NOT_ME, Asked, make_queue, queue_of
from bacpipe.dashboard.search.view import SearchView
from bacpipe.dashboard.server import open_data_set
from bacpipe.dashboard.shared.export import as_csv
from bacpipe.dashboard.shared.results import DataSetResults, ModelResults
from bacpipe.dashboard.shared.spectrogram_figure import SpectrogramSettings
from bacpipe.dashboard.shared.to_review import ClipsToReview
from tests.conftest import TinyModel

TONES = (500.0, 1500.0)  # Hz, of the two channels
MONO = 1000.0
SECONDS = 6


@pytest.fixture(scope="module")
def data_set(tmp_path_factory: pytest.TempPathFactory) -> DataSetResults:
    base = tmp_path_factory.mktemp("channels")
    (base / "card").mkdir()
    time = np.arange(SECONDS * 8000) / 8000
    levels = np.linspace(0.2, 0.9, len(time)), np.linspace(0.9, 0.2, len(time))
    one, two, mono = (np.sin(2 * np.pi * tone * time) for tone in (*TONES, MONO))
    sides = np.stack([levels[0] * one, levels[1] * two], axis=1)
    sf.write(base / "card" / "two_20240501_040000.wav", sides, 8000)
    sf.write(base / "card" / "one_20240501_050000.wav", 0.5 * mono, 8000)
    settings: dict[str, Any] = {
        "audio_dir": base / "card", "main_results_dir": base / "results", "channel": "each",
    }  # fmt: skip
    bacpipe.play(models=["tiny"], CustomModels=[TinyModel], device="cpu",
                 classifier_threshold=0.01, dim_reduction_model="pca", **settings)  # fmt: skip
    return open_data_set(None, dashboard_port=5360, **settings)


TWO = "two_20240501_040000.wav"


@pytest.fixture
def results(data_set: DataSetResults) -> ModelResults:
    for path in data_set.model("tiny").loader.paths.people_path.glob("people_labels*"):
        path.unlink()
    return data_set.model("tiny")


def tone(wav: bytes) -> float:
    """Loudest frequency of a sound in Hz."""
    samples, rate = sf.read(io.BytesIO(wav))
    assert samples.ndim == 1
    return float(np.abs(np.fft.rfft(samples)).argmax() * rate / len(samples))


def rows_of(results: ModelResults, channel: int) -> list[int]:
    assert results.channels is not None
    inside = results.rows_of(TWO)
    return [row for row in range(inside.start, inside.stop) if results.channels[row] == channel]


@pytest.mark.parametrize("channel", [1, 2])
def test_windows_are_found_by_their_channel(results: ModelResults, channel: int) -> None:
    for row in rows_of(results, channel):
        name, start, *of = results.place(row)
        assert of == [channel] and results.row_at(str(name), float(start), channel) == row
        assert results.row_of(str(name), float(start), channel) == row
    assert results.row_of(TWO, 0.0, 3) is None


@pytest.mark.parametrize("channel", [1, 2])
def test_review_plays_and_marks_it(results: ModelResults, channel: int) -> None:
    rows = np.array(rows_of(results, channel))
    table = results.window_table(rows).rename(columns={"audiofilename": "recording"})
    queue = queue_of(results, ClipsToReview.of_table(results, table, "sent", "loud"))
    assert queue.rows.tolist() == rows.tolist()
    card = clip_card(queue, 2, 1.0, SpectrogramSettings())
    assert tone(card["sound"]) == pytest.approx(TONES[channel - 1], abs=3)
    assert f"channel {channel}" in card["clock"]
    where = results.settings
    mark = queue.judgement(2, "loud", "yes", "Ana")
    bacpipe.label_windows(results.loader.audio_dir, pd.DataFrame([mark]), **where)
    asked = Asked("tiny", "", "loud", BEST, NOBODY, "Ana")
    for left in (NOBODY, NOT_ME):
        waiting = make_queue(results, asked._replace(left_out=left))
        assert waiting.marked == 1 and rows[2] not in waiting.rows
        assert {*rows_of(results, 3 - channel)} <= {*waiting.rows.tolist()}


def sounds_of(view: Any, monkeypatch: pytest.MonkeyPatch) -> dict[int, float]:
    heard: dict[int, float] = {}
    monkeypatch.setattr(
        view.gallery._tiles, "sound", lambda place, wav, _: heard.update({place: tone(wav)})
    )
    for place in range(len(view.gallery._tiles.items)):
        view.gallery._play(place)
    return heard


def test_galleries_show_play_and_mark_it(
    data_set: DataSetResults, results: ModelResults, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = SearchView(data_set)
    view.body()
    view.model, view.like = "tiny", [[TWO, 3.0, 2]]
    view.opened()
    assert view._answer is not None
    table = view._answer.table
    assert table.loc[0, ["recording", "start", "channel"]].tolist() == [TWO, 3.0, 2]
    heard = sounds_of(view, monkeypatch)
    for place, row in enumerate(table.to_dict("records")):
        expected = TONES[row["channel"] - 1] if row["recording"] == TWO else MONO
        assert heard[place] == pytest.approx(expected, abs=3)
        assert f"channel {row['channel']}" in view.gallery._tiles.items[place]["title"]
    pictures = view.gallery._tiles.pictures
    both = table.index[(table["recording"] == TWO) & (table["start"] == 3.0)].tolist()
    assert len(both) == 2 and pictures[both[0]] != pictures[both[1]]
    place = next(i for i in both if table.loc[i, "channel"] == 2)
    view.gallery._tiles.selected = [place]
    assert view.gallery.chosen == [[TWO, 3.0, 2]]
    view._add("like")
    assert view.like == [[TWO, 3.0, 2]] and "channel 2" in str(view._like.options)
    view.visitor.annotator = "Ana"
    view.gallery._label.value = "hum"
    view.gallery._mark("yes")
    marks = view.gallery._tiles.marks
    assert marks[place] == "✓ hum" and marks[both[1 - both.index(place)]] == ""
    seen: list[int] = []
    view.gallery._on_near = seen.append
    view.gallery._look_near(place)
    assert seen == [rows_of(results, 2)[3]]


def test_the_address_of_a_window_names_it(data_set: DataSetResults, results: ModelResults) -> None:
    row = rows_of(results, 2)[4]
    for kind in (ExploreView, PredictionsView):
        view = kind(data_set)
        view.controls(), view.body()
        view.opened()
        view._show_row(row) if isinstance(view, ExploreView) else view._show_window(row)
        assert (view.recording, view.start, view.channel) == (TWO, 4.0, 2)
        again = kind(data_set, recording=TWO, start=4.0, channel=2)
        again.controls(), again.body()
        again.opened()
        assert again.details.row == row
        assert again.details._player.object is not None
        assert tone(again.details._player.object) == pytest.approx(TONES[1], abs=3)
        assert "channel 2" in again.details._title.object


def test_whole_recordings_are_of_one_channel(results: ModelResults) -> None:
    whole = WholeRecording(Background(), "viridis", SpectrogramSettings())
    whole.show(results, TWO)
    for channel in (1, 2):
        whole._channel.value = channel
        (levels,) = whole._image.data["image"]
        assert whole._channel.visible and levels.any()
        whole._tapped(Tap(model=None, x=2.0, y=1.0))
        assert tone(whole._player.object) == pytest.approx(TONES[channel - 1], abs=3)
        bars = sum(text.startswith("loud") for text in whole._marks.data["text"])
        assert bars == SECONDS  # those of the other channel are not among them
    whole.show(results, "one_20240501_050000.wav")
    assert not whole._channel.visible


def test_a_mix_shows_what_was_said_of_its_channels(
    data_set: DataSetResults, tmp_path: Path
) -> None:
    settings = {"audio_dir": data_set.audio_dir, "main_results_dir": tmp_path / "results"}
    bacpipe.generate_embeddings(
        model_name="tiny",
        CustomModel=TinyModel,
        device="cpu",
        dim_reduction_model="pca",
        **settings,
    )
    said = {"recording": TWO, "start": 3.0, "end": 4.0, "label": "hum", "value": "yes"}
    bacpipe.label_windows(rows=[{**said, "channel": 2}], annotator="Ana", **settings)
    view = SearchView(open_data_set(None, dashboard_port=5361, **settings))
    view.body()
    view.model, view.like = "tiny", [[TWO, 3.0]]
    view.opened()
    assert view._answer is not None and "channel" not in view._answer.table
    assert view.gallery._tiles.marks[0] == "✓ hum"


def test_downloads_name_it(results: ModelResults) -> None:
    table = pd.read_csv(io.BytesIO(as_csv(results, np.arange(len(results)), None).content))
    assert table.groupby("audiofilename")["channel"].max().tolist() == [1, 2]


def test_other_runs_have_no_channels(data_set: DataSetResults, tmp_path: Path) -> None:
    loader = bacpipe.generate_embeddings(
        audio_dir=data_set.audio_dir, model_name="tiny", CustomModel=TinyModel, device="cpu",
        main_results_dir=tmp_path / "results",
    )  # fmt: skip
    mixed = ModelResults(loader)
    assert mixed.place(0) == ["one_20240501_050000.wav", 0.0]
    assert "channel" not in mixed.window_table(np.arange(2))
    whole = WholeRecording(Background(), "viridis", SpectrogramSettings())
    whole.show(mixed, TWO)
    assert not whole._channel.visible
