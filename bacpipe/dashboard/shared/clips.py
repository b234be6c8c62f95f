"""Sound of a window: samples to draw and to play."""

from __future__ import annotations

import io
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


class Spectrogram(NamedTuple):
    """Levels over time and frequency.

    Attributes
    ----------
    levels : np.ndarray, float32, shape (frequencies, times)
        dB below the loudest point, from -100 to 0.
    top : float
        Highest frequency in Hz; the lowest is 0.
    """

    levels: np.ndarray
    top: float


def read_clip(
    results: ModelResults, recording: str, start: float, end: float, *, model_rate: bool = False
) -> Clip:
    """Read from `start` to `end` seconds of a recording.

    It gets the sample rate that the model hears if `model_rate` is True, else keeps its own.

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
    samples = read_audio(path, rate, start=max(0.0, start), stop=end, allow_truncated=True)
    return Clip(samples, rate, max(0.0, start))


def spectrogram(clip: Clip) -> Spectrogram:
    """Spectrogram of a clip: Hann windows of about 20 ms, on a scale for the eye.

    The number of columns follows the width of a figure, not the length of the clip.
    """
    size = int(2 ** np.clip(np.round(np.log2(clip.rate * 0.02)), 7, 11))
    samples = clip.samples
    if len(samples) < size:
        samples = np.pad(samples, (0, size - len(samples)))
    hop = max(size // 8, (len(samples) - size) // _COLUMNS, 1)
    starts = np.arange(0, len(samples) - size + 1, hop)
    frames = np.lib.stride_tricks.sliding_window_view(samples, size)[starts]
    power = np.abs(np.fft.rfft(frames * signal.get_window("hann", size), axis=1)) ** 2
    levels = 10 * np.log10(np.maximum(power, 1e-20))
    levels = np.clip(levels - levels.max(), -100, 0)
    return Spectrogram(levels.T.astype(np.float32), clip.rate / 2)


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
