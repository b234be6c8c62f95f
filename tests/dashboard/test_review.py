from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import bacpipe
from bacpipe.dashboard.background import Background
from bacpipe.dashboard.review.precision import PrecisionPanel
from bacpipe.dashboard.review.queue import BEST, NOBODY, NOT_ME, SPREAD, Asked, make_queue, queue_of
from bacpipe.dashboard.server import Server, open_data_set
from bacpipe.dashboard.shared.drawn_marks import marks_between
from bacpipe.dashboard.shared.labels import read_labels
from bacpipe.dashboard.shared.to_review import ClipsToReview
from tests.conftest import TinyModel, write_recording
from tests.dashboard.conftest import HOSTILE_LABEL, close_pages, eventually

ADDRESS = f"?view=review&model=tiny&label=loud&keys=%5B%22wren%22%2C%22{HOSTILE_LABEL}%22%5D"
# A server of its own process, which can be killed as a power cut would.
_SERVE = """
import sys
from bacpipe.dashboard.server import Server, open_data_set
server = Server(open_data_set(None, audio_dir=sys.argv[1], main_results_dir=sys.argv[2],
                              dashboard_port=5360, edit=True))
server.start(show=False)
print(server.url, flush=True)
server.wait()
"""


@pytest.fixture
def places(tmp_path: Path, made: tuple[Path, Path]) -> tuple[Path, Path]:
    """Recordings and results, in which nobody has labelled anything."""
    for path in made[1].glob("*/labels/people_labels*"):
        path.unlink()
    return made


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    base = tmp_path_factory.mktemp("review")
    for site in (1, 2):
        write_recording(base / "field" / f"site{site}/rec_2024050{site}_040000.wav", 12, seed=site)
    rows = ["audiofilename,start,end,label:species"]
    rows += [f"site{site}/rec_2024050{site}_040000.wav,10,12,{HOSTILE_LABEL}" for site in (1, 2)]
    rows += [f"site{site}/rec_2024050{site}_040000.wav,4,8,owl" for site in (1, 2)]
    (base / "field" / "annotations.csv").write_text("\n".join(rows), encoding="utf-8")
    bacpipe.play(
        audio_dir=base / "field", main_results_dir=base / "results", models=["tiny"],
        CustomModels=[TinyModel], device="cpu", classifier_threshold=0.01,
        dim_reduction_model="pca", evaluation_task=["clustering"],
    )  # fmt: skip
    return base / "field", base / "results"


@pytest.fixture
def open_review(context: Any) -> Iterator[Callable[..., Any]]:
    """Open the tab of a server, with a list of what the browser complains about."""
    complaints: list[str] = []

    def open_page(url: str, query: str = ADDRESS) -> Any:
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error.stack)))
        page.goto(f"{url}/{query}")
        page.get_by_role("img", name=re.compile("^Spectrogram of")).wait_for()
        return page

    yield open_page
    close_pages(context)
    assert complaints == []


@pytest.fixture
def served(places: tuple[Path, Path]) -> Iterator[Callable[..., str]]:
    running = []

    def serve(**settings: Any) -> str:
        audio, results = places
        opened = open_data_set(None, audio_dir=audio, main_results_dir=results,
                               dashboard_port=5340, **settings)  # fmt: skip
        running.append(Server(opened))
        running[-1].start(show=False)
        return running[-1].url

    yield serve
    for server in running:
        server.stop()


def people(places: tuple[Path, Path]) -> pd.DataFrame:
    return bacpipe.people_labels(places[0], main_results_dir=places[1])


def wait_until_ready(page: Any) -> None:
    page.get_by_role("button", name="Right").and_(page.locator(":enabled")).wait_for()


def press(page: Any, key: str, place: str) -> None:
    """Press a key, and wait for the place in the queue that it leads to."""
    page.keyboard.press(key)
    page.locator(".progress", has_text=re.compile(f"^{place} of")).wait_for()
    wait_until_ready(page)


def status(page: Any, text: str) -> None:
    page.get_by_role("status").filter(has_text=re.compile(f"^{text}$")).wait_for()


