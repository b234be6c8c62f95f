"""Histogram of confidence scores, with the threshold marked."""

from __future__ import annotations

import numpy as np
import panel as pn
from bokeh.models import BasicTicker, ColumnDataSource, NumeralTickFormatter, Range1d, Span
from bokeh.plotting import figure

from bacpipe.plotting.style import COLOURS

_BINS = 50
_LEFT_OUT, _KEPT = "#c4ccd4", COLOURS[0]


class ScoreHistogram:
    """Histogram of scores between 0 and 1.

    Parameters
    ----------
    height : int
        Pixels.

    Attributes
    ----------
    panel : panel object
        What to put on a page.
    """

    def __init__(self, height: int) -> None:
        self._source = ColumnDataSource({"left": [], "right": [], "top": [], "colour": []})
        self._edges = np.linspace(0, 1, _BINS + 1)
        self._counts = np.zeros(_BINS, np.int64)
        self._x = Range1d(0, 1)
        self._y = Range1d(0, 1)
        self.figure = figure(
            height=height,
            sizing_mode="stretch_width",
            x_range=self._x,
            y_range=self._y,
            tools="hover",
            toolbar_location=None,
            tooltips=[("score", "@left{0.00} – @right{0.00}"), ("detections", "@top{0,0}")],
        )
        self.figure.quad(
            left="left", right="right", top="top", bottom=0, source=self._source,
            fill_color="colour", line_color="white", line_width=0.5,
        )  # fmt: skip
        self._mark = Span(
            location=0, dimension="height", line_color=COLOURS[4], line_width=2, line_dash="dashed"
        )
        self.figure.add_layout(self._mark)
        self.figure.xaxis.axis_label = "confidence score"
        self.figure.yaxis.axis_label = "detections"
        self.figure.yaxis.formatter = NumeralTickFormatter(format="0,0")
        self.figure.yaxis.ticker = BasicTicker(desired_num_ticks=4, min_interval=1)
        self.figure.xgrid.visible = False
        self.figure.axis.minor_tick_line_color = None
        self.figure.ygrid.grid_line_color = "#eceff2"
        self.figure.outline_line_color = "#d5dbe1"
        self.panel = pn.pane.Bokeh(self.figure, sizing_mode="stretch_width")

    def show(self, scores: np.ndarray, lowest: float, threshold: float) -> None:
        """Show other scores.

        Parameters
        ----------
        scores : np.ndarray, float32, shape (n,)
            Between 0 and 1.
        lowest : float
            Lowest score that there can be.
        threshold : float
            Scores from here on are highlighted.
        """
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
        self._source.data = {
            "left": self._edges[:-1].copy(),
            "right": self._edges[1:].copy(),
            "top": self._counts.copy(),
            "colour": np.where(middle >= threshold, _KEPT, _LEFT_OUT).tolist(),
        }
