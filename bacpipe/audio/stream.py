"""Decode recordings as a stream of blocks: mono, resampled, in bounded memory.

The order of operations is librosa's (decode to float32, mean over channels, soxr HQ), so the
samples are those of ``librosa.load(path, sr=sample_rate)``; neither the length of a recording
nor its number of channels changes how much memory is taken.  libsndfile and soxr release the
GIL, so threads decode in parallel, each with a stream of its own.

The one difference from librosa is the length: n samples at rate a become the nearest integer
to n * b / a at rate b, half rounded up (`resampled_length`).  librosa rounds up and appends a
zero where that makes one more, which would open another window at an exact multiple.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import time
from collections.abc import Iterator, Sequence
from fractions import Fraction
from types import TracebackType
from typing import Any

import numpy as np
import soundfile as sf
import soxr
from numpy.typing import NDArray

from bacpipe.audio.files import open_recording, seconds
from bacpipe.audio.headers import flac_gaps
from bacpipe.errors import AudioError

logger = logging.getLogger(__name__)

Samples = NDArray[np.float32]

_MAX_BLOCK_VALUES = 2**21  # values of one decoded or resampled block: 8 MiB of float32
_LARGEST_SAMPLE = 1e36  # full scale is 1; beyond this, resampling overflows
_MP3_FRAME = 1152  # samples
_EVERY = 50  # of which sample the power is taken where only a rough one is needed
_MOST_LOST = 10  # dB that the mean of channels may be below the loudest of them
_STEP, _STEPS = 128, 4  # samples; frames of FLAC have 576 or more
_EXCERPTS = 8  # of a second each, by which the loudest channel is found
CHANNELS = ("mix", "left", "right", "loudest")
"""What becomes of several channels: their mean, the first, the second, the one with most power."""
_SIDES = {"left": 0, "right": 1}
_INT16_STEP = np.float32(2.0**-15)  # so that full scale is 1, as libsndfile has it


class AudioStream:
    """An open recording that can be decoded, whole or in parts.

    Use it as a context manager.  Iterating over it decodes the whole recording; `blocks`
    decodes a part, as often as wanted but one part at a time.  Not for sharing by threads.

    Parameters
    ----------
    path : path
        The recording: WAV (also 24 bit, float, WAVE_EXTENSIBLE, RF64), FLAC, OGG, MP3 or AIFF.
    sample_rate : int
        Rate of the samples that come out, in Hz.
    audio_dir : path, optional
        The folder that the recording's name, used in messages, is relative to.
    block_seconds : float
        How much to decode at once, in seconds of the recording as it is on disk; less where
        many channels or a high rate would make the block larger than 8 MiB.
    speed : float
        Time expansion for ultrasound: the recording is taken as if its rate were
        ``speed`` times the native one.  0.1 makes it ten times longer and lower.
    allow_truncated : bool
        Whether to be content with the readable part of a damaged or cut file.
    channel : str or int
        One of `CHANNELS`: what becomes of several channels; or the number of one, from 0.

    Attributes
    ----------
    recording : Recording
        What the header promises.
    sample_rate, speed
        As given.
    frames_read : int
        Native samples per channel that the latest part decoded has delivered so far.
    resample_seconds : dict of int to float
        Wall-clock seconds spent so far on resampling to each rate.
    truncated_at : float or None
        Seconds of the recording where its data ended too early, once that has been met (with
        `allow_truncated`).  A WAV or AIFF tells at once, other formats while decoding.

    Raises
    ------
    AudioError
        If the file is no readable recording; see `bacpipe.audio.files.read_recording`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        sample_rate: int,
        *,
        audio_dir: str | os.PathLike[str] | None = None,
        block_seconds: float = 10.0,
        speed: float = 1.0,
        allow_truncated: bool = False,
        channel: str | int = "mix",
    ) -> None:
        if channel not in CHANNELS and not isinstance(channel, int):
            raise ValueError(f"channel must be one of {', '.join(CHANNELS)}, got {channel!r}.")
        for name, value in (
            ("sample_rate", sample_rate),
            ("block_seconds", block_seconds),
            ("speed", speed),
        ):
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be a positive number, got {value!r}.")
        opened = open_recording(path, audio_dir)
        self.recording = opened.recording
        self.sample_rate = sample_rate
        self.speed = speed
        self.frames_read = 0
        self.resample_seconds: dict[int, float] = {}
        self.truncated_at: float | None = None
        self._sound = opened.sound
        self._position: int | None = 0  # of the decoder; None after an error
        self._readable = opened.readable
        self._ended = opened.ended
        self._reason = opened.reason
        self._allow_truncated = allow_truncated
        if opened.note and channel in {*CHANNELS, 0}:  # once for all channels
            logger.warning("%s: %s.", self.recording.name, opened.note)
        native = opened.recording.sample_rate
        self._slack = opened.tolerance * native
        # Rounded, so that 44 100 Hz * 0.1 is 4410 Hz and needs no resampling to 4410 Hz.
        self._source_rate = round(native * speed, 6)
        values_per_frame = max(opened.recording.channels, sample_rate / self._source_rate)
        largest = int(_MAX_BLOCK_VALUES / values_per_frame)
        self._block_frames = max(1, min(int(block_seconds * native), largest))
        self._warned = False
        self._is_silent = False  # for a while
        self._gaps_are_told = isinstance(channel, int) and channel > 0
        self._mixer = _Mixer(self.recording.channels)
        self._channel: int | None = None
        if self.recording.channels > 1 and channel != "mix":
            self._channel = (
                channel if isinstance(channel, int)
                else _SIDES[channel] if channel in _SIDES
                else self._find_loudest()
            )  # fmt: skip

    def __enter__(self) -> AudioStream:
        """Return the stream itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the file."""
        self.close()

    def __iter__(self) -> Iterator[Samples]:
        """Decode the whole recording; see `blocks`."""
        return self.blocks()

    def close(self) -> None:
        """Close the file; can be called several times."""
        self._sound.close()

    def n_samples(self, start: float = 0.0, stop: float | None = None) -> int:
        """Count the samples that `blocks` yields for a part, if the file holds what it promises."""
        first, last = self._frame_range(start, stop)
        return resampled_length(last - first, self._source_rate, self.sample_rate)

    def blocks(self, start: float = 0.0, stop: float | None = None) -> Iterator[Samples]:
        """Decode a part of the recording.

        A part is resampled by itself: its samples do not depend on what surrounds it.

        Parameters
        ----------
        start, stop : float
            Where the part starts and stops in seconds of the real recording, rounded to the
            nearest native sample; by default the whole recording.  A `stop` behind the end
            means the end.

        Yields
        ------
        ndarray, shape (n,), float32
            Consecutive samples at `sample_rate`; n varies, but is never 0.

        Raises
        ------
        AudioError
            If the part starts behind the end, holds NaN, infinite or impossibly large samples,
            cannot be decoded or (unless truncated files are allowed) is not all there.  If the
            header shows that data are missing, the error comes first, otherwise after the samples
            before it.
        ValueError
            If `start` is negative or not before `stop`.
        """
        return (block for _, block in self.blocks_at([self.sample_rate], start, stop))

    def blocks_at(
        self, rates: Sequence[int], start: float = 0.0, stop: float | None = None
    ) -> Iterator[tuple[int, Samples]]:
        """Decode a part of the recording once, for several sample rates.

        Parameters
        ----------
        rates : sequence of int
            Rates in Hz, each once; `sample_rate`, which bounds the size of blocks, is the highest.
        start, stop : float
            As for `blocks`.

        Yields
        ------
        int
            One of the rates.
        ndarray, shape (n,), float32
            The next samples at this rate, the same as `blocks` yields.

        Raises
        ------
        AudioError, ValueError
            As for `blocks`.
        """
        first, last = self._frame_range(start, stop)
        return self._resample(self._decode(first, last), rates)

    def _frame_range(self, start: float, stop: float | None) -> tuple[int, int]:
        """First and last (exclusive) native frame of a part."""
        recording = self.recording
        end = recording.duration if stop is None else stop
        if not 0 <= start < end:
            if stop is None and start >= end:
                raise AudioError(self._behind_end(start))
            raise ValueError(f"start must be at least 0 and before stop, got {start} and {stop}.")
        first = round(start * recording.sample_rate)
        if first >= recording.frames:
            raise AudioError(self._behind_end(start))
        if end >= recording.duration:
            return first, recording.frames
        return first, round(end * recording.sample_rate)

    def _behind_end(self, start: float) -> str:
        lasts, begins = seconds(self.recording.duration, start)
        return f"{self.recording.name}: has nothing at {begins} seconds, it lasts {lasts} seconds."

    def _resample(
        self, blocks: Iterator[Samples], rates: Sequence[int]
    ) -> Iterator[tuple[int, Samples]]:
        resamplers = {
            rate: soxr.ResampleStream(self._source_rate, rate, 1, dtype="float32", quality="HQ")
            for rate in rates
            if rate != self._source_rate
        }
        for block in blocks:
            for rate in rates:
                resampler = resamplers.get(rate)
                if resampler is None:
                    yield rate, block
                elif len(resampled := self._resampled(resampler, rate, block)):
                    yield rate, resampled
        for rate, resampler in resamplers.items():
            rest = self._resampled(resampler, rate, np.empty(0, dtype=np.float32), last=True)
            if len(rest):
                yield rate, rest

    def _resampled(
        self, resampler: soxr.ResampleStream, rate: int, block: Samples, *, last: bool = False
    ) -> Samples:
        started = time.perf_counter()
        resampled: Samples = resampler.resample_chunk(block, last=last)
        spent = self.resample_seconds.get(rate, 0.0) + time.perf_counter() - started
        self.resample_seconds[rate] = spent
        return resampled

    def _decode(self, first: int, last: int) -> Iterator[Samples]:
        """Yield mono blocks of the frames from `first` to `last` at the native rate."""
        self.frames_read = 0
        recording = self.recording
        if last - self._readable > self._slack or (last == recording.frames and not self._ended):
            self._end_early(self._readable, self._reason)
        last = min(last, self._readable)
        if first >= last:
            return
        position = first
        # libsndfile turns integers into float32 one by one, which takes three times as long as
        # reading them; numpy does it at once, with the same result.
        kind = np.int16 if self._sound.subtype == "PCM_16" else np.float32
        try:
            # Not every format can be sought in, nor even tell where it is.
            if self._position != first:
                self._position = None
                self._seek(first)
        except sf.LibsndfileError as error:
            self._end_early(first, _reason(error), error, sought=True)
            return
        self._mixer.reset()
        while position < last:
            # A fresh buffer each time: the mono block of a mono file may be the buffer itself.
            buffer = np.empty(
                (min(self._block_frames, last - position), recording.channels), dtype=kind
            )
            problem = None
            try:
                block = self._sound.read(out=buffer)
            except sf.LibsndfileError as error:
                problem = error
                block = self._salvage(buffer, position)
            self._position = position + len(block) if problem is None else None
            if kind is np.int16:
                block = np.multiply(block, _INT16_STEP, dtype=np.float32)
            if self._sound.format == "FLAC" and not self._is_silent:
                self._is_silent = _has_silence(block)
            mono = self._mix(block)
            self._check_finite(mono, position)
            position += len(block)
            self.frames_read = position - first
            if len(mono):
                yield mono
            if problem is not None:
                self._end_early(position, _reason(problem), problem)
                return
            if len(block) < len(buffer):
                if last - position > self._slack:
                    self._end_early(position, "the data end there")
                break
        self._tell_gaps()
        if self._channel is None and self._mixer.cancels and not self._warned:
            self._warned = True
            logger.warning(
                "%s: its channels cancel each other, or most of them are silent: their mean is "
                "%.0f dB below the loudest of them; set channel to loudest, left, right or each.",
                recording.name,
                self._mixer.loss,
            )

    def _tell_gaps(self) -> None:
        """Say which frames of a FLAC are missing, which its decoder fills with silence."""
        if not self._is_silent or self._gaps_are_told:
            return
        self._gaps_are_told = True
        with self._sound.open_bytes() as file:
            gaps, rate = flac_gaps(file), self.recording.sample_rate
        if gaps:
            logger.warning(
                "%s: %.2f seconds are missing in it, first at %.2f seconds; silence stands for "
                "them, and the times of the rest are right.",
                self.recording.name,
                sum(last - first for first, last in gaps) / rate,
                gaps[0][0] / rate,
            )

    def _mix(self, block: NDArray[np.float32]) -> Samples:
        """One channel of a block, (n, channels), or their mean."""
        if self._channel is not None:
            return np.ascontiguousarray(block[:, self._channel])
        mono = mix_to_mono(block)
        self._mixer.add(block, mono)
        return mono

    def _find_loudest(self) -> int:
        """The channel with the most power, without its mean, in seconds from all over the file."""
        length = min(self.recording.sample_rate, self._readable)
        power = np.zeros(self.recording.channels)
        self._position = None
        for start in np.linspace(0, self._readable - length, _EXCERPTS).astype(int):
            with contextlib.suppress(sf.LibsndfileError):  # decoding will meet the same damage
                self._seek(int(start))
                part = self._sound.read(length, dtype="float32", always_2d=True)
                with np.errstate(over="ignore", invalid="ignore"):
                    power += part.var(axis=0, dtype=np.float64) if len(part) else 0.0
        return int(np.nan_to_num(power, nan=0.0, posinf=0.0).argmax())

    def _seek(self, frame: int) -> None:
        """Go to a frame so that reading on gives the same samples as from the beginning."""
        # An MP3 frame can draw on bits of several frames before it.
        lead = min(frame, self.recording.sample_rate) if self._sound.format == "MP3" else 0
        self._sound.seek(frame - lead)
        if lead:
            self._sound.read(out=np.empty((lead, self.recording.channels), dtype=np.float32))

    def _salvage(self, buffer: NDArray[Any], position: int) -> NDArray[Any]:
        """Return what could be decoded of a block, from frame `position` on, before an error."""
        if self._sound.format != "MP3":  # the buffer is filled, and the decoder tells how far
            try:
                return buffer[: max(0, self._sound.tell() - position)]
            except sf.LibsndfileError:
                return buffer[:0]  # some formats do not even tell
        count = 0
        with contextlib.suppress(sf.LibsndfileError):
            self._seek(position)
            while len(step := self._sound.read(out=buffer[count : count + _MP3_FRAME])):
                count += len(step)
        return buffer[:count]

    def _end_early(
        self, position: int, reason: str, cause: Exception | None = None, sought: bool = False
    ) -> None:
        """Raise, or note and log, that the data end too early: at a frame, or before one sought."""
        recording = self.recording
        end, duration = position / recording.sample_rate, recording.duration
        # A stream without its end mark may have been longer than anybody knows.
        length, total = seconds(end, duration)
        total = f"of {total} " if position < recording.frames else ""
        where = "before" if sought else "after"
        message = f"{recording.name}: ends {where} {length} {total}seconds ({reason})."
        if not self._allow_truncated:
            raise AudioError(message) from cause
        if self.truncated_at is None:
            logger.warning("%s The readable part is used.", message)
            self.truncated_at = end

    def _check_finite(self, mono: Samples, position: int) -> None:
        if self._sound.subtype.startswith("PCM_"):  # integers
            return
        finite = np.abs(mono) < _LARGEST_SAMPLE  # false for NaN, too
        if not finite.all():
            row = int(np.argmin(finite))
            first, value = (position + row) / self.recording.sample_rate, float(mono[row])
            what = "that are NaN or infinite"
            if math.isfinite(value):
                what = f"such as {value:.0e}, where -1 to 1 are expected"
            raise AudioError(
                f"{self.recording.name}: holds samples {what}, the first at {first:.3f} seconds."
            )


