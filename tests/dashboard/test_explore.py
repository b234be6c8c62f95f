from __future__ import annotations

import io
import re
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile as sf
from bokeh.embed import file_html
from bokeh.layouts import Column
from bokeh.models.css import StyleSheet
from bokeh.resources import INLINE

from bacpipe.dashboard.background import Background
from bacpipe.dashboard.explore.filters import Filter
from bacpipe.dashboard.explore.map_content import MapChoice, make_map_content
from bacpipe.dashboard.explore.view import ExploreView
from bacpipe.dashboard.server import open_data_set
from bacpipe.dashboard.shared.clips import (
    Clip,
    Look,
    envelope,
    from_axis,
    on_axis,
    spectrogram,
)
from bacpipe.dashboard.shared.embedding_map import EmbeddingMap
from bacpipe.dashboard.shared.export import as_clips, as_csv, as_raven_table
from bacpipe.dashboard.shared.labels import WindowLabels, most_frequent, read_labels
from bacpipe.dashboard.shared.results import DataSetResults
from bacpipe.dashboard.shared.spectrogram_figure import SpectrogramFigure
from bacpipe.dashboard.shared.window_details import WindowDetails, best_predictions
from bacpipe.dashboard.style import contrast, palette
from bacpipe.evaluation.retrieval import nearest_windows
from tests.dashboard.conftest import HOSTILE_LABEL, PATIENCE, eventually, gesture

SPECIES = "annotations:species"
# Where points of the map are on the screen, found through Bokeh's own views.
_PLACES_OF = """
(points) => {
  const find = (view) => {
    if (view.model.tags?.includes("map") && view.frame) return view;
    for (const child of view.child_views ?? []) {
      const found = find(child);
      if (found) return found;
    }
  };
  for (const root of Bokeh.index.roots) {
    const view = find(root);
    if (!view) continue;
    const box = view.el.getBoundingClientRect();
    const {x_scale, y_scale} = view.frame;
    return points.map(([x, y]) => [box.x + x_scale.compute(x), box.y + y_scale.compute(y)]);
  }
}
"""
_IMAGES = """
() => [...Bokeh.documents[0]._all_models.values()].filter(
  (model) => model.type === "ColumnDataSource" && (model.data.image ?? []).length).length
"""


def open_map(visit: Any, query: str = "?model=tiny") -> Any:
    page = visit(query)
    page.locator(".bp-legend").first.wait_for()
    return page


def note(page: Any, text: str) -> Any:
    return page.locator(".bp-note", has_text=text).first


def test_a_click_shows_and_plays_the_window(visit: Any, data_set: DataSetResults) -> None:
    results = data_set.model("tiny")
    page = open_map(visit)
    eventually(page, lambda: page.evaluate(_IMAGES), 0)
    points = results.coordinates("pca")[[30]].tolist()
    gesture(
        page,
        lambda: page.evaluate(_PLACES_OF, points),
        lambda at: page.mouse.click(*at[0]),
        lambda: "recording=" in page.url,
    )
    page.locator("audio[src^='data:audio/wav;base64,UklG']").wait_for()
    duration = page.locator("audio").first.evaluate(
        "a => new Promise(done => { const look = () => a.duration > 0 ? done(a.duration) :"
        " setTimeout(look, 50); look(); })"
    )
    assert duration == pytest.approx(1.0)
    eventually(page, lambda: page.evaluate(_IMAGES), 1)
    page.wait_for_url("**recording=**")
    times = f"{results.start[30]:.2f} – {results.end[30]:.2f} s · 2024-05-01"
    page.locator(".bp-when", has_text=re.compile(rf"^\s*{re.escape(times)}")).first.wait_for()
    (best, score), *_ = best_predictions(results, 30, 1)
    page.locator(".bp-classes tr", has_text=best).filter(has_text=f"{score:.3f}").first.wait_for()
    # The next window in time, then a neighbour.
    page.get_by_role("button", name="▶").first.click()
    page.locator(".bp-when", has_text=f"{results.start[31]:.2f} –").first.wait_for()
    nearest = nearest_windows(results.loader, 31, count=1)
    row = int(nearest.rows[0])
    text = re.compile(rf"1\. {nearest.similarity[0]:.3f} .* {results.start[row]:.1f} s")
    page.locator(".bp-neighbours option", has_text=text).first.wait_for(state="attached")
    page.locator(".bp-neighbours select").select_option(index=0)
    page.locator(".bp-when", has_text=f"{results.start[row]:.2f} –").first.wait_for()


