"""Compare: the maps of two models side by side."""

from __future__ import annotations

import html
from functools import lru_cache, partial
from typing import Any, ClassVar, NamedTuple

import numpy as np
import panel as pn
import param

from bacpipe.dashboard.background import LONG, POOL
from bacpipe.dashboard.compare.agreement import (
    KIND,
    TITLE,
    AgreementPanel,
    agreement_labels,
    agreement_of,
)
from bacpipe.dashboard.shared.embedding_map import EmbeddingMap
from bacpipe.dashboard.shared.labels import (
    WindowLabels,
    kinds_of_all,
    most_frequent,
    read_labels,
    with_common_names,
)
from bacpipe.dashboard.shared.results import DataSetResults, ModelResults
from bacpipe.dashboard.shared.view import View
from bacpipe.dashboard.shared.widgets import hint, html_pane, legend_html, offer, select
from bacpipe.dashboard.shared.window_details import WindowDetails
from bacpipe.dashboard.style import CSS, MOST_COLOURS
from bacpipe.errors import BacpipeError, ResultsNotFoundError, counted
from bacpipe.evaluation.agreement import NeighbourAgreement
from bacpipe.labels.matching import NO_MATCH, best_matches, overlapping_windows

_SIDES = ("left", "right")
# Up to so many windows, the agreement is there before a visitor wonders; more are compared
# when somebody asks.
_WINDOWS_AT_ONCE = 6000


class _Colouring(NamedTuple):
    """Labels of both models, and their agreement where it colours the maps."""

    labels: list[WindowLabels | None]
    agreement: NeighbourAgreement | None


