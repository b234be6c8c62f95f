"""A recording from its beginning to its end: spectrogram, what was found, and its sound."""

from __future__ import annotations

import html
from typing import Any, NamedTuple

import numpy as np
import panel as pn
from bokeh.events import RangesUpdate, Tap
from bokeh.models import (
    ColumnDataSource,
    FactorRange,
    HoverTool,
    LinearColorMapper,
    Range1d,
    Span,
)
from scipy import signal

from bacpipe.dashboard.background import Background, page_document
from bacpipe.dashboard.shared.clips import Clip, Look, from_axis, read_clip
from bacpipe.dashboard.shared.drawn_marks import ANNOTATION, PERSON, marks_between
from bacpipe.dashboard.shared.player import Player
from bacpipe.dashboard.shared.results import ModelResults
from bacpipe.dashboard.shared.spectrogram_figure import (
    SpectrogramSettings,
    frequency_ticks,
    seconds_of,
)
from bacpipe.dashboard.shared.widgets import Notice, Spinner, html_pane, tall_figure
from bacpipe.dashboard.style import (
    FRAME,
    axis_categories,
    name_figure,
    new_figure,
    put_ticks,
    scale_colours,
)
from bacpipe.errors import ResultsNotFoundError

_COLUMNS = 900  # about one per pixel
_BANDS = 240
_FRAMES = 4  # spectra of a column, of which the loudest is drawn
_BLOCK = 60.0  # seconds that are in memory at a time
_LONGEST = 3600.0  # seconds that are read whole; of longer stretches, a second for each column
_LEAST_DEPTH = 15.0  # dB above the noise of each band, so that mere noise stays dark
_LANES = 8
_PLAYED = 10.0  # seconds after a click
_REST = 300  # milliseconds without movement
_NO_IMAGE: dict[str, list[Any]] = {"image": [], "x": [], "y": [], "width": [], "height": []}
_NO_MARKS: dict[str, list[Any]] = {"left": [], "right": [], "lane": [], "alpha": [], "text": []}
_FOLLOW = """
const [start, slower] = cursor.tags;
cursor.setv({location: start + cb_obj.time / slower, visible: cb_obj.time > 0});
"""


class LongSpectrogram(NamedTuple):
    """Levels above the noise of each band.

    Attributes
    ----------
    levels : np.ndarray, uint8, shape (bands, columns)
        0 is the noise or less, 255 the loudest thousandth; the lowest frequency comes first.
    start, end : float
        Seconds of the recording.
    top : float
        Highest frequency in Hz: what the model hears.
    look : Look
        Its axis.
    sampled : bool
        Whether only a second of each column was looked at.
    """

    levels: np.ndarray
    start: float
    end: float
    top: float
    look: Look
    sampled: bool


def long_spectrogram(
    results: ModelResults,
    recording: str,
    start: float,
    end: float,
    settings: SpectrogramSettings,
    channel: int | None = None,
) -> LongSpectrogram:
    """Spectrogram of any stretch of a recording, in a memory that does not grow with it.

    Each column is the loudest of a few spectra; of each band, its median over time is the noise.
    `channel` is which one, from 1, where every channel was heard by itself.

    Raises
    ------
    BacpipeError
        If the recording is gone or cannot be read.
    """
    edges = np.linspace(start, end, _COLUMNS + 1)
    sampled = end - start > _LONGEST
    columns: list[np.ndarray] = []
    per_block = max(1, int(_BLOCK / max((end - start) / _COLUMNS, 1e-9)))
    step = 1 if sampled else per_block
    look, top, bands = Look(), 0.0, np.zeros(0)
    for first in range(0, _COLUMNS, step):
        last = min(first + step, _COLUMNS)
        stop = min(edges[first] + 1.0, edges[last]) if sampled else edges[last]
        clip = read_clip(results, recording, float(edges[first]), float(stop), channel=channel)
        if not columns:
            look = settings.look(clip)
            top = min(results.highest_heard or clip.rate / 2, clip.rate / 2)
            low, high = look.edges(top)
            bands = from_axis(np.linspace(low, high, _BANDS + 1), look.axis)
        columns += _columns(clip, bands, last - first)
    power = 10 * np.log10(np.maximum(np.stack(columns, axis=1), 1e-12))
    above = power - np.median(power, axis=1, keepdims=True)
    depth = max(float(np.quantile(above, 0.999)), _LEAST_DEPTH)
    levels = np.clip(np.rint(above * (255 / depth)), 0, 255).astype(np.uint8)
    return LongSpectrogram(levels, start, end, top, look, sampled)