def _reason(error: sf.LibsndfileError) -> str:
    text = str(error.error_string).removeprefix("Error : ").rstrip(".")
    return f"damaged: {text}"


def _has_silence(block: NDArray[Any]) -> bool:
    """Whether some hundred samples in a row are exactly 0 in all channels."""
    silent = np.flatnonzero(~block[::_STEP].any(axis=1))
    return bool((silent[_STEPS - 1 :] - silent[: 1 - _STEPS] == _STEPS - 1).any())


def mix_to_mono(block: Samples) -> Samples:
    """Average the channels of a block, (n, channels); a view of it if there is only one.

    Adding one channel after the other is several times faster than a mean over the short axis
    and gives the same bits as ``(left + right) * 0.5``.
    """
    channels = block.shape[1]
    if channels == 1:
        return block[:, 0]
    with np.errstate(over="ignore", invalid="ignore"):  # of infinite samples
        mono: Samples = block[:, 0] + block[:, 1]
        for channel in range(2, channels):
            mono += block[:, channel]
        mono /= np.float32(channels)
    return mono


class _Mixer:
    """Notices when the mean of channels is far weaker than one of them, as of opposite phases.

    Of two channels that have nothing in common, the mean is 3 dB below each.
    """

    def __init__(self, channels: int) -> None:
        self._channels = channels
        self.reset()

    def reset(self) -> None:
        """Forget what was added."""
        self._single, self._mixed = np.zeros(self._channels), 0.0

    def add(self, block: Samples, mono: Samples) -> None:
        """Add a block, (n, channels), and its mean; some of the samples tell enough."""
        if self._channels == 1 or not len(mono):
            return
        with np.errstate(over="ignore", invalid="ignore"):
            self._single += block[::_EVERY].var(axis=0, dtype=np.float64) * len(mono)
            self._mixed += float(mono[::_EVERY].var()) * len(mono)

    @property
    def cancels(self) -> bool:
        """Whether the mean loses more than `_MOST_LOST` of the loudest channel."""
        return bool(10 ** (_MOST_LOST / 10) * self._mixed < self._single.max())

    @property
    def loss(self) -> float:
        """How far the mean is below the loudest channel, in dB; 99 at most."""
        loudest = float(self._single.max())
        return min(99.0, 10 * math.log10(loudest / max(self._mixed, 1e-10 * loudest)))


