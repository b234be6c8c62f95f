"""Tables over all recordings, with which a run ends.

``<model>_detections.parquet`` and ``.csv`` have a row per prediction; from the first, readers are
quick.  ``<model>_classifier_annotations.csv`` (the same as annotations) and
``<model>_all_predictions.parquet`` (a row per window with a prediction, a column per class found)
are for other programs.  ``provenance.json`` says what all of them were made with.

All are written and read in blocks, which are row groups of the files, so that memory does not grow
with the number of recordings.  The first names the state of the predictions that it was made from:
a reader leaves a table of others aside, and one that is damaged from there on, and goes to the
files of the single recordings instead.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bacpipe.annotations.cells import FORMULA
from bacpipe.errors import ResultsError, first_line
from bacpipe.store.detections import ChannelsOf, Detections
from bacpipe.store.files import BOM, replacing, write_csv, write_json
from bacpipe.store.layout import (
    PROVENANCE,
    annotations_path,
    detections_csv_path,
    detections_path,
    wide_table_path,
)
from bacpipe.store.parquet import require_memory
from bacpipe.store.predictions import (
    decode_dictionary,
    detections_kinds,
    require_columns,
    require_values,
    sorted_classes,
)

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

logger = logging.getLogger(__name__)

_BLOCK = 2**17  # predictions in a row group, about
_RECORDING = 8  # a recording takes as much memory as so many predictions while it waits
_LARGEST_DENSE = 2**28  # scores in a table with dense columns: 1 GiB
_ROW_GROUP_VALUES = 2**25  # scores held at once while writing a table: 128 MiB
_OLD_NAMES = {"recording": "audiofilename", "common_name": "class"}  # in tables of version 2.0
DETECTION_COLUMNS = (
    "site", "recording", "start", "end", "datetime", "common_name", "scientific_name", "code",
    "score", "range_probability", "probability", "event",
)  # fmt: skip
"""Columns of tables of detections."""
Describe = Callable[["Block"], Mapping[str, Any]]
"""Adds columns to detections, as pyarrow arrays by their names."""
CHANNEL = "channel"
"""Column of the channel, from 1, in all tables, where every channel was heard by itself."""


def channels_of(table: pd.DataFrame) -> np.ndarray:
    """Channel of each row of a table, int64; 0 for all channels together."""
    if CHANNEL not in table:
        return np.zeros(len(table), np.int64)
    return table[CHANNEL].fillna(0).to_numpy(np.int64)


class Block(NamedTuple):
    """Predictions of successive recordings; row i says that a window holds a class.

    Attributes
    ----------
    names : np.ndarray of object, shape (recordings,)
        The recordings.
    recording : np.ndarray, int32, shape (n,)
        Index into `names`, ascending.
    window : np.ndarray, int32, shape (n,)
        Index of the window, ascending within a recording.
    start, end : np.ndarray, float64, shape (n,)
        Of the window, in seconds.
    classes : np.ndarray of object, shape (classes,)
        Names of the classes in this block.
    label : np.ndarray, int32, shape (n,)
        Index into `classes`.
    score : np.ndarray, float32, shape (n,)
    """

    names: np.ndarray
    recording: np.ndarray
    window: np.ndarray
    start: np.ndarray
    end: np.ndarray
    classes: np.ndarray
    label: np.ndarray
    score: np.ndarray

    @property
    def starts_window(self) -> np.ndarray:
        """Whether a row is the first of its window, bool of shape (n,)."""
        first = np.ones(len(self.window), dtype=bool)
        first[1:] = self.window[1:] != self.window[:-1]
        first[1:] |= self.recording[1:] != self.recording[:-1]
        return first

    def detections(self) -> Iterator[Detections]:
        """The same, recording by recording."""
        columns = (self.window, self.start, self.end, self.classes[self.label], self.score)
        first = np.flatnonzero(np.diff(self.recording, prepend=-1)).tolist()
        names = self.names[self.recording[first]].tolist()
        for name, i, j in zip(names, first, [*first[1:], None], strict=False):
            yield Detections(name, *(column[i:j] for column in columns))


def blocks_of(detections: Iterable[Detections]) -> Iterator[Block]:
    """Put successive recordings together; none of them is divided."""
    waiting: list[Detections] = []
    size = 0
    for item in detections:
        if not len(item.window):
            continue
        waiting.append(item)
        size += len(item.window) + _RECORDING
        if size >= _BLOCK:
            yield _block(waiting)
            waiting, size = [], 0
    if waiting:
        yield _block(waiting)


def _block(items: list[Detections]) -> Block:
    classes, label = sorted_classes(np.concatenate([item.label for item in items]))
    sizes = [len(item.window) for item in items]
    return Block(
        np.array([item.recording for item in items], dtype=object),
        np.repeat(np.arange(len(items), dtype=np.int32), sizes),
        np.concatenate([item.window for item in items]).astype(np.int32, copy=False),
        np.concatenate([item.start for item in items]),
        np.concatenate([item.end for item in items]),
        np.array(classes, dtype=object),
        label.astype(np.int32),
        np.concatenate([item.score for item in items]).astype(np.float32, copy=False),
    )


def no_detections() -> Block:
    """A block without rows."""
    columns = (np.zeros(0, kind) for kind in ("i4", "f8", "f8", object, "f4"))
    return _block([Detections("", *columns)])


def write_combined_tables(
    preds_path: Path,
    model: str,
    detections: Iterable[Detections],
    provenance: Mapping[str, Any] | None = None,
    state: str | None = None,
    *,
    describe: Describe | None = None,
    channels: ChannelsOf | None = None,
    escape_formulas: bool = False,
    excel_bom: bool = False,
) -> None:
    """Write the tables over all recordings.

    Parameters
    ----------
    preds_path : Path
        Folder of the predictions.
    model : str
        Name of the model.
    detections : iterable of Detections
        All predictions, in the order of the recordings; read once, and not kept.
    provenance : mapping, optional
        Model, checkpoint, threshold, versions and settings.
    state : str, optional
        What readers recognise the predictions by.
    describe : callable, optional
        Gives the columns of `DETECTION_COLUMNS` that predictions do not hold themselves.
    channels : callable, optional
        Channels of the windows, which get a column where every channel was heard by itself.
    escape_formulas : bool
        Whether texts in CSV must not look like formulas of a spreadsheet.
    excel_bom : bool
        Whether the CSV of detections begins with a byte order mark.
    """
    made_with, classes, names_break = dict(provenance or {}), set(), False
    table = detections_path(preds_path, model)

    def watched() -> Iterator[Block]:
        nonlocal names_break
        for block in blocks_of(detections):
            classes.update(block.classes.tolist())
            names_break = names_break or any("\r" in name for name in block.names)
            yield block

    write_json(preds_path / PROVENANCE, made_with)
    write_detections(table, watched(), made_with, state, describe)
    # From here on out of the table, which is read many times faster than single files.
    path = detections_csv_path(preds_path, model)
    write_detections_csv(path, read_rows(table), escape_formulas=escape_formulas, bom=excel_bom)
    path = annotations_path(preds_path, model)
    blocks = chain([None], read_blocks(table))  # the first is the header alone
    pieces = (_annotations(block, channels) for block in blocks)
    write_csv(path, pieces, quote=names_break, escape_formulas=escape_formulas)
    path = wide_table_path(preds_path, model)
    write_wide_table(path, read_blocks(table), sorted(classes), made_with, channels)


def channels_in(block: Block, channels: ChannelsOf) -> np.ndarray:
    """Channel of each row of a block, int16."""
    first = np.flatnonzero(np.diff(block.recording, prepend=-1)).tolist()
    parts = [
        channels(str(block.names[block.recording[i]]))[block.window[i:j]]
        for i, j in zip(first, [*first[1:], None], strict=False)
    ]
    return np.concatenate([np.zeros(0, np.int16), *parts])


def described(block: Block, describe: Describe | None = None) -> pa.Table:
    """Detections as a pyarrow.Table with the columns of `DETECTION_COLUMNS` that are known.

    The index of the window stands behind its recording.
    """
    import pyarrow as pa

    text, columns = detections_kinds()["recording"], {} if describe is None else describe(block)
    known: dict[str, Any] = {
        "recording": pa.DictionaryArray.from_arrays(
            pa.array(block.recording), pa.array(block.names, pa.string())
        ).cast(text),
        "window": pa.array(block.window),
        "start": pa.array(block.start),
        "end": pa.array(block.end),
        "common_name": pa.DictionaryArray.from_arrays(
            pa.array(block.label), pa.array(block.classes, pa.string())
        ).cast(text),
        "score": pa.array(block.score),
        **columns,
    }
    names = [name for name in (*DETECTION_COLUMNS, CHANNEL) if name in known]
    names.insert(names.index("recording") + 1, "window")
    return pa.table({name: known[name] for name in names})


def write_detections(
    path: Path,
    blocks: Iterable[Block],
    provenance: Mapping[str, Any],
    state: str | None,
    describe: Describe | None = None,
) -> None:
    """Write all predictions as one table: a row for each, a row group for each block.

    Its texts are dictionaries on the disk, but no readers take them for such unless they ask:
    Arrow counts no column by dictionaries that differ from row group to row group.

    Parameters
    ----------
    path : Path
        Where to.
    blocks : iterable of Block
        All predictions.
    provenance : mapping
        Model, checkpoint, threshold, versions and settings.
    state : str or None
        What `DetectionStream` recognises the predictions by.
    describe : callable, optional
        As for `write_combined_tables`.
    """
    import pyarrow.parquet as pq

    description = {"bacpipe": json.dumps({**provenance, "state": state})}
    schema = described(no_detections(), describe).schema
    with (
        replacing(path) as file,
        pq.ParquetWriter(file, schema, compression="zstd", store_schema=False) as writer,
    ):
        for block in blocks:
            table = described(block, describe).cast(schema)
            # A window in two row groups would be two windows for who reads one after the other.
            writer.write_table(table, row_group_size=len(table))
        writer.add_key_value_metadata(description)


def read_rows(path: Path, columns: Sequence[str] | None = None) -> Iterator[Any]:
    """Read columns of the table, all by default, a pyarrow.Table for each row group.

    Names of recordings and classes are dictionaries.
    """
    with _open(path) as file:
        for number in range(file.num_row_groups):
            yield file.read_row_group(number, columns, use_threads=False)
        if not file.num_row_groups:
            yield file.schema_arrow.empty_table()


def write_detections_csv(
    path: Path, tables: Iterable[Any], *, escape_formulas: bool = False, bom: bool = False
) -> None:
    """Write tables of detections, one below the other, as CSV (UTF-8) at once.

    Parameters
    ----------
    path : Path
        Where to.
    tables : iterable of pyarrow.Table
        At least one, which may be empty.
    escape_formulas : bool
        Whether texts that a spreadsheet takes for formulas get an apostrophe.
    bom : bool
        Whether the file begins with a byte order mark, by which Excel knows UTF-8.
    """
    import pyarrow.csv as pc

    with replacing(path) as file:
        file.write(BOM if bom else b"")
        for number, table in enumerate(tables):
            names = [name for name in table.column_names if name != "window"]
            plain = _plain_text(table.select(names), escape_formulas=escape_formulas)
            pc.write_csv(plain, file, pc.WriteOptions(include_header=not number))


def _plain_text(table: pa.Table, *, escape_formulas: bool) -> pa.Table:
    """Table whose dictionaries are texts, which CSV needs."""
    import pyarrow as pa
    import pyarrow.compute as pc

    for number, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            column = table[field.name].cast(pa.string())
        elif pa.types.is_floating(field.type):
            column = table[field.name]
            # As in other tables; Arrow would write all nine digits of a float32.
            digits = 6 if field.name in {"start", "end"} else 4
            column = pc.round(column.cast(pa.float64()), digits)
        else:
            continue
        if escape_formulas and pa.types.is_string(column.type):
            escaped = pc.binary_join_element_wise("'", column, "")
            column = pc.if_else(pc.match_substring_regex(column, FORMULA), escaped, column)
        table = table.set_column(number, field.name, column)
    return table


def read_blocks(path: Path, state: str | None = None) -> Iterator[Block]:
    """Read the table row group by row group.

    Parameters
    ----------
    path : Path
        The table.
    state : str, optional
        Read nothing if it was made from other predictions than those of this state.

    Raises
    ------
    ResultsError
        If it is missing or damaged, perhaps only after some blocks.
    """
    import pyarrow as pa

    try:
        with _open(path) as file:
            if state is not None and _state_in(file.schema_arrow) != state:
                return
            kinds, names = detections_kinds(), list(detections_kinds())
            if _OLD_NAMES["recording"] in file.schema_arrow.names:
                kinds = {_OLD_NAMES.get(name, name): kind for name, kind in kinds.items()}
            require_columns(file.schema_arrow, kinds)
            for number in range(file.num_row_groups):
                require_memory(file, [number])
                table = file.read_row_group(number, list(kinds), use_threads=False)
                table = table.select(list(kinds)).rename_columns(names)
                require_values(table)
                if len(table):
                    yield _as_block(table.unify_dictionaries().combine_chunks())
    except (OSError, ValueError, AttributeError, RecursionError, pa.ArrowException) as error:
        raise ResultsError(
            f"{path}: this table of predictions cannot be read ({first_line(error)}); delete it "
            f"and run the pipeline again."
        ) from error


@contextmanager
def _open(path: Path) -> Iterator[pq.ParquetFile]:
    """The table, whose names of recordings and classes come as dictionaries."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    repeated = {*_OLD_NAMES, *_OLD_NAMES.values()}
    with pa.OSFile(os.fspath(path)) as file:
        about = pq.read_metadata(file)  # which of them it has: a name that it lacks is an error
        names = [name for name in about.schema.to_arrow_schema().names if name in repeated]
        yield pq.ParquetFile(file, metadata=about, read_dictionary=names)


