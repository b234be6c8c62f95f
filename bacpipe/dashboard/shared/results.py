"""What the dashboard shows: the stored results of one data set, read once and shared.

Nothing here computes; everything is read from the results tree through `bacpipe.store`,
`bacpipe.labels` and `bacpipe.evaluation`.  Objects are only read after they are made, so that
several visitors can use them at the same time.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import cached_property
from ipaddress import ip_address
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bacpipe.audio.remote import is_recording_there, shown, url_of
from bacpipe.errors import BacpipeError, ResultsNotFoundError
from bacpipe.labels.model_windows import ModelWindows, model_windows
from bacpipe.models.zoo import CARDS
from bacpipe.options import Options
from bacpipe.recognisers.labelled import changed_recordings
from bacpipe.reduction.reducers import REDUCERS
from bacpipe.store.data_set_folder import paths_of
from bacpipe.store.embedding_set import settings_of
from bacpipe.store.layout import JOURNALS, ResultPaths, stamped_folders
from bacpipe.store.loader import Loader
from bacpipe.store.maps import AXES, DISTANCE, StoredMap, coordinates_of, stored_maps
from bacpipe.store.predictions import sorted_classes
from bacpipe.store.tables import CHANNEL, channels_of
from bacpipe.store.typed_command import typed_command

if TYPE_CHECKING:
    import pandas as pd

_SAME = 1e-3  # seconds: journals and tables round the times of windows


# UMAP and t-SNE keep together what is alike, which two axes of variance do not.
_BEST_MAPS = ("umap", "t_sne", "pca", "sparse_pca")


class Predictions(NamedTuple):
    """All stored predictions of a model, in the order of its windows.

    Attributes
    ----------
    row : np.ndarray, int64, shape (n,)
        Window of each prediction.
    code : np.ndarray, int32, shape (n,)
        Its class, an index into `names`.
    score : np.ndarray, float32, shape (n,)
    names : tuple of str
        Classes that were found, sorted.
    """

    row: np.ndarray
    code: np.ndarray
    score: np.ndarray
    names: tuple[str, ...]

    @classmethod
    def of(cls, row: np.ndarray, labels: np.ndarray, score: np.ndarray) -> Predictions:
        """Number the classes of some predictions."""
        names, code = sorted_classes(labels)
        return cls(row.astype(np.int64), code.astype(np.int32), score, tuple(names))


class ModelResults:
    """Results of one model, from a loader with embeddings.

    Rows are those of ``Loader.embeddings('array')``.

    Raises
    ------
    ResultsNotFoundError
        If there are no embeddings.
    """

    def __init__(self, loader: Loader) -> None:
        loader.get_embedding_dir()  # says what to do when there are none
        self.loader = loader
        self.name = str(loader.model_name)
        self.windows: ModelWindows = model_windows(loader)

    def __len__(self) -> int:
        return len(self.windows)

    @property
    def settings(self) -> dict[str, Any]:
        """Keys of the configuration to call functions of the library with."""
        embedding_set = self.loader.embedding_set
        identity = None if embedding_set is None else embedding_set.identity
        known = {} if identity is None else settings_of(identity)
        return {**settings_for_reading(self.loader.options), **known}

    # ------------------------------------------------------------------ windows

    @cached_property
    def recordings(self) -> list[str]:
        """Posix paths relative to the audio folder, sorted."""
        return self.windows.recordings

    @cached_property
    def recording_code(self) -> np.ndarray:
        """Recording of every window, int32: an index into `recordings`."""
        return np.repeat(np.arange(len(self.recordings), dtype=np.int32), self.windows.counts)

    @property
    def start(self) -> np.ndarray:
        """Start of every window in seconds of its recording, float64."""
        return self._times[0]

    @property
    def end(self) -> np.ndarray:
        """End of every window in seconds of its recording, float64."""
        return self._times[1]

    @cached_property
    def channels(self) -> np.ndarray | None:
        """Channel of every window, from 1; None if all channels became one."""
        if self.loader.channels is None:
            return None
        return np.concatenate([entry.window_channels for entry in self.windows.entries.values()])

    def channel_of(self, row: int) -> int | None:
        """Channel of a window, from 1; None if all channels became one."""
        return None if self.channels is None else int(self.channels[row])

    def channel_count(self, recording: str) -> int:
        """How many channels of a recording were heard by themselves; 1 if all became one."""
        rows = self.rows_of(recording)
        if self.channels is None or rows.stop == rows.start:
            return 1
        return int(self.channels[rows.stop - 1])

    @cached_property
    def _times(self) -> tuple[np.ndarray, np.ndarray]:
        return self.windows.times

    def rows_of(self, recording: str) -> slice:
        """Rows of a recording's windows in time order; ResultsNotFoundError without any."""
        try:
            return self._slices[recording]
        except KeyError:
            raise ResultsNotFoundError(
                f"{recording!r} is not among the recordings of {self.name}."
            ) from None

    @cached_property
    def _slices(self) -> dict[str, slice]:
        return dict(self.windows.slices())

    def row_at(self, recording: str, start: float, channel: int | None = None) -> int:
        """Row of the window of a recording whose start is nearest to a time in seconds.

        `channel` is its channel, from 1, where every channel was heard by itself; the first one
        unless given.
        """
        rows = self._of_channel(self.rows_of(recording), channel)
        if rows.stop == rows.start:
            raise ResultsNotFoundError(f"{recording!r} has no windows of {self.name}.")
        return rows.start + int(np.abs(self.start[rows] - start).argmin())

    def row_of(self, recording: str, start: float, channel: int | None = None) -> int | None:
        """Row of the window of a recording that starts at a time in seconds; None without one."""
        rows = self._of_channel(self._slices.get(recording, slice(0, 0)), channel)
        near = rows.start + int(np.searchsorted(self.start[rows], start - _SAME))
        return near if near < rows.stop and abs(self.start[near] - start) <= _SAME else None

    def rows_of_table(self, table: pd.DataFrame) -> list[int | None]:
        """Rows of the windows of a table (recording, start, and channel where it has one)."""
        return [self.row_of(name, start, channel) for name, start, channel in _places_in(table)]

    def rows_of_labels(self, table: pd.DataFrame) -> list[list[int]]:
        """Rows of just the seconds of each label of a table; without a channel, of all channels.

        Labels of other seconds, such as those of another model's windows, are of none.
        """
        rows = []
        for (name, start, channel), end in zip(_places_in(table), table["end"], strict=True):
            count = self.channel_count(name) if name in self._slices else 1
            wanted = [channel] if channel is not None or count == 1 else range(1, count + 1)
            possible = (self.row_of(name, start, one) for one in wanted)
            found = (row for row in possible if row is not None)
            rows.append([row for row in found if abs(self.end[row] - float(end)) <= _SAME])
        return rows

    def _of_channel(self, rows: slice, channel: int | None) -> slice:
        """Those of a recording's rows that are of a channel; the first one's for None."""
        if self.channels is None or rows.stop == rows.start:
            return rows
        first, stop = np.searchsorted(self.channels[rows], [channel or 1, (channel or 1) + 1])
        return slice(rows.start + int(first), rows.start + int(stop))

    def recording_of(self, row: int) -> str:
        """Recording of a window."""
        return self.recordings[self.recording_code[row]]

    def window(self, row: int) -> tuple[str, float, float]:
        """Recording of a window, and its start and end in seconds."""
        return self.recording_of(row), float(self.start[row]), float(self.end[row])

    def place(self, row: int) -> list[str | float]:
        """What names a window in addresses: recording, start and, if it has one, its channel."""
        return place_of(*self.window(row)[:2], self.channel_of(row))

    def window_table(self, rows: np.ndarray) -> pd.DataFrame:
        """Windows with the columns of an annotation table: audiofilename, start, end (seconds).

        Where every channel was heard by itself, they have a column channel, too.
        """
        import pandas as pd

        names = np.array(self.recordings, dtype=object)
        columns = {
            "audiofilename": names[self.recording_code[rows]],
            "start": self.start[rows],
            "end": self.end[rows],
        }
        if self.channels is not None:
            columns[CHANNEL] = self.channels[rows]
        return pd.DataFrame(columns)

    def audio_path(self, recording: str) -> Path:
        """Path of a recording of this data set.

        Raises
        ------
        ResultsNotFoundError
            If it is not one of the data set, or its file is not there any more.
        """
        self.rows_of(recording)
        name = PurePosixPath(recording)
        path = self.loader.audio_dir / name
        # Recordings may be links to other disks, but a journal must not name other places.
        if name.is_absolute() or ".." in name.parts:
            raise ResultsNotFoundError(
                f"{recording!r} lies outside of {shown(self.loader.audio_dir)}."
            )
        if not is_recording_there(path):
            raise ResultsNotFoundError(
                f"{shown(path)}: this recording is not there any more, so it can be neither shown "
                f"nor played; its embeddings and predictions are still here. {self._how_to_find()}"
            )
        return path

    def change_of(self, recording: str) -> str:
        """Sentence for those who look at a recording that is not what the model heard; else ''."""
        if not changed_recordings(self.loader, [recording]):
            return ""
        return (
            f"{recording} has changed since {self.name} heard it: scores, places on maps and "
            f"neighbours are of the former sound, and marks do not count for them; run the model "
            f"again."
        )

    def _how_to_find(self) -> str:
        """How to say where the recordings are now."""
        old = self.loader.audio_dir
        if old.is_dir() or url_of(old) is not None:
            return "Put it back there to see and hear it."
        command = typed_command("dashboard", Path("FOLDER"), self.loader.options, moved_from=old)
        return f"Say where the recordings are now, instead of FOLDER: {command}"

    @property
    def highest_heard(self) -> float:
        """Highest frequency in Hz of the real recordings that reaches the model's network."""
        speed = self.windows.header.get("identity", {}).get("speed") or 1
        highest = self.loader.highest_frequency
        card = CARDS.get(self.name)
        return highest if card is None else min(highest, card.frequencies[1] / speed)

    @property
    def window_rate(self) -> int | None:
        """Sample rate of the model in Hz; None for results that do not tell."""
        header = self.windows.header
        identity = header.get("identity", {})
        return identity.get("sample_rate") or header.get("old_metadata", {}).get("sample_rate (Hz)")

    # ------------------------------------------------------------------ maps

    @cached_property
    def maps(self) -> dict[str, StoredMap]:
        """Newest map by reducer of these embeddings, the best kind first; empty without any."""
        parent, folder = self.loader.paths.dim_reduc_parent_dir, self.loader.get_embedding_dir()
        dataset = self.loader.paths.dataset
        newest = {}
        for reducer in sorted(REDUCERS, key=_BEST_MAPS.index):
            for item in stored_maps(parent, reducer, dataset, self.name):
                if item.metadata.get("embeddings") == folder.name:
                    newest[reducer] = item
                    break
        return newest

    def coordinates(self, reducer: str) -> np.ndarray:
        """Place of every window in a map, float32 of shape (windows, 2 or 3).

        NaN for windows that were embedded after the map was made.
        """
        return self.places(reducer)[0]

    def places(self, reducer: str) -> tuple[np.ndarray, np.ndarray]:
        """`coordinates`, and how far every window is from all that the map was fitted to.

        Distances are float32 of shape (windows,), and NaN for windows that the map was fitted to;
        those above `FAR` are unlike all of these.
        """
        table = self.maps[reducer].read()
        if DISTANCE not in table:
            table[DISTANCE] = np.nan  # a map of an older bacpipe
        columns = [axis for axis in (*AXES, DISTANCE) if axis in table]
        places = np.full((len(self), len(columns)), np.nan, np.float32)
        for name, part in coordinates_of(table, columns).items():
            rows = self._slices.get(name)
            # A recording that has changed since is not on this map.
            if rows is not None and len(part) == rows.stop - rows.start:
                places[rows] = part
        return places[:, :-1], places[:, -1]

    def map_is_stale(self, reducer: str) -> bool:
        """Whether embeddings were added or changed after the map was made."""
        return bool(self.maps[reducer].metadata["embeddings_state"] != self.loader.embeddings_state)

    # ------------------------------------------------------------------ predictions

    @cached_property
    def predictions(self) -> Predictions:
        """Predictions of the integrated classifier; ResultsNotFoundError without any."""
        rows, labels, scores = [], [], []
        for item in self.loader.detections():
            if item.recording not in self._slices:
                continue
            rows.append(self._slices[item.recording].start + item.window)
            labels.append(item.label)
            scores.append(item.score)
        if not rows:
            raise ResultsNotFoundError(f"{self.name} has no predictions for these recordings.")
        return Predictions.of(np.concatenate(rows), np.concatenate(labels), np.concatenate(scores))


