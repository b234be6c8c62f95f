from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bacpipe.dashboard.all_models.charts import SmallMap, with_common_colours
from bacpipe.dashboard.all_models.view import AllModelsView
from bacpipe.dashboard.server import open_data_set
from bacpipe.dashboard.shared.labels import WindowLabels
from bacpipe.dashboard.shared.widgets import download_button
from bacpipe.evaluation.comparison import stored_scores
from tests.dashboard.conftest import HOSTILE_LABEL, eventually


def test_it_opens_with_the_maps_of_all_models(visit: Any) -> None:
    page = visit("?view=models")
    page.wait_for_selector(".bp-legend")
    page.get_by_text("144 windows").wait_for()
    eventually(page, page.locator(".bk-Figure").count, 2)
    page.locator(".bp-legend", has_text=HOSTILE_LABEL).wait_for()
    assert page.evaluate("window.hacked") is None


def test_the_colour_goes_to_the_address(visit: Any) -> None:
    page = visit("?view=models")
    page.wait_for_selector(".bp-legend")
    page.get_by_label("Colour", exact=True).select_option("Folder")
    page.wait_for_url("**all_colour=parent_directory**")
    page.get_by_text("site2").first.wait_for()


@pytest.mark.parametrize(
    ("part", "heading", "cell"),
    [("clustering", "AMI", "kmeans"), ("probing", "F1 (mean over labels)", "linear"),
     ("retrieval", "neighbours with the same label", "tiny")],
)  # fmt: skip
def test_scores_are_drawn_and_in_a_table_that_downloads(
    visit: Any, part: str, heading: str, cell: str
) -> None:
    page = visit(f"?view=models&part={part}")
    page.locator(".tabulator-col-title", has_text=heading).first.wait_for()
    page.locator(".tabulator-cell", has_text=cell).first.wait_for()
    eventually(page, lambda: page.locator(".bk-Figure").count() >= 2)
    with page.expect_download() as download:
        page.get_by_text("Download as CSV").click()
    table = pd.read_csv(download.value.path())
    assert download.value.suggested_filename == f"field_{part}.csv"
    assert set(table["model"]) == {"tiny", "other"}


def test_models_without_results_are_named_and_hide_nothing(results: tuple[Path, Path]) -> None:
    audio, stored = results
    data_set = open_data_set(["tiny", "birdnet"], audio_dir=audio, main_results_dir=stored)
    view = AllModelsView(data_set)
    view.controls(), view.body()
    view.opened()
    for part in ("maps", "clustering", "probing", "retrieval"):
        view.part = part
        texts = [getattr(item, "object", "") for item in view._content.objects]
        assert any("birdnet (no results)" in str(text) for text in texts), part
        assert len(texts) > 2


def test_without_evaluations_it_says_how_to_make_them(results: tuple[Path, Path]) -> None:
    audio, stored = results
    data_set = open_data_set(
        ["tiny"], audio_dir=audio, main_results_dir=stored, evaluations_dir="elsewhere"
    )
    view = AllModelsView(data_set, part="probing")
    view.opened()
    assert "evaluation_task: [probing]" in view._content.objects[0].object


def test_times_of_thousands_of_windows_need_few_colours() -> None:
    names = tuple(f"2024-05-01 00:{i // 60:02}:{i % 60:02}" for i in range(1500))
    labels = WindowLabels("continuous_timestamp", np.arange(1500, dtype=np.int32), names, True)
    item = SmallMap("tiny", np.zeros((1500, 2), np.float32), labels, 1500)
    (found,), colours = with_common_colours([item])
    assert len(colours) == len(found.labels.names) <= 257
    assert found.labels.codes.max() < len(colours)
    assert (np.diff(found.labels.codes) >= 0).all()
    assert found.labels.names[0] == names[0] and found.labels.names[-1] == names[-1]


def test_a_table_downloads_as_it_is() -> None:
    table = pd.DataFrame({"name": ['a,"b"', HOSTILE_LABEL], "score": [0.1, np.nan]})
    content = download_button(table, "x.csv").callback()
    assert isinstance(content, io.BytesIO)
    pd.testing.assert_frame_equal(pd.read_csv(content), table)


def test_a_ranking_says_how_little_it_rests_on(results: tuple[Path, Path]) -> None:
    audio, stored = results
    view = AllModelsView(open_data_set(["tiny", "other"], audio_dir=audio, main_results_dir=stored))
    scores = stored_scores({m.name: m.loader.paths for m in view._models}, "species")
    told = [str(pane.object) for pane in view._scores("probing", scores) if hasattr(pane, "object")]
    number = int(scores.tables["probing"]["test_recordings"].min())
    assert any("Scores rest on" in text for text in told) == (number < 5)
