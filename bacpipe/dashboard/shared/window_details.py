"""One window from near: where it is, what it looks and sounds like, what the classifier says."""

from __future__ import annotations

import html
import logging
from collections.abc import Sequence
from contextlib import suppress
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import panel as pn

from bacpipe.dashboard.background import Background
from bacpipe.dashboard.shared.clips import Clip, Spectrogram, channel_words, read_clip, spectrogram
from bacpipe.dashboard.shared.clock import clock_of
from bacpipe.dashboard.shared.drawn_marks import DrawnMark, marks_between
from bacpipe.dashboard.shared.labels import clock_times
from bacpipe.dashboard.shared.player import Player
from bacpipe.dashboard.shared.results import DataSetResults, ModelResults
from bacpipe.dashboard.shared.spectrogram_figure import (
    SpectrogramFigure,
    SpectrogramSettings,
    seconds_of,
)
from bacpipe.dashboard.shared.widgets import Notice, Spinner, html_pane, overlay
from bacpipe.dashboard.style import CSS
from bacpipe.errors import ResultsNotFoundError

logger = logging.getLogger(__name__)

_HINT = '<div class="bp-hint">Choose a window to see and hear it.</div>'
_RATES = {"recording's own": False, "what the model hears": True}
_CONTEXTS = {"none": 0.0, "1 s": 1.0, "3 s": 3.0, "10 s": 10.0}


class _DrawnClip(NamedTuple):
    """What a visitor sees and hears of a window."""

    recording: str
    clip: Clip
    picture: Spectrogram
    wav: bytes
    marks: list[DrawnMark]
    remark: str