def resampled_length(frames: int, source_rate: float, target_rate: float) -> int:
    """Count the samples that soxr makes of a signal: the nearest integer, half rounded up."""
    exact = Fraction(frames) * Fraction(target_rate) / Fraction(source_rate)
    return math.floor(exact + Fraction(1, 2))


def read_audio(
    path: str | os.PathLike[str],
    sample_rate: int,
    *,
    block_seconds: float = 10.0,
    start: float = 0.0,
    stop: float | None = None,
    speed: float = 1.0,
    allow_truncated: bool = False,
    channel: str | int = "mix",
) -> Samples:
    """Decode a recording, or a part of it, into one array.

    Parameters
    ----------
    path, sample_rate, block_seconds, speed, allow_truncated, channel
        As for `AudioStream`.
    start, stop : float
        As for `AudioStream.blocks`.

    Returns
    -------
    ndarray, shape (n,), float32
        The samples at `sample_rate`; empty only if the part lies behind the readable end of a
        truncated file and those are allowed.

    Raises
    ------
    AudioError
        If the file is no readable recording or the part not all there.
    ValueError
        If a parameter is impossible.
    """
    with AudioStream(
        path,
        sample_rate,
        block_seconds=block_seconds,
        speed=speed,
        allow_truncated=allow_truncated,
        channel=channel,
    ) as stream:
        blocks = list(stream.blocks(start, stop))
    return np.concatenate(blocks) if blocks else np.empty(0, dtype=np.float32)
