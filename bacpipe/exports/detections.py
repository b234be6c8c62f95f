"""The table of detections: what was found, where, when, how surely and by which names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from bacpipe.exports.chosen import Chosen, choose
from bacpipe.store.calibrations import stored_probability
from bacpipe.store.class_list import ClassList
from bacpipe.store.detections import Intervals, merge_intervals
from bacpipe.store.loader import Loader
from bacpipe.store.tables import (
    CHANNEL,
    DETECTION_COLUMNS,
    Block,
    blocks_of,
    channels_in,
    described,
    no_detections,
)
from bacpipe.store.whereabouts import Whereabouts

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


def detections_table(
    loader: Loader | None, *, classifier_threshold: float | None = None, **kwargs: object
) -> pd.DataFrame:
    """Every stored detection as a table with a row for each.

    Parameters
    ----------
    loader : Loader or None
        Results of a model with a classifier; None for those that ``audio_dir`` and ``model`` name.
    classifier_threshold : float, optional
        Drops lower scores.
    **kwargs
        Any key of the configuration: ``event_gap`` joins detections of one class into events,
        ``range_filter='hide'`` leaves out classes that are not expected there at that time.

    Returns
    -------
    pandas.DataFrame
        With the columns

        site : str
            The recording's folder, or as ``sites.csv`` names it.
        recording : str
            Posix path relative to the folder of recordings.
        start, end : float64
            Seconds of the recording.
        datetime : datetime64
            When the window starts, in its site's zone; in UTC if the offsets differ; without a
            zone if none is known.  Where some recordings tell their zone and others do not, the
            column holds single `pandas.Timestamp` objects.
        common_name, scientific_name, code : str
            Names of the class: as the model shows it, and what else is known of it, or empty.
        score : float32
            That of the window, or of the best window of an event.
        range_probability : float32
            Of the class at that place and time of the year; NaN where it is not known.
        probability : float32
            That the detection is right; NaN without a calibration.
        event : int64
            Windows of one class in a recording that overlap or touch, or are at most ``event_gap``
            apart, share a number.
        channel : int16
            From 1; only with ``channel='each'``.

        ``attrs['bacpipe']`` says what they were made with.

    Raises
    ------
    ResultsNotFoundError
        If there are no predictions.

    Examples
    --------
    >>> import bacpipe
    >>> loader = bacpipe.Loader("recordings", "birdnet")
    >>> table = bacpipe.detections_table(loader, classifier_threshold=0.9)
    >>> table.loc[0, "common_name"]
    'Field Sparrow'
    """
    import pandas as pd
    import pyarrow as pa

    if classifier_threshold is not None:
        kwargs["classifier_threshold"] = classifier_threshold
    chosen = choose(loader, kwargs)
    # Times are made anew, as times; a table of millions should not be held twice.
    blocks = (block.drop_columns(["window", "datetime"]) for block in described_detections(chosen))
    table = pa.concat_tables(blocks)
    columns: dict[str, pd.Series | np.ndarray] = {"datetime": _times_of(chosen, table)}
    for name in table.column_names:
        columns[name] = _column(table[name])
        table = table.drop_columns(name)
    order = [name for name in (*DETECTION_COLUMNS, CHANNEL) if name in columns]
    frame = pd.DataFrame({name: columns[name] for name in order}, copy=False)
    frame.attrs["bacpipe"] = chosen.provenance
    return frame


def described_detections(chosen: Chosen) -> Iterator[Any]:
    """Detections with all columns, a pyarrow.Table for each of some recordings; at least one."""
    describe, table = Describer(chosen.loader, chosen.where, chosen.gap), None
    for block in blocks_of(chosen.events()):
        table = described(block, describe)
        yield table
    if table is None:
        yield described(no_detections(), describe)


def _column(column: pa.ChunkedArray) -> np.ndarray:
    """Values of a pyarrow column: texts as Python's, numbers with NaN for nothing."""
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        names, code = _numbered(column)
        return names[code]
    return column.to_numpy()