def test_a_queue_is_marked_by_keys_alone(
    served: Callable[..., str], open_review: Callable[..., Any], places: tuple[Path, Path]
) -> None:
    results = open_data_set(None, audio_dir=places[0], main_results_dir=places[1]).model("tiny")
    queue = make_queue(results, Asked("tiny", "", "loud", BEST, NOBODY, "Ana"))
    assert (np.diff(queue.scores) <= 0).all() and len(queue.rows) == 24
    page = open_review(served())
    page.get_by_label("Your name").fill("Ana")
    page.get_by_label("Your name").press("Tab")
    page.get_by_role("group", name="Clip to review").focus()
    # Every window's picture is the sound's: the words and the canvas name the first clip.
    name, start, _ = results.window(int(queue.rows[0]))
    picture = page.get_by_role("img", name=f"Spectrogram of {name}")
    assert f"{start:.2f} s" in picture.get_attribute("aria-label")
    assert HOSTILE_LABEL in picture.get_attribute("aria-label")
    press(page, "y", "2")
    press(page, "n", "3")
    press(page, "s", "4")
    page.keyboard.press("2")  # another label: the clip stays
    page.locator(".given", has_text=HOSTILE_LABEL).wait_for()
    press(page, "ArrowRight", "5")
    press(page, "y", "6")
    press(page, "u", "5")  # back to the clip whose mark is taken back
    press(page, "n", "6")
    press(page, "ArrowLeft", "5")
    page.locator(".given", has_text="wrong").wait_for()
    status(page, "5 marks stored")
    table = people(places)
    assert set(table["annotator"]) == {"Ana"}
    said = {
        (row.recording, row.start, row.label): row.value for row in table.itertuples(index=False)
    }
    wanted = {}
    for place, label, value in [
        (0, "loud", "yes"), (1, "loud", "no"), (2, "loud", "unsure"), (3, HOSTILE_LABEL, "yes"),
        (4, "loud", "no"),
    ]:  # fmt: skip
        recording, start, _ = results.window(int(queue.rows[place]))
        wanted[recording, round(start, 3), label] = value
    assert said == wanted
    first = table[(table["label"] == "loud") & (table["value"] == "yes")].iloc[0]
    assert (first["model"], first["chosen_by"]) == ("tiny", "top")
    assert first["score"] == pytest.approx(queue.scores[0])
    # Precision follows the marks, and the file has what was heard.
    counts = page.locator(".bp-count")
    eventually(page, lambda: "1 of 3" in " of ".join(counts.all_inner_texts()[:2]))
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Download annotations.csv").click()
    content = Path(waiting.value.path()).read_bytes()
    heard = pd.read_csv(io.BytesIO(content))
    assert list(heard.columns) == ["audiofilename", "start", "end", "label:species"]
    assert set(heard["label:species"]) == {"loud", HOSTILE_LABEL}
    assert page.locator("img[src='x']").count() == 0 and page.evaluate("window.hacked") is None
    # The next visit goes on with what nobody has marked; others may hear it again.
    page = open_review(page.url.split("/?")[0])
    page.locator(".progress", has_text=re.compile("^1 of 20$")).wait_for()
    page.get_by_label("Your name").fill("Ben")
    page.get_by_label("Your name").press("Tab")
    page.get_by_label("Clips that").select_option(label="I have not marked")
    page.locator(".progress", has_text=re.compile("^1 of 24$")).wait_for()


def test_another_name_and_other_seconds_leave_the_queue_where_it_is(
    served: Callable[..., str], open_review: Callable[..., Any], places: tuple[Path, Path]
) -> None:
    page = open_review(served())
    name = page.get_by_label("Your name")
    name.fill("Ana")
    name.press("Tab")
    page.get_by_role("group", name="Clip to review").focus()
    for place in ("2", "3", "4"):
        press(page, "y", place)
    status(page, "3 marks stored")
    page.get_by_label("Seconds around").select_option("3 s")
    wait_until_ready(page)
    page.locator(".progress", has_text=re.compile("^4 of 24$")).wait_for()
    name.fill("Ben")
    name.press("Tab")
    page.get_by_role("group", name="Clip to review").focus()
    press(page, "ArrowLeft", "3")
    eventually(page, page.locator(".given").inner_text, "")  # Ben has not said anything yet
    wait_until_ready(page)
    press(page, "y", "4")
    status(page, "4 marks stored")
    assert people(places)["annotator"].tolist() == ["Ana", "Ana", "Ana", "Ben"]
    press(page, "u", "3")
    press(page, "u", "3")
    status(page, "2 marks stored")
    table = people(places)
    assert table["annotator"].tolist() == ["Ana", "Ana"]


def test_keys_work_after_clicks_and_not_while_typing(
    served: Callable[..., str], open_review: Callable[..., Any], places: tuple[Path, Path]
) -> None:
    page = open_review(served())
    page.get_by_role("button", name="Explore", exact=True).click()
    page.wait_for_function("!location.search.includes('view=review')")
    page.get_by_role("button", name="Review", exact=True).first.click()
    page.get_by_role("img", name=re.compile("^Spectrogram of")).wait_for()
    press(page, "y", "2")  # the tab has the focus
    press(page, "ArrowRight", "3")
    name = page.get_by_label("Your name").locator("visible=true")  # Explore has another
    name.fill("")
    name.press_sequentially("Anny")
    name.press("Tab")
    page.get_by_label("Class in question").click()
    page.get_by_label("Class in question").select_option(index=1)
    page.locator(".progress", has_text=re.compile("^1 of")).wait_for()
    wait_until_ready(page)
    press(page, "n", "2")  # the mouse has chosen
    status(page, "2 marks stored")
    said = people(places)
    assert said["value"].tolist() == ["yes", "no"]
    assert said["annotator"].tolist()[1] == "Anny" and said["label"].nunique() == 2