def test_filters_change_what_is_drawn(visit: Any, data_set: DataSetResults) -> None:
    page = open_map(visit)
    note(page, "72 windows").wait_for()
    page.get_by_text("only annotated windows").click()  # the words belong to the box
    page.get_by_role("checkbox", name="only annotated windows", checked=True).wait_for()
    annotated = int(Filter(annotated=True).windows(data_set.model("tiny")).sum())
    note(page, f"{annotated} of 72 windows").wait_for()
    page.get_by_label("Recording", exact=True).fill("site2")
    page.get_by_label("Recording", exact=True).press("Enter")
    note(page, f"{annotated // 2} of 72 windows").wait_for()
    page.locator("option", has_text="3 of 6 recordings").wait_for(state="attached")
    page.get_by_role("button", name="Show all windows").click()
    page.locator(".bp-note", has_text="of 72 windows").wait_for(state="detached")
    eventually(page, lambda: "annotated" not in page.url)


def test_labels_are_text_wherever_they_are_shown(visit: Any, data_set: DataSetResults) -> None:
    results = data_set.model("tiny")
    page = open_map(visit)
    page.locator(".bp-entry", has_text=HOSTILE_LABEL).wait_for()
    labels = read_labels(results, SPECIES)
    row = int(np.flatnonzero(labels.codes == labels.names.index(HOSTILE_LABEL))[0])
    points = results.coordinates("pca")[[row]].tolist()

    def hover_and_click(places: list[list[float]]) -> None:
        ((x, y),) = places
        page.mouse.move(x - 40, y)
        page.mouse.move(x, y)
        page.locator(".bk-tooltip-content", has_text="recording").first.wait_for()
        page.mouse.click(x, y)

    gesture(
        page,
        lambda: page.evaluate(_PLACES_OF, points),
        hover_and_click,
        lambda: page.locator(".bp-when", has_text=HOSTILE_LABEL).count() > 0,
    )
    # The list of labels to choose from.
    page.get_by_label("Labels").select_option(label=HOSTILE_LABEL)
    count = int((labels.codes == labels.names.index(HOSTILE_LABEL)).sum())
    note(page, f"{count} of 72 windows").wait_for()
    assert page.locator("img[src='x']").count() == 0
    assert page.evaluate("window.hacked") is None


def test_a_box_selects_windows_to_download(
    visit: Any, data_set: DataSetResults, tmp_path: Path
) -> None:
    page = open_map(visit)
    points = data_set.model("tiny").coordinates("pca").tolist()
    page.locator(".bk-tool-icon-box-select").first.click()

    def drag(places: list[list[float]]) -> None:
        low, high = np.min(places, axis=0) - 8, np.max(places, axis=0) + 8
        page.mouse.move(*low)
        page.mouse.down()
        page.mouse.move(*((low + high) / 2))
        page.mouse.move(*high)
        page.mouse.up()

    gesture(
        page,
        lambda: page.evaluate(_PLACES_OF, points),
        drag,
        lambda: note(page, "72 selected").count() > 0,
    )

    csv = pd.read_csv(download(page, tmp_path, "Table (CSV)"))
    assert len(csv) == 72
    assert {"audiofilename", "start", "end", "time", "label:species"} <= set(csv)
    raven = pd.read_csv(download(page, tmp_path, "Raven selection table"), sep="\t")
    assert raven["Selection"].tolist() == list(range(1, 73))
    with zipfile.ZipFile(download(page, tmp_path, "Audio clips (ZIP)")) as archive:
        listing = pd.read_csv(archive.open("windows.csv"))
        samples, rate = sf.read(io.BytesIO(archive.read(listing["clip"][0])))
    assert len(listing) == 72
    assert (len(samples), rate) == (8000, 8000)


def test_a_figure_is_saved_as_svg_by_a_tool_that_is_seen(visit: Any) -> None:
    page = open_map(visit)
    tool = page.get_by_title("Save as SVG").locator("visible=true").first
    drawn = """
    async (tool) => {
      const inner = [...(tool.shadowRoot ?? tool).querySelectorAll("*"), tool];
      const urls = inner.map((part) => part.style.backgroundImage).filter(Boolean);
      const icon = new Image();
      icon.src = urls[0].slice(5, -2);
      await icon.decode();
      return icon.width;
    }
    """
    assert tool.evaluate(drawn) > 0
    with page.expect_download() as started:
        tool.click()
    text = Path(started.value.path()).read_text(encoding="utf-8")
    # A circle for every window, and not a picture of them.
    assert text.startswith("<svg") and "<image" not in text
    assert text.count("<path") > 72


