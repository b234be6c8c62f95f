"""Labels that need no annotations: when and where each window was recorded.

======================  =====================================================================
time_of_day             'HH:MM' at which the window starts
day_of_year             1 to 366
week_of_year            1 to 53 (ISO 8601)
continuous_timestamp    date and time at which the window starts
hours_after_sunrise     hours from the nearest sunrise, negative before it, to the window's start
hours_after_sunset      the same for sunset
hours_after_civil_dawn  the same for civil dawn, when the rising sun is 6° below the horizon
moon_illumination       illuminated share of the moon's disc on that day, 0 (new) to 1 (full)
parent_directory        folder of the recording, relative to the audio folder; for recordings
                        in the audio folder itself, its name
audio_file_name         the recording, relative to the audio folder
default_classifier      class with the best score among the stored predictions
======================  =====================================================================

Times are those of `bacpipe.places.clock`, from metadata or the name of the recording; they are
missing where neither tells.  How many recordings they come from which source, and whether zones
differ, is said once.  Sunrise, sunset and dawn need the position of the recorder, too.  The class
is missing where the model has no classifier or found nothing.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np

from bacpipe.errors import ResultsNotFoundError, SettingsError
from bacpipe.labels.model_windows import ModelWindows, model_windows, open_results
from bacpipe.options import normal_value
from bacpipe.places.clock import SunEvent, hours_after, moon_illumination, on_one_clock
from bacpipe.store.data_set_folder import folder_name
from bacpipe.store.fingerprints import read_result_table, write_result_table
from bacpipe.store.layout import DEFAULT_LABELS, ResultPaths
from bacpipe.store.loader import Loader

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

_TIME_KEYS = frozenset({"time_of_day", "day_of_year", "week_of_year", "continuous_timestamp"})


class MetadataLabelMaker:
    """Makes labels from what is known of the recordings.

    Parameters
    ----------
    paths : ResultPaths
        Where the results of the model are, from ``make_set_paths_func(audio_dir)(model)``.
    model : str
        Name of the model, whose windows are labelled.
    metadata_label_keys : sequence of str, optional
        Which labels; ``settings.default_label_keys`` unless given.
    **kwargs
        Any key of the configuration.

    Attributes
    ----------
    metadata_label_dict : dict of str to np.ndarray
        What `generate` made; empty before.

    Examples
    --------
    >>> import bacpipe
    >>> paths = bacpipe.make_set_paths_func("recordings")("birdnet")
    >>> maker = bacpipe.MetadataLabelMaker(paths, "birdnet", ["time_of_day"])
    >>> maker.generate()["time_of_day"].shape
    (153,)
    >>> maker.time_of_day()[0], maker.day_of_year()[0].item(), maker.week_of_year()[0].item()
    ('04:30', 124.0, 18.0)
    >>> str(maker.continuous_timestamp()[0])[:19]
    '2025-05-04T04:30:00'
    >>> maker.parent_directory()[0], maker.audio_file_name()[0]
    ('SITE-A', 'SITE-A/20250504_043000.wav')
    >>> maker.default_classifier()[10]
    'Great Horned Owl'
    >>> maker = bacpipe.MetadataLabelMaker(paths, "birdnet", latitude=52.5, longitude=13.4)
    >>> maker.hours_after_sunrise()[:1].round(1), maker.hours_after_sunset()[:1].round(1)
    (array([-1.]), array([7.9]))
    >>> maker.hours_after_civil_dawn()[:1].round(1), maker.moon_illumination()[:1].round(1)
    (array([-0.3]), array([0.5]))
    """

    def __init__(
        self,
        paths: ResultPaths,
        model: str,
        metadata_label_keys: Sequence[str] | None = None,
        **kwargs: Any,  # noqa: ANN401 (handed on to the loader)
    ) -> None:
        self.loader = open_results(model, paths=paths, **kwargs)
        self.keys: Sequence[str] = self.loader.options.default_label_keys
        if metadata_label_keys is not None:
            self.keys = _check_keys(metadata_label_keys)
        self.windows = model_windows(self.loader)
        self.metadata_label_dict: dict[str, np.ndarray] = {}

    def generate(self) -> dict[str, np.ndarray]:
        """Make the labels.

        Returns
        -------
        dict of str to np.ndarray, shape (windows,)
            In the order of ``Loader.embeddings('array')``.  Texts are objects with None where
            they are missing, numbers float64 with NaN, times datetime64 with NaT.
        """
        self.metadata_label_dict = as_arrays(make_labels(self.loader, self.windows, self.keys))
        return self.metadata_label_dict

    def _one(self, key: str) -> np.ndarray:
        labels = as_arrays(make_labels(self.loader, self.windows, [key]))[key]
        self.metadata_label_dict[key] = labels
        return labels

    def time_of_day(self) -> np.ndarray:
        """'HH:MM' at which each window starts, object of shape (windows,), None if unknown."""
        return self._one("time_of_day")

    def day_of_year(self) -> np.ndarray:
        """Day of the year, float64 of shape (windows,), 1 to 366, NaN if unknown."""
        return self._one("day_of_year")

    def week_of_year(self) -> np.ndarray:
        """Week of the year, float64 of shape (windows,), 1 to 53 (ISO 8601), NaN if unknown."""
        return self._one("week_of_year")

    def continuous_timestamp(self) -> np.ndarray:
        """Date and time at which each window starts, datetime64 of shape (windows,), or NaT."""
        return self._one("continuous_timestamp")

    def hours_after_sunrise(self) -> np.ndarray:
        """Hours from the nearest sunrise, float64 of shape (windows,), NaN without a position."""
        return self._one("hours_after_sunrise")

    def hours_after_sunset(self) -> np.ndarray:
        """Hours from the nearest sunset, float64 of shape (windows,), NaN without a position."""
        return self._one("hours_after_sunset")

    def hours_after_civil_dawn(self) -> np.ndarray:
        """Hours from the nearest civil dawn, float64 of shape (windows,), or NaN."""
        return self._one("hours_after_civil_dawn")

    def moon_illumination(self) -> np.ndarray:
        """Illuminated share of the moon, float64 of shape (windows,), 0 to 1, NaN if unknown."""
        return self._one("moon_illumination")

    def parent_directory(self) -> np.ndarray:
        """Folder of the recording of each window, object of shape (windows,)."""
        return self._one("parent_directory")

    def audio_file_name(self) -> np.ndarray:
        """Recording of each window, object of shape (windows,)."""
        return self._one("audio_file_name")

    def default_classifier(self) -> np.ndarray:
        """Class with the best score in each window, object of shape (windows,), or None."""
        return self._one("default_classifier")


class DefaultLabels(MetadataLabelMaker):
    """The same labels under their older name.

    Parameters
    ----------
    paths : ResultPaths
        Where the results of the model are.
    model : str
        Name of the model.
    default_label_keys : sequence of str, optional
        Which labels; ``settings.default_label_keys`` unless given.
    **kwargs
        Any key of the configuration.

    Examples
    --------
    >>> import bacpipe
    >>> paths = bacpipe.make_set_paths_func("recordings")("birdnet")
    >>> maker = bacpipe.DefaultLabels(paths, "birdnet", ["parent_directory"])
    >>> sorted(set(maker.generate()["parent_directory"]))
    ['SITE-A', 'SITE-B', 'SITE-C']
    >>> sorted(maker.default_label_dict)
    ['parent_directory']
    """

    def __init__(
        self,
        paths: ResultPaths,
        model: str,
        default_label_keys: Sequence[str] | None = None,
        **kwargs: object,
    ) -> None:
        super().__init__(paths, model, default_label_keys, **kwargs)

    @property
    def default_label_dict(self) -> dict[str, np.ndarray]:
        """What `generate` made; empty before."""
        return self.metadata_label_dict


def create_default_labels(
    audio_dir: str | Path | None = None,
    model: str | None = None,
    paths: ResultPaths | None = None,
    overwrite: bool = True,
    **kwargs: object,
) -> dict[str, np.ndarray]:
    """Label every window of a model with when and where it was recorded, and store that.

    Parameters
    ----------
    audio_dir : str or Path, optional
        Folder with the recordings; ``config.audio_dir`` unless given or known from `paths`.
    model : str, optional
        Name of the model; by default the one that `paths` belongs to.
    paths : ResultPaths, optional
        Where results are, from `make_set_paths_func`.
    overwrite : bool
        False takes the stored labels if nothing has changed since.
    **kwargs
        Any key of the configuration; default_label_keys says which labels, main_results_dir
        where results are.

    Returns
    -------
    dict of str to np.ndarray, shape (windows,)
        Labels by key, in the order of ``Loader.embeddings('array')``.  Texts are objects with
        None where they are missing, numbers float64 with NaN, times datetime64 with NaT.

    Examples
    --------
    >>> import bacpipe
    >>> labels = bacpipe.create_default_labels("recordings", "birdnet")
    >>> labels["parent_directory"].shape, labels["parent_directory"][0]
    ((153,), 'SITE-A')
    """
    return metadata_labels(audio_dir, model, paths, overwrite, return_type="dict", **kwargs)


def get_default_labels(
    model_name: str,
    **kwargs: Any,  # noqa: ANN401 (handed on to create_default_labels)
) -> dict[str, np.ndarray]:
    """Labels that `create_default_labels` stored; made first where they are missing or stale.

    Parameters
    ----------
    model_name : str
        Name of the model.
    **kwargs
        ``audio_dir``, ``paths``, and any key of the configuration; default_label_keys says
        which labels.

    Returns
    -------
    dict of str to np.ndarray, shape (windows,)
        As `create_default_labels` returns them.

    Examples
    --------
    >>> import bacpipe
    >>> labels = bacpipe.get_default_labels("birdnet", audio_dir="recordings")
    >>> labels["audio_file_name"][0]
    'SITE-A/20250504_043000.wav'
    """
    return create_default_labels(
        kwargs.pop("audio_dir", None),
        model_name,
        kwargs.pop("paths", None),
        **{**kwargs, "overwrite": False},
    )


@overload
def metadata_labels(
    audio_dir: str | Path | None = None,
    model: str | None = None,
    paths: ResultPaths | None = None,
    overwrite: bool = True,
    *,
    return_type: Literal["dataframe"] = "dataframe",
    **kwargs: object,
) -> pd.DataFrame: ...
@overload
def metadata_labels(
    audio_dir: str | Path | None = None,
    model: str | None = None,
    paths: ResultPaths | None = None,
    overwrite: bool = True,
    *,
    return_type: Literal["dict"],
    **kwargs: object,
) -> dict[str, np.ndarray]: ...
def metadata_labels(
    audio_dir: str | Path | None = None,
    model: str | None = None,
    paths: ResultPaths | None = None,
    overwrite: bool = True,
    *,
    return_type: str = "dataframe",
    **kwargs: object,
) -> pd.DataFrame | dict[str, np.ndarray]:
    """Label every window of a model with when and where it was recorded, and store that.

    Parameters
    ----------
    audio_dir, model, paths, overwrite, **kwargs
        As for `create_default_labels`.
    return_type : {'dataframe', 'dict'}
        'dataframe': audiofilename, start and end (seconds) of every window and a column for
        each label.  'dict': what `create_default_labels` returns.

    Returns
    -------
    pandas.DataFrame or dict

    Examples
    --------
    >>> import bacpipe
    >>> table = bacpipe.metadata_labels("recordings", "birdnet")
    >>> table.columns[:4].to_list(), len(table)
    (['audiofilename', 'start', 'end', 'time_of_day'], 153)
    """
    if return_type not in {"dataframe", "dict"}:
        raise SettingsError(
            f"return_type={return_type!r} is not possible: expected one of dataframe, dict."
        )
    loader = open_results(model, audio_dir, paths, **kwargs)
    table = stored_labels(loader, loader.options.default_label_keys, overwrite=overwrite)
    return table if return_type == "dataframe" else as_arrays(table)


def stored_labels(loader: Loader, keys: Sequence[str], *, overwrite: bool) -> pd.DataFrame:
    """Labels of all windows, taken from disk where they still hold, else made and stored."""
    import pyarrow as pa

    windows = model_windows(loader)
    path, fingerprint = (
        loader.paths.labels_path / DEFAULT_LABELS,
        _fingerprint(loader, windows, keys),
    )
    if not overwrite and (stored := read_result_table(path, fingerprint)) is not None:
        return stored[0].to_pandas()
    table = make_labels(loader, windows, keys)
    write_result_table(path, pa.Table.from_pandas(table, preserve_index=False), fingerprint)
    return table


def make_labels(loader: Loader, windows: ModelWindows, keys: Sequence[str]) -> pd.DataFrame:
    """Labels of all windows: audiofilename, start, end (seconds) and a column for each key."""
    import pandas as pd

    table = windows.frame()
    time = _times(loader, windows) if _TIME_KEYS & set(keys) else pd.Series(dtype="datetime64[us]")
    makers: dict[str, Callable[[], Any]] = {
        "time_of_day": lambda: time.dt.strftime("%H:%M").astype(object),
        "day_of_year": lambda: time.dt.day_of_year.astype("Int16"),
        "week_of_year": lambda: time.dt.isocalendar().week.astype("Int16"),
        "continuous_timestamp": lambda: time,
        "hours_after_sunrise": lambda: _hours_after(loader, windows, "sunrise"),
        "hours_after_sunset": lambda: _hours_after(loader, windows, "sunset"),
        "hours_after_civil_dawn": lambda: _hours_after(loader, windows, "dawn"),
        "moon_illumination": lambda: _moon(loader, windows),
        "parent_directory": lambda: _of_recordings(windows, _folders(loader, windows)),
        "audio_file_name": lambda: table["audiofilename"],
        "default_classifier": lambda: _best_classes(loader, windows),
    }
    for key in keys:
        table[key] = makers[key]()
    return table


def recording_starts(loader: Loader, recordings: Sequence[str]) -> np.ndarray:
    """Clock time at which each recording starts, datetime64[us]; NaT where nothing tells.

    All are on one clock, as `bacpipe.places.clock.on_one_clock` says.
    """
    starts = [loader.clock.of(name) for name in recordings]
    return on_one_clock(loader.audio_dir, recordings, starts)


def _hours_after(loader: Loader, windows: ModelWindows, event: SunEvent) -> np.ndarray:
    """Hours from the nearest sunrise or sunset to the start of each window, float64."""
    hours = np.full(len(windows), np.nan)
    for name, rows in windows.slices():
        start = loader.clock.of(name)
        position = None if start.site is None else start.site.position
        if position is not None and start.time is not None:
            hours[rows] = hours_after(event, position, start.time, windows.times[0][rows])
    return hours


def _moon(loader: Loader, windows: ModelWindows) -> np.ndarray:
    """Illuminated share of the moon on the day of each window, by the clock of its place."""
    light = np.full(len(windows), np.nan)
    for name, rows in windows.slices():
        if (start := loader.clock.of(name).local) is not None:
            begin = np.datetime64(start.replace(tzinfo=None), "us")
            seconds = np.rint(windows.times[0][rows] * 1e6).astype("timedelta64[us]")
            days, day = np.unique((begin + seconds).astype("datetime64[D]"), return_inverse=True)
            light[rows] = np.array([moon_illumination(each) for each in days.tolist()])[day]
    return light


def _times(loader: Loader, windows: ModelWindows) -> pd.Series:
    """Clock time at which each window starts."""
    import pandas as pd

    begin = _of_recordings(windows, recording_starts(loader, windows.recordings))
    microseconds = np.rint(windows.times[0] * 1e6).astype("timedelta64[us]")
    return pd.Series(begin + microseconds)


def _folders(loader: Loader, windows: ModelWindows) -> np.ndarray:
    parents = [str(PurePosixPath(name).parent) for name in windows.recordings]
    top = folder_name(loader.audio_dir)
    return np.array([top if parent == "." else parent for parent in parents], dtype=object)


def _of_recordings(windows: ModelWindows, values: np.ndarray) -> np.ndarray:
    return np.repeat(values, windows.counts)


def _best_classes(loader: Loader, windows: ModelWindows) -> np.ndarray:
    labels = np.full(len(windows), None, dtype=object)
    slices = windows.slices()
    try:
        for item in loader.detections():
            # Both are in the order of the recordings' names.
            rows = next(rows for name, rows in slices if name == item.recording)
            # Scores descend within a window, so its first row is the best one.
            window, first = np.unique(item.window, return_index=True)
            labels[rows.start + window] = item.label[first]
    except ResultsNotFoundError as error:
        logger.info("default_classifier is missing everywhere: %s", error)
    return labels


# --- Keys and files ---------------------------------------------------------------------------


def _check_keys(keys: Sequence[str]) -> list[str]:
    try:
        return list(normal_value("default_label_keys", keys))
    except ValueError as error:
        raise SettingsError(f"the label keys {keys!r} are not possible: {error}.") from None


def as_arrays(table: pd.DataFrame) -> dict[str, np.ndarray]:
    """Columns of a table of labels in the form that `create_default_labels` returns."""
    import pandas as pd

    arrays = {}
    for key in table.columns[3:]:
        column = table[key]
        if pd.api.types.is_datetime64_any_dtype(column):
            arrays[str(key)] = column.to_numpy()
        elif pd.api.types.is_numeric_dtype(column):
            arrays[str(key)] = column.to_numpy(dtype=np.float64, na_value=np.nan)
        else:
            arrays[str(key)] = column.astype(object).where(column.notna(), None).to_numpy()
    return arrays


def _fingerprint(loader: Loader, windows: ModelWindows, keys: Sequence[str]) -> str:
    # The names of the recordings are part of the windows' state; so are the predictions',
    # whose files the journal names with their threshold.
    about = [windows.state, list(keys), folder_name(loader.audio_dir)]
    content = json.dumps(about + ([state] if (state := loader.range_filter().state) else []))
    digest = hashlib.sha256(f"{content[:-1]}, [".encode())
    for number, entry in enumerate(windows.entries.values()):
        text = json.dumps(entry.predictions and entry.predictions.as_json())
        digest.update((f", {text}" if number else text).encode())
    digest.update(b"]]")
    return digest.hexdigest()