class WindowDetails:
    """Title, spectrogram, waveform, player and predictions of one window.

    Parameters
    ----------
    data_set, background
        Results that are shown, and the page's worker.
    height : int, optional
        Pixels of the spectrogram; ``settings.spectrogram_figure_height`` unless given.
    beside_player : sequence of panel objects
        What is to stand at the right of the player.
    settings : SpectrogramSettings, optional
        How the visitor wants spectrograms to look.

    Attributes
    ----------
    panel : panel object
    row : int or None
        The window shown.
    """

    def __init__(
        self,
        data_set: DataSetResults,
        background: Background,
        *,
        height: int | None = None,
        beside_player: Sequence[Any] = (),
        settings: SpectrogramSettings | None = None,
    ) -> None:
        options = data_set.options
        self.row: int | None = None
        self._results: ModelResults | None = None
        self._label: str | None = None
        self._most_predictions = options.nr_predictions_to_display
        self._background, self._key = background, f"window-{id(self)}"
        self._figure = SpectrogramFigure(
            height=height or options.spectrogram_figure_height,
            colour_scale=options.spectrogram_colour_scale,
            settings=settings,
        )
        wanted = self._figure.settings
        self._title = html_pane("", "bp-window-title", wide=False)
        self._problem = Notice()
        self._spinner = Spinner()
        self._player = Player(sizing_mode="stretch_width", height=40, margin=(2, 10), throttle=60)
        self._figure.follow(self._player)
        self._slowed = html_pane("", "bp-note", margin=(0, 10), wide=False)
        self._predictions = html_pane(margin=(4, 10))
        self._rate = pn.widgets.Select.from_param(
            wanted.param.model_rate, label="Sample rate", options=_RATES, width=190,
            margin=(2, 10),
        )  # fmt: skip
        self._context = pn.widgets.Select.from_param(
            wanted.param.around, label="Seconds around", options=_CONTEXTS, width=130,
            margin=(2, 10),
        )  # fmt: skip
        changes = ["axis", "above_noise", "window", "overlap", "model_rate", "around"]
        wanted.param.watch(lambda *_: self._look(), changes)
        card = pn.Card(
            pn.FlexBox(self._rate, self._context),
            self._figure.controls,
            title="Spectrogram settings",
            collapsed=True,
            css_classes=["bp-help"],
            stylesheets=[CSS],
            sizing_mode="stretch_width",
            margin=(2, 10),
        )
        drawn = pn.Column(
            self._spinner.panel,
            self._figure.panel,
            pn.Row(self._player, *beside_player, sizing_mode="stretch_width"),
            self._slowed,
            sizing_mode="stretch_width",
        )
        self._cover = overlay("bp-cover", _HINT)
        self.panel = pn.Column(
            self._cover,
            self._title,
            self._problem.panel,
            drawn,
            card,
            self._predictions,
            sizing_mode="stretch_width",
        )

    def show(self, results: ModelResults, row: int, *, label: str | None = None) -> None:
        """Show a window of a model; `label` is what the title says about it."""
        self._results, self.row, self._label = results, int(row), label
        self._title.object = self._describe()
        self._background.run(
            f"{self._key}-clock",
            lambda: clock_of(results, int(row)),
            lambda clock: self._title.param.update(object=self._describe(clock)),
            fail=lambda sentence: logger.info("no time is shown: %s", sentence),
        )
        # Emptied rather than made invisible, which would lay out the whole page again.
        self._cover.object = ""
        self._look()
        self._background.run(
            f"{self._key}-predictions",
            lambda: best_predictions(results, int(row), self._most_predictions),
            self._show_predictions,
            fail=self._say_no_predictions,
        )

    @property
    def problem(self) -> str:
        """Sentence on why the window cannot be shown, or is another than the model's; or empty."""
        return self._problem.sentence

    def clear(self) -> None:
        """Show no window."""
        for key in (self._key, f"{self._key}-clock", f"{self._key}-predictions"):
            self._background.cancel(key)
        self._results = self.row = None
        self._cover.object = _HINT
        self._silence()

    # ------------------------------------------------------------------ the sound

    def _look(self) -> None:
        """Read the sound and draw it."""
        results, row = self._results, self.row
        if results is None or row is None:
            return
        name, start, end = results.window(row)
        wanted, channel = self._figure.settings, results.channel_of(row)
        around, model_rate = wanted.around, wanted.model_rate

        def compute() -> _DrawnClip:
            clip = read_clip(
                results, name, start - around, end + around, model_rate=model_rate, channel=channel
            )
            stop = clip.start + clip.duration
            marks = marks_between(results, name, clip.start, stop, channel=channel)
            picture = spectrogram(clip, wanted.look(clip))
            return _DrawnClip(name, clip, picture, clip.wav(), marks, results.change_of(name))

        self._background.run(
            self._key,
            compute,
            lambda drawn: self._show_clip(drawn, (start, end)),
            fail=self._fail,
            busy=self._spinner,
        )

    def _show_clip(self, drawn: _DrawnClip, window: tuple[float, float]) -> None:
        self._problem.say(drawn.remark)
        results = self._results
        heard = None if results is None else results.highest_heard
        self._figure.show(
            drawn.clip, drawn.picture, window, drawn.marks, recording=drawn.recording, heard=heard
        )
        self._player.load(drawn.wav, seconds_of(drawn.clip, drawn.recording))
        slower, top = drawn.clip.expansion, drawn.clip.rate / 2000
        self._slowed.object = (
            ""
            if slower == 1
            else f"Ultrasound: played {slower} times slower (time expansion ×{slower}), so that "
            f"{top:.0f} kHz sound like {top / slower:.0f} kHz."
        )

    def _fail(self, sentence: str) -> None:
        self._problem.say(sentence)
        self._silence()

    def _silence(self) -> None:
        self._figure.clear()
        self._player.load(None)

    # ------------------------------------------------------------------ the words

    def _describe(self, clock: str = "") -> str:
        results, row = self._results, self.row
        assert results is not None and row is not None
        name, start, end = results.window(row)
        path = PurePosixPath(name)
        folder = "" if str(path.parent) == "." else f"{path.parent}/"
        parts = filter(None, [clock, channel_words(results.channel_of(row))])
        said = "".join(f" · {html.escape(part)}" for part in parts)
        label = "" if self._label is None else f" · {html.escape(self._label)}"
        return (
            f'<div title="{html.escape(name)}"><span class="bp-folder">{html.escape(folder)}</span>'
            f"<b>{html.escape(path.name)}</b></div>"
            f'<div class="bp-when">{start:.2f} – {end:.2f} s{said}{label}</div>'
        )

    def _show_predictions(self, classes: list[tuple[str, float]]) -> None:
        rows = "".join(
            f'<tr><td class="bp-class" title="{html.escape(name)}">{html.escape(name)}</td>'
            f'<td class="bp-bar"><span style="width:{100 * min(max(score, 0), 1):.1f}%"></span>'
            f"</td><td>{score:.3f}</td></tr>"
            for name, score in classes
        )
        table = f'<table class="bp-classes">{rows}</table>'
        none = '<div class="bp-note">Nothing above the threshold of the run.</div>'
        self._predictions.object = (
            f'<div class="bp-heading">Classifier</div>{table if classes else none}'
        )

    def _say_no_predictions(self, sentence: str) -> None:
        self._predictions.object = f'<div class="bp-note">{html.escape(sentence)}</div>'


def read_ahead(results: ModelResults) -> None:
    """Read what is read once for the windows of a model, so that the first need not wait for it."""
    clock_times(results)
    for recording in results.recordings[:1]:
        marks_between(results, recording, 0, 0)
    with suppress(ResultsNotFoundError):
        _ = results.predictions


def best_predictions(results: ModelResults, row: int, most: int) -> list[tuple[str, float]]:
    """Best classes of a window with their scores; ResultsNotFoundError without any."""
    stored = results.predictions
    first, last = np.searchsorted(stored.row, [row, row + 1])
    order = first + np.argsort(-stored.score[first:last], kind="stable")[:most]
    return [(stored.names[stored.code[i]], float(stored.score[i])) for i in order]
