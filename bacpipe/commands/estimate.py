"""How long models would take for a folder of recordings, measured on a few of them.

The models run on windows of the user's own recordings through the real pipeline (decode,
resample, preprocess, model), for some seconds each; results are counted and thrown away.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bacpipe.audio.files import read_recording
from bacpipe.audio.windows import count_windows
from bacpipe.embedder import Embedder
from bacpipe.errors import AudioError, BacpipeError, counted
from bacpipe.inference.pipeline import run
from bacpipe.inference.report import RunReport
from bacpipe.models.loading import find_card
from bacpipe.models.weights import checkpoints
from bacpipe.options import Options
from bacpipe.store.plan import Source, StreamEnd, look_at
from bacpipe.store.predictions import SparsePredictions

logger = logging.getLogger(__name__)

MOST_HEADERS = 2000
"""Headers that are read at most; of more recordings, a random sample is."""

_MOST_SOURCES = 20_000  # more than a few seconds can use up
# On disk, from files of the results tree: a header and its part of the journal and tables for
# every recording, and a row in each of the tables for every prediction.
_BYTES_PER_RECORDING = 1500
_BYTES_PER_PREDICTION = 40


@dataclass(frozen=True)
class Survey:
    """What the headers of a folder's recordings say.

    Attributes
    ----------
    recordings : int
        In the folder.
    examined : int
        Headers that were read.
    unreadable : int
        Of those, recordings that cannot be read.
    durations : np.ndarray, float64, shape (n,)
        Seconds of the examined recordings that can be read.
    readable : tuple of Path
        These recordings.
    """

    recordings: int
    examined: int
    unreadable: int
    durations: np.ndarray
    readable: tuple[Path, ...]

    @property
    def scale(self) -> float:
        """Recordings in the folder for each one examined."""
        return self.recordings / self.examined

    @property
    def hours(self) -> float:
        """Hours of audio in the folder; an estimate if only a sample was examined."""
        return float(self.durations.sum()) * self.scale / 3600


def survey(files: Sequence[Path], *, most: int = MOST_HEADERS, seed: int = 0) -> Survey:
    """Read the headers of recordings, or of a random sample of them.

    Parameters
    ----------
    files : sequence of Path
        All recordings, at least one.
    most : int
        Headers to read at most.
    seed : int
        Of the sample, and of the order of the recordings.

    Raises
    ------
    AudioError
        If none of them can be read.
    """
    order = np.random.default_rng(seed).permutation(len(files))[:most]
    durations, readable = [], []
    reason: AudioError | None = None
    for number in order:
        try:
            durations.append(read_recording(files[number]).duration)
        except AudioError as error:
            reason = error
            continue
        readable.append(files[number])
    if not readable:
        raise AudioError(f"none of {counted(len(order), 'recording')} can be read ({reason})")
    return Survey(
        len(files), len(order), len(order) - len(readable), np.array(durations), tuple(readable)
    )


@dataclass(frozen=True)
class Measurement:
    """How fast a model is on this machine.

    Attributes
    ----------
    windows_per_second : float
        Through the whole pipeline except for writing.
    dim : int
        Length of an embedding.
    predictions_per_window : float
        Above the threshold of the settings.
    slowest : str
        Stage that holds the run up; see `bacpipe.inference.report`.
    """

    windows_per_second: float
    dim: int
    predictions_per_window: float
    slowest: str


@dataclass(frozen=True)
class Estimate:
    """What a run of a model over a folder would take.

    Attributes
    ----------
    model : str
        Its name.
    windows_per_second, times_real_time : float
        Speed; the latter in seconds of audio per second.
    slowest : str
        Stage that holds the run up.
    hours : float
        For the whole folder.
    bytes : int
        Size of the results, roughly.
    """

    model: str
    windows_per_second: float
    times_real_time: float
    slowest: str
    hours: float
    bytes: int


def predict(
    model: str, folder: Survey, measured: Measurement, *, sample_rate: float, window: int, hop: int
) -> Estimate:
    """Extrapolate a measurement to a whole folder.

    Parameters
    ----------
    model : str
        Name of the model.
    folder : Survey
        The recordings.
    measured : Measurement
        The model on some of its recordings.
    sample_rate : float
        Samples of a window per second of the real recording, in Hz.
    window, hop : int
        Samples.
    """
    counts = [count_windows(round(d * sample_rate), window, hop) for d in folder.durations]
    windows = sum(counts) * folder.scale
    seconds = windows / measured.windows_per_second
    readable = len(folder.readable) * folder.scale
    row = 4 * measured.dim + _BYTES_PER_PREDICTION * measured.predictions_per_window
    return Estimate(
        model=model,
        windows_per_second=measured.windows_per_second,
        times_real_time=folder.hours * 3600 / seconds,
        slowest=measured.slowest,
        hours=seconds / 3600,
        bytes=round(windows * row + readable * _BYTES_PER_RECORDING),
    )


class _EnoughError(Exception):
    """The time of a measurement is over."""


class _Counter:
    """Receives results, counts them, and ends the run when the time is over."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.first = self.last = 0.0
        self.windows = self.predictions = self.warm_up = self.dim = 0

    def add(
        self, source: Source, embeddings: np.ndarray, predictions: SparsePredictions | None
    ) -> None:
        now = time.perf_counter()
        self.windows += len(embeddings)
        self.predictions += len(predictions.window) if predictions is not None else 0
        self.dim = embeddings.shape[1]
        self.last = now
        if not self.first:  # what comes with the first batch has warmed up caches and threads
            self.first, self.warm_up = now, self.windows
        elif now - self.first > self._seconds:
            raise _EnoughError

    def finish(self, source: Source, end: StreamEnd) -> None:
        """Nothing is kept."""

    def fail(self, source: Source, reason: str) -> None:
        """The pipeline logs it."""


