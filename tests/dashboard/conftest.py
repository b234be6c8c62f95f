"""A served dashboard with the results of two tiny models, and a browser to look at it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import pytest

import bacpipe
from bacpipe.dashboard.background import Background, _Job
from bacpipe.dashboard.server import Server, open_data_set
from bacpipe.dashboard.shared.results import DataSetResults
from tests.conftest import TinyModel, write_recording

PATIENCE = 180
"""Seconds that a page may take for anything; a busy machine has needed more than 60."""

# A label that would run if the page took it for markup.
HOSTILE_LABEL = "<img src=x onerror=window.hacked=1>"


def eventually(page: Any, look: Callable[[], object], expected: object = True) -> None:
    """Wait until a page shows what is expected: what it shows at once may be what it showed.

    `page` is None where no browser is asked: a view computes in threads, too.
    """
    end = time.monotonic() + PATIENCE
    while (shown := look()) != expected:
        assert time.monotonic() < end, f"{shown!r} instead of {expected!r}"
        time.sleep(0.05) if page is None else page.wait_for_timeout(50)


def gesture(
    page: Any, look: Callable[[], Any], make: Callable[[Any], object], done: Callable[[], bool]
) -> None:
    """Make a gesture at the place that `look` finds, once that rests, until it has its effect.

    On a busy machine the page may move meanwhile, and Bokeh takes a button that is held for 0.3 s
    before the mouse moves or it is let go for a long press, which is neither a drag nor a click.
    """

    def made() -> bool:
        place = look()
        page.wait_for_timeout(500)
        if place is None or look() != place:
            return False
        make(place)
        for _ in range(100):
            if done():
                return True
            page.wait_for_timeout(50)
        return False

    eventually(page, made)


class LateBackground(Background):
    """Of a page to which results come when a test says so, see the fixture `late`."""

    def __init__(self, on_page: Any = None) -> None:
        super().__init__(on_page)
        self._waiting: list[_Job] = []

    def _begin(self, job: _Job, on: Executor) -> None:
        self._waiting.append(job)

    def answer(self, begin: str = "") -> None:
        """Let results come whose keys begin so, and what is asked for because of them."""
        while due := [job for job in self._waiting if job.key.startswith(begin)]:
            self._waiting.remove(due[0])
            if self._is_wanted(due[0]):
                self._present(due[0], due[0].compute)


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Views that are made have a `LateBackground`."""
    monkeypatch.setattr("bacpipe.dashboard.shared.view.Background", LateBackground)


class OtherModel(TinyModel):
    """A second model, with two windows a second."""

    def __init__(self, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.segment_length = 4000


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Folders of recordings and of results: maps, predictions, clusters and a probe."""
    base = tmp_path_factory.mktemp("dashboard")
    audio = base / "field"
    rows = ["audiofilename,start,end,label:species"]
    for day in (1, 2):
        for hour in (4, 5, 18):
            name = f"site{day}/rec_2024050{day}_{hour:02d}0000.wav"
            write_recording(audio / name, 12.0, seed=10 * day + hour)
            species = "owl" if hour == 18 else "wren"
            rows += [f"{name},0,5,{species}", f"{name},6,9,{HOSTILE_LABEL}"]
    (audio / "broken.wav").write_text("not audio")
    (audio / "annotations.csv").write_text("\n".join(rows), encoding="utf-8")
    bacpipe.play(
        audio_dir=audio,
        main_results_dir=base / "results",
        models=["tiny", "other"],
        CustomModels=[TinyModel, OtherModel],
        device="cpu",
        classifier_threshold=0.3,
        dim_reduction_model="pca",
        evaluation_task=["probing", "clustering"],
        bootstrap_samples=20,
    )
    return audio, base / "results"


class MuteModel(TinyModel):
    """A model without a classifier."""

    def __init__(self, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.classes = []


_MODELS = {"tiny": TinyModel, "other": OtherModel, "mute": MuteModel}


def make_small_field(
    base: Path,
    port: int,
    models: Sequence[str] = ("tiny",),
    *,
    reducer: str = "None",
    **settings: object,
) -> DataSetResults:
    """Results of tiny models for two sites, for tests that write into them."""
    audio = base / "field"
    for site in ("north", "south"):
        for hour in (4, 18):
            name = f"{site}/rec_20240501_{hour:02d}0000.wav"
            write_recording(audio / name, 12.0, seed=hour + len(name))
    (audio / "sites.csv").write_text(
        "site,latitude,longitude,time_zone\nnorth,52.5,13.4,UTC+2\nsouth,,,UTC+2\n"
    )
    bacpipe.play(
        audio_dir=audio, main_results_dir=base / "results", models=[*models],
        CustomModels=[_MODELS[name] for name in models], device="cpu", classifier_threshold=0.3,
        dim_reduction_model=reducer,
    )  # fmt: skip
    return open_data_set(
        models, audio_dir=audio, main_results_dir=base / "results", dashboard_port=port, **settings
    )


@pytest.fixture(scope="session")
def data_set(results: tuple[Path, Path]) -> DataSetResults:
    audio, stored = results
    return open_data_set(None, audio_dir=audio, main_results_dir=stored, dashboard_port=5300)


@pytest.fixture(scope="session")
def server(data_set: DataSetResults) -> Iterator[Server]:
    running = Server(data_set)
    running.start(show=False)
    yield running
    running.stop()


@pytest.fixture(scope="session")
def context(browser: Any) -> Iterator[Any]:
    """Of the pages of all tests: scripts that were read and compiled once are not again."""
    opened = browser.new_context(viewport={"width": 1280, "height": 800})
    opened.set_default_timeout(1000 * PATIENCE)
    yield opened
    opened.close()


def close_pages(context: Any) -> None:
    """Close what a test has opened; until then, its pages may complain."""
    for page in context.pages:
        page.close()


@pytest.fixture
def visit(server: Server, context: Any) -> Iterator[object]:
    """Open an address of the dashboard; the test fails if the browser complains."""
    complaints: list[str] = []

    def complain(message: Any) -> None:
        # Of warnings, those of graphics cards are none of ours; Choices.js draws lists to choose
        # from, and does not like what Panel asks of it.
        if message.type == "error" or (message.type == "warning" and "Choices" in message.text):
            complaints.append(f"{message.text} ({message.location['url']})")

    def open_page(query: str = "", *, width: int = 1280, height: int = 800) -> object:
        page = context.new_page()
        page.set_viewport_size({"width": width, "height": height})
        page.on("console", complain)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(f"{server.url}/{query}")
        page.wait_for_selector(".bp-brand")
        return page

    yield open_page
    close_pages(context)
    assert complaints == []
