"""A run between two clicks, or a recording that was replaced: nobody is shown another sound."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import bacpipe
from bacpipe.dashboard.background import Background
from bacpipe.dashboard.recordings.whole_recording import WholeRecording
from bacpipe.dashboard.review.clip_card import clip_card
from bacpipe.dashboard.review.precision import PrecisionPanel
from bacpipe.dashboard.review.queue import BEST, NOBODY, Asked, make_queue, queue_of
from bacpipe.dashboard.search.view import SearchView
from bacpipe.dashboard.server import open_data_set
from bacpipe.dashboard.shared.export import as_clips
from bacpipe.dashboard.shared.results import DataSetResults, ModelResults
from bacpipe.dashboard.shared.spectrogram_figure import SpectrogramSettings
from bacpipe.dashboard.shared.to_review import ClipsToReview
from bacpipe.dashboard.shared.window_details import WindowDetails
from tests.conftest import TinyModel, write_recording

OLD, NEW = "b_20240501_050000.wav", "a_20240501_040000.wav"
CHANGED = f"{OLD} has changed since tiny heard it"


def run_tiny(base: Path) -> DataSetResults:
    places: dict[str, Any] = {"audio_dir": base / "field", "main_results_dir": base / "results"}
    bacpipe.play(models=["tiny"], CustomModels=[TinyModel], device="cpu",
                 classifier_threshold=0.01, **places)  # fmt: skip
    return open_data_set(["tiny"], dashboard_port=5390, **places)


@pytest.fixture
def data_set(tmp_path: Path) -> DataSetResults:
    write_recording(tmp_path / "field" / OLD, 6, seed=1)
    write_recording(tmp_path / "field" / "c_20240501_060000.wav", 6, seed=2)
    return run_tiny(tmp_path)


def test_clips_that_were_sent_are_the_same_after_a_run(
    data_set: DataSetResults, tmp_path: Path
) -> None:
    before = data_set.model("tiny")
    rows = np.array([3, 8, 0])
    by_row = ClipsToReview(before, rows, "these", "loud", np.array([0.3, 0.8, 0.1]))
    table = before.window_table(rows).rename(columns={"audiofilename": "recording"})
    table = table.assign(score=[0.3, 0.8, 0.1])
    sent = [by_row, ClipsToReview.of_table(before, table, "these", "loud")]
    write_recording(tmp_path / "field" / NEW, 4, seed=3)  # goes before all others
    run_tiny(tmp_path)
    now = data_set.model("tiny")
    assert now is not before and now.window(int(rows[0])) != before.window(int(rows[0]))
    for clips in sent:
        queue = queue_of(now, clips)
        assert [*map(now.window, queue.rows)] == [*map(before.window, rows)]
        assert queue.scores.tolist() == [0.3, 0.8, 0.1]
        assert queue.title == "these"


def test_clips_that_are_gone_after_a_run_are_told(data_set: DataSetResults, tmp_path: Path) -> None:
    before = data_set.model("tiny")
    clips = ClipsToReview(before, np.array([3, 8]), "these", scores=np.array([0.3, 0.8]))
    (tmp_path / "field" / OLD).unlink()
    run_tiny(tmp_path)
    now = data_set.model("tiny")
    queue = queue_of(now, clips)
    assert [*map(now.window, queue.rows)] == [before.window(8)]
    assert queue.scores.tolist() == [0.8]
    assert queue.title == "these (1 other clip left out: no window of tiny any more)"


@pytest.fixture
def replaced(data_set: DataSetResults, tmp_path: Path) -> ModelResults:
    """Results of two recordings, of which one has become another one since."""
    write_recording(tmp_path / "field" / OLD, 6, seed=77)
    return data_set.model("tiny")


def test_a_recording_that_was_replaced_is_named_wherever_it_is_shown(
    data_set: DataSetResults, replaced: ModelResults
) -> None:
    details = WindowDetails(data_set, Background())
    details.show(replaced, 0)
    assert CHANGED in details.problem and "run the model again" in details.problem
    details.show(replaced, 7)
    assert details.problem == ""

    queue = make_queue(replaced, Asked("tiny", "", "loud", BEST, NOBODY, ""))
    for place, row in enumerate(queue.rows.tolist()):
        card = clip_card(queue, place, 0.0, SpectrogramSettings())
        assert (CHANGED in card["remark"]) == (row < 6) and card["levels"]

    whole = WholeRecording(Background(), "viridis", SpectrogramSettings())
    whole.show(replaced, OLD)
    assert CHANGED in whole._notice.sentence

    search = SearchView(data_set)
    search.controls(), search.body()
    search.model, search.like = "tiny", [["c_20240501_060000.wav", 3.0]]
    search.opened()
    assert CHANGED in search.gallery._problem.sentence

    assert CHANGED in as_clips(replaced, np.array([0, 7]), None).remark
    assert as_clips(replaced, np.array([7, 8]), None).remark == ""


def test_marks_of_another_sound_are_said_to_count_for_nothing(
    replaced: ModelResults, caplog: pytest.LogCaptureFixture
) -> None:
    queue = make_queue(replaced, Asked("tiny", "", "loud", BEST, NOBODY, ""))
    audio, where = replaced.loader.audio_dir, replaced.settings
    of_changed = [place for place, row in enumerate(queue.rows.tolist()) if row < 6]
    others = [place for place, row in enumerate(queue.rows.tolist()) if row >= 6]

    def mark(places: list[int]) -> str:
        judged = [queue.judgement(place, "loud", "yes", "Ana") for place in places]
        bacpipe.label_windows(audio, pd.DataFrame(judged), **where)
        panel = PrecisionPanel(Background())
        panel.show(queue)
        return str(panel._words.object)

    said = mark(of_changed[:2])
    assert (
        f"labels of 1 recording left out, which have changed since the model heard them: {OLD}"
        in said
    )
    said = mark(others[:3])
    assert (
        "3</span> marked are right" in said and f"changed since the model heard them: {OLD}" in said
    )
    assert not [record for record in caplog.records if "left out" in record.message]