def measure(embedder: Embedder, recordings: Sequence[Path], seconds: float) -> Measurement:
    """Run a model on recordings for some seconds; nothing is written.

    Parameters
    ----------
    embedder : Embedder
        The model, with the settings.
    recordings : sequence of Path
        Taken in this order, and again from the first one if there are too few.
    seconds : float
        How long, from the first results on.

    Raises
    ------
    BacpipeError
        If the model fails.
    """
    options = embedder.options
    predict_too = options.run_pretrained_classifier and bool(embedder.classifier.classes)
    runner = embedder.runner(scores=predict_too)
    sources = [look_at(path, path.parent) for path in recordings]
    repeated = list(itertools.islice(itertools.cycle(sources), _MOST_SOURCES))
    counter, report = _Counter(seconds), RunReport(embedder.model_name)
    started = time.perf_counter()
    with suppress(_EnoughError):
        run(repeated, embedder.decode, runner, counter, embedder.workload(runner), report)
    if not counter.windows:
        raise BacpipeError(f"not one window could be computed ({report.failed[0][1]})")
    timed = counter.windows - counter.warm_up
    wall = counter.last - counter.first
    if not timed or wall <= 0:  # all windows came with the first batch
        timed, wall = counter.windows, counter.last - started
    slowest = report.slowest
    return Measurement(
        timed / wall,
        counter.dim,
        counter.predictions / counter.windows,
        slowest.stage if slowest is not None else "model",
    )


def estimate_models(
    models: Sequence[str], folder: Survey, options: Options, *, seconds: float
) -> Iterator[Estimate | str]:
    """Measure models one after the other.

    Parameters
    ----------
    models : sequence of str
        Names of models of the zoo.
    folder : Survey
        The recordings.
    options : Options
        What the models run with.
    seconds : float
        To measure each of them.

    Yields
    ------
    Estimate or str
        In the order of `models`; a sentence for a model that cannot run here.  Weights that are
        not on this machine are not fetched.

    Raises
    ------
    UnknownModelError
        Before anything is measured, if there is no model of a name.
    """
    for card in [find_card(name) for name in models]:
        missing = checkpoints.missing_files(card, Path(options.model_base_path))
        if missing:
            yield (
                f"{card.name}: its weights are not on this machine ({', '.join(missing)}); a run "
                f"would fetch them."
            )
            continue
        logger.info("%s: loading, then measuring for %g s", card.name, seconds)
        try:
            embedder = Embedder(card.name, options=options)
            measured = measure(embedder, folder.readable, seconds)
        except BacpipeError as error:
            yield f"{card.name}: {error}"
            continue
        model = embedder.loaded_model
        yield predict(
            card.name,
            folder,
            measured,
            sample_rate=model.sr / embedder.speed,
            window=model.segment_length,
            hop=embedder.hop,
        )