def test_a_map_of_three_dimensions_turns_when_it_is_dragged(browser: Any) -> None:
    embedding_map = EmbeddingMap()
    points = np.random.default_rng(1).normal(size=(40, 3)).astype(np.float32)
    embedding_map.set_points(points, ["a.wav"], np.zeros(40, np.int32), np.arange(40.0), model="x")
    figure, angles = embedding_map.figure, (embedding_map._azimuth, embedding_map._elevation)
    turned = Column(figure, *angles, width=800, height=600)
    context = browser.new_context(viewport={"width": 900, "height": 700})
    context.set_default_timeout(1000 * PATIENCE)
    page = context.new_page()
    page.set_content(file_html(turned, INLINE, "map"))
    page.locator(".bk-Figure canvas").first.wait_for()
    angles_of = """() => [...Bokeh.documents[0]._all_models.values()]
        .filter((model) => model.type === "Slider").map((model) => model.value)"""
    middle = page.locator(".bk-Figure").first.bounding_box()
    x, y = middle["x"] + middle["width"] / 2, middle["y"] + middle["height"] / 2
    before = page.evaluate(angles_of)

    def drag() -> bool:
        page.mouse.move(x, y)
        page.mouse.down()
        for step in range(1, 7):
            page.mouse.move(x + 10 * step, y + 5 * step)
        page.mouse.up()
        return page.evaluate(angles_of) != before

    eventually(page, drag)  # once it is drawn
    azimuth, elevation = page.evaluate(angles_of)
    assert (azimuth - before[0], elevation - before[1]) == (pytest.approx(20), pytest.approx(10))
    context.close()


def download(page: Any, folder: Path, kind: str) -> Path:
    page.get_by_label("Download as").select_option(kind)
    ending = {"T": "csv", "R": "txt", "A": "zip"}[kind[0]]
    with page.expect_download() as started:
        page.locator(".bp-download a, .bp-download button").first.click()
    path = folder / f"file.{ending}"
    assert started.value.suggested_filename.endswith(ending)
    started.value.save_as(path)
    return path


def test_the_address_restores_the_page(visit: Any) -> None:
    query = (
        "?view=explore&model=other&colour=time_of_day&hours=[17,5]&file=site1"
        "&recording=site1/rec_20240501_180000.wav&start=3.0"
    )
    page = open_map(visit, query)
    page.locator(".bp-when", has_text="3.00 – 3.50 s · 2024-05-01 18:00:03").first.wait_for()
    # The recordings of 18 and of 4 o'clock at one of two sites, two windows a second.
    note(page, "48 of 144 windows").wait_for()
    eventually(page, page.get_by_label("Colour by").input_value, "Time of day")
    assert page.locator(".bp-notice:visible").count() == 0


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("?recording=../../../etc/passwd", "is not among the recordings"),
        ("?recording=/etc/passwd&start=NaN", "is not among the recordings"),
        ("?model=nobody", "Ignored in the address, because it is not possible: model"),
        (f"?colour={HOSTILE_LABEL}&reducer=x", "There is no map 'x' here."),
        ("?hours=[1,1e999]&labels=7", "from 0 to 24"),
    ],
)
def test_a_senseless_address_is_answered_with_a_sentence(
    visit: Any, query: str, sentence: str
) -> None:
    page = open_map(visit, query)
    page.locator(".bp-notice", has_text=sentence).wait_for()
    note(page, "windows").wait_for()
    assert page.evaluate("window.hacked") is None


# ---------------------------------------------------------------------- without a browser


def test_time_of_day_may_go_over_midnight(data_set: DataSetResults) -> None:
    results = data_set.model("tiny")
    night, day = (Filter(hours=hours).windows(results) for hours in ((17.0, 4.5), (4.5, 17.0)))
    assert (night ^ day).all()
    assert {results.recordings[i][-10:-4] for i in results.recording_code[night]} == {
        "040000",
        "180000",
    }


def test_results_without_a_map_are_shown_as_far_as_possible(
    data_set: DataSetResults, results: tuple[Path, Path], tmp_path: Path
) -> None:
    audio, stored = results
    shutil.copytree(stored, tmp_path / "results")
    shutil.rmtree(tmp_path / "results" / "field" / "dim_reduced_embeddings")
    bare = open_data_set(None, audio_dir=audio, main_results_dir=tmp_path / "results")
    content = make_map_content(bare, MapChoice())
    assert content.reducer == ""
    assert np.isnan(content.points).all()
    assert content.labels is not None


