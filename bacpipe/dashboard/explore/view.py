"""Explore: the map of one model, and what is heard at each of its points."""

from __future__ import annotations

import html
import math
from typing import Any, ClassVar

import numpy as np
import panel as pn
import param

from bacpipe.dashboard.explore.export import ExportPanel
from bacpipe.dashboard.explore.filters import ALL_DAY, Filter, FilterControls
from bacpipe.dashboard.explore.neighbour_list import NeighbourList
from bacpipe.dashboard.explore.scene import Choice, Scene, make_scene
from bacpipe.dashboard.shared.embedding_map import EmbeddingMap
from bacpipe.dashboard.shared.labels import NONE, Labels
from bacpipe.dashboard.shared.results import DataSet
from bacpipe.dashboard.shared.view import View
from bacpipe.dashboard.shared.widgets import Spinner, legend_html
from bacpipe.dashboard.shared.window_details import WindowDetails
from bacpipe.dashboard.style import CSS
from bacpipe.errors import BacpipeError

_CHOICES = ("model", "reducer", "colour", "annotated", "labels", "file", "hours")
_FILTERS = ("annotated", "labels", "file", "hours")


class Explore(View):
    """Map, spectrogram and sound."""

    key: ClassVar[str] = "explore"
    title: ClassVar[str] = "Explore"
    help_text: ClassVar[str] = """
A model listens to your recordings window by window (a few seconds each) and describes every
window by a long list of numbers. The map draws windows with similar numbers **close together**:
a group of points is often one kind of sound.

- **Click** a point to see and hear its window. ◀ and ▶ walk through its recording.
- **Drag** with the lasso or the box (above the map) to select many windows, then download them.
  A double click ends the selection.
- **Wheel** and drag zoom and move the map; ↺ shows all of it again.
- **Colour by** shows what is known of the windows; grey points have no such label.
- **Most similar windows** are found with all numbers of the model, not with the two of the map,
  which never keeps all distances.

The address of the page holds what you see: send it to others who use this dashboard.
"""
    in_address: ClassVar[dict[str, str]] = {
        "model": "model",
        "reducer": "reducer",
        "colour": "colour",
        "annotated": "annotated",
        "labels": "labels",
        "file": "file",
        "hours": "hours",
        "recording": "recording",
        "start": "start",
    }

    model: Any = param.Selector(default="", objects=[""])
    reducer: Any = param.String(default="")
    colour: Any = param.String(default="")
    annotated: Any = param.Boolean(default=False)
    labels: Any = param.List(default=[], item_type=str)
    file: Any = param.String(default="")
    hours: Any = param.NumericTuple(default=ALL_DAY, length=2)
    recording: Any = param.String(default="")
    start: Any = param.Number(default=0.0)

    def __init__(self, data_set: DataSet, **values: Any) -> None:
        super().__init__(data_set, **values)
        self.param.model.objects = ["", *data_set.models]
        self._scene: Scene | None = None
        self._selected = np.zeros(0, np.int64)
        self._from_address = ""
        self._changing = False
        options = data_set.options
        self.map = EmbeddingMap(
            min_height=options.embedding_figure_height,
            colour_scale=options.embedding_colour_scale,
            on_click=self._show_row,
            on_select=self._select,
        )
        self._legend = pn.pane.HTML("", stylesheets=[CSS], sizing_mode="stretch_width")
        self._picked = pn.pane.HTML(
            "", css_classes=["bp-note"], stylesheets=[CSS], sizing_mode="stretch_width"
        )
        self._spinner = Spinner()
        step: dict[str, Any] = {"width": 38, "height": 32, "margin": (6, 2), "disabled": True}
        self._previous = pn.widgets.Button(label="◀", description="previous window", **step)
        self._next = pn.widgets.Button(label="▶", description="next window", **step)
        self._previous.on_click(lambda _: self._step(-1))
        self._next.on_click(lambda _: self._step(1))
        self.details = WindowDetails(
            data_set, self.background, beside_player=(self._previous, self._next)
        )
        self.neighbours = NeighbourList(self.background, self._show_row)
        self.filters = FilterControls(self._filters_changed)
        self.export = ExportPanel(data_set.name)
        self._make_widgets(data_set)

    # ------------------------------------------------------------------ layout

    def _make_widgets(self, data_set: DataSet) -> None:
        wide: dict[str, Any] = {"sizing_mode": "stretch_width", "margin": (2, 5)}
        self._model = pn.widgets.Select(label="Model", options=list(data_set.models), **wide)
        self._reducer = pn.widgets.Select(label="Map", options=[], **wide)
        self._colour = pn.widgets.Select(label="Colour by", options={}, **wide)
        for widget, name in (
            (self._model, "model"),
            (self._reducer, "reducer"),
            (self._colour, "colour"),
        ):
            widget.param.watch(lambda event, name=name: self._chosen(name, event.new), "value")

    def controls(self) -> Any:
        return pn.Column(
            self._model,
            self._reducer,
            self._colour,
            self.filters.panel,
            self.export.panel,
            sizing_mode="stretch_width",
            margin=0,
        )

    def body(self) -> Any:
        return pn.Row(
            pn.Column(
                self._spinner.panel,
                self.map.panel,
                self._picked,
                self._legend,
                sizing_mode="stretch_both",
                css_classes=["bp-map"],
                stylesheets=[CSS],
            ),
            pn.Column(
                self.details.panel,
                self.neighbours.panel,
                css_classes=["bp-details"],
                stylesheets=[CSS],
                sizing_mode="stretch_both",
            ),
            css_classes=["bp-explore"],
            stylesheets=[CSS],
            sizing_mode="stretch_both",
        )

    # ------------------------------------------------------------------ what is shown

    def opened(self) -> None:
        self._from_address = self.notice.sentence
        if not all(math.isfinite(hour) and 0 <= hour <= 24 for hour in self.hours):
            self._from_address += " The hours of the day are numbers from 0 to 24."
            self.hours = ALL_DAY
        self.filters.set(self._filter)
        self.param.watch(lambda *_: self._load(), list(_CHOICES))
        self._load()

    @property
    def _filter(self) -> Filter:
        return Filter(
            annotated=self.annotated,
            labels=tuple(self.labels),
            file=self.file,
            hours=(float(self.hours[0]), float(self.hours[1])),
        )

    def _load(self) -> None:
        if self._changing:
            return
        choice = Choice(self.model, self.reducer, self.colour, self._filter)
        before = self._scene
        self.background.run(
            "scene",
            lambda: make_scene(self.data_set, choice, before),
            self._show,
            fail=self._fail,
            busy=self._spinner,
        )

    def _show(self, scene: Scene) -> None:
        before, self._scene = self._scene, scene
        other = before is None or before.results is not scene.results
        moved = before is None or before.points is not scene.points
        labels = scene.labels
        with self.map.at_once():
            if moved:
                results = scene.results
                self.map.set_points(
                    scene.points, results.recordings, results.recording_code, results.start
                )
            if moved or before is None or before.labels is not labels:
                self.map.set_labels(labels)
                self._legend.object = self._legend_of(labels)
            self.map.show_only(scene.shown)
        self._offer_choices(scene)
        if other:
            self.map.mark(None)
            self.details.clear()
            self.neighbours.clear()
            self._previous.disabled = self._next.disabled = True
        elif moved and self.details.row is not None:
            self.map.mark(self.details.row)
        kept = np.zeros(0, np.int64) if other else self._selected[scene.shown[self._selected]]
        self._select(kept)
        self.map.pick(kept)
        remarks = [self._from_address, *scene.remarks, *self._say_what_is_missing(scene)]
        if other and self.recording:
            remarks += self._open_recording(scene)
        self._from_address = ""
        self.say(" ".join(remark for remark in remarks if remark))

    def _offer_choices(self, scene: Scene) -> None:
        """Show in the widgets and in the address what was taken."""
        self._changing = True
        self._model.value = scene.results.name
        self._reducer.param.update(
            options=list(scene.results.maps), value=scene.reducer or None,
            disabled=len(scene.results.maps) < 2,
        )  # fmt: skip
        titles = {title: kind for kind, title in scene.kinds.items()}
        self._colour.param.update(options=titles, value=scene.colour or None)
        known = set(scene.labels.names) if scene.labels is not None else set()
        labels = [name for name in self.labels if name in known]
        self.param.update(
            model=scene.results.name, reducer=scene.reducer, colour=scene.colour, labels=labels
        )
        self.filters.offer(scene.results, scene.labels, self._filter)
        self._changing = False

    def _say_what_is_missing(self, scene: Scene) -> list[str]:
        if scene.reducer:
            return []
        return [
            f"There is no map of {scene.results.name} yet; make one with "
            f"dim_reduction_model=umap (or pca, sparse_pca, t_sne) in bacpipe.play or "
            f"python -m bacpipe."
        ]

    def _open_recording(self, scene: Scene) -> list[str]:
        """Show the window that the address names; the sentence says why if that is impossible."""
        start = self.start if math.isfinite(self.start) else 0.0
        try:
            row = scene.results.row_at(self.recording, start)
        except BacpipeError as error:
            self.param.update(recording="", start=0.0)
            return [str(error)[:300]]
        self._show_row(row)
        return []

    def _fail(self, sentence: str) -> None:
        self.say(f"{self._from_address} {sentence}".strip())

    def _legend_of(self, labels: Labels | None) -> str:
        most = self.data_set.options.max_nr_categories
        if labels is not None and not labels.ordered and len(labels.names) > most:
            return (
                f'<div class="bp-note">{len(labels.names):,} labels, too many for a legend: '
                f"point at a window to see its label.</div>"
            )
        return legend_html(labels, self.map.colours, most=most)

    # ------------------------------------------------------------------ what visitors do

    def _chosen(self, name: str, value: Any) -> None:
        if self._changing or value is None:
            return
        changes = {name: value}
        if name in ("model", "colour"):
            changes["labels"] = []  # those of another colouring
        if name == "model":
            changes.update(recording="", start=0.0)
        self.param.update(**changes)

    def _filters_changed(self) -> None:
        wanted = self.filters.value
        self.param.update(
            annotated=wanted.annotated,
            labels=list(wanted.labels),
            file=wanted.file,
            hours=wanted.hours,
        )

    def _show_row(self, row: int) -> None:
        scene = self._scene
        if scene is None:
            return
        results, labels = scene.results, scene.labels
        name = results.recordings[results.recording_code[row]]
        label = None
        if labels is not None and labels.codes[row] != NONE:
            label = labels.names[labels.codes[row]]
        self.details.show(results, row, label=label)
        self.map.mark(row)
        self.neighbours.show(results, row, labels)
        rows = results.rows_of(name)
        self._previous.disabled, self._next.disabled = row == rows.start, row == rows.stop - 1
        self.param.update(recording=name, start=round(float(results.start[row]), 3))

    def _step(self, by: int) -> None:
        if self.details.row is not None:
            self._show_row(self.details.row + by)

    def _select(self, rows: np.ndarray) -> None:
        self._selected = rows
        scene = self._scene
        if scene is None:
            return
        self._picked.object = _composition(scene.labels, rows)
        if len(rows):
            self.export.offer(scene.results, rows, scene.labels, "selected")
        else:
            what = "" if scene.shown.all() else "filtered"
            self.export.offer(scene.results, np.flatnonzero(scene.shown), scene.labels, what)


def _composition(labels: Labels | None, rows: np.ndarray, most: int = 6) -> str:
    """How many windows of each label are selected, as HTML."""
    if not len(rows):
        return ""
    text = f"{len(rows):,} selected (double click: none)"
    if labels is None or not labels.names:
        return html.escape(text)
    counts = np.bincount(labels.codes[rows] + 1, minlength=len(labels.names) + 1)
    names = ("none", *labels.names)
    order = [int(i) for i in np.argsort(-counts, kind="stable")[:most] if counts[i]]
    parts = [f"{names[i]} {counts[i]:,}" for i in order]
    if (counts > 0).sum() > most:
        parts.append("…")
    return html.escape(f"{text}: {', '.join(parts)}")