def place_of(recording: str, start: float, channel: int | None) -> list[str | float]:
    """What names a window in addresses: recording, start and, if it has one, its channel."""
    return [recording, round(start, 3), *([] if channel is None else [channel])]


def _places_in(table: pd.DataFrame) -> Iterator[tuple[str, float, int | None]]:
    """Recording, start and channel of the rows of a table; None for no single channel."""
    columns = (table["recording"], table["start"], channels_of(table))
    for name, start, channel in zip(*columns, strict=True):
        yield str(name), float(start), int(channel) or None


class DataSetResults:
    """Results of the `models` for one folder of recordings, with the options it was opened with."""

    def __init__(self, audio_dir: Path, models: Sequence[str], options: Options) -> None:
        self.audio_dir = Path(audio_dir)
        self.models = tuple(models)
        self.options = options
        self.name = paths_of(audio_dir, "none", options).dataset
        self._lock = threading.Lock()
        self._results: dict[str, tuple[Any, ModelResults]] = {}

    def model(self, name: str) -> ModelResults:
        """Results of a model, read again when a run has changed them.

        Raises
        ------
        ResultsNotFoundError
            If the model is not shown here or has no results.
        """
        if name not in self.models:
            raise ResultsNotFoundError(
                f"{name!r} is not shown here; the models are {', '.join(self.models)}."
            )
        with self._lock:
            state = _state(paths_of(self.audio_dir, name, self.options), name)
            if name not in self._results or self._results[name][0] != state:
                loader = Loader(self.audio_dir, name, options=self.options)
                self._results[name] = (state, ModelResults(loader))
            return self._results[name][1]

    def problems(self) -> dict[str, str]:
        """Sentence about each model that has no results that can be shown."""
        sentences = {}
        for name in self.models:
            try:
                self.model(name)
            except BacpipeError as error:
                sentences[name] = str(error)
        return sentences

    @property
    def may_edit(self) -> bool:
        """Whether visitors may label and train; unless it was said, only those of this machine."""
        options = self.options
        if options.edit is not None:
            return options.edit
        return is_local(options.dashboard_address) and not options.dashboard_websocket_origin

    @property
    def available(self) -> list[str]:
        """Models that have results."""
        problems = self.problems()
        return [name for name in self.models if name not in problems]


def is_local(address: str) -> bool:
    """Whether only this machine can reach a server that listens at an address."""
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return address.lower() == "localhost"


def settings_for_reading(options: Options) -> dict[str, Any]:
    """Keys of the configuration without those that functions take as parameters of their own."""
    own = {
        "audio_dir",
        "annotations_filename",
        "bool_filter_labels",
        "dim_reduction_model",
        "label_column",
        "overwrite",
    }
    # What nobody has asked for must not look as if somebody had.
    own |= {"classifier_threshold", "max_predictions_per_window"} - options.asked
    return {key: value for key, value in asdict(options).items() if key not in own}


def _state(paths: ResultPaths, model: str) -> Any:
    """What changes when a run has written results of a model; reads no file."""
    watched = [
        paths.main_embeds_path,
        paths.dim_reduc_parent_dir,
        paths.labels_path,
        paths.clust_path,
        paths.probe_path,
        paths.preds_path,
    ]
    what = f"{model}-{paths.dataset}"
    for folder in stamped_folders(paths.main_embeds_path, what):
        watched += sorted(folder.glob(JOURNALS))
    stats = [(path, path.stat()) for path in watched if path.exists()]
    return [(path, stat.st_mtime_ns, stat.st_size) for path, stat in stats]
