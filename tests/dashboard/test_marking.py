"""What visitors mark in galleries and on the map: the right windows, with the right score."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import bacpipe
from bacpipe.dashboard.explore.view import ExploreView
from bacpipe.dashboard.predictions.view import PredictionsView
from bacpipe.dashboard.search.view import SearchView
from bacpipe.dashboard.shared.results import DataSetResults
from bacpipe.dashboard.shared.to_review import ClipsToReview
from bacpipe.options import with_changes
from tests.dashboard.conftest import LateBackground, make_small_field

RECORDING = "north/rec_20240501_040000.wav"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> DataSetResults:
    return make_small_field(tmp_path_factory.mktemp("marking"), 5390, reducer="pca")


@pytest.fixture
def data_set(made: DataSetResults) -> DataSetResults:
    """Results for which nobody has labelled anything."""
    for path in Path(made.options.main_results_dir).glob("*/labels"):
        shutil.rmtree(path)
    return made


def labels_of(data_set: DataSetResults) -> pd.DataFrame:
    return bacpipe.people_labels(
        data_set.audio_dir, main_results_dir=data_set.options.main_results_dir
    )


def searching(data_set: DataSetResults) -> tuple[SearchView, list[ClipsToReview]]:
    """A search whose visitor is Ana, and what she sends to Review."""
    view, sent = SearchView(data_set), []
    view.visitor.annotator = "Ana"
    view._review = sent.append
    view.body()
    view.model, view.like = "tiny", [[RECORDING, 3.0]]
    view.opened()
    return view, sent


def exploring(data_set: DataSetResults, **values: Any) -> ExploreView:
    view = ExploreView(data_set, **values)
    view.visitor.annotator = "Ana"
    view.controls()
    view.body()
    view.opened()
    return view


def type_label(gallery: Any, text: str) -> None:
    gallery._label._process_events({"value_input": text})


def test_the_map_labels_nothing_without_edit(data_set: DataSetResults) -> None:
    options = with_changes(data_set.options, edit=False)
    view = exploring(DataSetResults(data_set.audio_dir, data_set.models, options))
    view._select(np.array([0, 1]))
    # What a browser can say that nobody has asked.
    view.labelling._give._process_events({"disabled": False})
    view.labelling._label.value = "owl"
    view.labelling._give.clicks += 1
    assert labels_of(data_set).empty
    assert "without edit" in view.labelling._note.object


def test_a_group_is_taken_as_far_as_it_is_shown(data_set: DataSetResults) -> None:
    view = exploring(data_set, colour="default_classifier", file="south")
    content = view._content
    assert content is not None and content.labels is not None
    name = content.labels.names[0]
    of_group = content.labels.codes == 0
    assert of_group.any() and (of_group & ~content.shown).any()
    view.labelling._groups.value = name
    view.labelling._label.value = "owl"
    view.labelling._give.clicks += 1
    labels = labels_of(data_set)
    assert len(labels) == (of_group & content.shown).sum()
    assert set(labels["recording"].str.split("/").str[0]) == {"south"}
    assert set(labels["chosen_by"]) == {"default_classifier"}
    view._select(np.flatnonzero(content.shown)[:1])  # with the lasso
    view.labelling._label.value = "wren"
    view.labelling._give.clicks += 1
    labels = labels_of(data_set)
    assert labels.loc[labels["label"] == "wren", "chosen_by"].tolist() == ["map"]


def test_a_label_of_the_list_is_stored_as_the_list_has_it(data_set: DataSetResults) -> None:
    gallery = searching(data_set)[0].gallery
    gallery._tiles.selected = [0]
    gallery._label._process_events({"value_input": "wr"})
    gallery._label._process_events({"value": "wren"})
    gallery._mark("yes")
    gallery._tiles.selected = [0]
    type_label(gallery, "wren, young")
    gallery._mark("yes")
    assert sorted(labels_of(data_set)["label"]) == ["wren", "wren, young"]


def test_a_score_is_kept_with_its_own_class_only(data_set: DataSetResults) -> None:
    view, sent = searching(data_set)
    assert view._answer is not None
    table = view._answer.table.set_index(["recording", "start"])
    best = table["label"].iloc[0]
    other = {"loud": "quiet", "quiet": "loud"}[best]
    for label in (best, other):
        type_label(view.gallery, label)
        view.gallery._tiles.selected = [0]
        view.gallery._mark("yes")
        view.gallery._send_to_review()
    labels = labels_of(data_set).set_index("label")
    assert labels.loc[best, "score"] == pytest.approx(table["score"].iloc[0])
    assert labels.loc[best, "model"] == "tiny"
    assert np.isnan(labels.loc[other, "score"])
    scores = table["score"].to_numpy()
    for clips, label in zip(sent, (best, other), strict=True):
        assert clips.label == label and clips.scores is not None
        expected = np.where(table["label"] == label, scores, np.nan)
        np.testing.assert_allclose(clips.scores, expected)


def test_review_asks_no_class_that_nobody_has_typed(data_set: DataSetResults) -> None:
    view, sent = searching(data_set)
    view.gallery._send_to_review()
    assert (sent[0].label, sent[0].scores) == ("", None)


def test_scores_of_a_recogniser_are_its_own(data_set: DataSetResults) -> None:
    settings = {"main_results_dir": data_set.options.main_results_dir}
    rows = [
        {"recording": RECORDING, "start": second, "end": second + 1, "label": "lark",
         "value": "yes" if second < 6 else "no"}
        for second in range(12)
    ]  # fmt: skip
    bacpipe.label_windows(data_set.audio_dir, rows, annotator="Ben", **settings)
    bacpipe.train_recogniser(data_set.audio_dir, "tiny", name="larks", **settings)
    try:
        view, sent = searching(data_set)
        view.param.update(by="recogniser", recogniser="larks")
        assert view._answer is not None
        view.gallery._send_to_review()
        assert (sent[0].label, sent[0].scored_by) == ("lark", "larks")
        expected = 1 / (1 + np.exp(-view._answer.table["similarity"]))
        np.testing.assert_allclose(sent[0].scores, expected)

        predictions = PredictionsView(data_set, source="recogniser_larks")
        predictions.visitor.annotator = "Ana"
        predictions.controls()
        predictions.body()
        predictions.opened()
        predictions._show_gallery()
        gallery = predictions.gallery
        for label in ("lark", "quiet"):
            type_label(gallery, label)
            gallery._tiles.selected = [0]
            gallery._mark("yes")
        labels = labels_of(data_set)
        mine = labels[labels["annotator"] == "Ana"].set_index("label")
        assert mine.loc["lark", "model"] == "larks" and mine.loc["lark", "score"] > 0
        assert np.isnan(mine.loc["quiet", "score"])
    finally:
        for path in Path(data_set.options.main_results_dir).glob("*/recognisers"):
            shutil.rmtree(path)


def test_sounds_and_marks_stay_with_their_page(data_set: DataSetResults) -> None:
    view, _ = searching(data_set)
    gallery = view.gallery
    gallery._size.value = 12
    gallery._background = later = LateBackground()
    told: list[dict[str, Any]] = []
    gallery._tiles._send_msg = told.append
    asked = gallery._tiles.round
    gallery._tiles._handle_msg({"play": 0, "round": asked})
    gallery._tiles.selected = [0, 1]
    type_label(gallery, "fox")
    gallery._mark("yes")
    gallery._turn(1)
    gallery._tiles.selected = [3]
    for what in ("sound", "store", "labels"):
        later.answer(f"{gallery._key}-{what}")
    # A browser takes what is of the round that it shows.
    assert gallery._tiles.round not in [message["round"] for message in told]
    assert set(gallery._tiles.marks) == {""}
    assert gallery._tiles.selected == [3]
    gallery._turn(-1)
    later.answer(f"{gallery._key}-labels")
    assert gallery._tiles.marks[:3] == ["✓ fox", "✓ fox", ""]


def test_undo_takes_back_what_was_new(data_set: DataSetResults) -> None:
    gallery = searching(data_set)[0].gallery
    type_label(gallery, "kite")
    gallery._tiles.selected = [0]
    gallery._mark("yes")  # in an earlier session
    gallery._tiles.selected = [0, 1, 2]
    gallery._mark("yes")
    assert len(labels_of(data_set)) == 3
    gallery._take_back()
    assert gallery._tiles.marks[:3] == ["✓ kite", "", ""]
    assert len(labels_of(data_set)) == 1
