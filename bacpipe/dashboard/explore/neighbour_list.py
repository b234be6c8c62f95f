"""List of the windows that are most similar to one, to click."""

from __future__ import annotations

import html
import itertools
import json
from collections.abc import Callable
from pathlib import PurePosixPath
from urllib.parse import urlencode

import panel as pn

from bacpipe.dashboard.background import LONG, POOL, Background
from bacpipe.dashboard.shared.clips import channel_words
from bacpipe.dashboard.shared.labels import WindowLabels
from bacpipe.dashboard.shared.results import ModelResults
from bacpipe.dashboard.shared.widgets import Spinner, TickBox, html_pane
from bacpipe.errors import counted
from bacpipe.evaluation.retrieval import Neighbours, nearest_windows

_COUNT = 12
# Above, a search takes long enough that it has to be asked for.
_MOST_UNASKED = 300_000


class NeighbourList:
    """Neighbours of a window in the space of the embeddings, not of the map.

    `on_choose` gets the row of the neighbour that was clicked.
    """

    def __init__(self, background: Background, on_choose: Callable[[int], None]) -> None:
        self._background, self._on_choose = background, on_choose
        self._results: ModelResults | None = None
        self._row: int | None = None
        self._labels: WindowLabels | None = None
        self._newest = itertools.count()
        self._search_number = -1
        self._list = pn.widgets.MultiSelect(  # of which none need be chosen
            label="Most similar windows", options={}, size=6, sizing_mode="stretch_width",
            margin=(0, 10), css_classes=["bp-neighbours"],
            stylesheets=[".bk-input { font-size: 12px; }"],
        )  # fmt: skip
        self._elsewhere = TickBox("in other recordings only", margin=(0, 10))
        self._ask = pn.widgets.Button(label="Search", visible=False, margin=(0, 10), height=28)
        self._note = html_pane("", "bp-note", margin=(0, 10))
        self._side_by_side = html_pane("", "bp-note", margin=(0, 10))
        self._list.param.watch(self._chosen, "value")
        self._elsewhere.param.watch(lambda _: self._search(), "value")
        self._ask.on_click(lambda _: self._search())
        self._spinner = Spinner()
        self.panel = pn.Column(
            self._spinner.panel,
            self._list,
            pn.Row(self._elsewhere, self._ask, sizing_mode="stretch_width"),
            self._note,
            self._side_by_side,
            sizing_mode="stretch_width",
        )

    def show(self, results: ModelResults, row: int, labels: WindowLabels | None) -> None:
        """Find the neighbours of a window; labels are what is said about them."""
        self._results, self._row, self._labels = results, row, labels
        query = {"view": "search", "model": results.name,
                 "like": json.dumps([results.place(row)])}  # fmt: skip
        self._side_by_side.object = (
            f'<a href="?{html.escape(urlencode(query))}">Search with this window</a>: many side '
            f"by side, to hear, filter and mark"
        )
        self._ask.visible = len(results) > _MOST_UNASKED
        if self._ask.visible:
            self._stop()
            self._list.param.update(options={}, value=[])
            self._say("")
        else:
            self._search()

    def clear(self) -> None:
        """Show nothing."""
        self._results = self._row = None
        self._side_by_side.object = ""
        self._stop()
        self._list.param.update(options={}, value=[])
        self._say("")

    def _stop(self) -> None:
        """End a search that is under way: it is for another window."""
        self._search_number = next(self._newest)
        self._background.cancel(f"neighbours-{id(self)}")

    def _search(self) -> None:
        results, row = self._results, self._row
        if results is None or row is None:
            return
        number = self._search_number = next(self._newest)
        elsewhere = self._elsewhere.value

        def compute() -> Neighbours:
            return nearest_windows(
                results.loader,
                row,
                count=_COUNT,
                other_recordings=elsewhere,
                wanted=lambda: number == self._search_number,
            )

        self._background.run(
            f"neighbours-{id(self)}", compute, self._show, fail=self._fail, busy=self._spinner,
            on=POOL if len(results) <= _MOST_UNASKED else LONG,
        )  # fmt: skip

    def _show(self, nearest: Neighbours) -> None:
        pairs = zip(nearest.rows.tolist(), nearest.similarity.tolist(), strict=True)
        options = {
            self._describe(place, row, similarity): row
            for place, (row, similarity) in enumerate(pairs, start=1)
        }
        self._list.param.update(options=options, value=[])
        unread = f"{counted(nearest.skipped, 'recording')} could not be read."
        skipped = unread if nearest.skipped else ""
        self._say(skipped or ("" if options else "There are no other windows."))

    def _describe(self, place: int, row: int, similarity: float) -> str:
        assert self._results is not None
        recording, start, _ = self._results.window(row)
        label = None if self._labels is None else self._labels.of(row)
        said = "" if label is None else f" · {label}"
        channel = channel_words(self._results.channel_of(row))
        where = [PurePosixPath(recording).name, f"{start:.1f} s", *filter(None, [channel])]
        return f"{place}. {similarity:.3f}{said} · {' · '.join(where)}"

    def _fail(self, sentence: str) -> None:
        self._list.param.update(options={}, value=[])
        self._say(sentence)

    def _say(self, sentence: str) -> None:
        self._note.object = html.escape(sentence)

    def _chosen(self, _: object) -> None:
        if self._list.value:
            self._on_choose(int(self._list.value[0]))
