"""Search: by windows, clips and words; filters; a gallery that plays and marks; safety."""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import soundfile as sf

import bacpipe
from bacpipe.dashboard.search import request as search_request
from bacpipe.dashboard.search.clip_upload import MOST_BYTES, Clip, ClipUpload
from bacpipe.dashboard.search.request import Request, answer
from bacpipe.dashboard.search.view import SearchView
from bacpipe.dashboard.server import Server
from bacpipe.dashboard.shared.results import DataSetResults
from bacpipe.embedder import Embedder
from bacpipe.errors import AudioError, BacpipeError, ResultsNotFoundError, SettingsError
from bacpipe.options import with_changes
from tests.conftest import TinyModel
from tests.dashboard.conftest import HOSTILE_LABEL, eventually, gesture, make_small_field

RECORDING = "north/rec_20240501_040000.wav"
TILES = "ul.bp-tiles li"


@pytest.fixture(scope="module")
def data_set(tmp_path_factory: pytest.TempPathFactory) -> DataSetResults:
    return make_small_field(tmp_path_factory.mktemp("search"), 5340)


@pytest.fixture(scope="module")
def server(data_set: DataSetResults) -> Iterator[Server]:
    running = Server(data_set)
    running.start(show=False)
    yield running
    running.stop()


def found_by_library(data_set: DataSetResults, query: Any, **options: Any) -> list[tuple[Any, ...]]:
    loader = data_set.model("tiny").loader
    table = bacpipe.search(query, loader=loader, k=60, **options)
    return list(zip(table["recording"], table["start"], strict=True))


def shown(page: Any) -> list[tuple[str, float]]:
    """Recording and second of every tile, as its picture says them."""
    titles = page.locator(f"{TILES} .picture").evaluate_all("all => all.map(one => one.title)")
    parts = [title.rsplit(", ", 1) for title in titles]
    return [(name, float(seconds.split(" to ")[0])) for name, seconds in parts]


def open_search(visit: Any, query: str = "") -> Any:
    like = quote(json.dumps([[RECORDING, 3.0]]))
    page = visit(f"?view=search&like={like}{query}")
    page.wait_for_selector(f"{TILES} img[src^=data]")
    return page


def test_found_windows_play_are_marked_and_refine_the_search(
    visit: Any, data_set: DataSetResults
) -> None:
    page = open_search(visit, "&count=24&overlap=50")
    expected = found_by_library(data_set, (RECORDING, 3.0))
    eventually(page, lambda: shown(page), expected[:24])
    assert page.locator(".bp-notice:visible").count() == 0  # numbers of the address are taken
    picture = page.locator(f"{TILES} .picture").nth(1)
    gesture(  # its sound lasts for one second
        page, picture.bounding_box, lambda _: picture.click(),
        lambda: page.locator(f"{TILES}.playing").count() > 0,
    )  # fmt: skip

    boxes = page.locator(f"{TILES} input")
    boxes.nth(0).check()
    boxes.nth(2).click(modifiers=["Shift"])
    page.get_by_placeholder("such as a species").fill(HOSTILE_LABEL)
    page.get_by_role("button", name="✓ is").click()
    eventually(
        page,
        lambda: page.locator(f"{TILES} .mark").all_inner_texts()[:4],
        [*[f"✓ {HOSTILE_LABEL}"] * 3, ""],
    )
    assert page.evaluate("window.hacked") is None  # a label is text
    settings = {"main_results_dir": data_set.options.main_results_dir}
    labels = bacpipe.people_labels(data_set.audio_dir, **settings)
    marked = set(zip(labels["recording"], labels["start"], strict=True))
    assert marked == set(expected[:3])
    assert set(labels["value"]) == {"yes"}
    assert labels["annotator"].str.len().gt(0).all()
    page.get_by_role("button", name="Undo").click()
    eventually(page, lambda: "".join(page.locator(f"{TILES} .mark").all_inner_texts()), "")
    assert bacpipe.people_labels(data_set.audio_dir, **settings).empty

    boxes.nth(20).check()
    away = expected[20]
    page.get_by_role("button", name="Less like these").click()
    query = {"positives": [(RECORDING, 3.0)], "negatives": [away]}
    eventually(page, lambda: shown(page), found_by_library(data_set, query)[:24])
    eventually(page, lambda: "unlike=" in page.url)


def test_filters_hold_and_the_table_has_all(visit: Any, data_set: DataSetResults) -> None:
    page = open_search(visit, "&sites=%5B%22south%22%5D&hours=%5B12%2C24%5D&label=quiet&score=0.4")
    where = {"site": ["south"], "hour": (12, 24), "label": "quiet", "score": (0.4, None)}
    expected = found_by_library(data_set, (RECORDING, 3.0), where=where)
    assert expected
    assert {name for name, _ in expected} == {"south/rec_20240501_180000.wav"}
    eventually(page, lambda: shown(page), expected)
    with page.expect_download() as download:
        page.get_by_text("Download CSV").click()
    text = Path(download.value.path()).read_text(encoding="utf-8")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [(row["recording"], float(row["start"])) for row in rows] == expected