def test_marks_survive_a_killed_server(
    open_review: Callable[..., Any], places: tuple[Path, Path]
) -> None:
    command = [sys.executable, "-c", _SERVE, *map(str, places)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ) as server:
        try:
            assert server.stdout is not None
            page = open_review(server.stdout.readline().strip())
            page.get_by_label("Your name").fill("Ana")
            page.get_by_label("Your name").press("Tab")
            page.get_by_role("group", name="Clip to review").focus()
            for count in range(1, 4):
                press(page, "y", str(count + 1))
            status(page, "3 marks stored")
        finally:
            server.kill()
    assert len(people(places)) == 3
    page.keyboard.press("n")  # nobody answers any more, and the page says so
    page.get_by_role("alert").filter(has_text="not stored yet").wait_for()
    assert len(people(places)) == 3


def test_a_cluster_gets_a_name_and_is_heard(
    served: Callable[..., str], open_review: Callable[..., Any], places: tuple[Path, Path]
) -> None:
    results = open_data_set(None, audio_dir=places[0], main_results_dir=places[1]).model("tiny")
    clusters = read_labels(results, "clusters:kmeans")
    rows = np.flatnonzero(clusters.codes == clusters.names.index("cluster 1"))
    assert 1 < len(rows) < len(results)
    page = open_review(served(edit=True))
    page.get_by_label("Your name").fill("Ana")
    page.get_by_label("Your name").press("Tab")
    page.get_by_role("radio", name="Explore").or_(
        page.get_by_role("button", name="Explore")
    ).first.click()
    page.get_by_label("Colour by").select_option(label="Clusters: kmeans")
    page.get_by_label("Select all windows of").select_option(label="cluster 1")
    page.locator(".bp-note", has_text=f"{len(rows)} windows will be labelled").wait_for()
    page.get_by_label("Label for what is selected").fill(HOSTILE_LABEL)
    page.get_by_role("button", name="Label", exact=True).click()
    page.locator(".bp-note", has_text=f"{len(rows)} windows labelled").wait_for()
    table = people(places)
    assert set(table["label"]) == {HOSTILE_LABEL}
    assert set(table["chosen_by"]) == {"clusters:kmeans"}
    named = {(row.recording, row.start) for row in table.itertuples(index=False)}
    assert named == {(name, start) for name, start, _ in map(results.window, rows.tolist())}

    # Side by side: what was asked for is seen without scrolling, and can be marked.
    page.get_by_role("button", name="Selected side by side").click()
    tiles = page.locator("ul.bp-tiles li >> visible=true")
    eventually(page, tiles.count, len(rows))
    eventually(page, lambda: (box := tiles.first.bounding_box())["y"] + box["height"] < 800)
    tiles.first.locator("input").check()
    label = page.get_by_placeholder("such as a species").locator("visible=true")
    label.fill("wren")
    page.get_by_role("button", name="✗ is not").locator("visible=true").click()
    tiles.first.locator(".mark", has_text="✗ wren").wait_for()
    assert people(places).query("label == 'wren'")["value"].tolist() == ["no"]

    page.get_by_label("Colour by").select_option(label="Labels of people")
    page.locator(".bp-entry", has_text=HOSTILE_LABEL).wait_for()
    page.get_by_role("button", name="Listen in Review").click()
    page.locator(".title", has_text=HOSTILE_LABEL).wait_for()
    page.locator(".progress", has_text=re.compile(f"^1 of {len(rows)}$")).wait_for()
    assert page.evaluate("window.hacked") is None