def _numbered(column: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """Different texts of a dictionary column, as Python's, and the number of each row's."""
    chunks = column.unify_dictionaries().chunks
    code = np.concatenate([chunk.indices.to_numpy() for chunk in chunks])
    return np.array(chunks[0].dictionary.to_pylist(), object), code


def _times_of(chosen: Chosen, table: pa.Table) -> pd.Series:
    """When detections begin, as the column ``datetime`` of `detections_table`."""
    import pandas as pd

    recordings, code = _numbered(table["recording"])
    places = [chosen.where.of(name) for name in recordings.tolist()]
    seconds = np.rint(table["start"].to_numpy() * 1e6).astype("timedelta64[us]")
    starts = np.array([place.local for place in places], "datetime64[us]")
    local = pd.Series(starts[code] + seconds)
    zones = [None if place.start is None else place.start.tzinfo for place in places]
    known = {zone for place, zone in zip(places, zones, strict=True) if place.start is not None}
    if known <= {None}:
        return local
    offsets = [None if place.start is None else place.start.utcoffset() for place in places]
    if None not in known:
        shift = np.array([offset or 0 for offset in offsets], "timedelta64[us]")
        utc = (local - shift[code]).dt.tz_localize("UTC")
        return utc.dt.tz_convert(known.pop()) if len({*map(str, known)}) == 1 else utc
    stamps = [
        time if zone is None or time is pd.NaT else time.tz_localize("UTC").tz_convert(zone) - shift
        for time, zone, shift in zip(
            local, [zones[i] for i in code], [offsets[i] for i in code], strict=True
        )
    ]
    return pd.Series(stamps, dtype=object)


class Describer:
    """Gives the columns of detections that predictions do not hold themselves.

    One is made for each table, because it numbers the events of it.

    Parameters
    ----------
    loader : Loader
    where : Whereabouts
    gap : float or None
        Seconds that may lie between two windows of one event; None stands for 0.
    """

    def __init__(self, loader: Loader, where: Whereabouts, gap: float | None) -> None:
        self._listed: ClassList = loader.classes
        self._probability = stored_probability(
            loader.paths, str(loader.model_name), loader.predictions_provenance
        )
        self._where = where
        self._gap = gap or 0.0
        self._channels = loader.channels
        self._events = 0

    def __call__(self, block: Block) -> dict[str, Any]:
        """Columns of `bacpipe.store.tables.DETECTION_COLUMNS` as pyarrow arrays."""
        import pyarrow as pa

        places = [self._where.of(name) for name in block.names.tolist()]
        names = [self._listed.of(name) for name in block.classes.tolist()]
        columns = {
            "site": _texts([place.site for place in places], block.recording),
            "datetime": self._times(block),
            "scientific_name": _texts([name.scientific_name for name in names], block.label),
            "code": _texts([name.code for name in names], block.label),
            "range_probability": pa.array(
                self._where.range_probability(*block.detections()), from_pandas=True
            ),
            "probability": pa.array(
                self._probability(block.classes[block.label], block.score), from_pandas=True
            ),
            "event": pa.array(self._number(block)),
        }
        if self._channels is not None:
            columns[CHANNEL] = pa.array(channels_in(block, self._channels))
        return columns

    def _times(self, block: Block) -> pa.StringArray:
        """ISO times of the windows, to the millisecond, each formed once."""
        import pyarrow as pa
        import pyarrow.compute as pc

        first = block.starts_window
        row = (np.cumsum(first) - 1).astype(np.int32)
        recording = block.recording[first]
        places = [self._where.of(name) for name in block.names.tolist()]
        starts = np.array([place.local for place in places], "datetime64[us]")
        milliseconds = np.rint(block.start[first] * 1e3).astype("timedelta64[ms]")
        times = pa.array((starts[recording] + milliseconds).astype("datetime64[ms]"))
        offsets = pa.array([place.offset for place in places], pa.string())
        local = pc.strftime(times, "%Y-%m-%dT%H:%M:%S")
        texts = pc.binary_join_element_wise(local, offsets.take(pa.array(recording)), "")
        return texts.take(pa.array(row))  # null, too, where nothing tells the time

    def _number(self, block: Block) -> np.ndarray:
        """Number of the event that each detection is part of, int64, in the order of the rows."""
        import pandas as pd

        label = block.recording.astype(np.int64) * max(len(block.classes), 1) + block.label
        merged, group = merge_intervals(Intervals(block.start, block.end, label), self._gap)
        number = pd.factorize(group)[0].astype(np.int64) + self._events
        self._events += len(merged.start)
        return number


def _texts(values: list[str], code: np.ndarray) -> pa.DictionaryArray:
    """Texts by their numbers as a pyarrow dictionary array, in which each is there once."""
    import pyarrow as pa

    unique, place = np.unique(np.array(values, dtype=object), return_inverse=True)
    index = place.astype(np.int32)[code] if len(code) else np.zeros(0, np.int32)
    return pa.DictionaryArray.from_arrays(pa.array(index), pa.array(unique, pa.string()))
