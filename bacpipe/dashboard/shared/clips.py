"""Sound of a window: samples to draw and to play."""

from __future__ import annotations

import io
import math
from typing import NamedTuple

import numpy as np
import soundfile as sf
from scipy import signal

from bacpipe.audio.files import read_recording
from bacpipe.audio.stream import read_audio
from bacpipe.dashboard.shared.results import ModelResults

# Browsers play up to 48 kHz everywhere; above, a recording is slowed down by powers of ten.
_HIGHEST_PLAYED_RATE = 48_000
_COLUMNS = 600  # about one per pixel
_ROWS, _MOST_ROWS = 320, 1025
_LOWEST_OF_LOG = 50.0  # Hz


class Clip(NamedTuple):
    """Part of a recording.

    Attributes
    ----------
    samples : np.ndarray, float32, shape (n,)
        Mono, between -1 and 1.
    rate : int
        Samples per second of the real recording.
    start : float
        Seconds of the recording at the first sample.
    """

    samples: np.ndarray
    rate: int
    start: float

    @property
    def duration(self) -> float:
        """Seconds of the real recording."""
        return len(self.samples) / self.rate

    @property
    def expansion(self) -> int:
        """How many times slower the clip is played: ultrasound becomes audible, 10 for bats."""
        return 10 if self.rate > 2 * _HIGHEST_PLAYED_RATE else 1

    def wav(self) -> bytes:
        """16-bit WAV file, slowed down by `expansion`."""
        file = io.BytesIO()
        level = np.abs(self.samples).max(initial=0)
        # Quiet field recordings are raised to half of full scale, but not mere noise of the card.
        gain = 0.5 / level if 1e-3 < level < 0.5 else 1.0
        samples = np.clip(self.samples * gain, -1, 1)
        sf.write(file, samples, self.rate // self.expansion, format="WAV", subtype="PCM_16")
        return file.getvalue()


class Look(NamedTuple):
    """How a spectrogram is computed.

    Attributes
    ----------
    axis : {'linear', 'mel', 'log'}
        How frequencies are spread over the rows.
    above_noise : bool
        True gives levels above the noise of each band, False below the loudest point.
    window : float
        Milliseconds of sound behind each column; 0 chooses by the sample rate, about 20.
    overlap : int
        Percent that neighbouring columns share; less where a clip is long.
    """

    axis: str = "linear"
    above_noise: bool = False
    window: float = 0.0
    overlap: int = 87

    def edges(self, top: float) -> np.ndarray:
        """Lower edge of the first row and upper edge of the last, on the axis; `top` is in Hz."""
        bottom = min(_LOWEST_OF_LOG, top / 10) if self.axis == "log" else 0.0
        return on_axis(np.array([bottom, top]), self.axis)


class Spectrogram(NamedTuple):
    """Levels over time and frequency.

    Attributes
    ----------
    levels : np.ndarray, float32, shape (frequencies, times)
        dB below the loudest point, from -100 to 0; or above the noise, from -20 to 100.
    top : float
        Highest frequency in Hz.
    """

    levels: np.ndarray
    top: float


PLAIN = Look()


def read_clip(
    results: ModelResults,
    recording: str,
    start: float,
    end: float,
    *,
    model_rate: bool = False,
    channel: int | None = None,
) -> Clip:
    """Read from `start` to `end` seconds of a recording, of the channel that the model heard.

    It gets the sample rate that the model hears if `model_rate` is True, else keeps its own.
    `channel` is that of a window, from 1, where every channel was heard by itself.

    Raises
    ------
    ResultsNotFoundError
        If the recording is not one of the data set or its file was moved away.
    AudioError
        If it cannot be read.
    """
    path = results.audio_path(recording)
    rate = results.window_rate
    if model_rate and rate is not None:
        # Under time expansion the model hears a recording slowed down, so more of its samples
        # lie within a second of the real recording.
        speed = results.windows.header.get("identity", {}).get("speed", 1)
        rate = round(rate / speed)
    else:
        rate = read_recording(path).sample_rate
    samples = read_audio(
        path, rate, start=max(0.0, start), stop=end, allow_truncated=True,
        channel=results.loader.heard_channel(channel),
    )  # fmt: skip
    return Clip(samples, rate, max(0.0, start))


def channel_words(channel: int | None) -> str:
    """What people read of a window's channel; '' if all channels became one."""
    return "" if channel is None else f"channel {channel}"


def spectrogram(clip: Clip, look: Look = PLAIN) -> Spectrogram:
    """Spectrogram of a clip with Hann windows.

    The noise of a band is its 30th percentile over the clip, so that what lasts less than most of
    the clip stands out from it.
    """
    size = round(clip.rate * look.window / 1000) if look.window else _window_of(clip.rate)
    size = int(np.clip(size, 16, 2**14))
    samples = clip.samples
    if len(samples) < size:
        samples = np.pad(samples, (0, size - len(samples)))
    hop = max(size * (100 - look.overlap) // 100, (len(samples) - size) // _COLUMNS, 1)
    starts = np.arange(0, len(samples) - size + 1, hop)
    frames = np.lib.stride_tricks.sliding_window_view(samples, size)[starts]
    window = signal.get_window("hann", size).astype(np.float32)
    # Zeros make the lowest rows of a mel axis smooth.
    length = 2 * 2 ** math.ceil(math.log2(size))
    power = np.abs(np.fft.rfft(frames * window, length, axis=1)) ** 2
    top = clip.rate / 2
    rows = _ROWS if look.axis != "linear" else min(size // 2 + 1, _MOST_ROWS)
    lowest, highest = look.edges(top).tolist()
    places = np.linspace(lowest, highest, rows + 1)
    banded = _mean_between(power, from_axis(places, look.axis) * length / clip.rate)
    levels = 10 * np.log10(np.maximum(banded, 1e-20))
    if look.above_noise:
        levels = np.clip(levels - np.percentile(levels, 30, axis=0), -20, 100)
    else:
        levels = np.clip(levels - levels.max(), -100, 0)
    return Spectrogram(levels.T.astype(np.float32), top)


def _window_of(rate: int) -> int:
    return int(2 ** np.clip(np.round(np.log2(rate * 0.02)), 7, 11))


def _mean_between(power: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Mean power between edges, in bins; float of shape (columns, edges - 1)."""
    below = np.concatenate([np.zeros((len(power), 1)), np.cumsum(power, axis=1)], axis=1)
    place = np.clip(edges + 0.5, 0, power.shape[1])
    first = np.minimum(place.astype(np.int64), power.shape[1] - 1)
    upto = below[:, first] + (place - first) * power[:, first]
    return np.diff(upto, axis=1) / np.maximum(np.diff(place), 1e-9)


def on_axis(frequency: np.ndarray, axis: str) -> np.ndarray:
    """Place of frequencies (Hz) on an axis: mel (O'Shaughnessy 1987), decades, or kHz."""
    if axis == "mel":
        return 2595 * np.log10(1 + frequency / 700)
    return np.log10(np.maximum(frequency, 1.0)) if axis == "log" else frequency / 1000


def from_axis(place: np.ndarray, axis: str) -> np.ndarray:
    """Frequencies (Hz) at places of an axis."""
    if axis == "mel":
        return 700 * (10 ** (place / 2595) - 1)
    return 10**place if axis == "log" else 1000 * place


def envelope(clip: Clip) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Time (s), lowest and highest sample of each of at most 600 equal parts of a clip.

    Three float32 arrays of shape (parts,); the time is that of the recording, at the middle.
    """
    count = min(_COLUMNS, len(clip.samples))
    edges = np.linspace(0, len(clip.samples), count, endpoint=False, dtype=np.int64)
    if not count:
        none = np.zeros(0, np.float32)
        return none, none, none
    middle = clip.start + (edges + len(clip.samples) / count / 2) / clip.rate
    return (
        middle.astype(np.float32),
        np.minimum.reduceat(clip.samples, edges),
        np.maximum.reduceat(clip.samples, edges),
    )
