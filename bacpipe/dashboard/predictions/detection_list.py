"""Detections of a class: a list to click and hear, and files to take home."""

from __future__ import annotations

import html
import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import panel as pn
from bokeh.models import NumberFormatter, StringFormatter

from bacpipe.audio.files import read_recording
from bacpipe.dashboard.predictions.detections_by_class import DetectionsByClass
from bacpipe.dashboard.shared.widgets import csv_of, html_pane, table_widget, text_formatter
from bacpipe.dashboard.style import CSS
from bacpipe.errors import AudioError
from bacpipe.exports.raven import raven_rows, raven_table
from bacpipe.store.detections import Detections
from bacpipe.store.tables import CHANNEL

MOST_LISTED = 20_000


class DetectionList:
    """Table of detections, a page at a time; `on_click` gets the window that was clicked."""

    def __init__(self, on_click: Callable[[int], None], page_size: int = 10) -> None:
        self._on_click = on_click
        self._rows = np.zeros(0, np.int64)
        self._table = table_widget(
            _frame(None, self._rows, np.zeros(0, np.float32)),
            page_size=page_size,
            selectable=1,
            layout="fit_columns",
            # On narrow screens the table is scrolled before a column shows nothing.
            configuration={"columnDefaults": {"minWidth": 72}},
            formatters={
                "score": NumberFormatter(format="0.000"),
                "time": StringFormatter(),
                "recording": text_formatter(),
                "at (s)": NumberFormatter(format="0.00"),
            },
            text_align={"score": "right", "at (s)": "right"},
            widths={"score": 72, "time": 130, "at (s)": 72},
            margin=(0, 10),
        )
        self._table.on_click(self._clicked)
        self.note = html_pane("", "bp-note", margin=(0, 10))
        self.panel = pn.Column(
            self._table, self.note, stylesheets=[CSS], sizing_mode="stretch_width"
        )

    def show(
        self, detections: DetectionsByClass | None, rows: np.ndarray, scores: np.ndarray
    ) -> None:
        """List detections by their windows (`rows`, int64) and scores (float32), in this order."""
        total, rows, scores = len(rows), rows[:MOST_LISTED], scores[:MOST_LISTED]
        self._rows = rows
        self._table.selection = []
        self._table.value = _frame(detections, rows, scores)
        self._table.page = 1
        self.note.object = "Click on a row to see and hear it, on a heading to sort."
        if detections is not None and detections.zone:
            self.note.object += f" Times: {html.escape(detections.zone)}."
        if total > len(rows):
            self.note.object = (
                f"The {len(rows):,} best of {total:,} detections; downloads have all. "
                + self.note.object
            )

    def _clicked(self, event: Any) -> None:
        self._table.selection = [event.row]
        self._on_click(int(self._rows[event.row]))


def _frame(
    detections: DetectionsByClass | None, rows: np.ndarray, scores: np.ndarray
) -> pd.DataFrame:
    columns: dict[str, object] = {"score": scores.astype(np.float64)}
    if detections is None:
        return pd.DataFrame({**columns, "time": [], "recording": [], "at (s)": []})
    results, clock = detections.results, detections.clock[rows]
    if not np.isnat(clock).all():
        columns["time"] = pd.Series(clock).dt.strftime("%Y-%m-%d %H:%M:%S").fillna("")
    columns["recording"] = np.array(results.recordings, dtype=object)[results.recording_code[rows]]
    columns["at (s)"] = results.start[rows]
    if results.channels is not None:
        columns[CHANNEL] = results.channels[rows]
    return pd.DataFrame(columns)


def detections_csv(detections: DetectionsByClass, name: str, threshold: float) -> io.BytesIO:
    """Table of the detections of a class, in the order of recordings and time.

    Columns audiofilename, start, end (seconds), label:species, score, time, time_zone, model and
    source; channel behind end where every one was heard by itself.  The first four are those of
    an annotation table.
    """
    rows, scores = _in_order(detections, name, threshold)
    table = detections.results.window_table(rows).assign(
        **{"label:species": name},
        score=scores,
        time=detections.clock[rows],
        time_zone=detections.zone,
        model=detections.results.name,
        source=detections.source,
    )
    return io.BytesIO(csv_of(table))


def detections_raven(detections: DetectionsByClass, name: str, threshold: float) -> io.BytesIO:
    """Raven selection table of the detections of a class, over all recordings.

    Begin times count through the recordings in the order of their names, as Raven does when it
    opens several as one sound; Begin Path and File Offset name the place in each.
    """
    results = detections.results
    rows, scores = _in_order(detections, name, threshold)
    lines: list[str] = []
    count = len(results.recordings)
    stops = np.searchsorted(results.recording_code[rows], np.arange(count), side="right")
    first, offset, channels = 0, 0.0, results.channels
    for stop, (recording, entry) in zip(stops, results.windows.entries.items(), strict=True):
        mine = rows[first:stop]
        if len(mine):
            item = Detections(
                recording,
                mine,
                results.start[mine],
                results.end[mine],
                np.full(len(mine), name, dtype=object),
                scores[first:stop],
            )
            path = (results.loader.audio_dir / recording).resolve()
            lines += raven_rows(
                item,
                path,
                _highest(detections, recording),
                first=len(lines) + 1,
                offset=offset,
                channels=channels,
            )
        first, offset = stop, offset + entry.duration
    return io.BytesIO(raven_table(lines).encode("utf-8"))


def _in_order(
    detections: DetectionsByClass, name: str, threshold: float
) -> tuple[np.ndarray, np.ndarray]:
    rows, scores = detections.of(name, threshold)
    order = np.argsort(rows, kind="stable")
    return rows[order], scores[order]


def _highest(detections: DetectionsByClass, recording: str) -> float:
    """Highest frequency in Hz that the model heard in a recording."""
    results = detections.results
    heard = results.loader.highest_frequency
    try:
        native = read_recording(results.loader.audio_dir / recording).sample_rate
    except AudioError:  # moved away: what the model heard is all that is known
        return heard
    return min(heard, native / 2)
