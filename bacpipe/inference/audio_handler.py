"""`AudioHandler`: a model with its settings, and recordings as the windows of this model."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from bacpipe.annotations.table import check_annotations, length_in_header, read_annotations
from bacpipe.audio.files import find_recording_names, read_recording
from bacpipe.audio.remote import as_path, url_of
from bacpipe.audio.stream import Samples, read_audio
from bacpipe.audio.windows import WindowBlock, cut_windows, merge_segments
from bacpipe.errors import AnnotationsError, AudioError, SettingsError
from bacpipe.inference.decoding import Decoder
from bacpipe.inference.pipeline import Workload
from bacpipe.inference.runner import (
    ModelRunner,
    choose_batch_size,
    choose_workers,
)
from bacpipe.machine import available_cores
from bacpipe.models.backends.cpu.layers import processor_has_bfloat16
from bacpipe.models.backends.pytorch import choose_device
from bacpipe.models.base import Inputs, Model, ready_model
from bacpipe.models.loading import find_card, load_custom_model, load_model
from bacpipe.models.zoo import canonical_name
from bacpipe.options import Options, make_options
from bacpipe.store.embedding_set import hop_samples, options_for, prediction_settings
from bacpipe.store.entries import PredictionSettings
from bacpipe.store.plan import Source, StreamEnd
from bacpipe.store.predictions import LOWEST
from bacpipe.store.selection import data_set_of
from bacpipe.user_input import is_there, typed_path

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

_MOST_CHANNELS = 32


def with_possible_precision(options: Options) -> Options:
    """Options of a run on this computer, whose processor may not know bfloat16.

    PyTorch would emulate it, several times slower than float32; so this is what is computed, and
    where it counts as computed.  It is said in the log.
    """
    unknown = options.precision == "bfloat16" and not processor_has_bfloat16()
    if not unknown or choose_device(options.device) != "cpu":
        return options
    logger.warning(
        "precision=bfloat16: this processor does not compute with bfloat16 (it has neither AMX nor "
        "AVX-512 BF16), so float32 is used, which is faster here."
    )
    return replace(options, precision="float32")


class AudioHandler:
    """Loads recordings, cuts them into a model's windows and preprocesses these.

    Parameters
    ----------
    model : str, ModelBaseClass, class or None
        Whose sample rate, window and preprocessing are used: a name of the zoo, whose weights are
        loaded when they are needed; a model, or its class; None for an `Embedder` that reduces
        embeddings.  An object that is only to cut recordings needs nothing but ``sr`` and
        ``segment_length``.
    audio_dir : str or Path, optional
        Folder that relative paths of recordings and the annotation table lie in;
        ``config.audio_dir`` unless given.
    padding : str, optional
        How the last window of a recording is filled up; ``settings.padding`` unless given.
    bool_change_speed : bool, optional
        Whether recordings are time-expanded; ``settings.bool_change_speed`` unless given.
    new_speed : float, optional
        At which speed they are played then; ``settings.new_speed`` unless given.
    options : Options, optional
        All options of the call, instead of keywords.
    **kwargs
        Any key of ``bacpipe.config`` and ``bacpipe.settings``.

    Attributes
    ----------
    model : ModelBaseClass or None
        The model.
    audio_dir : Path or None
        As given.
    options : Options
        What the keywords and the configuration came to.
    file_length : dict of str to float
        Seconds of each recording that was prepared or asked for.
    preprocessed_shape : tuple of int
        Shape of what was preprocessed last; empty before.

    Raises
    ------
    SettingsError
        If a setting is impossible, or the model lacks its sample rate or window.
    UnknownModelError
        If no model has this name.

    Examples
    --------
    >>> import bacpipe
    >>> handler = bacpipe.AudioHandler("birdnet", "recordings")
    >>> audio, sr = handler.load_and_resample("SITE-A/20250504_043000.wav")
    >>> handler.window_audio(audio).shape, sr
    (torch.Size([13, 144000]), 48000)
    >>> handler.hop, handler.speed
    (144000, 1.0)
    >>> handler.model.sr == handler.loaded_model.sr
    True
    """

    def __init__(
        self,
        model: Model | type | str | None,
        audio_dir: str | Path | None = None,
        padding: str | None = None,
        bool_change_speed: bool | None = None,
        new_speed: float | None = None,
        *,
        options: Options | None = None,
        **kwargs: object,
    ) -> None:
        if options is None:
            given = {
                "audio_dir": audio_dir,
                "padding": padding,
                "bool_change_speed": bool_change_speed,
                "new_speed": new_speed,
            }
            chosen = {key: value for key, value in given.items() if value is not None}
            options = make_options(**kwargs, **chosen)
        if isinstance(model, str):
            options = options_for(options, canonical_name(model))
        elif model is not None and options.overlap is not None:
            options_for(options, getattr(model, "__name__", type(model).__name__))
        self.options = options if model is None else with_possible_precision(options)
        folder = audio_dir or options.audio_dir
        self.audio_dir = None if folder is None else data_set_of(folder)[0]
        self._card = find_card(model) if isinstance(model, str) else None
        self._model = None if isinstance(model, str) else self._ready(model)
        self.file_length: dict[str, float] = {}
        self.preprocessed_shape: tuple[int, ...] = ()
        self._batch_sizes: dict[tuple[int | str, bool, int], int] = {}

    def _ready(self, model: Model | type | None) -> Model | None:
        if isinstance(model, type):
            device, base = choose_device(self.options.device), self.options.model_base_path
            return load_custom_model(model, device=device, model_base_path=base)
        needed = () if model is None else ("sr", "segment_length")
        missing = [name for name in needed if not hasattr(model, name)]
        if missing:
            raise SettingsError(
                f"model={model!r} is not possible: expected the name of a model, or one with "
                f"{' and '.join(missing)}."
            )
        if model is not None and callable(model) and hasattr(model, "preprocess"):
            return ready_model(model, self.options.model_base_path)
        return model

    @property
    def model(self) -> Model | None:
        """The model, loaded when it is first asked for; None if there is none."""
        if self._model is None and self._card is not None:
            self._model = load_model(
                self._card.name,
                device=choose_device(self.options.device),
                model_base_path=self.options.model_base_path,
            )
        return self._model

    @property
    def loaded_model(self) -> Model:
        """The model.

        Raises
        ------
        SettingsError
            If there is none.
        """
        model = self.model
        if model is None:
            raise SettingsError("There is no model; expected one that makes embeddings of windows.")
        return model

    @property
    def _rate_and_window(self) -> tuple[int, int]:
        """Sample rate in Hz and length of a window in samples, for which no weights are needed."""
        if self._model is None and self._card is not None:
            return self._card.sample_rate, self._card.window
        return self.loaded_model.sr, self.loaded_model.segment_length

    @property
    def speed(self) -> float:
        """Time expansion; 1 without."""
        return self.options.new_speed if self.options.bool_change_speed else 1.0

    @property
    def hop(self) -> int:
        """Samples from the start of one window to the start of the next."""
        rate, window = self._rate_and_window
        return hop_samples(self.options.hop, window=window, sample_rate=rate, speed=self.speed)

    # ------------------------------------------------------------------ windows

    def _located(self, path: str | Path) -> Path:
        """Where a recording is: as given, or in `audio_dir`."""
        given = typed_path(as_path(path))
        if self.audio_dir is None or is_there(given):
            return given
        inside = self.audio_dir / given
        return inside if url_of(inside) is not None or is_there(inside) else given

    def get_file_length(self, path: str | Path) -> float:
        """Length of a recording in seconds, from its header.

        Parameters
        ----------
        path : str or Path
            The recording, also relative to `audio_dir`.

        Returns
        -------
        float
            Seconds.

        Raises
        ------
        AudioError
            If it cannot be read.

        Examples
        --------
        >>> import bacpipe
        >>> bacpipe.AudioHandler(None, "recordings").get_file_length("SITE-A/20250504_043000.wav")
        37.81
        """
        self.file_length[str(path)] = read_recording(self._located(path)).duration
        return self.file_length[str(path)]

    def load_and_resample(self, path: str | Path) -> tuple[torch.Tensor, int]:
        """Load a recording: mono, at the model's sample rate.

        Parameters
        ----------
        path : str or Path
            The recording, also relative to `audio_dir`.

        Returns
        -------
        audio : torch.Tensor, float32, shape (samples,)
        sr : int
            The model's sample rate in Hz.

        Raises
        ------
        AudioError
            If it cannot be read, in full unless ``allow_truncated`` is set.
        SettingsError
            With ``channel='each'``: these are several.

        Examples
        --------
        >>> import bacpipe
        >>> handler = bacpipe.AudioHandler("birdnet", "recordings")
        >>> audio, sr = handler.load_and_resample("SITE-A/20250504_043000.wav")
        >>> audio.dtype, sr
        (torch.float32, 48000)
        """
        if self.options.channel == "each":
            raise SettingsError(
                "channel='each' is not possible for one array of samples; expected mix, left, "
                "right or loudest, or prepare_audio, which has the windows of all channels."
            )
        rate = self._rate_and_window[0]
        audio = read_audio(
            self._located(path),
            rate,
            speed=self.speed,
            allow_truncated=self.options.allow_truncated,
            channel=self.options.channel,
        )
        return torch.from_numpy(audio), rate

    def window_audio(self, audio: torch.Tensor | NDArray[np.float32]) -> torch.Tensor:
        """Cut audio into windows; the last one is padded as the settings say.

        Parameters
        ----------
        audio : torch.Tensor or np.ndarray, shape (samples,) or (n, samples)
            Samples at the model's sample rate; of several stacked ones, each is cut by itself.

        Returns
        -------
        torch.Tensor, float32, shape (windows, segment_length)
            The windows of the first, then those of the second one, and so on.

        Raises
        ------
        AudioError
            If there are no samples, they are integers, or frames of channels.

        Examples
        --------
        >>> import torch, bacpipe
        >>> handler = bacpipe.AudioHandler("birdnet", "recordings")
        >>> handler.window_audio(torch.zeros(2, 150_000)).shape
        torch.Size([4, 144000])
        """
        samples = np.atleast_2d(self._samples_of(audio))
        if samples.ndim != 2 or not samples.size:
            raise AudioError(
                f"Audio of shape {np.shape(audio)} cannot be cut into windows; expected shape "
                f"(samples,) or (n, samples), with at least one sample."
            )
        blocks = [block.windows for row in samples for block in self._cut([row])]
        return torch.from_numpy(np.concatenate(blocks))

    def _samples_of(self, audio: torch.Tensor | NDArray[np.generic]) -> NDArray[np.float32]:
        """Audio in memory as float32, of the shape that it has.

        Raises
        ------
        AudioError
            If it is of integers, or its rows are frames of a few channels.
        """
        array = np.asarray(audio)
        if not np.issubdtype(array.dtype, np.floating):
            raise AudioError(
                f"Audio of {array.dtype} is not possible; expected floating-point samples from -1 "
                f"to 1, such as those of 16 bits divided by 32768."
            )
        if array.ndim == 2 and 0 < array.shape[1] <= _MOST_CHANNELS < array.shape[0]:
            raise AudioError(
                f"Audio of shape {array.shape} is not possible: its rows look like the channels of "
                f"single samples; expected shape (samples,) or (n, samples), such as audio.T."
            )
        return array.astype(np.float32, copy=False)

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

        Examples
        --------
        >>> import bacpipe
        >>> handler = bacpipe.AudioHandler("birdnet", "recordings")
        >>> handler.prepare_audio("SITE-A/20250504_043000.wav").shape
        torch.Size([13, 2, 96, 511])
        """
        file = self._located(sample)
        windows, end = self._decoded(Source(file.parent, file.name, -1, -1))
        self.file_length[str(sample)] = end.duration
        inputs = self.runner(scores=False).preprocess(windows)
        self.preprocessed_shape = tuple(getattr(inputs, "shape", ()))
        return inputs

    def only_load_annotated_segments(
        self,
        path: str | Path,
        annotations_df: pd.DataFrame | Iterable[tuple[float, float]] | None = None,
    ) -> tuple[torch.Tensor, NDArray[np.float64]]:
        """Load only the annotated parts of a recording, cut into windows.

        Parameters
        ----------
        path : str or Path
            The recording, also relative to `audio_dir`.
        annotations_df : pandas.DataFrame, or iterable of (start, end), optional
            Its annotations: pairs in seconds, or a table with columns ``start`` and ``end``, in
            which ``audiofilename`` may name other recordings, too.  By default the table
            ``annotations_filename`` in `audio_dir`, or beside the recording.

        Returns
        -------
        windows : torch.Tensor, float32, shape (windows, segment_length)
            The windows of each annotated part; its last one is padded.
        starts : np.ndarray, float64, shape (windows,)
            Where each window starts, in seconds of the recording.

        Raises
        ------
        AnnotationsError
            If the annotation table is missing or cannot be understood, or none of its rows is
            about this recording.
        AudioError
            If the recording cannot be read, or no annotation lies inside it.

        Examples
        --------
        >>> import bacpipe
        >>> handler = bacpipe.AudioHandler("birdnet", "recordings")
        >>> windows, starts = handler.only_load_annotated_segments(
        ...     "SITE-A/20250504_043000.wav", [(0.9, 3.5), (8.5, 13)]
        ... )
        >>> windows.shape, starts.tolist()
        (torch.Size([3, 144000]), [0.9, 8.5, 11.5])
        """
        import pandas as pd  # takes a part of a second, which few need

        file = self._located(path)
        inside = self.audio_dir is not None and file.is_relative_to(self.audio_dir)
        folder = self.audio_dir if inside and self.audio_dir is not None else file.parent
        name = file.relative_to(folder).as_posix()
        source = "annotations_df"
        if annotations_df is None:
            source = self.options.annotations_filename
            names = find_recording_names(folder, self.options.audio_suffixes)
            table = read_annotations(folder / source, names, length_in_header(folder))
        elif isinstance(annotations_df, pd.DataFrame) and "audiofilename" in annotations_df:
            names = find_recording_names(folder, self.options.audio_suffixes)
            table = check_annotations(annotations_df, names, source=source)
        else:
            table = check_annotations(_table_of(annotations_df, name), [name], source=source)
        table = table[table["audiofilename"] == name]
        if table.empty:
            raise AnnotationsError(f"{source}: no row is about the recording {name}.")
        pairs = zip(table["start"], table["end"], strict=True)
        segments = tuple(merge_segments(pairs))
        windows, end = self._decoded(Source(folder, name, -1, -1, segments))
        second = self.hop / self._rate_and_window[0] * self.speed
        starts = [first + second * np.arange(count) for first, _, count in end.segments or ()]
        return torch.from_numpy(windows), np.concatenate(starts)

    def _decoded(self, source: Source) -> tuple[Samples, StreamEnd]:
        """All windows of a recording together."""
        parts: list[Samples] = []
        blocks = self.decode(source)
        while True:
            try:
                parts.append(next(blocks))
            except StopIteration as stop:
                return np.concatenate(parts), stop.value

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
        return self.decoder(source)

    @property
    def decoder(self) -> Decoder:
        """How recordings become the windows of this model."""
        rate, window = self._rate_and_window
        options = self.options
        return Decoder(
            rate,
            window,
            self.hop,
            options.padding,
            self.speed,
            options.allow_truncated,
            options.channel,
        )

    def _cut(self, blocks: Iterable[Samples]) -> Iterable[WindowBlock]:
        window = self._rate_and_window[1]
        return cut_windows(blocks, window, self.hop, self.options.padding)

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
            Which scores are stored, if not those that the options name; they come with lower ones,
            of which `with_best_below` chooses.

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
        if stored is not None:
            threshold = min(threshold, LOWEST)
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


def _table_of(
    segments: pd.DataFrame | Iterable[tuple[float, float]], recording: str
) -> pd.DataFrame:
    """Annotations of one recording as a table that names it."""
    import pandas as pd

    if not isinstance(segments, pd.DataFrame):
        try:
            segments = pd.DataFrame([*segments], columns=["start", "end"])
        except (TypeError, ValueError):
            raise AnnotationsError(
                f"annotations_df={segments!r} is not possible; expected a table, or pairs of start "
                f"and end in seconds, such as [(0.9, 3.5), (8.5, 13)]."
            ) from None
    return segments.assign(audiofilename=recording)
