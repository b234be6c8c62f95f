"""The map of a model's embeddings: a scatter plot that stays quick with any number of windows.

The browser gets at most `MOST_POINTS` points of the part that is seen; clicks and lassos are
answered here, among all points.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import panel as pn
from bokeh.events import (
    DoubleTap,
    Pan,
    PanStart,
    RangesUpdate,
    SelectionGeometry,
    Tap,
)
from bokeh.models import (
    BoxZoomTool,
    ColumnDataSource,
    CustomJS,
    CustomJSHover,
    HoverTool,
    LinearColorMapper,
    PanTool,
    Range1d,
    Slider,
)
from matplotlib.path import Path as Polygon

from bacpipe.dashboard.background import page_document
from bacpipe.dashboard.shared.labels import NONE, WindowLabels, most_frequent
from bacpipe.dashboard.shared.widgets import html_pane
from bacpipe.dashboard.style import (
    CSS,
    FRAME,
    MARKERS,
    MOST_COLOURS,
    NO_LABEL,
    is_dark,
    name_figure,
    new_figure,
    palette,
)

# Browsers without a graphics card draw them in 30 ms, on a canvas; with WebGL in 200.
MOST_POINTS = 10_000
_SIZES = {300: 9, 3000: 6}  # pixels of points, where they are so many at most
_LEAST_SIZE = 4
_REST = 250  # milliseconds without movement
_STEPS = {"←": (-1, 0), "→": (1, 0), "↑": (0, 1), "↓": (0, -1)}
_KEYS = "With the keyboard, the four buttons before it go from window to window."
# A step to the side means the same as one upwards.  The whole is fitted into the figure, and what
# is zoomed into keeps its middle when the figure changes its size.
_EQUAL_ASPECT = """
const [w, h] = [figure.inner_width, figure.inner_height];
if (!(w > 0 && h > 0)) return;
const fit = ([left, right], [low, high]) => {
    const unit = Math.max((right - left) / w, (high - low) / h) / 2;
    const [x0, y0] = [(left + right) / 2, (low + high) / 2];
    return [[x0 - unit * w, x0 + unit * w], [y0 - unit * h, y0 + unit * h]];
};
const seen_whole = cb_obj === bounds || (x.start === x.reset_start && x.end === x.reset_end);
const whole = fit(bounds.data.x, bounds.data.y);
const now = seen_whole ? whole : fit([x.start, x.end], [y.start, y.end]);
[x, y].forEach((range, i) => range.setv({
    start: now[i][0], end: now[i][1], reset_start: whole[i][0], reset_end: whole[i][1],
}));
const turns = bounds.tags.includes("turns");
if (cb_obj === bounds || turns) pan.active = !turns;  // dragging turns it
"""
# How far the mouse is from where it began, not since the event before, is what events tell.
_DRAG = """
if (!bounds.tags.includes("turns") || figure.toolbar.gestures.pan.active != null) return;
if (cb_obj.event_name === "panstart") {
    begin.tags = [azimuth.value, elevation.value];
    return;
}
const [turn, tilt] = begin.tags;
azimuth.value = ((turn + cb_obj.delta_x / 3) % 360 + 540) % 360 - 180;
elevation.value = Math.min(90, Math.max(-90, tilt + cb_obj.delta_y / 3));
"""
_TURN = """
const [a, e] = [azimuth.value * Math.PI / 180, elevation.value * Math.PI / 180];
const [ca, sa, ce, se] = [Math.cos(a), Math.sin(a), Math.cos(e), Math.sin(e)];
for (const source of sources) {
    const {x, y, x0, y0, z0} = source.data;
    if (x0 === undefined) continue;
    for (let i = 0; i < x.length; i++) {
        x[i] = ca * x0[i] + sa * y0[i];
        y[i] = ce * z0[i] + se * (sa * x0[i] - ca * y0[i]);
    }
    source.change.emit();
}
"""


class EmbeddingMap:
    """Scatter plot of windows.

    Attributes
    ----------
    panel : panel object
        Figure and note: how many of the windows are drawn.

    Parameters
    ----------
    title : str
        Of the figure.
    min_height : int
        Least height in pixels; the figure fills the place that it is given.
    colour_scale : str
        matplotlib's name of the scale for ordered labels.
    on_click : callable, optional
        Gets the row of the window nearest to a click.
    on_select : callable, optional
        Gets the rows inside a lasso or box, int64; empty when the selection is cleared.
    """

    def __init__(
        self,
        title: str = "",
        *,
        min_height: int = 250,
        colour_scale: str = "viridis",
        on_click: Callable[[int], None] | None = None,
        on_select: Callable[[np.ndarray], None] | None = None,
    ) -> None:
        self._on_click, self._on_select, self._scale = on_click, on_select, colour_scale
        self._points = np.zeros((0, 2), np.float32)
        self._shown = np.zeros(0, bool)
        self._order = np.zeros(0, np.float32)
        self._labels: WindowLabels | None = None
        self._groups: WindowLabels | None = None
        self._dark = is_dark()
        self._recordings: Sequence[str] = []
        self._recording_code = np.zeros(0, np.int32)
        self._start = np.zeros(0)
        self._model = self._coloured_by = ""
        self._view: tuple[float, float, float, float] | None = None
        self._turn = (0.0, 90.0)
        self._drawn: np.ndarray | None = None
        self._picked: np.ndarray = np.zeros(0, np.int64)
        self._current: int | None = None
        self._waiting = False
        self._moves = 0
        # Has its line from the start: a figure that shrinks later may be drawn at its old size,
        # over what is below it (Bokeh 3.9).
        self.note = html_pane("&nbsp;", "bp-note")
        self._make_figure(title, min_height)

    def _make_figure(self, title: str, min_height: int) -> None:
        self.x_range, self.y_range = Range1d(0, 1), Range1d(0, 1)
        self.figure = new_figure(
            None, "Map without windows", title=title or None, min_height=min_height,
            sizing_mode="stretch_both", tags=["map"],
            tools="wheel_zoom,lasso_select,box_select,reset",
            active_scroll="wheel_zoom", x_range=self.x_range, y_range=self.y_range,
            lod_threshold=None,
        )  # fmt: skip
        self.figure.axis.visible = False
        self.figure.grid.visible = False
        self.figure.outline_line_color = FRAME
        pan = PanTool()
        self.figure.add_tools(pan, BoxZoomTool(match_aspect=True))
        self._bounds = ColumnDataSource({"x": [0.0, 1.0], "y": [0.0, 1.0]})
        fit = CustomJS(
            args={
                "figure": self.figure, "bounds": self._bounds, "x": self.x_range,
                "y": self.y_range, "pan": pan,
            },
            code=_EQUAL_ASPECT,
        )  # fmt: skip
        self._bounds.js_on_change("data", fit)
        for size in ("inner_width", "inner_height"):
            self.figure.js_on_change(size, fit)
        empty: dict[str, Any] = {
            "x": [], "y": [], "code": [], "label": [], "shape": [], "recording": [], "start": [],
        }  # fmt: skip
        self._points_source = ColumnDataSource(empty)
        self._picked_source = ColumnDataSource({"x": [], "y": []})
        self._current_source = ColumnDataSource({"x": [], "y": []})
        self._mapper = LinearColorMapper(palette=[NO_LABEL], low=-0.5, high=0.5, low_color=NO_LABEL)
        points = self.figure.scatter(
            "x", "y", source=self._points_source, size=6, alpha=0.8, line_color=None,
            marker="shape", fill_color={"field": "code", "transform": self._mapper},
        )  # fmt: skip
        self._glyph = points.glyph
        # Selections are made here, not in the browser, which does not have all points.
        points.nonselection_glyph = points.selection_glyph = None
        self.figure.scatter(
            "x",
            "y",
            source=self._picked_source,
            size=9,
            fill_color=None,
            line_color="#f8f9fa" if self._dark else "#111111",
            level="overlay",
        )
        self.figure.scatter(
            "x", "y", source=self._current_source, size=18, fill_color=None, line_color="#D55E00",
            line_width=3, level="overlay",
        )  # fmt: skip
        self._hover_label = CustomJSHover(args={"names": []}, code="return names[value] ?? 'none'")
        self._hover_recording = CustomJSHover(args={"names": []}, code="return names[value] ?? ''")
        hover = HoverTool(
            renderers=[points],
            tooltips=[
                ("label", "@label{custom}"),
                ("recording", "@recording{custom}"),
                ("time", "@start{0.00} s"),
            ],
            formatters={"@label": self._hover_label, "@recording": self._hover_recording},
            point_policy="follow_mouse",
            limit=1,  # dozens lie below one another in a large map
        )
        self.figure.add_tools(hover)
        self.figure.on_event(Tap, self._tapped)
        self.figure.on_event(DoubleTap, lambda _: self.select(np.zeros(0, np.int64)))
        self.figure.on_event(SelectionGeometry, self._lassoed)
        self.figure.on_event(RangesUpdate, self._moved)
        wide: dict[str, Any] = {"sizing_mode": "stretch_width", "step": 1, "format": "0"}
        self._azimuth = Slider(start=-180, end=180, value=0, title="turn (degrees)", **wide)
        self._elevation = Slider(start=-90, end=90, value=20, title="tilt (degrees)", **wide)
        turn = CustomJS(
            args={
                "sources": [
                    self._points_source,
                    self._picked_source,
                    self._current_source,
                ],
                "azimuth": self._azimuth,
                "elevation": self._elevation,
            },
            code=_TURN,
        )
        for slider in (self._azimuth, self._elevation):
            slider.js_on_change("value", turn)
            slider.on_change("value", self._turned)
        drag = CustomJS(
            args={
                "figure": self.figure, "bounds": self._bounds, "azimuth": self._azimuth,
                "elevation": self._elevation, "begin": ColumnDataSource({}),  # angles in its tags
            },
            code=_DRAG,
        )  # fmt: skip
        self.figure.js_on_event(PanStart, drag)
        self.figure.js_on_event(Pan, drag)
        sliders = [
            pn.pane.Bokeh(slider, sizing_mode="stretch_width", margin=(0, 16))
            for slider in (self._azimuth, self._elevation)
        ]
        self._turning = pn.Row(*sliders, visible=False, sizing_mode="stretch_width")
        self.panel = pn.Column(
            self._make_steps(),
            pn.pane.Bokeh(self.figure, sizing_mode="stretch_both"),
            self._turning,
            self.note,
            sizing_mode="stretch_both",
        )

    def _make_steps(self) -> Any:
        """Buttons that go from window to window; they are seen while the keyboard is on them."""
        buttons = []
        for sign, direction in _STEPS.items():
            button = pn.widgets.Button(label=f"window {sign}", width=84, height=32, margin=2)
            button.on_click(lambda _, to=direction: self._step(*to))
            buttons.append(button)
        return pn.Row(
            *buttons, css_classes=["bp-steps"], stylesheets=[CSS], width=360, height=38, margin=0,
            visible=self._on_click is not None,
        )  # fmt: skip

    # ------------------------------------------------------------------ what is shown

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Draw only once, after several changes."""
        self._waiting = True
        try:
            yield
        finally:
            self._waiting = False
        self._draw()

    def set_points(
        self,
        points: np.ndarray,
        recordings: Sequence[str],
        recording_code: np.ndarray,
        start: np.ndarray,
        *,
        model: str,
    ) -> None:
        """Show other windows.

        Parameters
        ----------
        points : np.ndarray, float32, shape (n, 2 or 3)
            Places in the map; NaN for windows without one.
        recordings : sequence of str
            Names of the recordings.
        recording_code, start : np.ndarray, shape (n,)
            Recording (an index into `recordings`) and start in seconds of every window.
        model : str
            Whose windows they are.
        """
        self._points, self._recording_code, self._start = points, recording_code, start
        self._recordings, self._model, self._coloured_by = recordings, model, ""
        self._shown = np.ones(len(points), bool)
        self._order = drawing_order(np.zeros(len(points), np.int64))
        self._labels = self._groups = self._current = None
        self._picked = np.zeros(0, np.int64)
        self._turning.visible = points.shape[1] == 3
        self._azimuth.value = 0
        self._elevation.value = 20 if points.shape[1] == 3 else 90
        self._turn = (0.0, float(self._elevation.value))
        self._fit_view()
        self._draw()

    def set_labels(
        self,
        labels: WindowLabels | None,
        groups: WindowLabels | None = None,
        *,
        title: str = "",
    ) -> None:
        """Colour the windows by labels, whose kind has a `title`; None colours all alike.

        `groups` says how labels share colours and shapes; by default the rarest of many share one.
        """
        self._coloured_by = title if labels is not None else ""
        if labels is not None and groups is None:
            (groups,) = most_frequent([labels], MOST_COLOURS + 1)
        self._labels, self._groups = labels, groups
        count = max(len(groups.names), 1) if groups is not None else 1
        self._mapper.update(palette=self.colours, low=-0.5, high=count - 0.5)
        self._hover_label.args = {"names": list(labels.names) if labels is not None else []}
        if labels is not None:
            self._order = drawing_order(labels.codes)
        self._draw()

    @property
    def colours(self) -> list[str]:
        """Colour of every group of labels."""
        groups = self._groups
        if groups is None or not groups.names:
            return [NO_LABEL]
        return group_colours(groups, scale=self._scale, dark=self._dark)

    @property
    def groups(self) -> WindowLabels | None:
        """What has a colour of its own: the labels, or the most frequent of them and the others."""
        return self._groups

    def show_only(self, shown: np.ndarray) -> None:
        """Draw only some windows: bool, shape (n,)."""
        self._shown = shown
        self._draw()

    def mark(self, row: int | None) -> None:
        """Put a ring around one window."""
        self._current = row
        rows = np.array([] if row is None else [row], np.int64)
        self._current_source.data = self._places(rows)

    def pick(self, rows: np.ndarray) -> None:
        """Outline several windows."""
        self._picked = rows
        drawn, _ = choose_points(self._points, self._mask(rows), self._order, None)
        self._picked_source.data = self._places(drawn)

    @property
    def drawn(self) -> int:
        """Number of points that the browser has."""
        return 0 if self._drawn is None else len(self._drawn)

    # ------------------------------------------------------------------ drawing

    def _mask(self, rows: np.ndarray) -> np.ndarray:
        mask = np.zeros(len(self._points), bool)
        mask[rows] = True
        return mask

    def _seen(self) -> np.ndarray:
        """Places as they are seen, after turning; float32, shape (n, 2)."""
        if self._points.shape[1] == 2:
            return self._points
        azimuth, elevation = np.radians(self._turn)
        x, y, z = self._points.T
        right = np.cos(azimuth) * x + np.sin(azimuth) * y
        behind = np.sin(azimuth) * x - np.cos(azimuth) * y
        return np.stack([right, np.cos(elevation) * z + np.sin(elevation) * behind], axis=1)

    def _places(self, rows: np.ndarray) -> dict[str, Any]:
        seen = self._seen()[rows].astype(np.float32)
        # Bokeh warns about views of an array.
        columns: dict[str, Any] = {"x": seen[:, 0].copy(), "y": seen[:, 1].copy()}
        if self._points.shape[1] == 3:
            for axis, name in enumerate(("x0", "y0", "z0")):
                columns[name] = self._points[rows, axis].copy()
        return columns

    def _fit_view(self) -> None:
        seen = self._seen()
        seen = seen[np.isfinite(seen).all(axis=1)]
        if not len(seen):
            return
        low, high = seen.min(axis=0), seen.max(axis=0)
        if self._points.shape[1] == 3:  # room for every turn
            radius = float(np.nanmax(np.linalg.norm(self._points, axis=1)))
            low, high = np.full(2, -radius), np.full(2, radius)
        margin = 0.04 * np.maximum(high - low, 1e-6)
        for axis, limits in enumerate((self.x_range, self.y_range)):
            start, end = float(low[axis] - margin[axis]), float(high[axis] + margin[axis])
            limits.update(start=start, end=end, reset_start=start, reset_end=end)
        self._bounds.tags = ["turns"] if self._points.shape[1] == 3 else []
        self._bounds.data = {
            name: [limits.start, limits.end]
            for name, limits in (("x", self.x_range), ("y", self.y_range))
        }
        self._view = None

    def _draw(self) -> None:
        if self._waiting:
            return
        rows, inside = choose_points(self._seen(), self._shown, self._order, self._view)
        columns = self._places(rows)
        for name, labels in (("code", self._groups), ("label", self._labels)):
            columns[name] = (
                np.full(len(rows), NONE, np.int32)
                if labels is None
                else labels.codes[rows].astype(np.int32)
            )
        columns["shape"] = shapes_of(columns["code"], self._groups)
        # Of many thousands of recordings, only those that have a point are named.
        named, place = np.unique(self._recording_code[rows], return_inverse=True)
        self._hover_recording.args = {"names": [self._recordings[i] for i in named.tolist()]}
        columns["recording"] = place.astype(np.int32)
        columns["start"] = self._start[rows].astype(np.float32)
        fitting = (size for most, size in _SIZES.items() if len(rows) <= most)
        self._glyph.size = next(fitting, _LEAST_SIZE)
        self._points_source.data = columns
        self._drawn = rows
        self._picked_source.data = self._places(self._picked)
        if self._current is not None:
            self.mark(self._current)
        self.note.object = self._describe(len(rows), inside)
        name_figure(
            self.figure,
            name_of_map(self._count(), self._model, self._coloured_by),
            "Similar windows are close together. " + _KEYS * (self._on_click is not None),
        )

    def _count(self) -> str:
        total, shown = len(self._points), int(self._shown.sum())
        return f"{total:,} windows" if shown == total else f"{shown:,} of {total:,} windows"

    def _describe(self, drawn: int, inside: int) -> str:
        total, text = len(self._points), self._count()
        missing = int(np.isnan(self._points[:, 0]).sum()) if total else 0
        if missing:
            text += f"; {missing:,} are newer than this map"
        if drawn < inside:
            text += f"; {drawn:,} of the {inside:,} here are drawn – zoom in to see all"
        if total and self._points.shape[1] == 3:
            text += "; drag to turn"
        return text

    # ------------------------------------------------------------------ what visitors do

    def _tapped(self, event: Tap) -> None:
        if self._on_click is None or event.x is None or not self._shown.any():
            return
        seen = self._seen()
        width = max(self.x_range.end - self.x_range.start, 1e-12)
        height = max(self.y_range.end - self.y_range.start, 1e-12)
        away = ((seen[:, 0] - event.x) / width) ** 2 + ((seen[:, 1] - event.y) / height) ** 2
        away = np.where(self._shown & np.isfinite(away), away, np.inf)
        row = int(away.argmin())
        if away[row] < 0.03**2:  # nearer than 3 % of the figure
            self._on_click(row)

    def _step(self, right: int, up: int) -> None:
        """Show the next window in a direction, or the one in the middle if none is shown."""
        if self._on_click is None:
            return
        seen = self._seen()
        there = self._shown & np.isfinite(seen).all(axis=1)
        if self._current is None:
            middle = [(limits.start + limits.end) / 2 for limits in (self.x_range, self.y_range)]
            away = ((seen - np.array(middle)) ** 2).sum(axis=1)
        else:
            steps = seen - seen[self._current]
            along = right * steps[:, 0] + up * steps[:, 1]
            aside = np.abs(up * steps[:, 0] - right * steps[:, 1])
            there &= along > 0
            away = along + 2 * aside  # rather straight on than near
        if there.any():
            self._on_click(int(np.where(there, away, np.inf).argmin()))

    def _lassoed(self, event: SelectionGeometry) -> None:
        if not event.final:
            return
        seen = self._seen()
        geometry: dict[str, Any] = dict(event.geometry)
        if geometry["type"] == "poly":
            corners = np.column_stack([geometry["x"], geometry["y"]])
            inside = Polygon(corners).contains_points(np.nan_to_num(seen, nan=np.inf))
        elif geometry["type"] == "rect":
            x, y = seen[:, 0], seen[:, 1]
            inside = (x >= geometry["x0"]) & (x <= geometry["x1"])
            inside &= (y >= geometry["y0"]) & (y <= geometry["y1"])
        else:
            return
        self.select(np.flatnonzero(inside & self._shown))

    def select(self, rows: np.ndarray) -> None:
        """Outline some windows (int64), as a lasso around them would."""
        self.pick(rows)
        if self._on_select is not None:
            self._on_select(rows)

    def _moved(self, event: RangesUpdate) -> None:
        if event.x0 is None or event.x1 is None or event.y0 is None or event.y1 is None:
            return
        self._view = (event.x0, event.x1, event.y0, event.y1)
        if self.drawn < int(self._shown.sum()):
            self._draw_when_still()

    def _draw_when_still(self) -> None:
        """Draw other points once the map rests; while it moves that would make it stutter."""
        document = page_document()
        if document is None:
            self._draw()
            return
        self._moves += 1
        move = self._moves

        def draw() -> None:
            if move == self._moves:
                self._draw()

        document.add_timeout_callback(draw, _REST)

    def _turned(self, attr: str, old: Any, new: Any) -> None:
        self._turn = (float(self._azimuth.value), float(self._elevation.value))