def test_a_clip_of_the_visitor_finds_where_it_is_from(
    visit: Any, data_set: DataSetResults, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tiny(index: Any) -> Embedder:
        return Embedder("tiny", CustomModel=TinyModel, options=index.loader.options)

    monkeypatch.setattr(search_request, "embedder_for", tiny)
    samples, rate = sf.read(data_set.audio_dir / RECORDING)
    clip = tmp_path / "mine.wav"
    sf.write(clip, samples[5 * rate : 6 * rate], rate)
    page = visit("?view=search&search_by=clip")
    page.locator("input[type=file]").set_input_files(clip)
    page.wait_for_selector(TILES)
    eventually(page, lambda: shown(page)[:1], [(RECORDING, 5.0)])
    (tmp_path / "notes.wav").write_text("no sound")
    page.locator("input[type=file]").set_input_files(tmp_path / "notes.wav")
    page.get_by_text("notes.wav").locator("visible=true").nth(1).wait_for()
    eventually(page, lambda: page.locator(TILES).count(), 0)


def test_only_bounded_recordings_are_taken(tmp_path: Path) -> None:
    taken: list[Clip] = []
    said: list[str] = []
    upload = ClipUpload([".wav"], taken.append, said.append)
    text = base64.b64encode(b"x").decode()
    upload._handle_msg({"name": "../../clip.WAV", "content": text})
    assert [(clip.name, clip.suffix, clip.content) for clip in taken] == [
        ("clip.WAV", ".wav", b"x")
    ]
    for message in (
        None,
        {"name": "clip.exe", "content": text},
        {"name": "clip.wav", "content": "no base64!"},
        {"name": "clip.wav", "content": "A" * (4 * (MOST_BYTES // 3 + 1) + 1)},
    ):
        upload._handle_msg(message)
    assert len(taken) == 1
    assert len(said) == 4
    sf.write(tmp_path / "long.wav", [0.1] * (61 * 1000), 1000)
    long = Clip("long.wav", ".wav", (tmp_path / "long.wav").read_bytes())
    with pytest.raises(AudioError, match=r"^long\.wav: .*60 s"), long.on_disk():
        pass


def test_what_visitors_say_is_never_a_path(data_set: DataSetResults, tmp_path: Path) -> None:
    outside = tmp_path / "secret.wav"
    sf.write(outside, [0.1, -0.1] * 8000, 8000)
    for name in (str(outside), f"../{outside.name}", "north/../north/rec_20240501_040000.wav"):
        with pytest.raises(ResultsNotFoundError):
            answer(data_set, Request("tiny", "windows", like=((name, 0.0),)))
    with pytest.raises(SettingsError, match="does not understand words"):
        answer(data_set, Request("tiny", "words", words=str(outside)))
    with pytest.raises(ResultsNotFoundError):
        answer(data_set, Request("tiny", "recogniser", recogniser=("../field", "x")))
    with pytest.raises(BacpipeError):
        answer(data_set, Request("../tiny", "windows", like=((RECORDING, 0.0),)))


def test_nothing_is_stored_without_edit(data_set: DataSetResults) -> None:
    options = with_changes(data_set.options, edit=False)
    view = SearchView(DataSetResults(data_set.audio_dir, data_set.models, options))
    view.body()
    view.model, view.like = "tiny", [[RECORDING, 3.0]]
    view.opened()
    gallery = view.gallery
    gallery.select_all()
    assert gallery.chosen
    gallery._label.value = "owl"
    before = bacpipe.people_labels(
        data_set.audio_dir, main_results_dir=data_set.options.main_results_dir
    )
    assert not gallery._marking.visible
    view.visitor.annotator = "somebody"
    gallery._mark("yes")
    after = bacpipe.people_labels(
        data_set.audio_dir, main_results_dir=data_set.options.main_results_dir
    )
    assert len(after) == len(before)


def test_hours_may_go_over_midnight(data_set: DataSetResults) -> None:
    view = SearchView(data_set)
    view.body()
    view.model, view.like, view.hours = "tiny", [[RECORDING, 3.0]], (22.0, 5.0)
    view.opened()
    assert view._answer is not None
    found = set(view._answer.table["recording"])
    assert found == {f"{site}/rec_20240501_040000.wav" for site in ("north", "south")}
    assert view._hours.value == (22.0, 5.0)
    view._hours.value = (5.0, 22.0)  # what the slider says is searched
    assert view._answer is not None
    assert set(view._answer.table["recording"]) == {name.replace("_04", "_18") for name in found}
