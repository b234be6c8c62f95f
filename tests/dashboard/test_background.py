"""What is computed beside the page reaches it, or the page says that it did not."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import panel as pn
import pytest

from bacpipe.dashboard.background import Background


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


@pytest.fixture
def page() -> Iterator[DeafPage]:
    deaf = DeafPage()
    pn.state.curdoc = deaf
    yield deaf
    pn.state.curdoc = None


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


def test_what_was_overtaken_is_not_missed(page: DeafPage) -> None:
    background, said = Background(), []
    background.run("map", lambda: 1, said.append, fail=said.append)
    background.run("map", lambda: 2, said.append, fail=said.append)
    while page.timers:
        page.wait()
    assert said == ["This was computed, but could not be shown; reload the page."]


def test_without_a_page_the_result_is_shown_at_once() -> None:
    shown: list[int] = []
    Background().run("map", lambda: 3, shown.append, fail=lambda _: None)
    assert shown == [3]
