"""What is computed beside the page reaches it, or the page says that it did not."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import panel as pn
import pytest

import bacpipe
from bacpipe.dashboard import background as background_module
from bacpipe.dashboard.background import Background
from bacpipe.dashboard.review.journal import Journal, Written
from bacpipe.dashboard.search.view import SearchView
from bacpipe.dashboard.server import Server
from bacpipe.dashboard.shared.view import View
from bacpipe.dashboard.teach.view import TeachView
from tests.dashboard.conftest import eventually, make_small_field
from tests.dashboard.test_controls import NORTH, Room

LIKE: dict[type[View], dict[str, Any]] = {SearchView: {"like": [[NORTH, 3.0]]}}


class DeafPage:
    """Stands for the document of a page that runs its timers, and loses everything else."""

    def __init__(self) -> None:
        self.session_context = SimpleNamespace(destroyed=False)
        self.timers: list[Callable[[], None]] = []

    def add_next_tick_callback(self, callback: object) -> None:
        """Lose it."""

    def add_timeout_callback(self, callback: Callable[[], None], delay: int) -> None:
        self.timers.append(callback)

    def wait(self) -> None:
        due, self.timers = self.timers, []
        for callback in due:
            callback()


class WorkingPage(DeafPage):
    """Stands for the document of a page that runs whatever it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.session_context.with_locked_document = self._locked
        self._ticks: list[Callable[[], Any]] = []

    def add_next_tick_callback(self, callback: Any) -> None:
        self._ticks.append(callback)

    async def _locked(self, work: Callable[[Any], Awaitable[None]]) -> None:
        await work(self)

    def run_ticks(self) -> None:
        async def run() -> None:
            while self._ticks:
                done = self._ticks.pop(0)()
                if inspect.isawaitable(done):
                    await done

        # In a thread, because the browser of other tests has a loop in this one.
        loop = threading.Thread(target=asyncio.run, args=(run(),))
        loop.start()
        loop.join()


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> DeafPage:
    deaf = DeafPage()
    monkeypatch.setattr(background_module, "page_document", lambda: deaf)
    return deaf


def test_a_result_that_does_not_arrive_is_said(page: DeafPage) -> None:
    background, spinner = Background(), SimpleNamespace(loading=False)
    said: list[str] = []
    computed = threading.Event()
    background.run("map", computed.set, said.append, fail=said.append, busy=spinner)
    page.wait()
    assert spinner.loading
    assert computed.wait(10)
    while not said and page.timers:
        page.wait()
    assert said == ["This was computed, but could not be shown; reload the page."]
    assert not spinner.loading


def test_work_that_takes_long_is_not_given_up(page: DeafPage) -> None:
    background, said = Background(), []
    end = threading.Event()
    background.run("map", lambda: end.wait(10), said.append, fail=said.append)
    for _ in range(50):
        page.wait()
    assert said == []
    end.set()


def test_what_a_visitor_who_has_left_searched_for_is_not_computed(page: DeafPage) -> None:
    background, done = Background(), []
    end = threading.Event()
    queues = (background_module.SEARCHES, background_module.STORING)
    for queue in queues:
        queue.submit(end.wait, 10)
        name = queue._thread_name_prefix
        background.run(name, lambda name=name: done.append(name), print, fail=print, on=queue)
    page.session_context.destroyed = True
    end.set()
    for queue in queues:
        queue.submit(int).result(10)
    assert done == ["dashboard-storing"]  # marks are kept


def test_what_was_overtaken_is_not_missed(page: DeafPage) -> None:
    background, said = Background(), []
    background.run("map", lambda: 1, said.append, fail=said.append)
    background.run("map", lambda: 2, said.append, fail=said.append)
    while page.timers:
        page.wait()
    assert said == ["This was computed, but could not be shown; reload the page."]


