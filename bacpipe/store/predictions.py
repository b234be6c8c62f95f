"""Class predictions on disk: sparse, one Parquet file per recording, and tables over all.

``original_classifier_outputs/<recording>_<model>.parquet`` has a row per prediction (window,
class, score); ``<model>_detections.parquet`` holds the same of all recordings once a run is
complete.  ``source.json`` beside that folder names the set of embeddings to which these
predictions belong; predictions of another set or another threshold do not count as done.
"""

from __future__ import annotations

import csv
import hashlib
import json
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from bacpipe.errors import REPAIR, ResultsError
from bacpipe.store.columns import (
    detections_kinds,
    predictions_kinds,
    require_columns,
    require_values,
    require_windows,
)
from bacpipe.store.writer import replacing, write_json, write_table

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

_LARGEST_DENSE = 2**28  # scores in a table with dense columns: 1 GiB
_ROW_GROUP_VALUES = 2**25  # scores held at once while writing a table: 128 MiB


class SparsePredictions(NamedTuple):
    """Predictions of one recording: row i says that a window holds a class.

    Attributes
    ----------
    window : np.ndarray, int32, shape (n,)
        Index of the window, ascending.
    label : np.ndarray, int32, shape (n,)
        Index of the class.
    score : np.ndarray, float32, shape (n,)
        Score in [0, 1], descending within a window.
    """

    window: np.ndarray
    label: np.ndarray
    score: np.ndarray

    @classmethod
    def join(cls, parts: Iterable[SparsePredictions]) -> SparsePredictions:
        """Concatenate predictions whose windows are already numbered through."""
        columns = list(zip(*parts, strict=True)) or [(), (), ()]
        kinds = (np.int32, np.int32, np.float32)
        return cls(
            *(
                np.concatenate(column).astype(kind, copy=False) if column else np.zeros(0, kind)
                for column, kind in zip(columns, kinds, strict=True)
            )
        )


def write_predictions(
    path: Path,
    predictions: SparsePredictions,
    classes: np.ndarray,
    provenance: Mapping[str, Any],
) -> dict[str, Any]:
    """Write one recording's predictions.

    Parameters
    ----------
    path : Path
        Where to.
    predictions : SparsePredictions
        What the classifier found.
    classes : np.ndarray of str
        Name of every class.
    provenance : mapping
        Model, checkpoint, threshold and versions; kept in the table's metadata.

    Returns
    -------
    dict
        ``bytes`` and ``sha256`` of the file.
    """
    import pyarrow as pa

    used, codes = np.unique(predictions.label, return_inverse=True)
    names = pa.DictionaryArray.from_arrays(
        pa.array(codes.astype(np.int32)), pa.array([str(c) for c in classes[used]], pa.string())
    )
    table = pa.table({"window": predictions.window, "class": names, "score": predictions.score})
    table = table.replace_schema_metadata({"bacpipe": json.dumps(dict(provenance))})
    return write_table(path, table)


