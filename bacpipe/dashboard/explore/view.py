"""Explore: the map of one model, and what is heard at each of its points."""

from __future__ import annotations

import html
import logging
import math
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import panel as pn
import param

from bacpipe.dashboard.background import LONG
from bacpipe.dashboard.explore.filters import Filter, FilterControls
from bacpipe.dashboard.explore.labelling import LabellingPanel
from bacpipe.dashboard.explore.map_content import MapChoice, MapContent, make_map_content
from bacpipe.dashboard.explore.neighbour_list import NeighbourList
from bacpipe.dashboard.shared.embedding_map import EmbeddingMap
from bacpipe.dashboard.shared.export import ExportPanel
from bacpipe.dashboard.shared.gallery import Gallery
from bacpipe.dashboard.shared.hours import ALL_DAY, NO_HOURS, are_hours
from bacpipe.dashboard.shared.labels import WindowLabels, label_kinds
from bacpipe.dashboard.shared.own_changes import OwnChanges
from bacpipe.dashboard.shared.results import DataSetResults
from bacpipe.dashboard.shared.view import View
from bacpipe.dashboard.shared.widgets import Spinner, html_pane, legend_html
from bacpipe.dashboard.shared.window_details import WindowDetails, read_ahead
from bacpipe.dashboard.style import CSS
from bacpipe.errors import BacpipeError
from bacpipe.store.maps import FAR

logger = logging.getLogger(__name__)

_READ_AHEAD = 1000  # milliseconds after a map is shown
_CHOICES = ("model", "reducer", "colour", "annotated", "labels", "file", "hours")


