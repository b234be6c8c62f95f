"""Recordings to the windows that models take: decoded once, however many models take them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from bacpipe.audio.files import Recording
from bacpipe.audio.fingerprint import content_fingerprint
from bacpipe.audio.stream import AudioStream, Samples
from bacpipe.audio.windows import WindowCutter
from bacpipe.errors import AudioError
from bacpipe.store.plan import Source, StreamEnd, look_at_name

logger = logging.getLogger(__name__)

Block = TypeVar("Block")
End = TypeVar("End")

Part = tuple[float, float, int]
"""Start and stop in seconds of a part of a recording, and how many windows it makes."""


@dataclass(frozen=True)
class Decoder:
    """How recordings become the windows of a model; called with one, it decodes that.

    Attributes
    ----------
    sample_rate : int
        Of the model, in Hz.
    window, hop : int
        Samples in a window, and from the start of one to the start of the next.
    padding : str
        How the last window is filled up.
    speed : float
        Time expansion; 1 without.
    allow_truncated : bool
        Whether the readable part of a damaged recording will do.
    channel : str
        What becomes of several channels; 'each' takes one after the other.
    """

    sample_rate: int
    window: int
    hop: int
    padding: str
    speed: float
    allow_truncated: bool
    channel: str

    @property
    def reading(self) -> tuple[float, bool, str]:
        """What must be the same for models that share the decoding of a recording."""
        return self.speed, self.allow_truncated, self.channel

    def __call__(self, source: Source) -> Generator[Samples, None, StreamEnd]:
        """Decode a recording, or its annotated segments, as a stream.

        Parameters
        ----------
        source : Source
            The recording.

        Yields
        ------
        np.ndarray, float32, shape (n, window)
            Windows, in order.

        Returns
        -------
        StreamEnd
            How the recording ended.

        Raises
        ------
        AudioError
            If it cannot be read, or somebody writes to it meanwhile.
        """
        blocks = decode_together(source, [self])
        while True:
            try:
                _, windows = next(blocks)
            except StopIteration as stop:
                end: StreamEnd = stop.value[0]
                return end
            yield windows


def decode_together(
    source: Source, decoders: Sequence[Decoder]
) -> Generator[tuple[int, Samples], None, list[StreamEnd]]:
    """Decode a recording once for several models, and resample it once for each sample rate.

    Parameters
    ----------
    source : Source
        The recording.
    decoders : sequence of Decoder
        What the models want; all with the same `reading`.

    Yields
    ------
    int
        Which of the decoders.
    np.ndarray, float32, shape (n, window)
        Its next windows: those that it would make alone.

    Returns
    -------
    list of StreamEnd
        How the recording ended for each of them.

    Raises
    ------
    AudioError
        If it cannot be read, or somebody writes to it meanwhile.
    """
    each = decoders[0].channel == "each"
    first = yield from _decode_channel(source, decoders, 0 if each else decoders[0].channel)
    segments, resampling = first.segments, dict(first.resampling)
    recording = first.recording
    if each and recording.channels > 1:
        segments = [first.parts(number) for number in range(len(decoders))]
        # One after the other: memory does not grow with their number.
        for channel in range(1, recording.channels):
            further = yield from _decode_channel(source, decoders, channel)
            for number, parts in enumerate(segments):
                parts += further.parts(number)
            for rate, spent in further.resampling.items():
                resampling[rate] = resampling.get(rate, 0.0) + spent
    read = (recording.size, recording.mtime_ns, content_fingerprint(source.path))
    now = look_at_name(source.name, source.audio_dir)
    if (now.size, now.mtime_ns) != read[:2]:
        raise AudioError(
            f"{source.name}: was changed or removed while it was read; run again once it "
            f"is complete."
        )
    sharing = [decoder.sample_rate for decoder in decoders]
    return [
        StreamEnd(
            first.seconds,
            first.padded[number],
            first.cut,
            None if segments is None else segments[number],
            read,
            resampling.get(rate, 0.0) / sharing.count(rate),
        )
        for number, rate in enumerate(sharing)
    ]


def storable(
    decode: Callable[[Source], Generator[Block, None, End]],
) -> Callable[[Source], Generator[Block, None, End]]:
    """Decode only recordings whose names can be written into tables."""

    def checked(source: Source) -> Generator[Block, None, End]:
        try:
            source.name.encode()
        except UnicodeEncodeError:
            raise AudioError(
                f"{source.name}: its name is not valid text (UTF-8), so no table can hold it; "
                f"rename the file or its folder."
            ) from None
        return (yield from decode(source))

    return checked


class _Channel(NamedTuple):
    """What was decoded of one channel; lists have an entry for each decoder."""

    recording: Recording
    seconds: float
    cut: float | None
    windows: list[int]
    segments: list[list[Part]] | None
    padded: list[int]
    resampling: dict[int, float]

    def parts(self, number: int) -> list[Part]:
        """Annotated segments of a decoder, or all as one part."""
        if self.segments is None:
            return [(0.0, self.seconds, self.windows[number])]
        return list(self.segments[number])


def _decode_channel(
    source: Source, decoders: Sequence[Decoder], channel: str | int
) -> Generator[tuple[int, Samples], None, _Channel]:
    speed, allow_truncated, _ = decoders[0].reading
    with AudioStream(
        source.path,
        max(decoder.sample_rate for decoder in decoders),
        audio_dir=source.audio_dir,
        speed=speed,
        allow_truncated=allow_truncated,
        channel=channel,
    ) as stream:
        segments = None
        if source.segments is None:
            windows, padded = yield from _decode_part(stream, decoders, 0.0, None)
        else:
            segments, padded = yield from _decode_segments(stream, source, decoders)
            windows = [sum(count for *_, count in parts) for parts in segments]
        cut = stream.truncated_at
        seconds = stream.recording.duration if cut is None else cut
        resampling = stream.resample_seconds
        return _Channel(stream.recording, seconds, cut, windows, segments, padded, resampling)


def _decode_segments(
    stream: AudioStream, source: Source, decoders: Sequence[Decoder]
) -> Generator[tuple[int, Samples], None, tuple[list[list[Part]], list[int]]]:
    duration = stream.recording.duration
    decoded: list[list[Part]] = [[] for _ in decoders]
    padded = [0] * len(decoders)
    for start, stop in source.segments or ():
        if start >= duration:
            logger.warning(
                "%s: skipped the annotated segment at %.1f s; the recording is %.1f s long.",
                source.name,
                start,
                duration,
            )
            continue
        if any(part[:2] == (start, min(stop, duration)) for part in decoded[0]):
            continue  # several that end behind the recording
        counts, padded = yield from _decode_part(stream, decoders, start, stop)
        for parts, count in zip(decoded, counts, strict=True):
            parts.append((start, min(stop, duration), count))
    if not decoded[0]:
        raise AudioError(
            f"{source.name}: none of its annotated segments lies inside the recording, which "
            f"is {duration:.1f} s long."
        )
    return decoded, padded


def _decode_part(
    stream: AudioStream, decoders: Sequence[Decoder], start: float, stop: float | None
) -> Generator[tuple[int, Samples], None, tuple[list[int], list[int]]]:
    """Windows of a part; returns how many there are, and samples of padding in the last."""
    cutters = [WindowCutter(one.window, one.hop, one.padding) for one in decoders]
    rates = list(dict.fromkeys(one.sample_rate for one in decoders))
    counts, padded = [0] * len(decoders), [0] * len(decoders)
    for rate, samples in stream.blocks_at(rates, start, stop):
        for number, cutter in enumerate(cutters):
            if decoders[number].sample_rate == rate:
                for block in cutter.add(samples):
                    counts[number] += len(block.windows)
                    yield number, block.windows
    for number, cutter in enumerate(cutters):
        for block in cutter.end():
            counts[number] += len(block.windows)
            padded[number] = block.padded
            yield number, block.windows
    return counts, padded