def read_predictions(
    path: Path, windows: int | None = None, sha256: str | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Windows (int32), class names (object) and scores (float32) of one recording.

    Parameters
    ----------
    path : Path
        The file.
    windows : int, optional
        How many windows the recording has, if that is to be checked.
    sha256 : str, optional
        Hash of the file, if that is to be checked.

    Raises
    ------
    ResultsError
        If the file is missing or damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # From memory and in this thread: for small files that is several times faster.
        data = pa.py_buffer(path.read_bytes())
        if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
            raise ValueError("they have changed since they were written")
        file = pq.ParquetFile(data)
        require_columns(file.schema_arrow, kinds := predictions_kinds())
        table = file.read(list(kinds), use_threads=False)
        require_values(table)
        window = table["window"].to_numpy()
        if windows is not None:
            require_windows(window, windows)
    except FileNotFoundError:
        raise ResultsError(
            f"{path}: these predictions are gone; run the pipeline again to compute them anew."
        ) from None
    except (OSError, ValueError, pa.ArrowException) as error:
        raise ResultsError(
            f"{path}: these predictions are damaged ({str(error).splitlines()[0]}); {REPAIR}"
        ) from None
    codes, names = _decode(table["class"])
    # Copies: parts of a few numbers must not keep the whole file in memory.
    return window.copy(), names[codes], table["score"].to_numpy().copy()


def predictions_source(preds_path: Path) -> dict[str, Any]:
    """Which set and settings the predictions on disk belong to; empty when unknown."""
    try:
        source = json.loads((preds_path / "source.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return source if isinstance(source, dict) else {}


def claim_predictions(preds_path: Path, source: Mapping[str, Any]) -> None:
    """Say that the predictions from here on belong to this set and these settings."""
    if predictions_source(preds_path) != dict(source):
        write_json(preds_path / "source.json", dict(source))


NO_PREDICTIONS = (np.zeros(0, np.int32), np.zeros(0, object), np.zeros(0, np.float32))
"""What `read_predictions` returns for a recording in which nothing was found."""


class Detections(NamedTuple):
    """Predictions of one recording with their times, for the tables over all recordings."""

    recording: str
    window: np.ndarray
    start: np.ndarray
    end: np.ndarray
    label: np.ndarray
    score: np.ndarray


def above(item: Detections, threshold: float) -> Detections:
    """Detections with at least this score."""
    kept = item.score >= np.float32(threshold)
    return Detections(item.recording, *(column[kept] for column in item[1:]))


def dense_scores(item: Detections, column: np.ndarray, windows: int, classes: int) -> np.ndarray:
    """Scores of one recording, float32 of shape (windows, classes); 0 without detection.

    Parameters
    ----------
    item : Detections
        Of the recording.
    column : np.ndarray, int64
        Number of the class of each detection.
    windows, classes : int
        How many there are.
    """
    dense = np.zeros((windows, classes), np.float32)
    # Two classes of one name may both be found in a window.
    np.maximum.at(dense, (item.window, column), item.score)
    return dense


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


def wide_index(detections: Iterable[Detections]) -> WideIndex:
    """Index predictions by window and class."""
    parts = [item for item in detections if len(item.window)]
    if not parts:
        none, no_time = np.zeros(0, np.int64), np.zeros(0)
        return WideIndex([], np.zeros(0, object), no_time, no_time, none, none, np.zeros(0, "f4"))
    sizes = [len(item.window) for item in parts]
    window = np.concatenate([item.window for item in parts])
    part = np.repeat(np.arange(len(parts)), sizes)
    new = np.ones(len(window), dtype=bool)
    new[1:] = (window[1:] != window[:-1]) | (part[1:] != part[:-1])
    classes, column = sorted_classes(np.concatenate([item.label for item in parts]))
    names = np.array([item.recording for item in parts], dtype=object)
    return WideIndex(
        classes,
        names[part[new]],
        np.concatenate([item.start for item in parts])[new],
        np.concatenate([item.end for item in parts])[new],
        np.cumsum(new) - 1,
        column,
        np.concatenate([item.score for item in parts]),
    )


def sorted_classes(labels: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Different names in alphabetical order, and the number of each label, int64."""
    import pandas as pd

    code, names = pd.factorize(labels)
    order = np.argsort(np.asarray(names, dtype=str))
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    return [str(names[i]) for i in order], rank[code]


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

    index = wide_index(detections)
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


def write_combined_tables(
    preds_path: Path,
    model: str,
    detections: Iterable[Detections],
    provenance: Mapping[str, Any] | None = None,
    state: str | None = None,
) -> None:
    """Write the tables over all recordings.

    ``<model>_detections.parquet`` (a row per prediction, from which readers are quick),
    ``<model>_classifier_annotations.csv``, ``<model>_all_predictions.parquet`` and
    ``provenance.json``, which says for all tables of the folder what they were made with.

    Parameters
    ----------
    preds_path : Path
        Folder of the predictions.
    model : str
        Name of the model.
    detections : iterable of Detections
        All predictions, in the order of the recordings.
    provenance : mapping, optional
        Model, checkpoint, threshold, versions and settings.
    state : str, optional
        What `read_detections` recognises the predictions by.
    """
    kept, made_with = list(detections), dict(provenance or {})
    write_json(preds_path / "provenance.json", made_with)
    write_detections(detections_path(preds_path, model), kept, made_with, state)
    write_classifier_annotations(preds_path / f"{model}_classifier_annotations.csv", kept)
    write_wide_table(preds_path / f"{model}_all_predictions.parquet", wide_index(kept), made_with)


def detections_path(preds_path: Path, model: str) -> Path:
    """Path of the table with a row per prediction."""
    return preds_path / f"{model}_detections.parquet"


def write_detections(
    path: Path, detections: Iterable[Detections], provenance: Mapping[str, Any], state: str | None
) -> None:
    """Write all predictions as one table: a row for each.

    Columns audiofilename, window, start, end (seconds), class, score.
    """
    import pyarrow as pa

    parts = [item for item in detections if len(item.window)]
    names = pa.array([item.recording for item in parts], pa.string())
    sizes = [len(item.window) for item in parts]
    classes, code = sorted_classes(_joined([item.label for item in parts], object))
    table = pa.table(
        {
            "audiofilename": pa.DictionaryArray.from_arrays(
                pa.array(np.repeat(np.arange(len(parts), dtype=np.int32), sizes)), names
            ),
            "window": _joined([item.window for item in parts], np.int32),
            "start": _joined([item.start for item in parts], np.float64),
            "end": _joined([item.end for item in parts], np.float64),
            "class": pa.DictionaryArray.from_arrays(
                pa.array(code.astype(np.int32)), pa.array(classes, pa.string())
            ),
            "score": _joined([item.score for item in parts], np.float32),
        }
    )
    description = json.dumps({**provenance, "state": state})
    write_table(path, table.replace_schema_metadata({"bacpipe": description}))


def stored_state(path: Path) -> str | None:
    """State of the predictions from which a table was made; None if it cannot be told."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        metadata = pq.read_schema(path).metadata or {}
        state = json.loads(metadata.get(b"bacpipe", b"{}")).get("state")
    except (OSError, ValueError, AttributeError, RecursionError, pa.ArrowException):
        return None
    return state if isinstance(state, str) else None


def read_detections(path: Path, state: str) -> dict[str, Detections] | None:
    """All predictions by recording, from one table.

    Returns
    -------
    dict or None
        Only recordings that have predictions; None if the table is missing, damaged or was
        made from other predictions than those of this state.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            metadata = file.schema_arrow.metadata or {}
            if json.loads(metadata.get(b"bacpipe", b"{}")).get("state") != state:
                return None
            require_columns(file.schema_arrow, kinds := detections_kinds())
            table = file.read(list(kinds)).combine_chunks()
            require_values(table)
    except (OSError, ValueError, AttributeError, RecursionError, pa.ArrowException) as error:
        if not isinstance(error, FileNotFoundError):
            logger.warning("%s: cannot be read and is left aside (%s).", path, error)
        return None
    recording, names = _decode(table["audiofilename"])
    label, classes = _decode(table["class"])
    labels = classes[label]
    columns = [table[name].to_numpy() for name in ("window", "start", "end")]
    columns += [labels, table["score"].to_numpy()]
    first = np.flatnonzero(np.diff(recording, prepend=-1))
    last = np.append(first[1:], len(recording))[: len(first)]
    return {
        names[recording[i]]: Detections(names[recording[i]], *(c[i:j] for c in columns))
        for i, j in zip(first, last, strict=True)
    }


def _decode(column: Any) -> tuple[np.ndarray, np.ndarray]:
    """Codes and values of a dictionary column."""
    import pyarrow as pa

    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):  # a table without rows has no chunk
        return np.zeros(0, np.int32), np.zeros(0, object)
    return array.indices.to_numpy(), np.array(array.dictionary.to_pylist(), dtype=object)


def _joined(parts: list[np.ndarray], kind: Any) -> np.ndarray:
    return np.concatenate(parts) if parts else np.zeros(0, kind)


def write_wide_table(path: Path, index: WideIndex, provenance: Mapping[str, Any]) -> None:
    """Write a row per window with a prediction and a column per class, in bounded memory."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    # Lists, not a dictionary: a class may be called 'start'.
    names = ["audiofilename", "start", "end", *index.classes]
    kinds = [pa.string(), pa.float64(), pa.float64(), *[pa.float32()] * len(index.classes)]
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
        for first in range(0, len(index.start), step):
            rows = slice(first, min(first + step, len(index.start)))
            columns = [index.recording[rows], index.start[rows], index.end[rows]]
            columns += list(index.columns(rows))
            arrays = [pa.array(c, kind) for c, kind in zip(columns, kinds, strict=True)]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))


def write_classifier_annotations(path: Path, detections: Iterable[Detections]) -> None:
    """Write the best prediction of every window as an annotation table (CSV).

    Columns start, end (seconds), audiofilename, label:default_classifier, label:confidence.
    """
    import pandas as pd

    best = [_best_of_each_window(item) for item in detections]
    names = np.array([item.recording for item in best], dtype=object)
    table = pd.DataFrame(
        {
            "start": _joined([item.start for item in best], np.float64).round(6),
            "end": _joined([item.end for item in best], np.float64).round(6),
            "audiofilename": np.repeat(names, [len(item.window) for item in best]),
            "label:default_classifier": _joined([item.label for item in best], object),
            "label:confidence": _joined([item.score for item in best], np.float32).round(4),
        }
    )
    with replacing(path) as file:
        # Names with a carriage return alone are not quoted otherwise.
        names_break = any("\r" in item.recording for item in best)
        quoting: Literal[0, 2] = csv.QUOTE_NONNUMERIC if names_break else csv.QUOTE_MINIMAL
        table.to_csv(file, mode="wb", index=False, lineterminator="\n", quoting=quoting)


def _best_of_each_window(item: Detections) -> Detections:
    # Scores descend within a window, so the first row of a window is its best one.
    _, first = np.unique(item.window, return_index=True)
    return Detections(item.recording, *(column[first] for column in item[1:]))