def _columns(clip: Clip, bands: np.ndarray, count: int) -> list[np.ndarray]:
    """Power of `count` equal parts of a clip in bands, whose edges are in Hz."""
    samples, rate = clip.samples, clip.rate
    size = int(2 ** np.clip(np.round(np.log2(rate * 0.02)), 9, 12))
    if len(samples) < size:
        samples = np.pad(samples, (0, size - len(samples)))
    places = np.linspace(0, len(samples) - size, count * _FRAMES).astype(np.int64)
    frames = np.lib.stride_tricks.sliding_window_view(samples, size)[places]
    spectra = np.abs(np.fft.rfft(frames * signal.get_window("hann", size), axis=1))[:, 1:] ** 2
    # Bands that are narrower than what is told apart share it.
    rows = np.clip((bands * size / rate).astype(int), 0, size // 2 - 1)
    power = np.add.reduceat(spectra[:, : rows[-1] + 1], rows[:-1], axis=1)
    return list(power.reshape(count, _FRAMES, -1).max(axis=1))


class _Drawn(NamedTuple):
    picture: LongSpectrogram
    marks: dict[str, list[Any]]
    lanes: list[str]
    remark: str


class WholeRecording:
    """Long spectrogram with what was found below it; a click plays from there.

    Attributes
    ----------
    panel : panel object
    """

    def __init__(
        self, background: Background, colour_scale: str, settings: SpectrogramSettings
    ) -> None:
        self._background, self._settings = background, settings
        self._results: ModelResults | None = None
        self._recording = ""
        self._shown = (0.0, 0.0)
        self._moves = 0
        self._times, self._frequencies = Range1d(0, 1), Range1d(0, 1)
        self._lanes = FactorRange(factors=[])
        self._image, self._marks = ColumnDataSource(_NO_IMAGE), ColumnDataSource(_NO_MARKS)
        colours = LinearColorMapper(palette=scale_colours(colour_scale), low=0, high=255)
        self._cursor = Span(
            dimension="height", line_color="#ffffff", line_width=2, visible=False, tags=[0.0, 1]
        )
        tools = "xpan,xwheel_zoom,xbox_zoom,reset"
        upper = new_figure(
            300, "Spectrogram without a recording", tools=tools, active_scroll="xwheel_zoom",
            x_range=self._times, y_range=self._frequencies, output_backend="canvas",
        )  # fmt: skip
        upper.image(
            "image", x="x", y="y", dw="width", dh="height", source=self._image, color_mapper=colours
        )
        upper.add_layout(self._cursor)
        self._axis = upper.yaxis[0]
        put_ticks(self._axis, {})
        upper.yaxis.axis_label = "frequency (kHz)"
        lower = new_figure(
            200, "Time lines without a recording", tools="xpan,xwheel_zoom", toolbar_location=None,
            x_range=self._times, y_range=self._lanes,
        )  # fmt: skip
        self._upper, self._lower = upper, lower
        bars = lower.hbar(
            y="lane", left="left", right="right", height=0.7, source=self._marks,
            fill_color="#0072B2", fill_alpha="alpha", line_color="#0b4f6c", line_width=0.5,
        )  # fmt: skip
        lower.add_tools(HoverTool(renderers=[bars], tooltips=[("", "@text"), ("s", "$x{0.0}")]))
        lower.xaxis.axis_label = "time in the recording (s); a click plays 10 s from there"
        for drawn in (upper, lower):
            drawn.outline_line_color = FRAME
            drawn.min_border_left, drawn.min_border_right = 150, 8
            drawn.on_event(Tap, self._tapped)
        upper.on_event(RangesUpdate, self._moved)
        self._title, self._note = html_pane("", "bp-window-title"), html_pane("", "bp-note")
        self._notice, self._spinner = Notice(), Spinner()
        self._channel = pn.widgets.Select(
            label="Channel", options={}, width=110, margin=(2, 10), visible=False
        )
        self._channel.param.watch(lambda _: self._change_channel(), "value")
        self._player = Player(
            sizing_mode="stretch_width", height=40, margin=(2, 10), throttle=60, autoplay=True
        )
        self._player.jscallback(time=_FOLLOW, args={"cursor": self._cursor})
        self.panel = pn.Column(
            self._spinner.panel, self._title, self._channel, self._notice.panel,
            tall_figure(upper, "100vh - 500px"),
            pn.pane.Bokeh(lower, sizing_mode="stretch_width"),
            self._player, self._note, sizing_mode="stretch_width",
        )  # fmt: skip

    def show(self, results: ModelResults, recording: str) -> None:
        """Show a recording from beginning to end, with what a model found in it."""
        self._results, self._recording = results, recording
        end = float(results.windows.entries[recording].duration)
        self._title.object = f"<b>{html.escape(recording)}</b> · {html.escape(results.name)}"
        self._times.update(start=0, end=end, reset_start=0, reset_end=end, bounds=(0, end))
        # First the widget: what it had chosen of another recording is of no use here.
        self._results = None
        count = results.channel_count(recording)
        channels = {} if results.channels is None else {str(i): i for i in range(1, count + 1)}
        self._channel.param.update(
            options=channels, value=1 if channels else None, visible=count > 1
        )
        self._results = results
        self._background.cancel(f"whole-{id(self)}")  # of another recording
        self._moves += 1  # nor is its section of any use here
        self._silence()
        self._look(0.0, end)

    def _silence(self) -> None:
        self._background.cancel(f"whole-sound-{id(self)}")
        self._player.load(None)
        self._cursor.visible = False

    def _change_channel(self) -> None:
        if self._results is not None:
            self._silence()
            self._look(*self._shown)

    def _look(self, start: float, end: float) -> None:
        results, recording, channel = self._results, self._recording, self._channel.value
        if results is None or end - start <= 0:
            return
        self._shown = (start, end)

        def compute() -> _Drawn:
            picture = long_spectrogram(results, recording, start, end, self._settings, channel)
            found = _bars_and_lanes(results, recording, channel)
            return _Drawn(picture, *found, results.change_of(recording))

        self._background.run(
            f"whole-{id(self)}", compute, self._draw, fail=self._fail, busy=self._spinner
        )

    def _draw(self, drawn: _Drawn) -> None:
        picture = drawn.picture
        self._notice.say(drawn.remark)
        low, high = picture.look.edges(picture.top).tolist()
        self._frequencies.update(start=low, end=high, reset_start=low, reset_end=high)
        top = picture.top / 1000
        ticks = frequency_ticks(picture.look.axis, 0, top, top)
        put_ticks(self._axis, ticks)
        self._image.data = {
            "image": [picture.levels], "x": [picture.start], "y": [low],
            "width": [picture.end - picture.start], "height": [high - low],
        }  # fmt: skip
        span = f"{self._recording}, {picture.start:.0f} to {picture.end:.0f} s"
        name_figure(
            self._upper,
            f"Spectrogram of {span}",
            "A click plays from there; with the keyboard, Explore plays window after window.",
        )
        lanes = ", ".join(drawn.lanes[::-1])
        name_figure(self._lower, f"Time lines of what was found in {span}", lanes)
        self._lanes.factors = drawn.lanes
        self._marks.data = drawn.marks
        self._note.object = (
            "Each column shows one second of its time only; zoom in to see all." * picture.sampled
        )

    def _fail(self, sentence: str) -> None:
        self._notice.say(sentence)
        self._image.data, self._marks.data = _NO_IMAGE, _NO_MARKS

    def _moved(self, event: RangesUpdate) -> None:
        if event.x0 is None or event.x1 is None or (event.x0, event.x1) == self._shown:
            return
        self._moves += 1
        move, start, end = self._moves, max(0.0, float(event.x0)), float(event.x1)

        def rest() -> None:
            if move == self._moves:
                self._look(start, end)

        document = page_document()
        if document is not None:
            document.add_timeout_callback(rest, _REST)

    def _tapped(self, event: Tap) -> None:
        results, recording, channel = self._results, self._recording, self._channel.value
        if results is None or event.x is None:
            return
        start = max(0.0, float(event.x))
        self._background.run(
            f"whole-sound-{id(self)}",
            lambda: read_clip(results, recording, start, start + _PLAYED, channel=channel),
            lambda clip: self._play(clip, results, recording),
            fail=self._notice.say,
        )

    def _play(self, clip: Clip, results: ModelResults, recording: str) -> None:
        if (results, recording) != (self._results, self._recording):
            return  # another one is shown now
        self._cursor.tags = [clip.start, clip.expansion]
        self._player.load(clip.wav(), seconds_of(clip, recording), play=True)


def _bars_and_lanes(
    results: ModelResults, recording: str, channel: int | None
) -> tuple[dict[str, list[Any]], list[str]]:
    """Bars below the spectrogram and the names of their lanes, the lowest first."""
    end = float(results.windows.entries[recording].duration)
    bars: dict[str, list[tuple[float, float, float, str]]] = {}
    titles = {ANNOTATION: "annotations", PERSON: "people"}
    for mark in marks_between(results, recording, 0.0, end, detections=False, channel=channel):
        bars.setdefault(titles[mark.kind], []).append((mark.start, mark.end, 0.6, mark.text))
    try:
        stored, rows = results.predictions, results.rows_of(recording)
    except ResultsNotFoundError:  # a model without a classifier
        stored = None
    if stored is not None:
        inside = slice(*np.searchsorted(stored.row, [rows.start, rows.stop]).tolist())
        row, code, score = stored.row[inside], stored.code[inside], stored.score[inside]
        if channel is not None and results.channels is not None:
            heard = results.channels[row] == channel
            row, code, score = row[heard], code[heard], score[heard]
        best = list(dict.fromkeys(code[np.argsort(-score, kind="stable")].tolist()))[:_LANES]
        lanes = axis_categories([stored.names[i] for i in best], 20)
        for lane, i in zip(lanes, best, strict=True):
            for r, s in zip(row[code == i].tolist(), score[code == i].tolist(), strict=True):
                text = f"{stored.names[i]} {s:.2f}"
                bar = (float(results.start[r]), float(results.end[r]), float(min(max(s, 0.1), 1)))
                bars.setdefault(lane, []).append((*bar, text))
    marks: dict[str, list[Any]] = {name: [] for name in _NO_MARKS}
    for lane, items in bars.items():
        for left, right, alpha, text in items:
            for name, value in zip(_NO_MARKS, (left, right, lane, alpha, text), strict=True):
                marks[name].append(value)
    return marks, list(bars)[::-1]