def _as_block(table: pa.Table) -> Block:
    recording, names = decode_dictionary(table["recording"])
    label, classes = decode_dictionary(table["common_name"])
    window, start, end, score = (
        table[name].to_numpy() for name in ("window", "start", "end", "score")
    )
    return Block(names, recording, window, start, end, classes, label, score)


def stored_state(path: Path) -> str | None:
    """State of the predictions from which a table was made; None if it cannot be told."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        state = _state_in(pq.read_schema(path))
    except (OSError, ValueError, AttributeError, RecursionError, pa.ArrowException):
        return None
    return state if isinstance(state, str) else None


def _state_in(schema: pa.Schema) -> object:
    return json.loads((schema.metadata or {}).get(b"bacpipe", b"{}")).get("state")


class DetectionStream:
    """Reads the predictions of one recording after the other out of the table.

    Parameters
    ----------
    path : Path
        The table.
    state : str
        State of the predictions that are wanted; a table of others is left aside, and so is one
        that is damaged, from there on.
    """

    def __init__(self, path: Path, state: str) -> None:
        blocks = read_blocks(path, state) if path.is_file() else iter(())
        self._left = _by_recording(blocks)
        self._head: Detections | None = None

    def take(self, recording: str) -> Detections | None:
        """Predictions of a recording; None if the table does not go on with this one."""
        try:
            self._head = self._head or next(self._left, None)
        except ResultsError as error:
            logger.warning("left aside: %s", error)
        if self._head is None or self._head.recording != recording:
            return None
        item, self._head = self._head, None
        return item


def _by_recording(blocks: Iterable[Block]) -> Iterator[Detections]:
    """Recordings one by one, also those that a table of an older version has in two blocks."""
    parts: list[Detections] = []
    for item in chain.from_iterable(block.detections() for block in blocks):
        if parts and parts[0].recording != item.recording:
            yield _joined(parts)
            parts = []
        parts.append(item)
    if parts:
        yield _joined(parts)


def _joined(parts: list[Detections]) -> Detections:
    if len(parts) == 1:
        return parts[0]
    columns = zip(*(part[1:] for part in parts), strict=True)
    return Detections(parts[0].recording, *(np.concatenate(column) for column in columns))


class WideIndex(NamedTuple):
    """Where every prediction lies in a table of a row per window and a column per class.

    Attributes
    ----------
    classes : list of str
        Name of each column, in alphabetical order.
    recording, start, end : np.ndarray, shape (rows,)
        Each row's recording and times in seconds; rows are windows with a prediction.
    row, column : np.ndarray, int64, shape (n,)
        Of every prediction; rows ascend.
    score : np.ndarray, float32, shape (n,)
        Its score.
    channel : np.ndarray, int16, shape (rows,)
        Each row's channel; 0 if all became one.
    """

    classes: list[str]
    recording: np.ndarray
    start: np.ndarray
    end: np.ndarray
    row: np.ndarray
    column: np.ndarray
    score: np.ndarray
    channel: np.ndarray

    def columns(self, rows: slice) -> np.ndarray:
        """Dense scores of some rows, float32 of shape (classes, rows); 0 without prediction."""
        first, last = np.searchsorted(self.row, [rows.start, rows.stop])
        dense = np.zeros((len(self.classes), rows.stop - rows.start), np.float32)
        # Two classes of one name may both be found in a window.
        np.maximum.at(
            dense,
            (self.column[first:last], self.row[first:last] - rows.start),
            self.score[first:last],
        )
        return dense


def classes_in(blocks: Iterable[Block]) -> list[str]:
    """Names of all classes that were found, in alphabetical order."""
    return sorted({name for block in blocks for name in block.classes})


def places_of(block: Block, classes: Sequence[str]) -> np.ndarray:
    """Index into `classes` of each class of a block, int64."""
    place = {name: i for i, name in enumerate(classes)}
    return np.array([place[name] for name in block.classes], dtype=np.int64)


def wide_index(
    block: Block, classes: Sequence[str], channels: ChannelsOf | None = None
) -> WideIndex:
    """Index the predictions of a block by window and class.

    Parameters
    ----------
    block : Block
        The predictions.
    classes : sequence of str
        Names of all columns.
    channels : callable, optional
        Channels of the windows.
    """
    new = block.starts_window
    channel = np.zeros(len(new), np.int16) if channels is None else channels_in(block, channels)
    return WideIndex(
        list(classes),
        block.names[block.recording[new]],
        block.start[new],
        block.end[new],
        np.cumsum(new) - 1,
        places_of(block, classes)[block.label],
        block.score,
        channel[new],
    )


def _join(parts: Sequence[WideIndex]) -> WideIndex:
    if not parts:
        none, no_time = np.zeros(0, np.int64), np.zeros(0)
        no_score = np.zeros(0, "f4")
        return WideIndex([], np.zeros(0, object), no_time, no_time, none, none, no_score, none)
    rows = np.cumsum([0, *(len(part.start) for part in parts)]).tolist()
    _, recording, start, end, row, column, score, channel = zip(*parts, strict=True)
    return WideIndex(
        parts[0].classes,
        np.concatenate(recording),
        np.concatenate(start),
        np.concatenate(end),
        np.concatenate([part + first for part, first in zip(row, rows, strict=False)]),
        np.concatenate(column),
        np.concatenate(score),
        np.concatenate(channel),
    )


def scores_by_recording(
    blocks: Iterable[Block], windows: Iterable[tuple[str, int]], classes: Sequence[str]
) -> Iterator[np.ndarray]:
    """Dense scores of one recording after the other.

    Parameters
    ----------
    blocks : iterable of Block
        All predictions, in the order of the recordings.
    windows : iterable of (str, int)
        Every recording, also those without a prediction, with the number of its windows.
    classes : sequence of str
        All classes in the blocks.

    Yields
    ------
    np.ndarray, float32, shape (windows, classes)
        0 where nothing was predicted.
    """
    # Places instead of names, so that they are what comes as labels.
    numbered = (block._replace(classes=places_of(block, classes)) for block in blocks)
    detections = chain.from_iterable(block.detections() for block in numbered)
    item = next(detections, None)
    for recording, count in windows:
        dense = np.zeros((count, len(classes)), np.float32)
        if item is not None and item.recording == recording:
            # Two classes of one name may both be found in a window.
            np.maximum.at(dense, (item.window, item.label), item.score)
            item = next(detections, None)
        yield dense


def wide_frame(
    detections: Iterable[Detections], channels: ChannelsOf | None = None
) -> pd.DataFrame:
    """One row per window with a prediction, one column per class that was found.

    `channels` tells those of the windows, which have a column then.

    Returns
    -------
    pandas.DataFrame
        Columns audiofilename, start, end (seconds), then a float32 column of scores for each
        class in alphabetical order; 0 where a class was not predicted.  Scores that would fill
        more than 1 GiB are in pandas' sparse columns instead, which behave alike.
    """
    import pandas as pd

    blocks = list(blocks_of(detections))
    classes = classes_in(blocks)
    index = _join([wide_index(block, classes, channels) for block in blocks])
    rows = len(index.start)
    frame = pd.DataFrame({"audiofilename": index.recording, "start": index.start, "end": index.end})
    if channels is not None:
        frame[CHANNEL] = index.channel
    if rows * len(index.classes) <= _LARGEST_DENSE:
        dense = index.columns(slice(0, rows)).T
        scores = pd.DataFrame(dense, columns=index.classes, copy=False)
    else:
        scores = _sparse_scores(index, rows)
    return pd.concat([frame, scores], axis=1)


def _sparse_scores(index: WideIndex, rows: int) -> pd.DataFrame:
    import pandas as pd
    from scipy.sparse import csc_matrix

    # Of two classes with one name in a window the better one counts.
    order = np.lexsort((-index.score, index.row, index.column))
    row, column = index.row[order], index.column[order]
    best = np.ones(len(row), dtype=bool)
    best[1:] = (row[1:] != row[:-1]) | (column[1:] != column[:-1])
    cells = (row[best], column[best])
    matrix = csc_matrix((index.score[order][best], cells), shape=(rows, len(index.classes)))
    # pandas-stubs does not know this accessor.
    frame: pd.DataFrame = pd.DataFrame.sparse.from_spmatrix(  # type: ignore[attr-defined]
        matrix, columns=index.classes
    )
    return frame


def write_wide_table(
    path: Path,
    blocks: Iterable[Block],
    classes: Sequence[str],
    provenance: Mapping[str, Any],
    channels: ChannelsOf | None = None,
) -> None:
    """Write a row per window with a prediction and a column per class, in bounded memory.

    Parameters
    ----------
    path : Path
        Where to.
    blocks : iterable of Block
        All predictions.
    classes : sequence of str
        All classes in them, in the order of the columns.
    provenance : mapping
        Model, checkpoint, threshold, versions and settings.
    channels : callable, optional
        Channels of the windows, which have a column then.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    # Lists, not a dictionary: a class may be called 'start'.
    each = [] if channels is None else [CHANNEL]
    names = ["audiofilename", "start", "end", *each, *classes]
    kinds = [pa.string(), pa.float64(), pa.float64(), *[pa.int16() for _ in each]]
    kinds += [pa.float32()] * len(classes)
    schema = pa.schema(
        list(zip(names, kinds, strict=True)), {"bacpipe": json.dumps(dict(provenance))}
    )
    step = max(1, _ROW_GROUP_VALUES // len(names))
    with (
        replacing(path) as file,
        pq.ParquetWriter(
            file, schema, compression="zstd", use_dictionary=False, write_statistics=False
        ) as writer,
    ):
        for index in (wide_index(block, classes, channels) for block in blocks):
            for first in range(0, len(index.start), step):
                rows = slice(first, min(first + step, len(index.start)))
                columns = [index.recording[rows], index.start[rows], index.end[rows]]
                columns += [index.channel[rows] for _ in each]
                columns += list(index.columns(rows))
                arrays = [pa.array(c, kind) for c, kind in zip(columns, kinds, strict=True)]
                writer.write_table(pa.Table.from_arrays(arrays, schema=schema))


def _annotations(block: Block | None, channels: ChannelsOf | None) -> pd.DataFrame:
    """Predictions as annotations, the best of a window first."""
    import pandas as pd

    names = ["start", "end", "audiofilename", "label:default_classifier", "label:confidence"]
    names += [] if channels is None else [CHANNEL]
    if block is None:
        return pd.DataFrame(columns=names)
    columns = [
        block.start.round(6),
        block.end.round(6),
        block.names[block.recording],
        block.classes[block.label],
        block.score.round(4),
    ]
    columns += [] if channels is None else [channels_in(block, channels)]
    return pd.DataFrame(dict(zip(names, columns, strict=True)))
