"""Teach: labels become a recogniser in the page, and its detections are in Predictions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import bacpipe
from bacpipe.dashboard.server import Server, open_data_set
from bacpipe.dashboard.shared.recognisers import recogniser_of, recognisers_of
from bacpipe.dashboard.shared.results import DataSetResults
from bacpipe.dashboard.shared.view import Visitor
from bacpipe.dashboard.teach.view import TeachView
from bacpipe.errors import RecogniserError
from bacpipe.recognisers.learning_curve import SHARES, learning_curve
from tests.dashboard.conftest import eventually, make_small_field

TILES = "ul.bp-tiles li"


@pytest.fixture(scope="module")
def data_set(tmp_path_factory: pytest.TempPathFactory) -> DataSetResults:
    """Windows at the end of two recordings are labelled 'strong', those at the begin are not."""
    made = make_small_field(tmp_path_factory.mktemp("teach"), 5360)
    rows = [
        {"recording": f"{site}/rec_20240501_{hour}0000.wav", "start": second, "end": second + 1,
         "label": "strong", "value": value}
        for site, hour in (("north", "04"), ("south", "18"))
        for second, value in ((10, "yes"), (9, "yes"), (8, "yes"), (0, "no"), (1, "no"))
    ]  # fmt: skip
    results_dir = made.options.main_results_dir
    assert bacpipe.label_windows(made.audio_dir, rows, "Ana", main_results_dir=results_dir) == 10
    return made


@pytest.fixture(scope="module")
def server(data_set: DataSetResults) -> Iterator[Server]:
    running = Server(data_set)
    running.start(show=False)
    yield running
    running.stop()


def test_ten_labels_become_a_recogniser_and_its_detections(
    visit: Any, data_set: DataSetResults
) -> None:
    page = visit("?view=teach")
    page.locator(".bp-counts td", has_text="strong").wait_for()
    page.get_by_role("button", name="Train", exact=True).click()
    page.get_by_text("6 is, 4 is not").wait_for()
    page.get_by_text("Precision and recall at").wait_for()
    results = data_set.model("tiny")
    recogniser = recogniser_of(results, "strong")
    assert recogniser.classes == ("strong",)

    # What it proposes is not labelled yet; marking it counts as new labels.
    page.wait_for_selector(f"{TILES} img[src^=data]")
    page.locator(f"{TILES} input").first.check()
    page.get_by_role("button", name="✗ is not").click()
    page.get_by_role("button", name="Train again (1 new label)").click()
    page.get_by_text("6 is, 5 is not").wait_for()

    page.get_by_role("button", name="Apply to all recordings").click()
    scores = recogniser_of(results, "strong").predict(results.loader)
    found = int((scores >= 0.5).sum())
    assert 0 < found < len(scores)
    page.get_by_text(f"strong in {found} windows").wait_for()
    page.get_by_text("Show them in Predictions").click()
    page.get_by_text("recogniser strong").first.wait_for(state="attached")
    eventually(
        page,
        lambda: page.locator(".bp-count >> visible=true").first.inner_text(),
        str(found),
    )


def test_who_may_teach(data_set: DataSetResults) -> None:
    def teach(view: TeachView, annotator: str) -> str:
        view.put_on_page(Visitor(annotator=annotator))
        view.controls(), view.body()
        view.opened()
        eventually(None, lambda: view._lesson is not None)
        view._name.value = f"by_{annotator.strip().lower()}"
        view._train.clicks += 1
        return view.notice.panel.object

    known = set(recognisers_of(data_set.model("tiny")))
    assert "type your name" in teach(TeachView(data_set), " ")
    assert set(recognisers_of(data_set.model("tiny"))) == known
    closed = open_data_set(
        None, audio_dir=data_set.audio_dir, dashboard_port=5361, edit=False,
        main_results_dir=data_set.options.main_results_dir,
    )  # fmt: skip
    assert "type your name" not in teach(TeachView(closed), "Ben")
    assert set(recognisers_of(data_set.model("tiny"))) == known
    teach(TeachView(data_set), "Ana")
    eventually(None, lambda: "by_ana" in recognisers_of(data_set.model("tiny")))
    assert set(recognisers_of(data_set.model("tiny"))) == {*known, "by_ana"}


def test_an_answer_to_a_click_stays_when_labels_come(data_set: DataSetResults) -> None:
    view = TeachView(data_set)
    view.put_on_page(Visitor(annotator="Ana"))
    view.controls(), view.body()
    view.opened()
    eventually(None, lambda: view._lesson is not None)
    lesson, view._lesson = view._lesson, None
    assert lesson is not None
    view._train.clicks += 1
    assert "not read yet" in view.notice.panel.object
    view.visitor.annotator = ""
    view._train.clicks += 1
    assert "type your name" in view.notice.panel.object
    view._take(lesson, "")
    assert "type your name" in view.notice.panel.object


def test_the_curve_ends_where_all_labels_are_judged(data_set: DataSetResults) -> None:
    loader = data_set.model("tiny").loader
    recogniser = bacpipe.train_recogniser(
        data_set.audio_dir, "tiny", name="curve", loader=loader, classes=["strong"]
    )
    curve = learning_curve(recogniser, loader)
    assert curve["share"].tolist() == list(SHARES)
    whole = recogniser.evaluate(loader).iloc[0]
    last = curve.iloc[-1]
    assert last["labels"] == whole["present"] + whole["absent"]
    for name in ("average_precision", "roc_auc", "precision", "recall"):
        assert np.isclose(last[name], whole[name], equal_nan=True)
    only_yes = bacpipe.people_labels(
        data_set.audio_dir, main_results_dir=data_set.options.main_results_dir
    ).query("value == 'yes'")
    with pytest.raises(RecogniserError, match="not heard"):
        learning_curve(recogniser, loader, only_yes)
