"""`AudioHandler`: recordings as the windows of one model."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bacpipe.audio.files import read_recording
from bacpipe.audio.stream import AudioStream, read_audio
from bacpipe.audio.windows import cut_windows, merge_segments
from bacpipe.configuration import Options
from bacpipe.errors import AudioError
from bacpipe.store.embedding_set import hop_samples
from bacpipe.store.plan import Source, StreamEnd, look_at_name

logger = logging.getLogger(__name__)


class AudioHandler:
    """Loads recordings, cuts them into a model's windows and preprocesses these.

    Parameters
    ----------
    model : ModelBaseClass
        Whose sample rate, window and preprocessing are used.
    options : Options
        The configuration of the call; its padding, hop and time expansion are used.

    Attributes
    ----------
    file_length : dict of str to float
        Seconds of each recording that was prepared.

    Examples
    --------
    >>> import bacpipe
    >>> handler = bacpipe.Embedder("birdnet")  # is an AudioHandler
    >>> audio = handler.load_and_resample("recordings/SITE-A/20250504_043000.wav")
    >>> handler.window_audio(audio).shape
    torch.Size([13, 144000])
    """

    def __init__(self, model: Any, options: Options) -> None:
        self.model = model
        self.options = options
        self.file_length: dict[str, float] = {}

    @property
    def speed(self) -> float:
        """Time expansion; 1 without."""
        return self.options.new_speed if self.options.bool_change_speed else 1.0

    @property
    def hop(self) -> int:
        """Samples from the start of one window to the start of the next."""
        return hop_samples(
            self.options.hop,
            window=self.model.segment_length,
            sample_rate=self.model.sr,
            speed=self.speed,
        )

    def load_and_resample(self, path: str | Path) -> torch.Tensor:
        """Load a recording: mono, at the model's sample rate.

        Parameters
        ----------
        path : str or Path
            The recording.

        Returns
        -------
        torch.Tensor, float32, shape (samples,)

        Raises
        ------
        AudioError
            If it cannot be read, in full unless ``allow_truncated`` is set.
        """
        audio = read_audio(
            path,
            self.model.sr,
            speed=self.speed,
            allow_truncated=self.options.allow_truncated,
        )
        return torch.from_numpy(audio)

    def window_audio(self, audio: Any) -> torch.Tensor:
        """Cut audio into windows; the last one is padded as the settings say.

        Parameters
        ----------
        audio : torch.Tensor or np.ndarray, shape (samples,) or (1, samples)
            Samples at the model's sample rate.

        Returns
        -------
        torch.Tensor, float32, shape (windows, segment_length)

        Raises
        ------
        AudioError
            If there are no samples.
        """
        samples = np.asarray(audio, dtype=np.float32)
        if samples.ndim == 2 and len(samples) == 1:
            samples = samples[0]
        if samples.ndim != 1 or not samples.size:
            raise AudioError(
                f"Audio of shape {np.shape(audio)} cannot be cut into windows; expected one "
                f"channel with at least one sample."
            )
        blocks = self._cut([samples])
        return torch.from_numpy(np.concatenate([block.windows for block in blocks]))

    def prepare_audio(self, sample: str | Path) -> Any:
        """Load a recording, cut it into windows and preprocess them.

        Parameters
        ----------
        sample : str or Path
            The recording.

        Returns
        -------
        torch.Tensor
            What the model's ``preprocess`` makes of all windows; the first axis is the window.
            The whole recording is in memory; the pipelines stream instead.
        """
        self.file_length[str(sample)] = read_recording(sample).duration
        return self._preprocess(self.window_audio(self.load_and_resample(sample)))

    def only_load_annotated_segments(
        self, path: str | Path, annotations: Any
    ) -> tuple[torch.Tensor, np.ndarray]:
        """Load only the annotated parts of a recording, cut into windows.

        Parameters
        ----------
        path : str or Path
            The recording.
        annotations : pandas.DataFrame, or iterable of (start, end)
            Its annotations: a table with columns ``start`` and ``end``, or pairs, in seconds.

        Returns
        -------
        windows : torch.Tensor, float32, shape (windows, segment_length)
            The windows of each annotated part; its last one is padded.
        starts : np.ndarray, float64, shape (windows,)
            Where each window starts, in seconds of the recording.
        """
        pairs: Iterable[tuple[float, float]] = annotations
        if hasattr(annotations, "columns"):
            pairs = zip(annotations["start"], annotations["end"], strict=True)
        segments = tuple(merge_segments(pairs))
        parts: list[np.ndarray] = []
        blocks = self.decode(Source(Path(path).parent, Path(path).name, -1, -1, segments))
        while True:
            try:
                parts.append(next(blocks))
            except StopIteration as stop:
                end = stop.value
                break
        second = self.hop / self.model.sr * self.speed
        starts = [first + second * np.arange(count) for first, _, count in end.segments or ()]
        return torch.from_numpy(np.concatenate(parts)), np.concatenate(starts)

    def decode(self, source: Source) -> Generator[np.ndarray, None, StreamEnd]:
        """Decode a recording, or its annotated segments, as a stream.

        Parameters
        ----------
        source : Source
            The recording.

        Yields
        ------
        np.ndarray, float32, shape (n, segment_length)
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
        with AudioStream(
            source.path,
            self.model.sr,
            audio_dir=source.audio_dir,
            speed=self.speed,
            allow_truncated=self.options.allow_truncated,
        ) as stream:
            duration = stream.recording.duration
            table, padded = None, 0
            if source.segments is None:
                for block in self._cut(stream):
                    yield block.windows
                    padded = block.padded
            else:
                table, padded = yield from self._decode_segments(stream, source)
            recording, cut = stream.recording, stream.truncated_at
            read = (recording.size, recording.mtime_ns)
            now = look_at_name(source.name, source.audio_dir)
            if (now.size, now.mtime_ns) != read:
                raise AudioError(
                    f"{source.name}: was changed or removed while it was read; run again once it "
                    f"is complete."
                )
            seconds = duration if cut is None else cut
            return StreamEnd(seconds, padded, cut, table, read, stream.resample_seconds)

    def _decode_segments(
        self, stream: AudioStream, source: Source
    ) -> Generator[np.ndarray, None, tuple[list[tuple[float, float, int]], int]]:
        duration = stream.recording.duration
        table, padded = [], 0
        for start, stop in source.segments or ():
            if start >= duration:
                logger.warning(
                    "%s: skipped the annotated segment at %.1f s; the recording is %.1f s long.",
                    source.name,
                    start,
                    duration,
                )
                continue
            count = 0
            for block in self._cut(stream.blocks(start, stop)):
                yield block.windows
                count += len(block.windows)
                padded = block.padded
            table.append((start, min(stop, duration), count))
        if not table:
            raise AudioError(
                f"{source.name}: none of its annotated segments lies inside the recording, which "
                f"is {duration:.1f} s long."
            )
        return table, padded

    def _cut(self, blocks: Iterable[np.ndarray]) -> Iterable[Any]:
        return cut_windows(blocks, self.model.segment_length, self.hop, self.options.padding)

    def _preprocess(self, windows: torch.Tensor) -> Any:
        device = str(getattr(self.model, "device", "cpu"))
        with torch.inference_mode():
            return self.model.preprocess(windows.to(device))