class CompareView(View):
    """Two maps with linked selections, and how far they agree."""

    key: ClassVar[str] = "compare"
    title: ClassVar[str] = "Compare"
    help_text: ClassVar[str] = """
**Two models, the same recordings.** Every point is a short piece of sound (a *window*). Points
that lie together sound alike to that model. Directions and distances between far groups mean
nothing, so compare which points are together, not where.

**Select in one map, look in the other.** Click on a point to see and hear it; the other map marks
the windows that hold the same moment. With the keyboard, *Tab* to a map brings four arrows that go
from window to window on it. Draw around a group with the lasso: if the outlined points
are together in the other map as well, both models hear what they have in common. A double click
takes the selection away.

**Agreement** is the share of nearest neighbours that a window has in both models, over all
dimensions of the embeddings, not only the two of the map: 100 % means that both find the same
windows similar, and chance is what two unrelated models would reach. Windows that overlap in time
do not count as neighbours. It is not a score: two models may agree and both be wrong.
(Mutual nearest neighbours, [Huh et al. 2024](https://arxiv.org/abs/2405.07987).)
"""
    in_address: ClassVar[dict[str, str]] = {
        "left": "left",
        "right": "right",
        "reducer": "compare_map",
        "colour": "compare_colour",
        "neighbours": "neighbours",
        "window": "compare_window",
    }

    left = param.Selector(objects=[], doc="Model at the left")
    right = param.Selector(objects=[], doc="Model at the right")
    reducer = param.Selector(objects=[], allow_None=True, doc="Kind of map")
    colour = param.Selector(objects=[], allow_None=True, doc="Kind of label")
    neighbours = param.Integer(10, bounds=(1, 100))
    window = param.String("", doc="Window that is shown: side@start@recording")

    def __init__(self, data_set: DataSetResults, **values: Any) -> None:
        super().__init__(data_set, **values)
        self._results: list[ModelResults] = []
        self._maps: list[EmbeddingMap] = []
        models = data_set.available
        if len(models) < 2:
            return
        self._maps = [
            EmbeddingMap(
                side, on_click=partial(self._clicked, i), on_select=partial(self._selected, i)
            )
            for i, side in enumerate(_SIDES)
        ]
        self._missing = [pn.pane.HTML("", stylesheets=[CSS], visible=False) for _ in _SIDES]
        self._legend, self._linked = html_pane(), html_pane()
        self._agreement = AgreementPanel()
        self._ask = pn.widgets.Button(
            label="Compare the neighbourhoods", color="primary", variant="outline", visible=False
        )
        self._ask.on_click(lambda _: self._compare())
        self._details = WindowDetails(
            data_set, self.background, height=150, settings=self.spectrograms
        )
        self._placed = False
        self._greeting = ""
        self._asked: set[tuple[str, str, int]] = set()
        for name, default in zip(_SIDES, models, strict=False):
            offer(self, name, models, default)
        self._choose_models()
        # The address may name models first and then a colour that only they have.
        self.param.watch(lambda *_: self._choose_models(), list(_SIDES))

    def controls(self) -> Any:
        if not self._maps:
            return pn.Column()
        titles = {"left": "Left model", "right": "Right model", "reducer": "Kind of map",
                  "colour": "Colour"}  # fmt: skip
        choices = [select(self.param[name], title) for name, title in titles.items()]
        neighbours = pn.widgets.IntInput.from_param(
            self.param.neighbours, label="Neighbours to compare", start=1, end=100,
            sizing_mode="stretch_width",
        )  # fmt: skip
        return pn.Column(*choices, neighbours, sizing_mode="stretch_width")

    def body(self) -> Any:
        if not self._maps:
            models = self.data_set.available
            there = f"There are results of {models[0]} only" if models else "There are no results"
            return hint(
                f"{html.escape(there)}; comparing needs two models. Run another one on the same "
                f"recordings, for example with <code>models: [birdnet, perch_bird]</code> in "
                f"config.yaml, and open this page again."
            )
        columns = [
            pn.Column(missing, part.panel, sizing_mode="stretch_both")
            for missing, part in zip(self._missing, self._maps, strict=True)
        ]
        return pn.Column(
            # As high as leaves room for the player in the window of the browser.
            pn.Row(
                *columns, sizing_mode="stretch_both", css_classes=["bp-maps"], stylesheets=[CSS]
            ),
            self._legend,
            self._linked,
            pn.Row(
                pn.Column(
                    self._agreement.panel, self._ask, css_classes=["bp-side"], stylesheets=[CSS],
                    sizing_mode="stretch_width",
                ),
                pn.Column(
                    self._details.panel, css_classes=["bp-side"], stylesheets=[CSS],
                    sizing_mode="stretch_width",
                ),
                css_classes=["bp-beside"],
                stylesheets=[CSS],
                sizing_mode="stretch_width",
            ),
            stylesheets=[CSS],
            sizing_mode="stretch_both",
            margin=(4, 8),
        )  # fmt: skip

    def opened(self) -> None:
        if not self._maps:
            return
        # What the address got wrong stays to be read.
        self._greeting = self.notice.sentence
        self.param.watch(lambda *_: self._change_models(), list(_SIDES))
        self.param.watch(lambda _: self._place(), "reducer")
        self.param.watch(lambda _: self._paint(), "colour")
        self.param.watch(lambda _: self._agree(), "neighbours")
        self.param.watch(lambda _: self._show_window(), "window")
        self._place()

    # ------------------------------------------------------------------ what is compared

    def _choose_models(self) -> None:
        """Take the models' results, and offer what they have."""
        try:
            self._results = [self.data_set.model(name) for name in (self.left, self.right)]
        except BacpipeError as error:
            self.say(str(error))
            return
        self._placed = False  # nothing is drawn before all choices are made
        self._kinds = {**kinds_of_all(self._results), KIND: TITLE}
        offer(self, "reducer", [name for part in self._results for name in part.maps])
        offer(self, "colour", {title: kind for kind, title in self._kinds.items()})

    def _change_models(self) -> None:
        self._greeting = self.window = ""
        self._details.clear()
        self._place()

    def _place(self) -> None:
        """Put the windows of both models on their maps."""
        results, reducer = list(self._results), self.reducer
        self._placed = False
        for key in ("colours", "agreement", "linked"):  # of what was on the maps before
            self.background.cancel(key)

        def read() -> list[tuple[ModelResults, str | None, np.ndarray]]:
            maps = []
            for part in results:
                name = reducer if reducer in part.maps else next(iter(part.maps), None)
                nowhere = np.zeros((0, 2), np.float32)
                maps.append((part, name, part.coordinates(name) if name else nowhere))
            return maps

        def show(maps: list[tuple[ModelResults, str | None, np.ndarray]]) -> None:
            for i, (part, name, points) in enumerate(maps):
                self._put(i, part, name, points)
            self._placed = True
            self._link("")
            self._paint()
            self._show_window()

        self.background.run("maps", read, show, fail=self.say, busy=self._maps[0].panel)

    def _put(self, side: int, results: ModelResults, name: str | None, points: np.ndarray) -> None:
        part, missing = self._maps[side], self._missing[side]
        part.panel.visible, missing.visible = name is not None, name is None
        if name is None:
            missing.object = (
                f'<div class="bp-hint"><b>{html.escape(results.name)}</b> has no map yet. Make '
                f"one with <code>dim_reduction_model: umap</code> in config.yaml and run bacpipe "
                f"again; embeddings that are there are not computed anew.</div>"
            )
            return
        part.figure.title.text = f"{results.name} · {name}"
        part.set_points(
            points, results.recordings, results.recording_code, results.start, model=results.name
        )

    # ------------------------------------------------------------------ colours

    def _paint(self) -> None:
        if not self._placed:
            return
        self.background.cancel("agreement")
        results, kind, k = list(self._results), self.colour, self.neighbours

        def read() -> _Colouring:
            if kind == KIND:
                agreement = agreement_of(*results, k)
                return _Colouring(list(agreement_labels(agreement, *results)), agreement)
            parts = [_labels_or_none(part, kind) for part in results]
            known = with_common_names([part for part in parts if part is not None])
            return _Colouring([None if part is None else known.pop(0) for part in parts], None)

        compared = kind == KIND
        self.background.run(
            "colours", read, self._show_colours, fail=self.say,
            busy=self._agreement.panel if compared else self._legend,
            on=LONG if compared else POOL,
        )  # fmt: skip

    def _show_colours(self, colouring: _Colouring) -> None:
        self.say(self._greeting)
        coloured = [
            (labels, part)
            for labels, part in zip(colouring.labels, self._maps, strict=True)
            if labels is not None and part.panel.visible
        ]
        for part, labels in zip(self._maps, colouring.labels, strict=True):
            if part.panel.visible and labels is None:
                part.set_labels(None)
        groups = most_frequent([labels for labels, _ in coloured], MOST_COLOURS + 1)
        for (labels, part), group in zip(coloured, groups, strict=True):
            part.set_labels(labels, group, title=self._kinds.get(labels.kind, ""))
        self._legend.object = ""
        if coloured:
            labels = groups[0]
            everything = np.concatenate([group.codes for group in groups])
            colours = coloured[0][1].colours
            self._legend.object = legend_html(labels._replace(codes=everything), colours)
        if colouring.agreement is not None:
            self._show_agreement(colouring.agreement)
        else:
            self._agree()

    # ------------------------------------------------------------------ agreement

    def _agree(self) -> None:
        """Compare the neighbourhoods, unless that takes long and nobody asked for it."""
        if not self._placed:
            return
        if self.colour == KIND:
            self._paint()
            return
        # What is under way may be of other models, or of another number of neighbours.
        self.background.cancel("agreement")
        windows = min(len(part) for part in self._results)
        asked = (self.left, self.right, self.neighbours) in self._asked
        self._ask.visible = windows > _WINDOWS_AT_ONCE and not asked
        if self._ask.visible:
            self._agreement.say(
                f"{windows:,} windows are to be compared with one another, which may take a minute."
            )
        else:
            self._compare()

    def _compare(self) -> None:
        results, k, kind = list(self._results), self.neighbours, self.colour

        def compute() -> tuple[NeighbourAgreement, WindowLabels | None]:
            labels = None if kind in (None, KIND) else _labels_or_none(results[0], kind)
            return agreement_of(*results, k), labels

        self._ask.visible = False
        self._asked.add((self.left, self.right, k))
        self.background.run(
            "agreement",
            compute,
            lambda computed: self._show_agreement(*computed),
            fail=self._agreement.say,
            busy=self._agreement.panel,
            on=LONG,
        )

    def _show_agreement(
        self, agreement: NeighbourAgreement, labels: WindowLabels | None = None
    ) -> None:
        self._ask.visible = False
        self._agreement.show(agreement, labels, self._kinds.get(self.colour, "").lower())

    # ------------------------------------------------------------------ selections

    def _selected(self, side: int, rows: np.ndarray) -> None:
        """Outline in the other map what was selected in one."""
        one, other = self._results[side], self._results[1 - side]

        def show(same: np.ndarray) -> None:
            self._maps[1 - side].pick(same)
            self._link(
                f"{counted(len(rows), 'window')} selected at the {_SIDES[side]}; at the "
                f"{_SIDES[1 - side]} {counted(len(same), 'window')} of the same moments outlined."
                if len(rows)
                else ""
            )

        self.background.run(
            "linked",
            lambda: overlapping_windows(one.windows, rows, other.windows),
            show,
            fail=self.say,
        )

    def _clicked(self, side: int, row: int) -> None:
        recording, start, _ = self._results[side].window(row)
        channel = self._results[side].channel_of(row)
        moment = f"{start:.3f}" if channel is None else f"{start:.3f}/{channel}"
        self.window = f"{_SIDES[side]}@{moment}@{recording}"

    def _show_window(self) -> None:
        if not self._placed or not self.window:
            return
        try:
            side, row = self._find(self.window)
        except (ValueError, BacpipeError):
            self.say(f"The address names a window that is not here: {self.window}")
            return
        results, other = self._results[side], self._results[1 - side]
        self._details.show(results, row, label=results.name)
        self._maps[side].mark(row)
        self._maps[side].pick(np.zeros(0, np.int64))

        def match() -> tuple[np.ndarray, int]:
            rows = overlapping_windows(results.windows, np.array([row]), other.windows)
            return rows, int(_matches(results, other)[row])

        def show(matching: tuple[np.ndarray, int]) -> None:
            rows, best = matching
            self._maps[1 - side].pick(rows)
            self._maps[1 - side].mark(None if best == NO_MATCH else best)
            number = counted(len(rows), "window")
            self._link(
                f"At the {_SIDES[1 - side]}, {number} of the same moment; the ring is around the "
                f"one that shares the most time."
                if len(rows)
                else f"{other.name} has no window of this moment."
            )

        self.background.run("linked", match, show, fail=self.say)

    def _link(self, sentence: str) -> None:
        """Say what the selection in one map means in the other."""
        self._linked.object = f'<div class="bp-linked">{html.escape(sentence)}</div>'

    def _find(self, window: str) -> tuple[int, int]:
        """Side and row that a text in the address means."""
        side, moment, recording = window.split("@", 2)
        start, _, channel = moment.partition("/")
        results = self._results[_SIDES.index(side)]
        if not np.isfinite(float(start)):
            raise ResultsNotFoundError(f"{start} is no time.")
        return _SIDES.index(side), results.row_at(recording, float(start), int(channel or 0))


@lru_cache(maxsize=16)
def _matches(one: ModelResults, other: ModelResults) -> np.ndarray:
    return best_matches(one.windows, other.windows)


def _labels_or_none(results: ModelResults, kind: str | None) -> WindowLabels | None:
    """Labels of a model; None where it lacks what the other one has."""
    if kind is None:
        return None
    try:
        return read_labels(results, kind)
    except BacpipeError:
        return None
