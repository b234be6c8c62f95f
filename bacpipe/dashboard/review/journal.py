"""Marks on their way to the disk, in the order of the key presses."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pandas as pd

from bacpipe.dashboard.background import STORING, Background
from bacpipe.dashboard.shared.results import ModelResults
from bacpipe.errors import BacpipeError
from bacpipe.labels.people import label_windows

Rows = Sequence[dict[str, Any]]


class Written(NamedTuple):
    """Outcome of a mark: how it was numbered, and why it is not stored; empty if it is."""

    number: int
    problem: str


class Journal:
    """Stores marks of one page through `bacpipe.label_windows`, beside the server's loop.

    Parameters
    ----------
    background : Background
    on_written : callable
        Gets what became of some marks, on the page's own thread.
    """

    def __init__(self, background: Background, on_written: Callable[[list[Written]], None]) -> None:
        self._background, self._on_written = background, on_written
        self._waiting: deque[tuple[int, ModelResults, Rows]] = deque()
        self._turn = threading.Lock()  # the order on the disk is that of the key presses
        self._calls = 0

    def store(self, number: int, results: ModelResults, rows: Rows) -> None:
        """Write the rows of a mark; `number` is what the page calls it."""
        self._waiting.append((number, results, rows))
        self._calls += 1
        self._background.run(
            f"journal-{id(self)}-{self._calls}",  # none overtakes another
            self._write,
            self._on_written,
            fail=lambda sentence: self._on_written([Written(number, sentence)]),
            on=STORING,
        )

    def _write(self) -> list[Written]:
        done = []
        with self._turn:
            while self._waiting:
                number, results, rows = self._waiting.popleft()
                done.append(Written(number, _problem_of(results, rows)))
        return done


def _problem_of(results: ModelResults, rows: Rows) -> str:
    try:
        table = pd.DataFrame(list(rows))
        written = label_windows(results.loader.audio_dir, table, **results.settings)
    except BacpipeError as error:
        return str(error)
    return "" if written == len(rows) else "The recording is not there any more."