class ExploreView(View):
    """Map, spectrogram and sound."""

    key: ClassVar[str] = "explore"
    title: ClassVar[str] = "Explore"
    help_text: ClassVar[str] = """
A model listens to your recordings window by window (a few seconds each) and describes every
window by a long list of numbers. The map draws windows with similar numbers **close together**:
a group of points is often one kind of sound.

- **Click** a point to see and hear its window. ◀ and ▶ walk through its recording. With the
  keyboard, *Tab* to the map brings four arrows that go from window to window on it.
- **Drag** with the lasso or the box (above the map) to select many windows, then label them,
  listen to them in Review, or download them. A double click ends the selection. The arrow down
  and *SVG* save the picture.
- **Select all windows of** a cluster and give it a label, and it has a name. Labels are kept with
  your name, like those of Review; *Colour by: Labels of people* shows them.
- **Wheel** and drag zoom and move the map; ↺ shows all of it again. A map of three dimensions
  turns when it is dragged.
- **Colour by** shows what is known of the windows; grey points have no such label.
- **Most similar windows** are found with all numbers of the model, not with the two of the map,
  which never keeps all distances.

The address of the page holds what you see: send it to others who use this dashboard.
"""
    in_address: ClassVar[dict[str, str]] = {
        name: name for name in (*_CHOICES, "recording", "start", "channel")
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
    channel: Any = param.Integer(default=0)  # 0 where all became one

    def __init__(self, data_set: DataSetResults, **values: Any) -> None:
        super().__init__(data_set, **values)
        self.param.model.objects = ["", *data_set.models]
        self._content: MapContent | None = None
        self._selected = np.zeros(0, np.int64)
        self._from_address = ""
        self._own = OwnChanges()
        options = data_set.options
        self.map = EmbeddingMap(
            min_height=options.embedding_figure_height,
            colour_scale=options.embedding_colour_scale,
            on_click=self._show_row,
            on_select=self._select,
        )
        self._legend, self._picked = html_pane(), html_pane("", "bp-note")
        self._spinner = Spinner()
        step: dict[str, Any] = {"width": 38, "height": 32, "margin": (6, 2), "disabled": True}
        self._previous = pn.widgets.Button(label="◀", description="previous window", **step)
        step["margin"] = (6, 10, 6, 2)
        self._next = pn.widgets.Button(label="▶", description="next window", **step)
        self._previous.on_click(lambda _: self._step(-1))
        self._next.on_click(lambda _: self._step(1))
        self.details = WindowDetails(
            data_set,
            self.background,
            beside_player=(self._previous, self._next),
            settings=self.spectrograms,
        )
        self.neighbours = NeighbourList(self.background, self._show_row)
        self.filters = FilterControls(self._filters_changed)
        self.export = ExportPanel(data_set.name)
        self._side_by_side = pn.widgets.Button(
            label="Selected side by side", description="see, hear and mark the selected windows",
            disabled=True, sizing_mode="stretch_width", margin=(4, 5),
        )  # fmt: skip
        self._side_by_side.on_click(lambda _: self._show_gallery())
        self._make_widgets(data_set)

    # ------------------------------------------------------------------ layout

    def _make_widgets(self, data_set: DataSetResults) -> None:
        wide: dict[str, Any] = {"sizing_mode": "stretch_width", "margin": (2, 5)}
        self._model = pn.widgets.Select(label="Model", options=list(data_set.models), **wide)
        self._reducer = pn.widgets.Select(label="Map", options=[], **wide)
        self._colour = pn.widgets.Select(label="Colour by", options={}, **wide)
        widgets = {"model": self._model, "reducer": self._reducer, "colour": self._colour}
        for name, widget in widgets.items():
            widget.param.watch(lambda event, name=name: self._chosen(name, event.new), "value")

    def controls(self) -> Any:
        self.visitor.param.watch(lambda _: self._allow(), "annotator")
        self._allow()
        return pn.Column(
            self._model, self._reducer, self._colour, self.filters.panel, self.labelling.panel,
            self.export.panel, self._side_by_side, sizing_mode="stretch_width",
        )  # fmt: skip

    def _allow(self) -> None:
        self.labelling.allow(self.visitor.annotator, may_edit=self.data_set.may_edit)

    def _labelled(self) -> None:
        """Show what people have labelled just now."""
        content = self._content
        if content is None:
            return
        self._content = content._replace(kinds=label_kinds(content.results))
        if self.details.row is not None:
            self.details.show(content.results, self.details.row)
        self._load()

    @cached_property
    def labelling(self) -> LabellingPanel:
        """Labels for what is selected; made when the visitor is known."""
        return LabellingPanel(
            self.background, self.visitor.name_field(sizing_mode="stretch_width", margin=(2, 5)),
            on_group=self.map.select, on_review=self.send_to_review, on_labelled=self._labelled,
        )  # fmt: skip

    @cached_property
    def gallery(self) -> Gallery:
        """Many windows side by side; made when the visitor is known."""
        return Gallery(self, on_near=self._show_row)

    def body(self) -> Any:
        self._from_near: Any = pn.Column(
            self.details.panel, self.neighbours.panel, self.gallery.panel,
            css_classes=["bp-details"], stylesheets=[CSS], sizing_mode="stretch_both",
        )  # fmt: skip
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
            self._from_near,
            css_classes=["bp-explore"],
            stylesheets=[CSS],
            sizing_mode="stretch_both",
        )

    # ------------------------------------------------------------------ what is shown

    def opened(self) -> None:
        self._from_address = self.notice.sentence
        if not are_hours(self.hours):
            self._from_address += f" {NO_HOURS}"
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
        if self._own:
            return
        choice = MapChoice(self.model, self.reducer, self.colour, self._filter)
        before = self._content
        self.background.run(
            "map",
            lambda: make_map_content(self.data_set, choice, before),
            self._show,
            fail=self._fail,
            busy=self._spinner,
        )

    def _show(self, content: MapContent) -> None:
        before, self._content = self._content, content
        other = before is None or before.results is not content.results
        moved = before is None or before.points is not content.points
        labels = content.labels
        with self.map.at_once():
            if moved:
                results = content.results
                self.map.set_points(
                    content.points, results.recordings, results.recording_code, results.start,
                    model=results.name,
                )  # fmt: skip
            if moved or before is None or before.labels is not labels:
                self.map.set_labels(labels, title=content.kinds.get(content.colour, ""))
                self._legend.object = legend_html(self.map.groups, self.map.colours)
            self.map.show_only(content.shown)
        self._offer_choices(content)
        if other:
            self.background.later("read ahead", self._read_ahead, _READ_AHEAD)
            self.map.mark(None)
            self.details.clear()
            self.neighbours.clear()
            self._previous.disabled = self._next.disabled = True
        elif moved and self.details.row is not None:
            self.map.mark(self.details.row)
        groups = labels if labels is not None and not labels.ordered else None
        self.labelling.offer_groups(groups, content.shown)
        kept = np.zeros(0, np.int64) if other else self._selected[content.shown[self._selected]]
        self._select(kept)
        self.map.pick(kept)
        remarks = [self._from_address, *content.remarks, *self._say_what_is_missing(content)]
        if other and self.recording:
            remarks += self._open_recording(content)
        self._from_address = ""
        self.say(" ".join(remark for remark in remarks if remark))

    def _read_ahead(self) -> None:
        content = self._content
        if content is not None:
            self.background.run(
                "read ahead", lambda: read_ahead(content.results), lambda _: None,
                fail=lambda sentence: logger.info("not read ahead: %s", sentence), on=LONG,
            )  # fmt: skip

    def _offer_choices(self, content: MapContent) -> None:
        """Show in the widgets and in the address what was taken."""
        with self._own:
            self._model.value = content.results.name
            self._reducer.param.update(
                options=list(content.results.maps), value=content.reducer or None,
                disabled=len(content.results.maps) < 2,
            )  # fmt: skip
            titles = {title: kind for kind, title in content.kinds.items()}
            self._colour.param.update(options=titles, value=content.colour or None)
            known = set(content.labels.names) if content.labels is not None else set()
            labels = [name for name in self.labels if name in known]
            self.param.update(
                model=content.results.name,
                reducer=content.reducer,
                colour=content.colour,
                labels=labels,
            )
            self.filters.offer(content.results, content.labels, self._filter)

    def _say_what_is_missing(self, content: MapContent) -> list[str]:
        if content.reducer:
            return []
        return [
            f"There is no map of {content.results.name} yet; make one with "
            f"dim_reduction_model=umap (or pca, sparse_pca, t_sne) in bacpipe.play or "
            f"python -m bacpipe."
        ]

    def _open_recording(self, content: MapContent) -> list[str]:
        """Show the window that the address names; the sentence says why if that is impossible."""
        start = self.start if math.isfinite(self.start) else 0.0
        try:
            row = content.results.row_at(self.recording, start, self.channel)
        except BacpipeError as error:
            self.param.update(recording="", start=0.0, channel=0)
            return [str(error)[:300]]
        self._show_row(row)
        return []

    def _fail(self, sentence: str) -> None:
        self.say(f"{self._from_address} {sentence}".strip())

    # ------------------------------------------------------------------ what visitors do

    def _chosen(self, name: str, value: Any) -> None:
        if self._own or value is None:
            return
        changes = {name: value}
        if name in ("model", "colour"):
            changes["labels"] = []  # those of another colouring
        if name == "model":
            changes.update(recording="", start=0.0, channel=0)
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
        content = self._content
        if content is None:
            return
        results, labels = content.results, content.labels
        name, start, _ = results.window(row)
        label = None if labels is None else labels.of(row)
        if (distance := content.distances[row]) > FAR:
            label = ", ".join(filter(None, [label, f"far from the map ({distance:.1f})"]))
        self.details.show(results, row, label=label)
        self.map.mark(row)
        self.neighbours.show(results, row, labels)
        rows = results.rows_of(name)
        self._previous.disabled, self._next.disabled = row == rows.start, row == rows.stop - 1
        channel = results.channel_of(row) or 0
        self.param.update(recording=name, start=round(start, 3), channel=channel)

    def _step(self, by: int) -> None:
        if self.details.row is not None:
            self._show_row(self.details.row + by)

    def _select(self, rows: np.ndarray) -> None:
        self._selected = rows
        content = self._content
        if content is None:
            return
        self._picked.object = _composition(content.labels, rows)
        self.labelling.offer(content.results, rows)
        self._side_by_side.disabled = not len(rows)
        self.gallery.clear()
        if len(rows):
            self.export.offer(content.results, rows, content.labels, "selected")
        else:
            what = "" if content.shown.all() else "filtered"
            self.export.offer(content.results, np.flatnonzero(content.shown), content.labels, what)

    def _show_gallery(self) -> None:
        content = self._content
        if content is None or not len(self._selected):
            return
        table = content.results.window_table(self._selected)
        self.gallery.show(
            content.results, table.rename(columns={"audiofilename": "recording"}),
            chosen_by="map", known=() if content.labels is None else content.labels.names,
            title="windows selected on the map",
        )  # fmt: skip
        self._from_near.scroll_to(self._from_near.objects.index(self.gallery.panel))


def _composition(labels: WindowLabels | None, rows: np.ndarray, most: int = 6) -> str:
    """How many windows of each label are selected, as HTML."""
    if not len(rows):
        return ""
    text = f"{len(rows):,} selected (double click: none)"
    if labels is None or not labels.names:
        return html.escape(text)
    counts = np.bincount(labels.every(rows)[1] + 1, minlength=len(labels.names) + 1)
    names = ("none", *labels.names)
    order = [int(i) for i in np.argsort(-counts, kind="stable")[:most] if counts[i]]
    parts = [f"{names[i]} {counts[i]:,}" for i in order]
    if (counts > 0).sum() > most:
        parts.append("…")
    return html.escape(f"{text}: {', '.join(parts)}")
