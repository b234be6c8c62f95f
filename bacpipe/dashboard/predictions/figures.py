"""Figures of a class: heat map of when it was found, and histogram of its scores."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import panel as pn
from bokeh.events import Tap
from bokeh.models import (
    BasicTicker,
    ColumnDataSource,
    CustomJSHover,
    HoverTool,
    LinearColorMapper,
    NumeralTickFormatter,
    Range1d,
    Span,
)
from matplotlib.colors import to_hex

from bacpipe.dashboard.style import FRAME, name_figure, new_colour_bar, new_figure, put_ticks
from bacpipe.errors import counted
from bacpipe.labels.activity import BY, ActivityGrid
from bacpipe.plotting.activity import HEARD, NOTHING_HEARD, date_ticks, row_title
from bacpipe.plotting.style import COLOURS

_BINS = 50  # of the histogram
_LEFT_OUT, _KEPT = "#c4ccd4", COLOURS[0]
LEGEND = (
    f'<span style="color:{to_hex(HEARD[150])}">■</span> detections &nbsp; '
    f'<span style="color:{NOTHING_HEARD}">■</span> recorded, nothing found &nbsp; '
    "□ blank: nothing recorded"
)


class ActivityFigure:
    """Heat map: hours or weekdays by days or weeks.

    `on_click` gets row and column of a cell that was clicked.
    """

    def __init__(self, height: int, on_click: Callable[[int, int], None] | None = None) -> None:
        self._on_click = on_click
        self._grid: ActivityGrid | None = None
        self._x, self._y = Range1d(-0.5, 0.5), Range1d(-0.5, 23.5)
        self.figure = new_figure(
            height, "Heat map without detections", tools="xpan,xwheel_zoom,xbox_zoom,reset",
            x_range=self._x, y_range=self._y,
        )  # fmt: skip
        self.figure.grid.visible = False
        self.figure.outline_line_color = FRAME
        for axis in self.figure.axis:
            put_ticks(axis, {})
        colours = [to_hex(colour) for colour in HEARD]
        self._mapper = LinearColorMapper(
            palette=colours, low=1e-6, high=1, low_color=NOTHING_HEARD, nan_color="rgba(0,0,0,0)"
        )
        self._source = ColumnDataSource(
            {"image": [], "count": [], "hours": [], "x": [], "y": [], "dw": [], "dh": []}
        )
        cells = self.figure.image(
            image="image", x="x", y="y", dw="dw", dh="dh", source=self._source,
            color_mapper=self._mapper,
        )  # fmt: skip
        self._bar = new_colour_bar(self._mapper, "detections")
        self.figure.add_layout(self._bar, "right")
        names: dict[str, list[str]] = {"names": []}
        self._columns = CustomJSHover(
            args=names, code="return names[Math.round(special_vars.x)] ?? ''"
        )
        self._rows = CustomJSHover(
            args=names, code="return names[Math.round(special_vars.y)] ?? ''"
        )
        self.figure.add_tools(
            HoverTool(
                renderers=[cells],
                tooltips=[
                    ("when", "$x{custom}, $y{custom}"),
                    ("detections", "@count"),
                    ("recorded", "@hours{0.00} h"),
                ],
                formatters={"$x": self._columns, "$y": self._rows},
            )
        )
        self.figure.on_event(Tap, self._tapped)
        self.panel = pn.pane.Bokeh(self.figure, sizing_mode="stretch_width")

    def show(self, grid: ActivityGrid, counts: np.ndarray, *, species: str, per_hour: bool) -> None:
        """Show counts (int64, shape (rows, columns)) of a class, per recorded hour if asked."""
        values = grid.per_hour(counts) if per_hour else np.where(grid.hours > 0, counts, np.nan)
        if grid is not self._grid:
            self._lay_out(grid)
        # A scale of whole numbers from 1 would hide that 0.2 per hour is more than nothing.
        high = float(np.nanmax(values, initial=0.0)) or 1.0
        self._mapper.update(low=1e-6 * high, high=high)
        self._bar.title = "per hour" if per_hour else "detections"
        name_figure(
            self.figure,
            f"Heat map of {counted(int(counts.sum()), 'detection')} of {species}: "
            f"{BY[grid.by].lower()}{', per recorded hour' if per_hour else ''}",
            _most_detections(grid, counts),
        )
        rows, columns = grid.hours.shape
        self._source.data = {
            "image": [values.astype(np.float32)],
            "count": [counts.astype(np.int32)],
            "hours": [grid.hours.astype(np.float32)],
            "x": [-0.5],
            "y": [-0.5],
            "dw": [columns],
            "dh": [rows],
        }

    def _lay_out(self, grid: ActivityGrid) -> None:
        self._grid = grid
        rows, columns = grid.hours.shape
        self._x.update(start=-0.5, end=columns - 0.5, reset_start=-0.5, reset_end=columns - 0.5)
        weekdays = grid.by == "day_week"
        # Monday on top, but midnight below, as in the figures on paper.
        low, high = (rows - 0.5, -0.5) if weekdays else (-0.5, rows - 0.5)
        self._y.update(start=low, end=high, reset_start=low, reset_end=high)
        ticks = date_ticks(grid, 7)
        put_ticks(self.figure.xaxis[0], ticks)
        hours = list(range(rows)) if weekdays else [0, 6, 12, 18]
        put_ticks(self.figure.yaxis[0], {i: grid.rows[i] for i in hours})
        self.figure.yaxis.axis_label = row_title(grid) or None
        weeks = "" if grid.by.endswith("_day") else "week of "
        self._columns.args = {
            "names": [
                "no recordings for a while" if np.isnat(day) else f"{weeks}{day.item():%Y-%m-%d}"
                for day in grid.columns
            ]
        }
        self._rows.args = {
            "names": list(grid.rows) if weekdays else [f"{name} h" for name in grid.rows]
        }

    def _tapped(self, event: Tap) -> None:
        if self._on_click is None or self._grid is None or event.x is None or event.y is None:
            return
        if not (math.isfinite(event.x) and math.isfinite(event.y)):
            return
        row, column = round(event.y), round(event.x)
        rows, columns = self._grid.hours.shape
        if 0 <= row < rows and 0 <= column < columns and self._grid.hours[row, column] > 0:
            self._on_click(row, column)


def _most_detections(grid: ActivityGrid, counts: np.ndarray, most: int = 5) -> str:
    """Where the heat map is hottest, in words."""
    flat = counts.ravel()
    cells = [divmod(int(i), counts.shape[1]) for i in np.argsort(-flat, kind="stable")[:most]]
    found = [(row, column) for row, column in cells if counts[row, column]]
    return "; ".join(f"{grid.describe(*cell)}: {counts[cell]:,}" for cell in found)


class ScoreHistogram:
    """Histogram of scores between 0 and 1, with the threshold marked."""

    def __init__(self, height: int) -> None:
        self._source = ColumnDataSource({"left": [], "right": [], "top": [], "colour": []})
        self._edges = np.linspace(0, 1, _BINS + 1)
        self._counts = np.zeros(_BINS, np.int64)
        self._species = ""
        self._x, self._y = Range1d(0, 1), Range1d(0, 1)
        self.figure = new_figure(
            height,
            "Histogram of scores, without detections",
            tools="hover",
            tooltips=[("score", "@left{0.00} – @right{0.00}"), ("detections", "@top{0,0}")],
            x_range=self._x,
            y_range=self._y,
        )
        self.figure.quad(
            left="left", right="right", top="top", bottom=0, source=self._source,
            fill_color="colour", line_color="white", line_width=0.5,
        )  # fmt: skip
        self._mark = Span(
            location=0, dimension="height", line_color=COLOURS[4], line_width=2, line_dash="dashed"
        )
        self.figure.add_layout(self._mark)
        self.figure.xaxis.axis_label = "score"
        self.figure.yaxis.axis_label = "detections"
        self.figure.yaxis.formatter = NumeralTickFormatter(format="0,0")
        self.figure.yaxis.ticker = BasicTicker(desired_num_ticks=4, min_interval=1)
        self.figure.xgrid.visible = False
        self.figure.outline_line_color = FRAME
        self.panel = pn.pane.Bokeh(self.figure, sizing_mode="stretch_width")

    def show(self, scores: np.ndarray, lowest: float, threshold: float, species: str) -> None:
        """Show scores of a class, of which `lowest` is the lowest there can be."""
        self._species = species
        # Bins that begin at the lowest score, so that none is cut by it.
        self._edges = np.linspace(min(lowest, 0.98), 1, _BINS + 1)
        self._counts = np.histogram(np.clip(scores, self._edges[0], 1), self._edges)[0]
        span = 1 - self._edges[0]
        self._x.update(start=self._edges[0] - 0.02 * span, end=1 + 0.02 * span)
        self._y.update(start=0, end=max(1, 1.08 * self._counts.max()))
        self.mark(threshold)

    def mark(self, threshold: float) -> None:
        """Move the threshold."""
        self._mark.location = float(threshold)
        middle = (self._edges[:-1] + self._edges[1:]) / 2
        kept = int(self._counts[middle >= threshold].sum())
        name_figure(
            self.figure,
            f"Histogram of the scores of {counted(int(self._counts.sum()), 'detection')} of "
            f"{self._species}",
            f"{kept:,} in bars at or above the threshold of {threshold:.2f}.",
        )
        self._source.data = {
            "left": self._edges[:-1].copy(),
            "right": self._edges[1:].copy(),
            "top": self._counts.copy(),
            "colour": np.where(middle >= threshold, _KEPT, _LEFT_OUT).tolist(),
        }
