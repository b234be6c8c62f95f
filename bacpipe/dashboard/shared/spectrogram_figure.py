"""Spectrogram and waveform of a clip, drawn one above the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import panel as pn
import param
from bokeh.models import (
    BoxAnnotation,
    BoxZoomTool,
    ColumnDataSource,
    LinearColorMapper,
    Range1d,
    Span,
)

from bacpipe.dashboard.shared.clips import (
    Clip,
    Look,
    Spectrogram,
    envelope,
    from_axis,
    on_axis,
    spectrogram,
)
from bacpipe.dashboard.shared.drawn_marks import ANNOTATION, DETECTION, PERSON, DrawnMark
from bacpipe.dashboard.style import (
    is_dark,
    name_figure,
    new_colour_bar,
    new_figure,
    put_ticks,
    scale_colours,
)

SCALES = ("magma", "viridis", "inferno", "cividis", "Greys", "gray")
_AXES = {"automatic": "auto", "mel": "mel", "logarithmic": "log", "linear": "linear"}
_NOISE = {"above the noise of each band": True, "below the loudest point": False}
_WINDOWS = {"automatic": 0.0, "3 ms": 3.0, "6 ms": 6.0, "12 ms": 12.0, "25 ms": 25.0,
            "50 ms": 50.0, "100 ms": 100.0}  # fmt: skip
_OVERLAPS = {"50 %": 50, "75 %": 75, "90 %": 90}
_HIGHEST_OF_MEL = 24_000  # Hz; above, nobody hears as the mel scale says
_LEAST_ABOVE_NOISE = 6  # dB: noise itself varies by as much
_LEAST_TOP = 24  # dB above the noise for the brightest colour
_TICKS = {  # kHz
    "mel": (0, 0.5, 1, 2, 4, 8, 12, 16, 24, 48, 96, 192),
    "log": (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200),
}
_NO_IMAGE: dict[str, list[Any]] = {"image": [], "x": [], "y": [], "width": [], "height": []}
_NO_MARKS: dict[str, list[Any]] = {"start": [], "end": [], "lane": [], "text": [], "colour": []}
_COLOUR_OF = {ANNOTATION: "#ffd166", PERSON: "#06d6a0", DETECTION: "#8ecae6"}
_MOST_MARKS = 8
_LANE = 18  # pixels from one to the next
_NO_WAVE: dict[str, list[Any]] = {"time": [], "low": [], "high": []}

# Runs in the browser, so that the picture follows the sliders without waiting for the server.
_SET_FREQUENCIES = """
const place = {
    mel: (khz) => 2595 * Math.log10(1 + khz / 0.7),
    log: (khz) => Math.log10(Math.max(1000 * khz, 50)),
    linear: (khz) => khz,
}[range.tags[0]];
range.setv({start: place(cb_obj.value[0]), end: place(cb_obj.value[1])});
"""
_SET_DEPTH = "mapper.low = Math.max(mapper.tags[0], mapper.high - cb_obj.value)"
_MOVE_CURSOR = """
const [start, expansion] = cursor.tags;
cursor.setv({location: start + cb_obj.time / expansion, visible: cb_obj.time > 0});
"""


class SpectrogramSettings(param.Parameterized):
    """How visitors want spectrograms to look; the page keeps it in its address.

    Attributes
    ----------
    in_address : dict of str to str
        Key in the address by parameter.
    """

    in_address: ClassVar[dict[str, str]] = {
        "axis": "axis", "above_noise": "above_noise", "window": "window_ms",
        "overlap": "overlap", "frequencies": "khz", "colours": "colours", "contrast": "contrast",
        "model_rate": "model_rate", "around": "around",
    }  # fmt: skip

    axis = param.Selector(objects=list(_AXES.values()), default="auto")
    above_noise = param.Boolean(default=True)
    window = param.Selector(objects=list(_WINDOWS.values()), default=0.0)
    overlap = param.Selector(objects=list(_OVERLAPS.values()), default=75)
    frequencies = param.NumericTuple(default=None, length=2, allow_None=True)
    colours = param.Selector(objects=[None, *SCALES], default=None, allow_None=True)
    contrast = param.Integer(default=60, bounds=(20, 100))
    model_rate = param.Boolean(default=False)
    around = param.Number(default=0.0, bounds=(0, 60))

    def look(self, clip: Clip) -> Look:
        """How the spectrogram of a clip is computed."""
        axis = self.axis
        if axis == "auto":
            axis = "mel" if clip.rate / 2 <= _HIGHEST_OF_MEL else "linear"
        return Look(axis, self.above_noise, self.window, self.overlap)


class SpectrogramFigure:
    """Spectrogram with the waveform below it.

    `panel` holds the two figures, `controls` what changes their look.

    Parameters
    ----------
    height : int
        Pixels of the spectrogram.
    colour_scale : str
        matplotlib's name of the scale unless the visitor has chosen another.
    settings : SpectrogramSettings, optional
        Of the visitor.
    """

    def __init__(
        self,
        *,
        height: int = 300,
        colour_scale: str = "magma",
        settings: SpectrogramSettings | None = None,
    ) -> None:
        self.settings = settings or SpectrogramSettings()
        self._usual_scale = colour_scale
        self._times = Range1d(0, 1)
        self._frequencies = Range1d(0, 1, tags=["linear"])
        self._image, self._wave = ColumnDataSource(_NO_IMAGE), ColumnDataSource(_NO_WAVE)
        self._mapper = LinearColorMapper(
            palette=scale_colours(self.settings.colours or colour_scale), low=-60, high=0,
            tags=[-100],
        )  # fmt: skip
        self._outside = [
            BoxAnnotation(left=0, right=0, fill_color="#808080", fill_alpha=0.4, line_color=None)
            for _ in range(2)
        ]
        self._cursor = Span(
            dimension="height", line_color="#56B4E9", line_width=2, visible=False, tags=[0.0, 1]
        )
        self._lane = _LANE / (height - 20)  # without the border
        self._spectrogram = self._draw_spectrogram(height)
        self._waveform = self._draw_waveform()
        self.panel = pn.Column(
            pn.pane.Bokeh(self._spectrogram, sizing_mode="stretch_width"),
            pn.pane.Bokeh(self._waveform, sizing_mode="stretch_width"),
            sizing_mode="stretch_width",
            css_classes=["bp-spectrogram"],
        )
        self._make_controls()

    def _draw_spectrogram(self, height: int) -> Any:
        drawn = self._new_figure(
            height, "Spectrogram without a sound", self._frequencies,
            tools="xpan,xwheel_zoom,reset", output_backend="canvas",
            toolbar_location="right", toolbar_inner=True,
        )  # fmt: skip
        drawn.add_tools(BoxZoomTool())
        drawn.toolbar.autohide = True
        drawn.image(
            "image", x="x", y="y", dw="width", dh="height", source=self._image,
            color_mapper=self._mapper,
        )  # fmt: skip
        drawn.yaxis.axis_label = "frequency (kHz)"
        put_ticks(drawn.yaxis[0], {})
        drawn.xaxis.visible = False
        self._bar = new_colour_bar(self._mapper, "dB")
        drawn.add_layout(self._bar, "right")
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
            "lane": [0.98 - self._lane * lane for lane in range(len(shown))],
            "text": [
                mark.text if mark.kind == DETECTION else f"{mark.text} ({mark.kind})"
                for mark in shown
            ],
            "colour": [_COLOUR_OF[mark.kind] for mark in shown],
        }

    def _draw_waveform(self) -> Any:
        drawn = self._new_figure(
            84, "Waveform without a sound", Range1d(-1, 1), toolbar_location=None
        )
        drawn.varea(
            "time", "low", "high", source=self._wave,
            fill_color="#56B4E9" if is_dark() else "#0b4f6c",
        )  # fmt: skip
        drawn.xaxis.axis_label = "time in the recording (s)"
        drawn.yaxis.ticker = []
        drawn.yaxis.axis_label = "level"
        # As wide as the one above and not seen: sounds lie below one another.
        unseen = new_colour_bar(self._mapper, "dB")
        for name in ("bar_line", "major_label_text", "title_text", "background_fill",
                     "major_tick_line", "scale"):  # fmt: skip
            if hasattr(unseen, f"{name}_alpha"):
                setattr(unseen, f"{name}_alpha", 0)
        drawn.add_layout(unseen, "right")
        return drawn

    def _new_figure(self, height: int, name: str, y_range: Range1d, **options: Any) -> Any:
        drawn = new_figure(height, name, x_range=self._times, y_range=y_range, **options)
        drawn.grid.visible = False
        drawn.min_border_left, drawn.min_border_right = 58, 8
        return drawn

    def _make_controls(self) -> None:
        settings, wide = self.settings, {"sizing_mode": "stretch_width", "margin": (2, 10)}
        narrow: dict[str, Any] = {"width": 130, "margin": (2, 10)}

        def choice(name: str, label: str, options: Any, **place: Any) -> Any:
            return pn.widgets.Select.from_param(
                settings.param[name], label=label, options=options, description=None, **place
            )

        self.frequencies = pn.widgets.RangeSlider(
            label="Frequencies (kHz)", start=0, end=24, value=(0, 24), step=0.1, disabled=True,
            **wide,
        )  # fmt: skip
        self.frequencies.jscallback(value=_SET_FREQUENCIES, args={"range": self._frequencies})
        self.frequencies.param.watch(self._keep_frequencies, "value_throttled")
        titles = {"gray": "gray (white on black)", "Greys": "Greys (for print)"}
        usual = titles.get(self._usual_scale, self._usual_scale)
        scales = {titles.get(n, n): n for n in SCALES if n != self._usual_scale}
        self.scale = choice(
            "colours", "Colours", {usual: None, **scales}, width=170, margin=(2, 10)
        )
        settings.param.watch(
            lambda event: self._mapper.update(
                palette=scale_colours(event.new or self._usual_scale)
            ),
            "colours",
        )
        self.depth = pn.widgets.IntSlider.from_param(
            settings.param.contrast, label="Contrast (dB)", start=20, end=100, step=5, **wide
        )
        self.depth.jscallback(value=_SET_DEPTH, args={"mapper": self._mapper})
        self.controls = pn.Column(
            pn.FlexBox(
                choice("axis", "Frequency axis", _AXES, **narrow),
                choice("above_noise", "Level", _NOISE, width=210, margin=(2, 10)),
                choice("window", "Length of a window", _WINDOWS, **narrow),
                choice("overlap", "Overlap", _OVERLAPS, **narrow),
                self.scale,
            ),
            self.frequencies,
            self.depth,
            sizing_mode="stretch_width",
        )

    def follow(self, player: pn.pane.Audio) -> None:
        """Show where a player is."""
        player.jscallback(time=_MOVE_CURSOR, args={"cursor": self._cursor})

    def show(
        self,
        clip: Clip,
        picture: Spectrogram,
        window: tuple[float, float],
        marks: Sequence[DrawnMark] = (),
        *,
        recording: str,
        heard: float | None = None,
    ) -> None:
        """Draw a clip.

        Parameters
        ----------
        clip : Clip
            What is heard.
        picture : Spectrogram
            Of the clip.
        window : (start, end)
            Seconds of the recording; what lies outside is paled.
        marks : sequence of DrawnMark
            What is known of these seconds.
        recording : str
            Of which the clip is a part.
        heard : float, optional
            Highest frequency in Hz that the model hears, up to which is shown.
        """
        self._show_marks(clip, marks)
        seconds = seconds_of(clip, recording)
        self._name(f"Spectrogram of {seconds}", f"Waveform of {seconds}")
        end = clip.start + clip.duration
        look = self.settings.look(clip)
        low, high = look.edges(picture.top).tolist()
        self._image.data = {
            # A quarter of the bytes for the same picture.
            "image": [np.rint(picture.levels).astype(np.int8)], "x": [clip.start], "y": [low],
            "width": [clip.duration], "height": [high - low],
        }  # fmt: skip
        self._fit_levels(picture)
        times, lowest, highest = envelope(clip)
        level = max(float(np.abs(clip.samples).max(initial=0)), 1e-6)
        self._wave.data = {"time": times, "low": lowest / level, "high": highest / level}
        self._times.update(start=clip.start, end=end, reset_start=clip.start, reset_end=end)
        for part, (left, right) in zip(
            self._outside, [(clip.start, window[0]), (window[1], end)], strict=True
        ):
            part.update(left=left, right=right, visible=left < right)
        self._cursor.update(tags=[clip.start, clip.expansion], visible=False)
        self._fit_frequencies(look.axis, picture, min(heard or picture.top, picture.top) / 1000)
        self._show_axes(True)

    def _fit_levels(self, picture: Spectrogram) -> None:
        above = self.settings.above_noise
        least = _LEAST_ABOVE_NOISE if above else -100
        high = max(int(picture.levels.max(initial=0)), _LEAST_TOP) if above else 0
        self._mapper.update(high=high, low=max(least, high - self.settings.contrast), tags=[least])
        self._bar.title = "dB above noise" if above else "dB"

    def _fit_frequencies(self, axis: str, picture: Spectrogram, heard: float) -> None:
        """Show what the visitor has chosen, or else what the model hears."""
        top = picture.top / 1000
        first, last = self.settings.frequencies or (0.0, heard)
        first, last = max(0.0, min(first, 0.9 * top)), min(last, top)
        if last <= first:
            first, last = 0.0, heard
        self.frequencies.param.update(
            start=0, end=top, value=(first, last), step=top / 120, disabled=False
        )
        start, end = on_axis(1000 * np.array([first, last]), axis).tolist()
        start = max(start, self._image.data["y"][0])
        self._frequencies.tags = [axis]
        self._frequencies.update(start=start, end=end, reset_start=start, reset_end=end)
        ticks = frequency_ticks(axis, first, last, picture.top / 1000)
        put_ticks(self._spectrogram.yaxis[0], ticks)

    def _keep_frequencies(self, event: Any) -> None:
        self.settings.frequencies = tuple(round(float(value), 3) for value in event.new)

    def clear(self) -> None:
        """Show nothing, and no axes that would speak of what was shown before."""
        self._image.data, self._wave.data, self._marks.data = _NO_IMAGE, _NO_WAVE, _NO_MARKS
        self._name("Spectrogram without a sound", "Waveform without a sound")
        self._cursor.visible = False
        for part in self._outside:
            part.visible = False
        self._show_axes(False)

    def _name(self, spectrogram: str, waveform: str) -> None:
        name_figure(self._spectrogram, spectrogram, " · ".join(self._marks.data["text"]))
        name_figure(self._waveform, waveform)

    def _show_axes(self, shown: bool) -> None:
        self._spectrogram.yaxis.visible = self._bar.visible = shown
        self._waveform.axis.visible = shown


def seconds_of(clip: Clip, recording: str) -> str:
    """Which seconds of which recording a clip is, in words."""
    return f"{recording}, {clip.start:.2f} to {clip.start + clip.duration:.2f} s"


class Picture(NamedTuple):
    """Spectrogram above the noise of each band that is drawn without a scale of colours.

    Attributes
    ----------
    levels : np.ndarray, uint8, shape (frequencies, times)
        0 is hardly more than the noise, 255 the loudest; the lowest frequency comes first.
    top : float
        Upper edge in Hz.
    ticks : list of (float, str)
        Share of the height from below, and the kHz there.
    """

    levels: np.ndarray
    top: float
    ticks: list[tuple[float, str]]


def picture_of(clip: Clip, settings: SpectrogramSettings, heard: float | None = None) -> Picture:
    """Picture of a clip, up to the highest frequency in Hz that the model hears."""
    look = settings.look(clip)._replace(above_noise=True)
    levels, top = spectrogram(clip, look)
    low, whole = look.edges(top).tolist()
    wanted = float(on_axis(np.array([min(heard or top, top)]), look.axis)[0])
    rows = max(round(len(levels) * (wanted - low) / (whole - low)), 1)
    high = low + (whole - low) * rows / len(levels)
    shown = float(from_axis(np.array([high]), look.axis)[0])
    loudest = max(float(levels[:rows].max(initial=0)), _LEAST_TOP)
    share = (levels[:rows] - _LEAST_ABOVE_NOISE) / (loudest - _LEAST_ABOVE_NOISE)
    ticks = frequency_ticks(look.axis, 0, shown / 1000, shown / 1000)
    return Picture(
        np.rint(255 * np.clip(share, 0, 1)).astype(np.uint8),
        shown,
        [((place - low) / (high - low), text) for place, text in ticks.items() if place >= low],
    )


def frequency_ticks(axis: str, first: float, last: float, top: float) -> dict[float, str]:
    """Words by place on a frequency axis that shows `first` to `last` of `top` kHz."""
    step = next(step for step in (2, 5, 10, 20, 50) if last - first <= 8 * step or step == 50)
    ticks = np.arange(0, top, step) if axis == "linear" else np.array(_TICKS[axis])
    ticks = ticks[ticks <= top]
    places = on_axis(1000 * ticks, axis).tolist()
    return {place: f"{tick:g}" for place, tick in zip(places, ticks, strict=True)}
