"""List of the windows that are most similar to one, to click."""

from __future__ import annotations

import html
import itertools
from collections.abc import Callable
from pathlib import PurePosixPath

import panel as pn

from bacpipe.dashboard.background import Background
from bacpipe.dashboard.shared.labels import NONE, Labels
from bacpipe.dashboard.shared.results import ModelResults
from bacpipe.dashboard.shared.widgets import Spinner
from bacpipe.dashboard.style import CSS
from bacpipe.evaluation.retrieval import Neighbours, nearest_windows

_COUNT = 12
# Above, a search takes long enough that it has to be asked for.
_MOST_UNASKED = 300_000


class NeighbourList:
    """Neighbours of a window in the space of the embeddings, not of the map.

    Parameters
    ----------
    background : Background
        Of the page.
    on_choose : callable
        Gets the row of the neighbour that was clicked.

    Attributes
    ----------
    panel : panel object
    """

    def __init__(self, background: Background, on_choose: Callable[[int], None]) -> None:
        self._background, self._on_choose = background, on_choose
        self._results: ModelResults | None = None
        self._row: int | None = None
        self._labels: Labels | None = None
        self._newest = itertools.count()
        self._search_number = -1
        self._list = pn.widgets.MultiSelect(  # of which none need be chosen
            label="", options={}, size=6, sizing_mode="stretch_width", margin=(0, 10),
            css_classes=["bp-neighbours"],
        )  # fmt: skip
        self._elsewhere = pn.widgets.Checkbox(
            label="in other recordings only", value=False, margin=(0, 10)
        )
        self._ask = pn.widgets.Button(label="Search", visible=False, margin=(0, 10), height=28)
        self._note = pn.pane.HTML("", css_classes=["bp-note"], margin=(0, 10))
        self._list.param.watch(self._chosen, "value")
        self._elsewhere.param.watch(lambda _: self._search(), "value")
        self._ask.on_click(lambda _: self._search())
        self._spinner = Spinner()
        heading = pn.pane.HTML(
            '<div class="bp-heading">Most similar windows</div>', stylesheets=[CSS], margin=(0, 10)
        )
        self.panel = pn.Column(
            self._spinner.panel,
            pn.Row(heading, self._elsewhere, self._ask, sizing_mode="stretch_width"),
            self._list,
            self._note,
            sizing_mode="stretch_width",
        )

    def show(self, results: ModelResults, row: int, labels: Labels | None) -> None:
        """Find the neighbours of a window.

        Parameters
        ----------
        results : ModelResults
            Of the model.
        row : int
            Its window.
        labels : Labels, optional
            What to say about the neighbours.
        """
        self._results, self._row, self._labels = results, row, labels
        if len(results) <= _MOST_UNASKED:
            self._search()
        else:
            self._ask.visible = True
            self._list.param.update(options={}, value=[])

    def clear(self) -> None:
        """Show nothing."""
        self._results = self._row = None
        self._search_number = next(self._newest)  # ends a search that is under way
        self._list.param.update(options={}, value=[])

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
            f"neighbours-{id(self)}", compute, self._show, fail=self._fail, busy=self._spinner
        )

    def _show(self, found: Neighbours) -> None:
        pairs = zip(found.rows.tolist(), found.similarity.tolist(), strict=True)
        options = {
            self._describe(place, row, similarity): row
            for place, (row, similarity) in enumerate(pairs, start=1)
        }
        self._list.param.update(options=options, value=[])
        skipped = f"{found.skipped} recordings could not be read." if found.skipped else ""
        self._say(skipped or ("" if options else "There are no other windows."))

    def _describe(self, place: int, row: int, similarity: float) -> str:
        assert self._results is not None
        results, labels = self._results, self._labels
        name = PurePosixPath(results.recordings[results.recording_code[row]]).name
        code = NONE if labels is None else labels.codes[row]
        label = "" if labels is None or code == NONE else f" · {labels.names[code]}"
        return f"{place}. {similarity:.3f}{label} · {name} · {results.start[row]:.1f} s"

    def _fail(self, sentence: str) -> None:
        self._list.param.update(options={}, value=[])
        self._say(sentence)

    def _say(self, sentence: str) -> None:
        self._note.object = html.escape(sentence)

    def _chosen(self, _: object) -> None:
        if self._list.value:
            self._on_choose(int(self._list.value[0]))
