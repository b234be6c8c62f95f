"""Predictions: species, threshold, heat map, detections to see and hear, files to take home."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest

from bacpipe.dashboard.predictions.detections_by_class import (
    CLASSIFIER,
    read_detections,
    same_class,
    sources,
)
from bacpipe.dashboard.predictions.view import PredictionsView
from bacpipe.dashboard.shared.results import DataSetResults
from bacpipe.exports.raven import RAVEN_COLUMNS
from tests.dashboard.conftest import HOSTILE_LABEL, eventually, gesture

COUNT = ".bp-count >> visible=true"


def open_view(visit: Any, query: str = "", **size: int) -> Any:
    page = visit(f"?view=predictions{query}", **size)
    page.wait_for_selector(COUNT)
    page.wait_for_selector(".tabulator-row >> nth=1")
    return page


def detections(page: Any, side: int = 0) -> int:
    return int(page.locator(COUNT).nth(3 * side).inner_text().replace(",", ""))


def drawn(page: Any) -> float:
    """Detections in the cells of the heat map that the browser has."""
    return float(
        page.evaluate(
            """() => {
                let sum = 0;
                for (const document of Bokeh.documents)
                    for (const model of document._all_models.values())
                        if (model.data?.hours?.length && model.data?.count?.length)
                            for (const value of model.data.count[0]) sum += value;
                return sum;
            }"""
        )
    )


def query_of(page: Any) -> dict[str, str]:
    return {key: value[0] for key, value in parse_qs(urlsplit(page.url).query).items()}


def rows_of(page: Any) -> Any:
    """Rows of the list of detections, below those of the list of species."""
    return page.locator(".tabulator >> visible=true").nth(1).locator(".tabulator-row")


def test_the_threshold_changes_counts_heat_map_and_list(
    visit: Any, data_set: DataSetResults
) -> None:
    page = open_view(visit, "&model=tiny&species=quiet")
    # What is usual for these results is not what is usual for others: the address has it.
    page.wait_for_function("location.search.includes('threshold=0.3')")
    found = read_detections(data_set.model("tiny"), CLASSIFIER)
    before = len(found.of("quiet")[0])
    eventually(page, lambda: detections(page), before)
    eventually(page, lambda: drawn(page), before)
    track = page.locator(".noUi-base >> visible=true")
    gesture(
        page,
        track.bounding_box,
        lambda at: page.mouse.click(at["x"] + 0.6 * at["width"], at["y"] + at["height"] / 2),
        lambda: query_of(page)["threshold"] != "0.3",
    )
    threshold = float(query_of(page)["threshold"])
    expected = len(found.of("quiet", threshold)[0])
    assert 0 < expected < before
    eventually(page, lambda: detections(page), expected)
    eventually(page, lambda: drawn(page), expected)

    def sorted_above() -> bool:
        cells = rows_of(page).locator("[tabulator-field=score]").all_inner_texts()
        scores = [float(text) for text in cells]
        above = all(score >= threshold - 5e-4 for score in scores)
        return bool(scores) and above and scores == sorted(scores, reverse=True)

    eventually(page, sorted_above)


def test_a_click_on_a_detection_shows_and_plays_it(visit: Any) -> None:
    page = open_view(visit, "&model=tiny&species=quiet")
    rows_of(page).nth(2).click()
    page.wait_for_function("location.search.includes('recording=')")
    audio = page.locator("audio[src^='data:audio/wav']")
    audio.wait_for(state="attached")
    page.wait_for_function(
        """() => [...Bokeh.documents].some(document => [...document._all_models.values()].some(
            model => model.type === 'ImageRGBA' || model.type === 'Image'))"""
    )
    page.wait_for_selector(".bp-when:has-text('quiet'):has-text('clock')")  # it comes after it
    shown = page.locator(".bp-when >> visible=true").first.inner_text()
    again = open_view(visit, f"&{urlsplit(page.url).query}")  # it is in the address
    eventually(again, again.locator(".bp-when >> visible=true").first.inner_text, shown)


def test_of_a_long_name_the_end_is_seen_and_the_rest_when_pointed_at(visit: Any) -> None:
    page = open_view(visit, "&model=tiny&species=quiet", width=920)
    cell = rows_of(page).first.locator("[tabulator-field=recording]")
    name = cell.locator("bdi")
    measured = """(cell) => {
        const [text, box] = [cell.querySelector("bdi"), cell.getBoundingClientRect()];
        const shown = text.getBoundingClientRect();
        return [shown.width > box.width, shown.right <= box.right];
    }"""
    eventually(page, lambda: cell.evaluate(measured), [True, True])
    eventually(page, lambda: name.text_content().endswith("0000.wav"))
    eventually(page, lambda: name.get_attribute("title") == name.text_content())


def test_a_click_is_not_lost_while_another_widget_changes(visit: Any) -> None:
    page = open_view(visit, "&model=tiny&species=quiet")
    rows_of(page).nth(0).click()
    page.wait_for_selector(".bp-when:has-text('quiet')")  # with a picture, which goes away
    loud = page.locator(".tabulator >> visible=true").nth(0).get_by_text("loud", exact=True)
    loud.element_handle().evaluate(
        """row => {
            for (const document of Bokeh.documents)
                for (const model of document._all_models.values())
                    if (model.options?.includes?.('magma')) model.value = 'Greys (for print)';
            row.click();
        }"""
    )
    page.wait_for_selector(".bp-window-title:has-text('loud') >> visible=true")


def test_a_hostile_species_of_a_probe_is_text(visit: Any) -> None:
    page = open_view(visit, "&model=tiny&source=probe_linear")
    species = (
        page.locator(".tabulator >> visible=true")
        .nth(0)
        .locator("[tabulator-field=species]:not(.tabulator-col)")
    )
    eventually(page, lambda: {"wren", HOSTILE_LABEL} <= set(species.all_inner_texts()))
    names = species.all_inner_texts()
    for name in ("wren", HOSTILE_LABEL):
        species.nth(names.index(name)).click()
        page.wait_for_selector(f".bp-window-title:has-text({name!r}) >> visible=true")
    rows_of(page).nth(0).click()
    page.wait_for_selector(".bp-when:has-text('onerror')")
    assert page.evaluate("window.hacked") is None
    page.wait_for_function("location.search.includes('onerror')")
    eventually(page, lambda: query_of(page)["species"], HOSTILE_LABEL)


def test_downloads_hold_the_detections_above_the_threshold(
    visit: Any, data_set: DataSetResults, tmp_path: Path
) -> None:
    page = open_view(visit, "&model=other&species=quiet&threshold=0.6")
    shown = len(read_detections(data_set.model("other"), CLASSIFIER).of("quiet", 0.6)[0])
    eventually(page, lambda: detections(page), shown)
    contents = {}
    for title in ("CSV", "Raven"):
        with page.expect_download() as started:
            page.get_by_text(f"Download {title}").click()
        started.value.save_as(tmp_path / title)
        contents[title] = (tmp_path / title).read_text(encoding="utf-8")
        assert started.value.suggested_filename.startswith("other_quiet.")
    table = list(csv.DictReader(io.StringIO(contents["CSV"])))
    assert len(table) == shown > 0
    assert {row["label:species"] for row in table} == {"quiet"}
    assert min(float(row["score"]) for row in table) >= 0.6 - 1e-6
    raven = list(csv.DictReader(io.StringIO(contents["Raven"]), delimiter="\t"))
    assert list(raven[0]) == list(RAVEN_COLUMNS)
    assert len(raven) == shown
    offsets = [float(row["File Offset (s)"]) for row in raven]
    assert offsets == pytest.approx([float(row["start"]) for row in table])
    begins = [float(row["Begin Time (s)"]) for row in raven]
    assert begins == sorted(begins) and begins[-1] > 12 * 5


def test_two_models_beside_each_other_and_the_address_restores_it(visit: Any) -> None:
    query = "&model=tiny&species=quiet&threshold=0.5&other=other/classifier&by=day_week"
    page = open_view(visit, query)
    page.wait_for_selector(".bp-window-title:has-text('other') >> visible=true")
    eventually(page, page.locator(".noUi-handle >> visible=true").count, 2)
    eventually(page, lambda: 0 < detections(page) < detections(page, 1))
    page.get_by_text("per recorded hour", exact=True).click()  # the words belong to the box
    page.wait_for_function("location.search.includes('per_hour=true')")
    again = open_view(visit, f"&{urlsplit(page.url).query}")
    again.wait_for_selector(".bp-window-title:has-text('other') >> visible=true")
    eventually(again, lambda: detections(again) == detections(page))
    eventually(again, again.locator("input[type=checkbox] >> visible=true").is_checked)


def test_impossible_values_in_the_address_are_ignored(visit: Any) -> None:
    query = "&model=nobody&source=x&species=y&threshold=7&by=z&other=w&other_threshold=NaN"
    page = open_view(visit, query)
    eventually(page, lambda: detections(page) > 0)


def test_a_cell_of_the_heat_map_lists_its_detections_only(data_set: DataSetResults) -> None:
    view = PredictionsView(data_set)
    view.opened()
    view.param.update(model="tiny", species="quiet")
    (side,) = view.sides
    grid = side.grid
    counts = grid.count(side.detections.clock[side.detections.of("quiet")[0]])
    row, column = (int(i) for i in np.argwhere(counts > 0)[0])
    view._pick(0, row, column)
    assert len(view.list._rows) == counts[row, column] < counts.sum()
    view._show_gallery()  # side by side, too
    table = view.gallery._table
    assert table is not None and len(table) == counts[row, column]
    assert table["score"].is_monotonic_decreasing and set(table["label"]) == {"quiet"}
    assert view.gallery._tiles.pictures[0].startswith("data:image/")
    view._pick(0, row, column)
    assert len(view.list._rows) == counts.sum()


def test_a_probe_is_a_source_and_its_scores_are_those_of_the_library(
    data_set: DataSetResults,
) -> None:
    import bacpipe

    results = data_set.model("tiny")
    assert list(sources(results)) == [CLASSIFIER, "probe_linear", "probe_knn"]
    found = read_detections(results, "probe_linear")
    own = read_detections(results, CLASSIFIER)
    assert (found.threshold(None), found.threshold(0.2)) == (0.5, 0.2)
    assert own.threshold(None) == own.lowest
    probe, columns = bacpipe.prepare_probe_inference("tiny", paths=results.loader.paths)
    scores = bacpipe.run_probe_inference(
        "tiny", probe, 0.5, results.loader.embeddings("array"), return_binary_presence=False
    )
    for name, column in columns.items():
        rows, kept = found.of(name, 0.2)
        expected = np.flatnonzero(scores[:, column] >= 0.2)
        assert sorted(rows) == expected.tolist()
        assert kept == pytest.approx(scores[rows, column])


def test_what_no_class_of_a_probe_reaches_the_threshold_in_is_other(
    data_set: DataSetResults,
) -> None:
    view = PredictionsView(data_set)
    view.opened()
    view.model = "tiny"  # which goes back to its usual source and threshold
    view.source = "probe_linear"
    assert view.threshold == 0.5
    found, (side,) = view._detections, view.sides
    assert "count as other" in side._counts.object
    reached = {int(row) for name in found.names for row in found.of(name, 0.8)[0]}
    assert found.others(0.8) == len(found.results) - len(reached)
    view.source = CLASSIFIER
    assert view.threshold == view._detections.lowest


def test_a_search_below_the_threshold_explains_itself(data_set: DataSetResults) -> None:
    view = PredictionsView(data_set)
    view.opened()
    view.model = "tiny"
    view.param.update(species="quiet", threshold=0.95)
    scores = view._detections.of("loud")[1]
    said = view.species_list._explain("loud")
    assert f"{int((scores < 0.95).sum())} detections below the threshold" in said
    assert f"{scores.max():.2f}" in said
    assert "is called like that" in view.species_list._explain("nightjar")


def test_species_are_matched_by_name(data_set: DataSetResults) -> None:
    found = read_detections(data_set.model("other"), CLASSIFIER)
    assert found.names[same_class("QUIET", found).column] == "quiet"
    assert same_class("nightjar", found).column is None


def test_a_model_without_predictions_says_how_to_get_some(
    tmp_path: Path, data_set: DataSetResults
) -> None:
    import bacpipe
    from bacpipe.dashboard.server import open_data_set
    from tests.conftest import TinyModel, write_recording

    audio = tmp_path / "field"
    write_recording(audio / "a.wav", 3.0)
    settings = {"audio_dir": audio, "main_results_dir": tmp_path / "results"}
    bacpipe.generate_embeddings(
        model_name="tiny", CustomModel=TinyModel, device="cpu", run_pretrained_classifier=False,
        **settings,
    )  # fmt: skip
    view = PredictionsView(open_data_set(None, **settings))
    said: list[str] = []
    view.notice.say = said.append
    view.opened()
    assert "birdnet" in said[-1] and "run_pretrained_classifier" in said[-1]