def test_what_marks_do_not_tell_is_in_the_page_and_not_in_the_log(
    places: tuple[Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    results = open_data_set(None, audio_dir=places[0], main_results_dir=places[1]).model("tiny")
    queue = make_queue(results, Asked("tiny", "", "loud", BEST, NOBODY, "Ana"))
    judged = [queue.judgement(place, "loud", "yes", "Ana") for place in range(3)]
    judged.append(queue.judgement(3, "a key's own label", "yes", "Ana"))
    bacpipe.label_windows(places[0], pd.DataFrame(judged), main_results_dir=places[1])
    panel = PrecisionPanel(Background())
    panel.show(queue)
    panel.refresh()
    assert "all 3 checks say yes" in panel._words.object
    assert "own label" not in panel._words.object  # of another class
    assert not [record for record in caplog.records if record.name.startswith("bacpipe")]
    bacpipe.calibrate(places[0], "tiny", main_results_dir=places[1], save=False)
    assert "all 3 checks say yes" in caplog.text and "own label" in caplog.text


def test_marks_that_a_recogniser_was_taught_with_do_not_check_it(
    places: tuple[Path, Path],
) -> None:
    results = open_data_set(None, audio_dir=places[0], main_results_dir=places[1]).model("tiny")
    queue = make_queue(results, Asked("tiny", "", "loud", BEST, NOBODY, "Ana"))
    values = ["yes", "yes", "no", "no"]
    judged = [queue.judgement(i, "loud", value, "Ana") for i, value in enumerate(values)]
    bacpipe.label_windows(places[0], pd.DataFrame(judged), main_results_dir=places[1])
    bacpipe.train_recogniser(
        places[0], "tiny", name="ears", classes=["loud"], main_results_dir=places[1]
    )
    panel = PrecisionPanel(Background())
    # To somebody else, who has not marked them.
    panel.show(make_queue(results, Asked("tiny", "ears", "loud", BEST, NOT_ME, "Ben")))
    panel.refresh()
    assert "that ears was taught with (loud)" in panel._words.object
    assert not panel._drawn.visible


def test_who_may_not_edit_can_listen_only(
    served: Callable[..., str], open_review: Callable[..., Any], places: tuple[Path, Path]
) -> None:
    page = open_review(served(edit=False))
    status(page, "Listening only.*")
    eventually(page, page.get_by_role("button", name="Right").is_disabled)
    # A page that somebody has changed is refused by the server, not only by its buttons.
    page.get_by_role("group", name="Clip to review").focus()
    page.keyboard.press("y")
    page.keyboard.press("ArrowRight")
    page.locator(".progress", has_text=re.compile("^2 of")).wait_for()
    assert people(places).empty


@pytest.mark.parametrize(
    ("settings", "may"),
    [
        ({}, True),
        ({"dashboard_address": "127.0.0.1"}, True),
        ({"dashboard_address": "0.0.0.0"}, False),
        ({"dashboard_websocket_origin": "bio.example.org"}, False),
        ({"dashboard_address": "0.0.0.0", "edit": True}, True),
        ({"edit": False}, False),
    ],
)
def test_only_visitors_of_this_machine_may_edit(
    made: tuple[Path, Path], settings: dict[str, Any], may: bool
) -> None:
    opened = open_data_set(None, audio_dir=made[0], main_results_dir=made[1], **settings)
    assert opened.may_edit is may


def test_queues_of_plans_and_of_other_views(places: tuple[Path, Path]) -> None:
    results = open_data_set(None, audio_dir=places[0], main_results_dir=places[1]).model("tiny")
    spread = make_queue(results, Asked("tiny", "", "loud", SPREAD, NOBODY, ""))
    low, high = np.quantile(spread.scores, [0.2, 0.8])
    everything = make_queue(results, Asked("tiny", "", "loud", BEST, NOBODY, "")).scores
    assert low < np.median(everything) < high and spread.chosen_by == "review_plan"
    rows = np.array([7, 3, 11])
    table = results.window_table(rows).rename(columns={"audiofilename": "recording"})
    gone = table.assign(recording="gone.wav")
    sent = ClipsToReview.of_table(results, pd.concat([table, gone]), "found", "wren")
    queue = queue_of(results, sent)
    assert queue.rows.tolist() == rows.tolist() and queue.label == "wren"


def test_what_is_known_is_drawn(places: tuple[Path, Path]) -> None:
    audio, stored = places
    results = open_data_set(None, audio_dir=audio, main_results_dir=stored).model("tiny")
    name = "site1/rec_20240501_040000.wav"
    row = {"recording": name, "start": 2.0, "end": 3.0, "label": "wren"}
    bacpipe.label_windows(audio, row, annotator="Ana", main_results_dir=stored)
    assert [(m.text, m.kind) for m in marks_between(results, name, 2, 3, detections=False)] == [
        ("wren", "people")
    ]
    found = marks_between(results, name, 10.5, 11.5)
    assert (HOSTILE_LABEL, "annotation") in [(mark.text, mark.kind) for mark in found]
    assert any(mark.kind == "detection" and mark.text.startswith("loud 0.") for mark in found)
    bacpipe.label_windows(audio, {**row, "value": "undo"}, annotator="Ana", main_results_dir=stored)
    assert marks_between(results, name, 2, 3, detections=False) == []
