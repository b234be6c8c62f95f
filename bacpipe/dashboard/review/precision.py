"""How far scores can be trusted by the marks so far: precision by threshold."""

from __future__ import annotations

import html
import math
import time
from typing import NamedTuple

import numpy as np
import pandas as pd
import panel as pn
from bokeh.models import ColumnDataSource, Range1d, Span

from bacpipe.dashboard.background import Background
from bacpipe.dashboard.review.queue import Queue
from bacpipe.dashboard.shared.widgets import html_pane
from bacpipe.dashboard.style import FRAME, dress_legend, name_figure, new_figure
from bacpipe.errors import EvaluationError, counted
from bacpipe.labels.people import current_labels
from bacpipe.options import make_options
from bacpipe.plotting.style import COLOURS
from bacpipe.recognisers.calibration import Estimate, calibration_of
from bacpipe.recognisers.checked_scores import results_of
from bacpipe.recognisers.labelled import of_these_recordings

_PAUSE = 300  # milliseconds after a mark, in which the next clip is seen
_EMPTY: dict[str, list[float]] = {"threshold": [], "precision": [], "low": [], "high": []}


class _Precision(NamedTuple):
    table: pd.DataFrame
    threshold: Estimate
    checks: int
    right: int
    remarks: list[str]


class PrecisionPanel:
    """Figure of precision by threshold, and the threshold for a wanted precision.

    Attributes
    ----------
    panel : panel object
    """

    def __init__(self, background: Background) -> None:
        self._background = background
        self._queue: Queue | None = None
        self._busy = self._again = False
        self._took = 0.0  # seconds of the last computation
        self._source = ColumnDataSource(_EMPTY)
        self._x = Range1d(0, 1)
        figure = new_figure(
            220, "Precision by threshold, without marks", title="Precision by threshold",
            x_range=self._x, y_range=Range1d(0, 1.02),
        )  # fmt: skip
        self._figure = figure
        figure.outline_line_color = FRAME
        figure.xaxis.axis_label = "threshold (score)"
        figure.yaxis.axis_label = "share of right ones"
        figure.varea(
            "threshold", "low", "high", source=self._source, fill_color=COLOURS[0], fill_alpha=0.2,
            legend_label="95 % interval",
        )  # fmt: skip
        figure.line(
            "threshold", "precision", source=self._source, line_color=COLOURS[0], line_width=2,
            legend_label="from this score on",
        )  # fmt: skip
        dress_legend(figure, "bottom_right")
        self._at = Span(
            dimension="height", line_color="#b33c00", line_dash="dashed", line_width=2,
            visible=False,
        )  # fmt: skip
        self._wanted_line = Span(
            dimension="width", line_color="#7b8794", line_dash="dotted", location=0.9
        )
        figure.add_layout(self._at)
        figure.add_layout(self._wanted_line)
        self.wanted = pn.widgets.FloatInput(
            label="Wanted precision", value=0.9, start=0.05, end=0.99, step=0.05, width=140,
            margin=(2, 10),
        )  # fmt: skip
        self.wanted.param.watch(lambda _: self.refresh(), "value")
        self._words = html_pane("", margin=(2, 10))
        # Without marks there is nothing to see but axes.
        self._drawn = pn.Column(
            pn.pane.Bokeh(figure, sizing_mode="stretch_width"), sizing_mode="stretch_width",
            visible=False,
        )  # fmt: skip
        self.panel = pn.Column(
            pn.Row(self.wanted, self._words, sizing_mode="stretch_width"),
            self._drawn,
            sizing_mode="stretch_width",
            visible=False,
        )

    def show(self, queue: Queue | None) -> None:
        """Follow the class in question of a queue with scores."""
        scored = queue is not None and bool(queue.label) and bool(np.isfinite(queue.scores).any())
        self._queue = queue if scored else None
        self.panel.visible, self._drawn.visible = scored, False
        self._source.data, self._at.visible = _EMPTY, False
        self._words.object = ""
        self.refresh()

    def refresh_soon(self) -> None:
        """Compute anew when the next clip has been seen; several marks are one.

        On a busy machine less often, so that clips do not have to wait for it.
        """
        self._background.later("precision", self.refresh, max(_PAUSE, round(2000 * self._took)))

    def refresh(self) -> None:
        """Compute anew from the labels on the disk; what is asked for meanwhile is done after."""
        queue = self._queue
        wanted = min(max(float(self.wanted.value or 0.9), 0.01), 0.99)
        self._wanted_line.location = wanted
        if queue is None:
            return
        if self._busy:
            self._again = True
            return
        self._busy = True
        begin = time.monotonic()

        def done(outcome: _Precision | str) -> None:
            self._took = time.monotonic() - begin
            self._done(queue, wanted, outcome)

        self._background.run(
            "precision",
            lambda: _find(queue, wanted),
            done,
            fail=done,
        )

    def _done(self, queue: Queue, wanted: float, outcome: _Precision | str) -> None:
        self._busy = False
        if self._again or queue is not self._queue:
            self._again = False
            self.refresh()
        if queue is self._queue:
            self._draw(queue, wanted, outcome)

    def _draw(self, queue: Queue, wanted: float, outcome: _Precision | str) -> None:
        if isinstance(outcome, str):
            self._source.data, self._at.visible = _EMPTY, False
            self._words.object = f'<div class="bp-note">{html.escape(outcome)}</div>'
            return
        table = outcome.table
        self._drawn.visible = True
        self._source.data = {name: table[name].to_numpy() for name in _EMPTY}
        low, high = table["threshold"].min(), table["threshold"].max()
        self._x.update(start=float(low), end=float(max(high, low + 1e-3)))
        known = not math.isnan(outcome.threshold)
        self._at.update(visible=known, location=float(outcome.threshold) if known else 0.0)
        name_figure(
            self._figure,
            f"Precision by threshold of {queue.label}, from {counted(outcome.checks, 'mark')}",
            f"From {table['precision'].iloc[0]:.0%} at a threshold of {low:.2f} to "
            f"{table['precision'].iloc[-1]:.0%} at {high:.2f}.",
        )
        self._words.object = _sentence(wanted, outcome)


