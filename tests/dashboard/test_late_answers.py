"""What was asked for and then overtaken by another choice never comes to be seen."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import bacpipe
from bacpipe.dashboard.all_models.view import AllModelsView
from bacpipe.dashboard.compare.view import CompareView
from bacpipe.dashboard.explore.view import ExploreView
from bacpipe.dashboard.predictions.detections_by_class import CLASSIFIER
from bacpipe.dashboard.predictions.view import PredictionsView
from bacpipe.dashboard.recordings.view import RecordingsView
from bacpipe.dashboard.review.view import ReviewView
from bacpipe.dashboard.search.view import SearchView
from bacpipe.dashboard.shared.results import DataSetResults
from bacpipe.dashboard.shared.view import View
from bacpipe.dashboard.teach.view import TeachView
from tests.dashboard.conftest import make_small_field
from tests.dashboard.test_controls import NORTH, SOUTH, Room

pytestmark = pytest.mark.usefixtures("late")


@pytest.fixture(scope="module")
def field(tmp_path_factory: pytest.TempPathFactory) -> DataSetResults:
    """Two models without maps, of which one has a recogniser."""
    made = make_small_field(tmp_path_factory.mktemp("late"), 5400, ["tiny", "other"])
    rows = [
        {"recording": name, "start": second, "end": second + 1, "label": "strong", "value": value}
        for name in (NORTH, SOUTH)
        for second, value in ((10, "yes"), (9, "yes"), (0, "no"), (1, "no"))
    ]
    settings: dict[str, Any] = {"main_results_dir": made.options.main_results_dir}
    bacpipe.label_windows(made.audio_dir, rows, "Ben", **settings)
    bacpipe.train_recogniser(made.audio_dir, "tiny", name="strong", **settings)
    return made


@pytest.fixture
def opened(data_set: DataSetResults) -> Iterator[Callable[..., Room]]:
    """Open a view, and let everything arrive that it asks for."""

    def open_view(kind: type[View], of: DataSetResults = data_set, **values: Any) -> Room:
        room = Room(kind, of, **values)
        room.view.background.answer()
        return room

    yield open_view


def test_agreement_of_models_that_are_not_shown_any_more(
    opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bacpipe.dashboard.compare.view._WINDOWS_AT_ONCE", 10)
    room = opened(CompareView, left="tiny", right="other")
    background, text = room.view.background, room.view._agreement._text
    room.press("Compare the neighbourhoods")
    room.choose("Right model", "tiny")
    background.answer("maps")
    background.answer("colours")
    assert room.control("Compare the neighbourhoods").visible
    background.answer()
    assert room.control("Compare the neighbourhoods").visible
    assert "are to be compared" in text.object
    room.press("Compare the neighbourhoods")
    background.answer()
    assert "100 %" in text.object  # of a model with itself


def test_windows_of_another_model_are_not_outlined(opened: Any) -> None:
    room = opened(CompareView, left="tiny", right="other")
    room.view._clicked(0, 13)
    room.choose("Right model", "tiny")
    room.view.background.answer("maps")
    room.view.background.answer()
    assert not len(room.view._maps[1]._picked)


def test_neighbours_of_another_window(opened: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bacpipe.dashboard.explore.neighbour_list._MOST_UNASKED", 10)
    room = opened(ExploreView, model="tiny")
    room.view._show_row(0)
    room.press("Search")
    room.view._show_row(40)
    room.view.background.answer()
    assert not room.control("Most similar windows").options
    room.press("Search")
    room.view.background.answer()
    assert len(room.control("Most similar windows").options) == 12


def test_a_window_that_was_left(opened: Any) -> None:
    room = opened(ExploreView, model="tiny")
    room.view._show_row(0)
    room.view.details.clear()
    room.view.background.answer()
    assert room.view.details._player.object is None
    assert not room.view.details._title.object or room.view.details._cover.object


def test_scores_below_the_maps(opened: Any, field: DataSetResults) -> None:
    room = opened(AllModelsView, field)
    assert "no maps yet" in room.view._content[0].object
    room.choose("Show", "Probes")
    room.choose("Show", "Maps")
    room.view.background.answer()
    assert "no maps yet" in room.view._content[0].object


def test_predictions_of_another_source(opened: Any) -> None:
    room = opened(PredictionsView, model="tiny", species="quiet")
    own, probe = list(room.control("Predicted by").options)[:2]
    room.choose("Predicted by", probe)
    room.choose("Predicted by", own)
    room.view.background.answer()
    assert room.view.source == room.view._detections.source == CLASSIFIER
    assert room.view.species == "quiet"


def test_a_search_for_something_else(opened: Any, field: DataSetResults) -> None:
    room = opened(SearchView, field, model="tiny", like=[[NORTH, 3.0]])
    assert room.view._answer is not None
    room.choose("Windows", "12")
    room.type("From day", "soon")
    room.view.background.answer()
    assert "'soon' is no day" in room.view.notice.sentence
    assert room.view._answer is None and room.control("Download CSV").disabled
    room.type("From day", "")
    room.choose("Model", "other")
    room.view.background.answer("search")
    assert room.view._answer is None
    room.view.background.answer()
    assert room.view.gallery._results.name == "other"


def test_what_is_said_of_a_recogniser_that_was_left(opened: Any, field: DataSetResults) -> None:
    room = opened(TeachView, field, model="tiny")
    assert "learnt strong" in room.view._state.object and room.view._next.visible
    room.choose("Windows", "24")
    room.choose("Model", "other")
    room.view.background.answer("lesson")
    room.view.background.answer()
    assert "No recogniser of this model" in room.view._state.object
    assert not room.view._next.visible and not room.view._quality.objects
    assert not room.view.gallery._all.visible


def test_labels_that_are_counted_for_another_model(opened: Any, field: DataSetResults) -> None:
    room = opened(TeachView, field, model="tiny")
    room.view._marked()
    room.choose("Model", "other")
    room.view.background.answer("lesson")
    room.view.background.answer("recount")
    assert room.view._lesson.results.name == "other"


def test_clips_with_other_seconds_around(opened: Any, field: DataSetResults) -> None:
    room = opened(ReviewView, field, model="tiny", label="loud")
    panel, told = room.view.desk.panel, list[dict[str, Any]]()
    panel.tell = told.append
    panel._handle_msg({"type": "ready"})
    room.view.background.answer()
    want = {"type": "want", "ticket": told[-1]["ticket"], "indices": [2]}
    panel._handle_msg(want)
    room.choose("Seconds around", "3 s")
    room.view.background.answer()
    assert [message["type"] for message in told].count("clip") == 0
    panel._handle_msg(want)
    room.view.background.answer()
    (card,) = (message["card"] for message in told if message["type"] == "clip")
    assert card["from"] == max(0, card["start"] - 3)


def test_the_section_of_another_recording(opened: Any) -> None:
    room = opened(RecordingsView, part="whole")
    whole = room.view._whole_recording
    second = room.control("Recording").options[1]
    whole._tapped(type("Tap", (), {"x": 2.0})())
    room.choose("Recording", second)
    room.view.background.answer()
    assert second in whole._title.object and whole._player.object is None
