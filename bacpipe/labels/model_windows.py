"""The windows that labels belong to: those of a model's embeddings, stored or still to come."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bacpipe.audio.remote import shown
from bacpipe.audio.stream import AudioStream
from bacpipe.audio.windows import count_windows
from bacpipe.errors import AudioError, NoRecordingsError, SettingsError
from bacpipe.options import make_options, user_config
from bacpipe.store.embedding_set import hop_samples, settings_identity, window_times
from bacpipe.store.entries import EXPECTED, FinishedEntry, StoredEmbeddings
from bacpipe.store.layout import ResultPaths
from bacpipe.store.loader import Loader
from bacpipe.store.selection import AudioDir

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ModelWindows:
    """All windows of a data set for one model, in the order of ``Loader.embeddings('array')``."""

    # For each recording, sorted by name, what the journal says of it, or would say of its
    # duration, windows and annotated segments
    entries: Mapping[str, FinishedEntry]
    header: Mapping[str, Any]  # description of the windows, as in the first line of the journal
    state: str  # changes when the windows do

    @property
    def recordings(self) -> list[str]:
        """Posix paths relative to the audio folder."""
        return list(self.entries)

    @cached_property
    def counts(self) -> np.ndarray:
        """Windows of each recording, int64."""
        return np.array([entry.windows for entry in self.entries.values()], dtype=np.int64)

    @cached_property
    def times(self) -> tuple[np.ndarray, np.ndarray]:
        """Start and end of every window in seconds of its recording, float64."""
        pairs = [window_times(entry, self.header) for entry in self.entries.values()]
        if not pairs:
            return np.zeros(0), np.zeros(0)
        starts, ends = zip(*pairs, strict=True)
        return np.concatenate(starts), np.concatenate(ends)

    @cached_property
    def channels(self) -> np.ndarray:
        """Channel of every window, from 1, int64; 0 where it is of no single one."""
        heard = self.header.get("identity", {}).get("channel", "mix")
        if heard == "each":
            parts = [entry.window_channels for entry in self.entries.values()]
            return np.concatenate([np.zeros(0, np.int64), *parts])
        return np.full(len(self), {"left": 1, "right": 2}.get(heard, 0), np.int64)

    def __len__(self) -> int:
        return int(self.counts.sum())

    def slices(self) -> Iterator[tuple[str, slice]]:
        """Recordings, each with the rows of its windows."""
        stops = np.cumsum(self.counts)
        for name, count, stop in zip(self.entries, self.counts, stops, strict=True):
            yield name, slice(int(stop - count), int(stop))

    def frame(self) -> pd.DataFrame:
        """Table of the windows: audiofilename, start, end (seconds)."""
        import pandas as pd

        start, end = self.times
        codes = np.repeat(np.arange(len(self.entries)), self.counts)
        names = np.array(self.recordings, dtype=object)
        return pd.DataFrame({"audiofilename": names[codes], "start": start, "end": end})


def model_windows(loader: Loader) -> ModelWindows:
    """Windows of a model over a data set.

    When the loader holds embeddings, these are their windows.  Otherwise they are worked out from
    what it knows of the model, the settings and the recordings' headers; recordings whose header
    cannot be read are logged and left out, as a run would.

    Raises
    ------
    ResultsNotFoundError
        If there are no embeddings and the model is not one of the zoo, so that nobody knows its
        window.
    NoRecordingsError
        If there are no embeddings and no recordings.
    """
    stored = loader.embedding_set
    if stored is None:
        return _future_windows(loader)
    # Embeddings of recordings that are gone still count, until a run drops them.
    return ModelWindows(
        loader.entries, stored.content.header, f"{stored.folder.name} {stored.state}"
    )


def _future_windows(loader: Loader) -> ModelWindows:
    options = loader.options
    rate, window = loader.model_window
    identity = {**settings_identity(options), "sample_rate": rate, "window": window}
    speed = identity["speed"]
    hop = hop_samples(options.hop, window=window, sample_rate=rate, speed=speed)
    segments = loader.annotated_segments() if options.only_embed_annotations else None
    entries = {}
    for name in loader.selection.names:
        path = loader.audio_dir / name
        if segments is not None and name not in segments:
            continue
        try:
            with AudioStream(path, rate, audio_dir=loader.audio_dir, speed=speed) as stream:
                whole = ((0.0, stream.recording.duration),)
                parts = whole if segments is None else segments[name]
                entries[name] = _future_entry(name, stream, parts, window, hop)
        except AudioError as error:
            logger.warning("left out: %s", error)
    if not any(entry.windows for entry in entries.values()):
        raise NoRecordingsError(
            f"{shown(loader.audio_dir)}: no recording here has a single window."
        )
    known = {
        name: {"duration": entry.duration, "windows": entry.windows, "segments": entry.segments}
        for name, entry in entries.items()
    }
    content = json.dumps([identity, known], sort_keys=True)
    state = hashlib.sha256(content.encode()).hexdigest()
    return ModelWindows(dict(sorted(entries.items())), {"identity": identity}, state)


def _future_entry(
    name: str, stream: AudioStream, parts: Sequence[tuple[float, float]], window: int, hop: int
) -> FinishedEntry:
    duration = stream.recording.duration
    segments = tuple(
        (start, min(stop, duration), count_windows(stream.n_samples(start, stop), window, hop))
        for start, stop in parts
        if start < duration
    )
    return FinishedEntry(
        name,
        EXPECTED,
        size=None,
        mtime_ns=None,
        duration=duration,
        windows=sum(count for *_, count in segments),
        padded=0,
        truncated=None,
        segments=segments,
        segments_hash=None,
        embeddings=StoredEmbeddings("", 0, 0),
        predictions=None,
    )


def open_results(
    model: str | None,
    audio_dir: AudioDir | None = None,
    paths: ResultPaths | None = None,
    **kwargs: object,
) -> Loader:
    """Open the results of a model for a data set, whether there are any yet or not.

    The model is by default the one that `paths` (from ``make_set_paths_func(audio_dir)(model)``)
    belongs to, the folder that of `paths`, else ``config.audio_dir``; further keywords are any key
    of the configuration.  The loader has the embeddings that fit the settings, else the newest,
    else none.

    Raises
    ------
    SettingsError
        If the model or the folder is not named.
    """
    if paths is not None:
        audio_dir = audio_dir or paths.audio_dir
        model = model or Path(paths.labels_path).parent.name
        # The folder already is that of a trial run, if it is one.
        kwargs = {**kwargs, "main_results_dir": paths.main_results_dir, "testing": False}
    audio_dir = audio_dir or user_config().audio_dir
    if model is None:
        raise SettingsError("model is missing; expected the name of a model, such as 'birdnet'.")
    if audio_dir is None:
        raise SettingsError("audio_dir is missing; expected the folder with the recordings.")
    return Loader(audio_dir, model, options=make_options(**kwargs))