def _find(queue: Queue, wanted: float) -> _Precision | str:
    results, label = queue.results, queue.label
    # After each mark anew: for the page, not for the log.
    remarks: list[str] = []
    left_out: list[str] = []
    loader = results_of(results.loader.audio_dir, queue.scored_by, make_options(**results.settings))
    marked = current_labels(loader)
    of_these_recordings(loader, marked[marked["label"] == label], left_out.append)
    try:
        calibration = calibration_of(loader, say=remarks.append)
        about = calibration.classes.get(label)
        table, threshold = calibration.precision(label), calibration.threshold(label, wanted)
    except EvaluationError:  # nothing of this class is marked yet, or nothing that tells anything
        about = None
    of_class = [remark for remark in remarks if label in remark and remark not in left_out]
    if about is None:
        return " ".join([*left_out, *of_class]) or (
            "Once you have marked clips as right or wrong, this shows how far the scores can be "
            "trusted."
        )
    return _Precision(table, threshold, about.checks, about.right, [*left_out, *of_class])


def _sentence(wanted: float, precision: _Precision) -> str:
    counts = (
        f'<span class="bp-count">{precision.right:,}</span> of '
        f'<span class="bp-count">{precision.checks:,}</span> marked are right. '
    )
    threshold = precision.threshold
    remarks = html.escape(" ".join(precision.remarks))
    told = f'<div class="bp-note">{remarks}</div>' if remarks else ""
    if math.isnan(threshold):
        return counts + html.escape(threshold.note) + "." + told
    note = f" ({threshold.note})" if threshold.note else ""
    return (
        f"{counts}For {wanted:.0%}: threshold "
        f'<span class="bp-count bp-threshold">{float(threshold):.3f}</span> '
        f"({threshold.low:.3f} to {threshold.high:.3f}){html.escape(note)}.{told}"
    )
