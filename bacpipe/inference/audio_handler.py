"""`AudioHandler`: a model with its settings, and recordings as the windows of this model."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from bacpipe.audio.files import Recording, read_recording
from bacpipe.audio.fingerprint import content_fingerprint
from bacpipe.audio.stream import AudioStream, Samples, read_audio
from bacpipe.audio.windows import WindowBlock, cut_windows, merge_segments
from bacpipe.errors import AudioError, SettingsError
from bacpipe.inference.pipeline import Workload
from bacpipe.inference.runner import (
    ModelRunner,
    available_cores,
    choose_batch_size,
    choose_workers,
)
from bacpipe.models.base import Inputs, Model
from bacpipe.options import Options
from bacpipe.store.embedding_set import hop_samples, prediction_settings
from bacpipe.store.entries import PredictionSettings
from bacpipe.store.plan import Source, StreamEnd, look_at_name

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)


class _Decoded(NamedTuple):
    """What was decoded of one channel."""

    recording: Recording
    seconds: float
    cut: float | None
    windows: int
    segments: list[tuple[float, float, int]] | None
    padded: int
    resampling: float

    @property
    def parts(self) -> list[tuple[float, float, int]]:
        """Start and stop in seconds and number of windows of its annotated segments, or of all."""
        return [(0.0, self.seconds, self.windows)] if self.segments is None else self.segments


class AudioHandler:
    """Loads recordings, cuts them into a model's windows and preprocesses these.

    Parameters
    ----------
    model : ModelBaseClass or None
        Whose sample rate, window and preprocessing are used; None for an `Embedder` that
        reduces embeddings.
    options : Options
        The configuration of the call; its padding, hop and time expansion are used.

    Attributes
    ----------
    model, options
        As given.
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

    def __init__(self, model: Model | None, options: Options) -> None:
        self.model = model
        self.options = options
        self.file_length: dict[str, float] = {}
        self._batch_sizes: dict[tuple[int | str, bool, int], int] = {}

    @property
    def loaded_model(self) -> Model:
        """The model.

        Raises
        ------
        SettingsError
            If there is none.
        """
        if self.model is None:
            raise SettingsError("There is no model; expected one that makes embeddings of windows.")
        return self.model

    @property
    def speed(self) -> float:
        """Time expansion; 1 without."""
        return self.options.new_speed if self.options.bool_change_speed else 1.0

    @property
    def hop(self) -> int:
        """Samples from the start of one window to the start of the next."""
        model = self.loaded_model
        return hop_samples(
            self.options.hop,
            window=model.segment_length,
            sample_rate=model.sr,
            speed=self.speed,
        )

    # ------------------------------------------------------------------ windows

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
            self.loaded_model.sr,
            speed=self.speed,
            allow_truncated=self.options.allow_truncated,
            channel=self.options.channel,
        )
        return torch.from_numpy(audio)

    def window_audio(self, audio: torch.Tensor | NDArray[np.float32]) -> torch.Tensor:
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

    def prepare_audio(self, sample: str | Path) -> Inputs:
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
        windows = self.window_audio(self.load_and_resample(sample)).numpy()
        return self.runner(scores=False).preprocess(windows)

    def only_load_annotated_segments(
        self, path: str | Path, annotations: pd.DataFrame | Iterable[tuple[float, float]]
    ) -> tuple[torch.Tensor, NDArray[np.float64]]:
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
        import pandas as pd  # takes a part of a second, which few need

        if isinstance(annotations, pd.DataFrame):
            annotations = zip(annotations["start"], annotations["end"], strict=True)
        segments = tuple(merge_segments(annotations))
        parts: list[Samples] = []
        blocks = self.decode(Source(Path(path).parent, Path(path).name, -1, -1, segments))
        while True:
            try:
                parts.append(next(blocks))
            except StopIteration as stop:
                end = stop.value
                break
        second = self.hop / self.loaded_model.sr * self.speed
        starts = [first + second * np.arange(count) for first, _, count in end.segments or ()]
        return torch.from_numpy(np.concatenate(parts)), np.concatenate(starts)

    def decode(self, source: Source) -> Generator[Samples, None, StreamEnd]:
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
        each = self.options.channel == "each"
        first = yield from self._decode_channel(source, 0 if each else self.options.channel)
        segments, resampling = first.segments, first.resampling
        if each and first.recording.channels > 1:
            # One after the other: memory does not grow with their number.
            segments = list(first.parts)
            for number in range(1, first.recording.channels):
                further = yield from self._decode_channel(source, number)
                segments += further.parts
                resampling += further.resampling
        recording = first.recording
        read = (recording.size, recording.mtime_ns, content_fingerprint(source.path))
        now = look_at_name(source.name, source.audio_dir)
        if (now.size, now.mtime_ns) != read[:2]:
            raise AudioError(
                f"{source.name}: was changed or removed while it was read; run again once it "
                f"is complete."
            )
        return StreamEnd(first.seconds, first.padded, first.cut, segments, read, resampling)

    def _decode_channel(
        self, source: Source, channel: str | int
    ) -> Generator[Samples, None, _Decoded]:
        with AudioStream(
            source.path,
            self.loaded_model.sr,
            audio_dir=source.audio_dir,
            speed=self.speed,
            allow_truncated=self.options.allow_truncated,
            channel=channel,
        ) as stream:
            segments, padded, windows = None, 0, 0
            if source.segments is None:
                for block in self._cut(stream):
                    yield block.windows
                    windows += len(block.windows)
                    padded = block.padded
            else:
                segments, padded = yield from self._decode_segments(stream, source)
            cut = stream.truncated_at
            seconds = stream.recording.duration if cut is None else cut
            return _Decoded(
                stream.recording, seconds, cut, windows, segments, padded, stream.resample_seconds
            )

    def _decode_segments(
        self, stream: AudioStream, source: Source
    ) -> Generator[Samples, None, tuple[list[tuple[float, float, int]], int]]:
        duration = stream.recording.duration
        decoded: list[tuple[float, float, int]] = []
        padded = 0
        for start, stop in source.segments or ():
            if start >= duration:
                logger.warning(
                    "%s: skipped the annotated segment at %.1f s; the recording is %.1f s long.",
                    source.name,
                    start,
                    duration,
                )
                continue
            if any(part[:2] == (start, min(stop, duration)) for part in decoded):
                continue  # several that end behind the recording
            count = 0
            for block in self._cut(stream.blocks(start, stop)):
                yield block.windows
                count += len(block.windows)
                padded = block.padded
            decoded.append((start, min(stop, duration), count))
        if not decoded:
            raise AudioError(
                f"{source.name}: none of its annotated segments lies inside the recording, which "
                f"is {duration:.1f} s long."
            )
        return decoded, padded

    def _cut(self, blocks: Iterable[Samples]) -> Iterable[WindowBlock]:
        model = self.loaded_model
        return cut_windows(blocks, model.segment_length, self.hop, self.options.padding)

    # ------------------------------------------------------------------ running the model

    def runner(
        self, *, scores: bool, dense: bool = False, stored: PredictionSettings | None = None
    ) -> ModelRunner:
        """Runner of this model with these settings.

        Parameters
        ----------
        scores : bool
            Whether class scores are wanted.
        dense : bool
            Whether all of them are, not just those that are stored.
        stored : PredictionSettings, optional
            Which scores are stored, if not those that the options name.

        Raises
        ------
        SettingsError
            If the model cannot compute with the wanted precision.
        """
        model, options = self.loaded_model, self.options
        card = model.card
        if options.precision != "float32" and card is not None and card.backend != "torch":
            raise SettingsError(
                f"precision={options.precision!r} is not possible with {card.name}, which "
                f"{card.backend} computes; use precision='float32'."
            )
        if options.precision == "tf32" and not str(model.device).startswith("cuda"):
            raise SettingsError(
                f"precision='tf32' is what NVIDIA GPUs can compute with, but this model is on "
                f"{model.device}; use precision='float32'."
            )
        kept = stored or prediction_settings(options)
        threshold, top = kept["threshold"], kept["top"]
        assert threshold is not None and top is not None  # only a journal may not know them
        return ModelRunner(
            model,
            scores=scores,
            threshold=threshold,
            top=top,
            sensitivity=kept.get("sensitivity", 1.0),
            dense=dense,
            precision=options.precision,
        )

    def batch_size(self, runner: ModelRunner, workers: int) -> int:
        """Windows per batch for so many batches at once; what suits a GPU is found out once."""
        key = (self.options.global_batch_size, runner.scores, workers)
        if key not in self._batch_sizes:
            self._batch_sizes[key] = choose_batch_size(runner, key[0], workers)
        return self._batch_sizes[key]

    def workload(self, runner: ModelRunner, *, threads: bool = True) -> Workload:
        """How many batches and recordings to work on at the same time."""
        workers = choose_workers(runner.model) if threads else 1
        wanted, cores = self.options.nr_parallel_workers, available_cores()
        # A GPU outruns all decoders; on a CPU the model needs the cores.
        on_cpu = runner.computes_on == "cpu"
        fitting = min(4, max(1, cores // 2)) if on_cpu else max(1, cores - 2)
        decoders = fitting if wanted == "auto" else wanted
        return Workload(self.batch_size(runner, workers), workers, decoders if threads else 0)