def name_of_map(windows: str, model: str, colours: str) -> str:
    """What a map shows; `colours` is the title of its labels, if it has some."""
    by = f", coloured by {colours[:1].lower()}{colours[1:]}" if colours else ""
    return f"Map of {windows} of {model}{by}"


def group_colours(groups: WindowLabels, *, scale: str = "viridis", dark: bool = False) -> list[str]:
    """Colour of every label; grey for the last of those that `most_frequent` has made."""
    colours = palette(len(groups.names), ordered=groups.ordered, scale=scale, dark=dark)
    if not groups.ordered and len(groups.names) > MOST_COLOURS:
        colours[MOST_COLOURS:] = [NO_LABEL] * (len(colours) - MOST_COLOURS)
    return colours


def shapes_of(codes: np.ndarray, labels: WindowLabels | None) -> list[str]:
    """Marker of every window by the code of its label, since not everybody tells colours apart."""
    if labels is None or labels.ordered:
        return [MARKERS[0]] * len(codes)
    return [MARKERS[code % len(MARKERS)] if code >= 0 else MARKERS[0] for code in codes.tolist()]


def drawing_order(codes: np.ndarray, seed: int = 0) -> np.ndarray:
    """Order in which points are drawn first, so that rare labels are not lost.

    Float32 between 0 and 1 for each of the `codes` of labels.  The points of a label below some
    order are a random sample of them; the sample of a rare label is larger in proportion (by the
    square root of its rarity).
    """
    order = np.random.default_rng(seed).random(len(codes), dtype=np.float32)
    if not len(codes):
        return order
    shifted = codes - codes.min()
    counts = np.bincount(shifted)
    weight = np.sqrt(counts / counts.max()).astype(np.float32)
    return order * weight[shifted]


def choose_points(
    points: np.ndarray,
    shown: np.ndarray,
    order: np.ndarray,
    view: tuple[float, float, float, float] | None = None,
    most: int = MOST_POINTS,
) -> tuple[np.ndarray, int]:
    """Rows of the points to draw.

    Parameters
    ----------
    points : np.ndarray, float, shape (n, 2 or 3)
        Places in the map; NaN for points without a place.
    shown : np.ndarray, bool, shape (n,)
        Points that a filter lets through.
    order : np.ndarray, float, shape (n,)
        What is drawn first, from `drawing_order`.
    view : (left, right, bottom, top), optional
        Part of the map that is seen.
    most : int
        Points at most.

    Returns
    -------
    rows : np.ndarray, int64
        Sorted.
    inside : int
        Number of points that could have been drawn.
    """
    inside = shown & np.isfinite(points[:, 0])
    if view is not None:
        left, right, bottom, top = view
        x, y = points[:, 0], points[:, 1]
        inside = inside & (x >= left) & (x <= right) & (y >= bottom) & (y <= top)
    rows = np.flatnonzero(inside)
    if len(rows) > most:
        first = np.argpartition(order[rows], most)[:most]
        return np.sort(rows[first]), len(rows)
    return rows, len(rows)
