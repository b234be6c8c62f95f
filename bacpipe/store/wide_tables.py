"""Tables with a row per window in which something was found, and a column per class."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bacpipe.store.detection_tables import Block, blocks_of
from bacpipe.store.predictions import Detections
from bacpipe.store.writer import replacing

if TYPE_CHECKING:
    import pandas as pd

_LARGEST_DENSE = 2**28  # scores in a table with dense columns: 1 GiB
_ROW_GROUP_VALUES = 2**25  # scores held at once while writing a table: 128 MiB


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
    """

    classes: list[str]
    recording: np.ndarray
    start: np.ndarray
    end: np.ndarray
    row: np.ndarray
    column: np.ndarray
    score: np.ndarray

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


def wide_index(block: Block, classes: Sequence[str]) -> WideIndex:
    """Index the predictions of a block by window and class.

    Parameters
    ----------
    block : Block
        The predictions.
    classes : sequence of str
        Names of all columns.
    """
    new = block.starts_window
    return WideIndex(
        list(classes),
        block.names[block.recording[new]],
        block.start[new],
        block.end[new],
        np.cumsum(new) - 1,
        places_of(block, classes)[block.label],
        block.score,
    )


def _join(parts: Sequence[WideIndex]) -> WideIndex:
    if not parts:
        none, no_time = np.zeros(0, np.int64), np.zeros(0)
        return WideIndex([], np.zeros(0, object), no_time, no_time, none, none, np.zeros(0, "f4"))
    rows = np.cumsum([0, *(len(part.start) for part in parts)]).tolist()
    _, recording, start, end, row, column, score = zip(*parts, strict=True)
    return WideIndex(
        parts[0].classes,
        np.concatenate(recording),
        np.concatenate(start),
        np.concatenate(end),
        np.concatenate([part + first for part, first in zip(row, rows, strict=False)]),
        np.concatenate(column),
        np.concatenate(score),
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
    found = chain.from_iterable(block.detections() for block in numbered)
    item = next(found, None)
    for recording, count in windows:
        dense = np.zeros((count, len(classes)), np.float32)
        if item is not None and item.recording == recording:
            # Two classes of one name may both be found in a window.
            np.maximum.at(dense, (item.window, item.label), item.score)
            item = next(found, None)
        yield dense


def wide_frame(detections: Iterable[Detections]) -> pd.DataFrame:
    """One row per window with a prediction, one column per class that was found.

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
    index = _join([wide_index(block, classes) for block in blocks])
    rows = len(index.start)
    frame = pd.DataFrame({"audiofilename": index.recording, "start": index.start, "end": index.end})
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
    path: Path, blocks: Iterable[Block], classes: Sequence[str], provenance: Mapping[str, Any]
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
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    # Lists, not a dictionary: a class may be called 'start'.
    names = ["audiofilename", "start", "end", *classes]
    kinds = [pa.string(), pa.float64(), pa.float64(), *[pa.float32()] * len(classes)]
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
        for index in (wide_index(block, classes) for block in blocks):
            for first in range(0, len(index.start), step):
                rows = slice(first, min(first + step, len(index.start)))
                columns = [index.recording[rows], index.start[rows], index.end[rows]]
                columns += list(index.columns(rows))
                arrays = [pa.array(c, kind) for c, kind in zip(columns, kinds, strict=True)]
                writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
