"""Spectrogram and waveform of a clip, drawn one above the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import panel as pn
from bokeh.models import BoxAnnotation, ColumnDataSource, LinearColorMapper, Range1d, Span

from bacpipe.dashboard.shared.clips import Clip, envelope, spectrogram
from bacpipe.dashboard.shared.drawn_marks import ANNOTATION, DETECTION, PERSON, DrawnMark
from bacpipe.dashboard.style import new_figure, scale_colours

SCALES = ("magma", "viridis", "inferno", "cividis", "Greys")
_DEEPEST = 100  # dB below the loudest point
_NO_IMAGE: dict[str, list[Any]] = {"image": [], "x": [], "width": [], "height": []}
_NO_MARKS: dict[str, list[Any]] = {"start": [], "end": [], "lane": [], "text": [], "colour": []}
_COLOUR_OF = {ANNOTATION: "#ffd166", PERSON: "#06d6a0", DETECTION: "#8ecae6"}
_MOST_MARKS = 8
_NO_WAVE: dict[str, list[Any]] = {"time": [], "low": [], "high": []}

# Runs in the browser, so that the picture follows the slider without waiting for the server.
_SET_FREQUENCIES = "range.setv({start: cb_obj.value[0], end: cb_obj.value[1]})"
_SET_DEPTH = "mapper.low = 255 * (1 - cb_obj.value / deepest)"
_MOVE_CURSOR = """
const [start, expansion] = cursor.tags;
cursor.setv({location: start + cb_obj.time / expansion, visible: cb_obj.time > 0});
"""


class SpectrogramFigure:
    """Spectrogram with the waveform below it.

    `panel` holds the two figures, `controls` the frequency range, colour scale and contrast.
    """

    def __init__(self, *, height: int = 300, colour_scale: str = "magma") -> None:
        self._times = Range1d(0, 1)
        self._frequencies = Range1d(0, 1)
        self._image, self._wave = ColumnDataSource(_NO_IMAGE), ColumnDataSource(_NO_WAVE)
        self._mapper = LinearColorMapper(palette=scale_colours(colour_scale), low=76.5, high=255)
        self._outside = [
            BoxAnnotation(fill_color="#ffffff", fill_alpha=0.35, line_color=None) for _ in range(2)
        ]
        self._cursor = Span(
            dimension="height", line_color="#ffffff", line_width=2, visible=False, tags=[0.0, 1]
        )
        self._spectrogram = self._draw_spectrogram(height)
        self._waveform = self._draw_waveform()
        self.panel = pn.Column(
            pn.pane.Bokeh(self._spectrogram, sizing_mode="stretch_width"),
            pn.pane.Bokeh(self._waveform, sizing_mode="stretch_width"),
            sizing_mode="stretch_width",
            css_classes=["bp-spectrogram"],
        )
        self._make_controls(colour_scale)

    def _draw_spectrogram(self, height: int) -> Any:
        drawn = self._new_figure(
            height, self._frequencies, tools="xpan,xwheel_zoom,reset", output_backend="canvas"
        )
        drawn.image(
            "image", x="x", y=0, dw="width", dh="height", source=self._image,
            color_mapper=self._mapper,
        )  # fmt: skip
        drawn.yaxis.axis_label = "frequency (kHz)"
        drawn.xaxis.visible = False
        for part in self._outside:
            drawn.add_layout(part)
        self._draw_marks(drawn)
        drawn.add_layout(self._cursor)
        return drawn

    def _draw_marks(self, drawn: Any) -> None:
        """Lines over the spectrogram for what is known of these seconds, each with its label."""
        self._marks = ColumnDataSource(_NO_MARKS)
        drawn.extra_y_ranges = {"marks": Range1d(0, 1)}
        lanes: dict[str, Any] = {"source": self._marks, "y_range_name": "marks"}
        drawn.segment("start", "lane", "end", "lane", line_color="colour", line_width=3, **lanes)
        drawn.text(
            "start", "lane", "text", text_color="#ffffff", text_font_size="11px", x_offset=3,
            y_offset=2, text_baseline="top", background_fill_color="#000000",
            background_fill_alpha=0.7, **lanes,
        )  # fmt: skip

    def _show_marks(self, clip: Clip, marks: Sequence[DrawnMark]) -> None:
        shown = marks[:_MOST_MARKS]
        end = clip.start + clip.duration
        self._marks.data = {
            "start": [max(mark.start, clip.start) for mark in shown],
            "end": [min(mark.end, end) for mark in shown],
            "lane": [0.98 - 0.075 * lane for lane in range(len(shown))],
            "text": [
                mark.text if mark.kind == DETECTION else f"{mark.text} ({mark.kind})"
                for mark in shown
            ],
            "colour": [_COLOUR_OF[mark.kind] for mark in shown],
        }

    def _draw_waveform(self) -> Any:
        drawn = self._new_figure(92, Range1d(-1, 1))
        drawn.varea("time", "low", "high", source=self._wave, fill_color="#0b4f6c")
        drawn.xaxis.axis_label = "time in the recording (s)"
        drawn.yaxis.ticker = []
        drawn.yaxis.axis_label = "level"
        return drawn

    def _new_figure(self, height: int, y_range: Range1d, **options: Any) -> Any:
        drawn = new_figure(
            height, x_range=self._times, y_range=y_range, toolbar_location=None, **options
        )
        drawn.outline_line_color = "#e5e5e5"
        drawn.grid.visible = False
        # Both figures begin at the same pixel, so that sounds lie below one another.
        drawn.min_border_left, drawn.min_border_right = 58, 8
        return drawn

    def _make_controls(self, colour_scale: str) -> None:
        scales = list(dict.fromkeys([colour_scale, *SCALES]))
        self.frequencies = pn.widgets.RangeSlider(
            label="Frequencies (kHz)", start=0, end=24, value=(0, 24), step=0.1, disabled=True,
            sizing_mode="stretch_width", margin=(2, 10),
        )  # fmt: skip
        self.frequencies.jscallback(value=_SET_FREQUENCIES, args={"range": self._frequencies})
        self.scale = pn.widgets.Select(
            label="Colours", options=scales, value=colour_scale, width=100, margin=(2, 10)
        )
        self.scale.param.watch(
            lambda event: self._mapper.update(palette=scale_colours(event.new)), "value"
        )
        self.depth = pn.widgets.IntSlider(
            label="Contrast (dB)", start=20, end=_DEEPEST, value=70, step=5,
            sizing_mode="stretch_width", margin=(2, 10),
        )  # fmt: skip
        self.depth.jscallback(
            value=_SET_DEPTH, args={"mapper": self._mapper, "deepest": float(_DEEPEST)}
        )
        self.controls = pn.Column(
            self.frequencies,
            pn.Row(self.scale, self.depth, sizing_mode="stretch_width"),
            sizing_mode="stretch_width",
        )

    def follow(self, player: pn.pane.Audio) -> None:
        """Show where a player is."""
        player.jscallback(time=_MOVE_CURSOR, args={"cursor": self._cursor})

    def show(
        self,
        clip: Clip,
        image: np.ndarray,
        window: tuple[float, float],
        marks: Sequence[DrawnMark] = (),
    ) -> None:
        """Draw a clip.

        Parameters
        ----------
        clip : Clip
            What is heard.
        image : np.ndarray, uint8, shape (frequencies, times)
            From `picture_of`.
        window : (start, end)
            Seconds of the recording; what lies outside is paled.
        marks : sequence of DrawnMark
            What is known of these seconds.
        """
        self._show_marks(clip, marks)
        top, end = clip.rate / 2000, clip.start + clip.duration
        self._image.data = {
            "image": [image], "x": [clip.start], "width": [clip.duration], "height": [top],
        }  # fmt: skip
        times, low, high = envelope(clip)
        level = max(float(np.abs(clip.samples).max(initial=0)), 1e-6)
        self._wave.data = {"time": times, "low": low / level, "high": high / level}
        self._times.update(start=clip.start, end=end, reset_start=clip.start, reset_end=end)
        self._outside[0].update(left=None, right=window[0], visible=window[0] > clip.start)
        self._outside[1].update(left=window[1], right=None, visible=window[1] < end)
        self._cursor.update(tags=[clip.start, clip.expansion], visible=False)
        self._fit_frequencies(top)

    def _fit_frequencies(self, top: float) -> None:
        """Keep the chosen range unless the clip has another highest frequency."""
        if self.frequencies.disabled or self.frequencies.end != top:
            self.frequencies.param.update(end=top, value=(0, top), step=top / 100, disabled=False)
            self._frequencies.update(start=0, end=top, reset_start=0, reset_end=top)

    def clear(self) -> None:
        """Show nothing."""
        self._image.data, self._wave.data, self._marks.data = _NO_IMAGE, _NO_WAVE, _NO_MARKS
        self._cursor.visible = False
        for part in self._outside:
            part.visible = False


def picture_of(clip: Clip) -> np.ndarray:
    """Spectrogram in 256 steps of level, uint8: a quarter of the bytes for the same picture."""
    levels = spectrogram(clip).levels
    return np.rint((levels + _DEEPEST) * (255 / _DEEPEST)).astype(np.uint8)