@pytest.mark.parametrize("far", [0, 3])
def test_windows_unlike_all_that_a_map_was_made_from_are_told(
    results: tuple[Path, Path], tmp_path: Path, far: int
) -> None:
    audio, stored = results
    shutil.copytree(stored, tmp_path / "results")
    places = {"audio_dir": audio, "main_results_dir": tmp_path / "results"}
    path = open_data_set(None, **places).model("tiny").maps["pca"].table_path
    table = pd.read_parquet(path)
    table.assign(distance_to_map=np.where(np.arange(len(table)) < far, 1.74, 0.9)).to_parquet(path)
    view = ExploreView(open_data_set(["tiny"], **places))
    view.controls(), view.body()
    view.opened()
    assert (
        f"{far} windows that came after this map are unlike all" in view.notice.sentence
    ) == bool(far)
    for row in (0, 5):
        view._show_row(row)
        assert ("far from the map (1.7)" in view.details._title.object) == (row < far)
    view.param.update(file="rec")  # what is said stays when another choice is made
    assert (f"{far} windows that came after this map" in view.notice.sentence) == bool(far)


def test_a_recording_that_was_moved_away_is_told(
    results: tuple[Path, Path], tmp_path: Path
) -> None:
    audio, stored = results
    shutil.copytree(audio, tmp_path / "field")
    moved = open_data_set(None, audio_dir=tmp_path / "field", main_results_dir=stored)
    (tmp_path / "field" / "site1" / "rec_20240501_040000.wav").unlink()
    details = WindowDetails(moved, Background())
    details.show(moved.model("tiny"), 0)
    assert "is not there any more" in details.problem
    assert "Put it back there" in details.problem
    assert not details._figure._spectrogram.yaxis[0].visible
    details.show(moved.model("tiny"), 40)
    assert details.problem == ""
    assert details._figure._spectrogram.yaxis[0].visible
    results_there = moved.model("tiny")
    shutil.move(tmp_path / "field", tmp_path / "card")
    details.show(results_there, 41)
    assert f"moved_from={tmp_path / 'field'}" in details.problem


def test_best_predictions_come_first(data_set: DataSetResults) -> None:
    results = data_set.model("tiny")
    found = results.predictions
    for row in (0, 11, 71):
        best = best_predictions(results, row, 1)
        expected = found.score[found.row == row]
        assert [score for _, score in best] == [pytest.approx(expected.max())]


@pytest.mark.parametrize("most", [1, 10])
def test_the_map_is_as_high_and_the_list_as_long_as_the_settings_say(
    results: tuple[Path, Path], most: int
) -> None:
    audio, stored = results
    data_set = open_data_set(
        None, audio_dir=audio, main_results_dir=stored, embedding_figure_height=321,
        nr_predictions_to_display=most,
    )  # fmt: skip
    view = ExploreView(data_set)
    assert view.map.figure.min_height == 321
    model = data_set.model("tiny")
    row = int(np.bincount(model.predictions.row).argmax())  # both classes are in it
    view.details.show(model, row)
    assert view.details._predictions.object.count("<tr>") == min(most, 2)


def test_exported_texts_are_no_formulas(data_set: DataSetResults) -> None:
    results = data_set.model("tiny")
    codes = np.zeros(len(results), np.int32)
    labels = WindowLabels("annotations:note", codes, ("=HYPERLINK(1)\tx\ny",), False)
    table = pd.read_csv(io.BytesIO(as_csv(results, np.array([3]), labels).content))
    assert table["label:note"].tolist() == ["'=HYPERLINK(1)\tx\ny"]
    lines = as_raven_table(results, np.array([3, 70]), labels).content.decode().splitlines()
    assert len(lines) == 3
    assert len({line.count("\t") for line in lines}) == 1


def test_raven_times_count_through_the_recordings(data_set: DataSetResults) -> None:
    results = data_set.model("tiny")
    rows = np.array([1, 12, 25])  # of the first three recordings of 12 s
    content = as_raven_table(results, rows, None).content
    table = pd.read_csv(io.BytesIO(content), sep="\t")
    assert table["Begin Time (s)"].tolist() == [1.0, 12.0, 25.0]
    assert table["File Offset (s)"].tolist() == [1.0, 0.0, 1.0]
    assert all(Path(path).is_file() for path in table["Begin Path"])


