from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import panel as pn
import pytest
from bokeh.models import Segment

from bacpipe.dashboard.all_models.charts import SmallMap, score_chart, with_common_colours
from bacpipe.dashboard.all_models.view import AllModelsView
from bacpipe.dashboard.server import open_data_set
from bacpipe.dashboard.shared.labels import WindowLabels
from bacpipe.dashboard.shared.widgets import download_button
from bacpipe.evaluation.comparison import StoredScores, stored_scores
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


def test_nothing_that_is_downloaded_is_a_formula() -> None:
    table = pd.DataFrame(
        {"=site": ["+1", "'=x", "a"], "mixed": [-1.5, "-x", None], "n": [-1, 2, 3]}
    )
    found = pd.read_csv(download_button(table, "x.csv").callback())
    assert found.columns.tolist() == ["'=site", "mixed", "n"]
    assert found["'=site"].tolist() == ["'+1", "''=x", "a"]
    assert found["mixed"].tolist()[:2] == ["-1.5", "'-x"] and found["n"].tolist() == [-1, 2, 3]


def test_a_ranking_says_how_little_it_rests_on(results: tuple[Path, Path]) -> None:
    audio, stored = results
    view = AllModelsView(open_data_set(["tiny", "other"], audio_dir=audio, main_results_dir=stored))
    scores = stored_scores({m.name: m.loader.paths for m in view._models}, "species")
    told = [str(pane.object) for pane in view._scores("probing", scores) if hasattr(pane, "object")]
    number = int(scores.tables["probing"]["test_recordings"].min())
    assert any("Scores rest on" in text for text in told) == (number < 5)


def whiskers(parts: list[Any]) -> dict[str, list[tuple[float, float, float]]]:
    """Low end, score and high end of what is drawn, by the title of the panel."""
    drawn: dict[str, list[tuple[float, float, float]]] = {}
    for row in parts:
        for pane in row if isinstance(row, pn.Row) else ():
            lines = [each for each in pane.object.renderers if isinstance(each.glyph, Segment)]
            for data in (each.data_source.data for each in lines):
                ends = zip(data["low"], data["score"], data["high"], strict=True)
                drawn.setdefault(pane.object.title.text, []).extend(ends)
            assert len(lines) > 0 and all(
                (each.glyph.x0, each.glyph.x1) == ("low", "high") for each in lines
            )
    return drawn


def test_charts_of_scores_have_whiskers_where_there_are_intervals(
    results: tuple[Path, Path],
) -> None:
    table = pd.DataFrame(
        {
            "model": ["good", "bad"],
            "probe": "linear",
            "f1_macro": [0.8, 0.4],
            "f1_macro_low": [0.7, np.nan],
            "f1_macro_high": [0.9, np.nan],
            "accuracy": [0.6, 0.5],
        }
    )
    panels = [("f1_macro", "F1"), ("accuracy", "accuracy")]
    drawn = whiskers([score_chart(table, "probe", panels, {})])
    np.testing.assert_equal(drawn["F1"], [(0.7, 0.8, 0.9), (np.nan, 0.4, np.nan)])
    assert drawn["accuracy"] == [(0.6, 0.6, 0.6), (0.5, 0.5, 0.5)]  # of no length

    audio, stored = results
    view = AllModelsView(open_data_set(["tiny"], audio_dir=audio, main_results_dir=stored))
    clusterings = pd.DataFrame(
        {
            "model": ["good", "good", "bad", "bad"],
            "clustering": "kmeans",
            "label": ["ground_truth", "parent_directory"] * 2,
            "AMI": [0.6, 0.1, 0.3, 0.2],
            "AMI_low": [0.5, np.nan, 0.2, np.nan],
            "AMI_high": [0.7, np.nan, 0.4, np.nan],
        }
    )
    scores = StoredScores("species", {"clustering": clusterings}, {"clustering": {}})
    drawn = whiskers(view._scores("clustering", scores))
    assert drawn["annotations"] == [(0.5, 0.6, 0.7), (0.2, 0.3, 0.4)]
    assert drawn["parent directory"] == [(0.1, 0.1, 0.1), (0.2, 0.2, 0.2)]