def test_what_was_overtaken_or_is_not_wanted_is_not_computed(page: DeafPage) -> None:
    background, done, end = Background(), list[int](), threading.Event()
    one_thread = ThreadPoolExecutor(1)
    wait: dict[str, Any] = {"show": lambda _: None, "fail": lambda _: None, "on": one_thread}
    background.run("first", lambda: end.wait(10), **wait)
    for i in range(4):
        background.run("map", lambda i=i: done.append(i), **wait)
    background.run("list", lambda: done.append(-1), **wait)
    background.cancel("list")
    end.set()
    one_thread.shutdown()
    assert done == [3]


def test_the_spinner_of_what_was_overtaken_stops(page: DeafPage) -> None:
    background, end = Background(), threading.Event()
    one, other = SimpleNamespace(loading=False), SimpleNamespace(loading=False)

    def run(key: str, busy: SimpleNamespace) -> None:
        background.run(key, lambda: end.wait(10), lambda _: None, fail=lambda _: None, busy=busy)
        page.wait()

    run("map", one)
    assert one.loading
    run("map", other)
    assert (one.loading, other.loading) == (False, True)
    run("list", other)
    background.cancel("map")
    assert other.loading  # for the list
    background.cancel("list")
    assert not other.loading
    end.set()


@pytest.mark.parametrize("kind", [SearchView, TeachView])
def test_marks_are_stored_while_many_visitors_wait(
    tmp_path: Path, kind: type[View], monkeypatch: pytest.MonkeyPatch
) -> None:
    field = make_small_field(tmp_path, 5410)
    row = {"recording": NORTH, "start": 10.0, "end": 11.0, "label": "strong", "value": "yes",
           "annotator": "Ben"}  # fmt: skip
    store: dict[str, Any] = {"main_results_dir": field.options.main_results_dir}
    bacpipe.label_windows(field.audio_dir, [{**row, "start": 9.0, "end": 10.0}], **store)
    rooms = [Room(kind, field, model="tiny", **LIKE.get(kind, {})) for _ in range(6)]
    begun, end = list[object](), threading.Event()

    def work(*given: object) -> None:
        begun.append(given[1])
        end.wait(60)

    monkeypatch.setattr("bacpipe.dashboard.search.view.answer", work)
    monkeypatch.setattr("bacpipe.dashboard.teach.lesson.train", work)
    monkeypatch.setattr(background_module, "page_document", DeafPage)
    try:
        for room in rooms:
            room.view.background = Background()
            if kind is SearchView:
                for count in ("12", "24", "120"):
                    room.choose("Windows", count)
            else:
                room.press("Train")
        eventually(None, lambda: len(begun), 1)
        told: list[Written] = []
        Journal(Background(), told.extend).store(1, field.model("tiny"), [row])
        eventually(None, lambda: len(bacpipe.people_labels(field.audio_dir, **store)), 2)
    finally:
        end.set()
    # What each of them asked for last; the one that had begun is the only other one.
    eventually(None, lambda: len(begun) >= 6)
    if kind is SearchView:
        counts = [request.most for request in begun]  # type: ignore[attr-defined]
        assert counts[1:].count(120) >= 5 and set(counts[1:]) == {120}


def test_without_a_page_the_result_is_shown_at_once() -> None:
    shown: list[int] = []
    Background().run("map", lambda: 3, shown.append, fail=lambda _: None)
    assert shown == [3]


def test_a_notebook_beside_a_server_has_no_page(server: Server) -> None:
    shown: list[int] = []
    pn.state.curdoc = DeafPage()  # as Bokeh before 3.10 tells while the server makes one
    try:
        Background().run("map", lambda: 3, shown.append, fail=lambda _: None)
    finally:
        pn.state.curdoc = None
    assert shown == [3]


def test_after_a_result_everything_that_waits_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    page, panel, shown = WorkingPage(), pn.pane.HTML(), list[int]()
    monkeypatch.setattr(background_module, "page_document", lambda: page)
    background = Background(panel)
    background.run("map", lambda: 3, shown.append, fail=lambda _: None)
    page.run_ticks()
    assert shown == [3]
    seen = []
    panel.param.watch(lambda event: seen.append(event.new), "tags")
    page.wait()
    assert len(seen) == 2
    assert seen[0] != seen[1]