def test_clips_that_cannot_be_read_are_named(results: tuple[Path, Path], tmp_path: Path) -> None:
    audio, stored = results
    shutil.copytree(audio, tmp_path / "field")
    moved = open_data_set(None, audio_dir=tmp_path / "field", main_results_dir=stored)
    (tmp_path / "field" / "site1" / "rec_20240501_040000.wav").unlink()
    made = as_clips(moved.model("tiny"), np.array([0, 40]), None)
    assert made.remark.startswith("1 could not be read")
    with zipfile.ZipFile(io.BytesIO(made.content)) as archive:
        assert len(archive.namelist()) == 2


@pytest.mark.parametrize("axis", ["linear", "mel", "log"])
@pytest.mark.parametrize("above_noise", [True, False])
def test_a_call_is_where_it_was_sung(axis: str, above_noise: bool) -> None:
    rate, look = 48_000, Look(axis, above_noise)
    time = np.arange(2 * rate) / rate
    samples = np.random.default_rng(0).normal(0, 0.01, len(time))
    samples[rate // 2 : rate] += 0.1 * np.sin(2 * np.pi * 700 * time[rate // 2 : rate])
    found = spectrogram(Clip(samples.astype(np.float32), rate, 0.0), look)
    row, column = np.unravel_index(found.levels.argmax(), found.levels.shape)
    low, high = look.edges(found.top)
    place = low + (row + 0.5) / len(found.levels) * (high - low)
    assert float(from_axis(np.array([place]), axis)[0]) == pytest.approx(700, abs=45)
    assert 0.24 < column / found.levels.shape[1] < 0.51
    if above_noise:  # noise is as dark as silence
        assert np.percentile(found.levels, 30) == pytest.approx(0, abs=1)


def test_what_a_model_hears_is_shown_first(data_set: DataSetResults) -> None:
    clip = Clip(np.zeros(48_000, np.float32), 48_000, 0.0)
    drawn = SpectrogramFigure()
    picture = spectrogram(clip, drawn.settings.look(clip))
    drawn.show(clip, picture, (0, 1), recording="a.wav", heard=15_000.0)
    assert drawn.frequencies.value == (0.0, 15.0)
    assert drawn._frequencies.end == pytest.approx(float(on_axis(np.array([15e3]), "mel")[0]))


def test_many_labels_share_a_colour_by_frequency() -> None:
    codes = np.repeat(np.arange(200), np.arange(1, 201)).astype(np.int32)
    labels = WindowLabels("x", np.append(codes, -1), tuple(f"{i:03}" for i in range(200)), False)
    (found,) = most_frequent([labels], 25)
    assert found.names[:2] == ("199", "198") and found.names[-1] == "other (176 labels)"
    assert found.codes[-1] == -1 and found.codes.max() == 24
    assert (found.codes[:-1] == 24).sum() == sum(range(1, 177))


def test_colours_stand_out_in_both_themes() -> None:
    for dark, paper in ((False, "#ffffff"), (True, "#212529")):
        for ordered in (False, True):
            colours = palette(24, ordered=ordered, dark=dark)
            assert min(contrast(colour, paper) for colour in colours) >= 3


def test_the_configured_model_and_the_best_map_come_first(results: tuple[Path, Path]) -> None:
    audio, stored = results
    places = {"audio_dir": audio, "main_results_dir": stored}
    assert open_data_set(None, **places).models == ("other", "tiny")
    found = open_data_set(["tiny", "other"], **places)
    assert found.models == ("tiny", "other")


def test_envelope_holds_the_peaks() -> None:
    samples = np.zeros(48_000, np.float32)
    samples[[100, 40_000]] = 0.9, -0.7
    time, low, high = envelope(Clip(samples, 48_000, 2.0))
    assert (high.max(), low.min()) == (np.float32(0.9), np.float32(-0.7))
    assert time[high.argmax()] == pytest.approx(2 + 100 / 48_000, abs=1 / 600)


def test_what_windows_need_is_read_before_the_first_click(data_set: DataSetResults) -> None:
    fresh = DataSetResults(data_set.audio_dir, data_set.models, data_set.options)
    view = ExploreView(fresh)
    view.model = "tiny"
    view.controls()
    view.body()
    view.opened()
    assert len(vars(fresh.model("tiny"))["predictions"].row)


def test_a_click_makes_no_model_of_bokeh(data_set: DataSetResults) -> None:
    """For each, Bokeh would collect those of the whole page again."""
    view = ExploreView(data_set)
    view.model = "tiny"
    view.controls()
    page = view.body().get_root()
    view.opened()

    def models() -> set[str]:
        # Outside of a session, Panel makes style sheets again.
        return {item.id for item in page.references() if not isinstance(item, StyleSheet)}

    view._show_row(0)
    before = models()
    view._show_row(40)
    assert view.details.row == 40
    assert models() == before
