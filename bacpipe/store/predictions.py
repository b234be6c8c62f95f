"""Class predictions of single recordings: sparse, in one Parquet file for each.

``original_classifier_outputs/<recording>_<model>.parquet`` has a row per prediction (window,
class, score); `bacpipe.store.tables` holds the same of all recordings once a run is
complete.  Its metadata hold the `BEST_BELOW` best windows of each class below the threshold of the
run, down to a score of `LOWEST`: no detections, but what a calibration learns from, where scores
end to be right.

``source.json`` beside that folder names the set of embeddings to which these predictions belong.
Those of the set that a run has written last are in ``predictions``, those of every other set in
``predictions___<time of the set>`` beside it.
A table is read only if its columns, windows and hash are what the journal and this module expect;
anything else is an error that names the file.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from glob import escape
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bacpipe.errors import REPAIR, ResultsError, first_line, said
from bacpipe.store.entries import StoredPredictions
from bacpipe.store.files import StagedFile, stage_table, write_json, writing
from bacpipe.store.layout import SOURCE
from bacpipe.store.parquet import require_memory
from bacpipe.store.short_tables import MOST_ROWS, ShortTables

if TYPE_CHECKING:
    import pyarrow as pa

LOWEST = 0.01
"""Least score that is stored below the threshold of a run."""

BEST_BELOW = 5
"""Most windows of a recording that are stored of each class below the threshold, the best ones."""

# What lower scores may take, as a share of a recording's embeddings, and what they do take
_SHARE_BELOW, _FILE_BYTES, _ROW_BYTES = 0.1, 4096, 24

_BELOW = "bacpipe_below"
"""Key of the lower scores in a file's metadata, so that its rows are detections for everybody."""

_MOST_CLASSES = 2**20  # of a model
_PER_RECORDING = 300  # bytes of a dictionary's key and of an object


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


def with_best_below(
    predictions: SparsePredictions, threshold: float, embedding_bytes: int | None = None
) -> SparsePredictions:
    """Predictions of one recording, of which below a threshold only the best of each class stay.

    Of these only the highest scores, where all would take more than a tenth of so many bytes on the
    disk: a short recording in which nothing is found gets no file for them.
    """
    window, label, score = predictions
    low = np.flatnonzero(score < np.float32(threshold))
    order = low[np.lexsort((window[low], -score[low], label[low]))]
    number = np.arange(len(order))
    first = np.diff(label[order], prepend=-1) != 0
    rank = number - np.maximum.accumulate(np.where(first, number, 0))
    best = order[rank < BEST_BELOW]
    if embedding_bytes is not None:
        room = _SHARE_BELOW * embedding_bytes - (_FILE_BYTES if len(low) == len(score) else 0)
        highest = np.lexsort((window[best], label[best], -score[best]))
        best = best[highest[: max(0, int(room / _ROW_BYTES))]]
    kept = np.ones(len(score), dtype=bool)
    kept[low] = False
    kept[best] = True
    return SparsePredictions(window[kept], label[kept], score[kept])


class PredictionFiles:
    """Makes the files of single recordings' predictions.

    Parameters
    ----------
    classes : np.ndarray of str
        Name of every class.
    provenance : mapping
        Model, checkpoint, threshold and versions; kept in each table's metadata.
    threshold : float
        Least score of a detection.
    """

    def __init__(
        self, classes: np.ndarray, provenance: Mapping[str, object], threshold: float
    ) -> None:
        self._classes = [str(name) for name in classes]
        self._threshold = np.float32(threshold)
        self._metadata = {"bacpipe": json.dumps(dict(provenance))}
        self._short = ShortTables(self._metadata)

    def stage(
        self, path: Path, predictions: SparsePredictions
    ) -> tuple[StagedFile, str, SparsePredictions]:
        """Write one recording's predictions, of which there are some; the caller commits the file.

        Returns
        -------
        file : StagedFile
        sha256 : str
            Hash of the file.
        detections : SparsePredictions
            Those that are not below the threshold.
        """
        detected = predictions.score >= self._threshold
        detections = SparsePredictions(*(column[detected] for column in predictions))
        more = {}
        if not detected.all():
            more[_BELOW] = self._pack(*(column[~detected] for column in predictions))
        if len(detections.window) > MOST_ROWS:
            return *stage_table(path, self._table(detections, more)), detections
        names = [self._classes[label] for label in detections.label.tolist()]
        data = self._short.encode(detections.window, names, detections.score, more)
        return StagedFile(path, data), hashlib.sha256(data).hexdigest(), detections

    def _pack(self, window: np.ndarray, label: np.ndarray, score: np.ndarray) -> str:
        used, code = np.unique(label, return_inverse=True)
        columns = (window.astype("<i4"), code.astype("<i4"), score.astype("<f4"))
        data = b"".join(column.tobytes() for column in columns)
        names = [self._classes[number] for number in used.tolist()]
        return json.dumps({"classes": names, "columns": base64.b64encode(data).decode()})

    def _table(self, predictions: SparsePredictions, more: Mapping[str, str]) -> pa.Table:
        import pyarrow as pa

        used, codes = np.unique(predictions.label, return_inverse=True)
        names = pa.DictionaryArray.from_arrays(
            pa.array(codes.astype(np.int32)),
            pa.array([self._classes[label] for label in used], pa.string()),
        )
        table = pa.table({"window": predictions.window, "class": names, "score": predictions.score})
        return table.replace_schema_metadata({**self._metadata, **more})


class RecentPredictions:
    """Detections that this process has just written, as long as they take little memory.

    Reading thousands of small files back takes as long as writing them.

    Parameters
    ----------
    classes : sequence of str
        Name of every class.
    most : int
        Bytes that they may take, about.
    """

    def __init__(self, classes: Sequence[str], most: int = 2**24) -> None:
        self._classes = np.asarray(classes, dtype=object)
        self._left = most
        self._known: dict[bytes, bytes] = {}

    def keep(self, sha256: str, detections: SparsePredictions) -> None:
        """Keep those of a recording, whose file has this hash."""
        data = b"".join(column.tobytes() for column in detections)
        self._left -= len(data) + _PER_RECORDING
        if self._left >= 0:
            self._known[bytes.fromhex(sha256)] = data

    def take(self, sha256: str | None) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """What `read_predictions` returns for the file with a hash, if that is known; only once."""
        data = self._known.pop(bytes.fromhex(sha256), None) if sha256 else None
        if data is None:
            return None
        rows = len(data) // 12
        window = np.frombuffer(data, np.int32, rows)
        label = np.frombuffer(data, np.int32, rows, 4 * rows)
        return window, self._classes[label], np.frombuffer(data, np.float32, rows, 8 * rows)


def read_predictions(
    path: Path,
    windows: int | None = None,
    stored: StoredPredictions | None = None,
    *,
    below: bool = False,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Windows (int32), class names (object) and scores (float32) of one recording.

    Parameters
    ----------
    path : Path
        The file.
    windows : int, optional
        How many windows the recording has, if that is to be checked.
    stored : StoredPredictions, optional
        What the journal says of the file, if that is to be checked.
    below : bool
        Whether to return the scores below the threshold, too, which are no detections.

    Raises
    ------
    ResultsError
        If the file is missing or damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # From memory and in this thread: for small files that is several times faster.
        if stored is not None and (size := path.stat().st_size) != stored.bytes:
            raise ValueError(f"they have {size} bytes, the journal says {stored.bytes}")
        data = pa.py_buffer(path.read_bytes())
        if stored is not None and stored.sha256 not in (None, hashlib.sha256(data).hexdigest()):
            raise ValueError("they have changed since they were written")
        file = pq.ParquetFile(data)
        lower = _unpack(file.metadata.metadata) if below else NO_PREDICTIONS
        most = windows and windows * ((stored and stored.top) or _MOST_CLASSES)
        if most is not None and (rows := file.metadata.num_rows) > most:
            raise ValueError(f"they have {rows} rows, of which at most {most} are possible")
        require_memory(file, range(file.num_row_groups))
        require_columns(file.schema_arrow, kinds := predictions_kinds())
        table = file.read(list(kinds), use_threads=False)
        require_values(table)
        window = table["window"].to_numpy()
        if windows is not None:
            require_windows(window, windows)
            if ((lower[0] < 0) | (lower[0] >= windows)).any():
                raise ValueError(f"their lower scores are of other windows than {windows}")
    except FileNotFoundError:
        raise ResultsError(
            f"{path}: these predictions are gone; run the pipeline again to compute them anew."
        ) from None
    except (OSError, ValueError, pa.ArrowException) as error:
        raise ResultsError(
            f"{path}: these predictions are damaged ({first_line(error)}); {REPAIR}"
        ) from None
    codes, names = decode_dictionary(table["class"])
    # Copies: parts of a few numbers must not keep the whole file in memory.
    above = window.copy(), names[codes], table["score"].to_numpy().copy()
    if not len(lower[0]):
        return above
    window, label, score = map(np.concatenate, zip(above, lower, strict=True))
    order = np.lexsort((-score, window))
    return window[order], label[order], score[order]


def _unpack(metadata: Mapping[bytes, bytes] | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lower scores in the metadata of a file.

    Raises
    ------
    ValueError
        If they are not as `PredictionFiles` writes them.
    """
    text = (metadata or {}).get(_BELOW.encode())
    if text is None:
        return NO_PREDICTIONS
    try:
        content = json.loads(text)
        names = np.array([str(name) for name in content["classes"]], dtype=object)
        numbers = np.frombuffer(base64.b64decode(content["columns"]), "<i4").reshape(3, -1)
        return numbers[0].copy(), names[numbers[1]], numbers[2].view("<f4").copy()
    except (ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
        raise ValueError(f"their lower scores cannot be read: {said(error)}") from None


def predictions_source(preds_path: Path) -> str | None:
    """Name of the set of embeddings that the predictions on disk belong to; None if unknown."""
    try:
        source = json.loads((preds_path / SOURCE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    name = source.get("embeddings") if isinstance(source, dict) else None
    return name if isinstance(name, str) else None


def predictions_folder(preds_path: Path, embeddings: str) -> Path | None:
    """Folder of the predictions that belong to a set of embeddings; None if there are none.

    Parameters
    ----------
    preds_path : Path
        Folder of the predictions that were written last.
    embeddings : str
        Name of the set.
    """
    aside = sorted(preds_path.parent.glob(f"{escape(preds_path.name)}___*"))
    for folder in (preds_path, *aside):
        if predictions_source(folder) == embeddings:
            return folder
    return None


def bring_forward(preds_path: Path, embeddings: str) -> bool:
    """Give the predictions of a set of embeddings the plain name, and lay those of another aside.

    Returns
    -------
    bool
        Whether there were any of this set; False makes room for the first ones.

    Raises
    ------
    StorageError
        If a folder cannot be renamed.
    """
    ours, others = predictions_folder(preds_path, embeddings), predictions_source(preds_path)
    if ours == preds_path:
        return True
    with writing(preds_path):
        if others is not None:
            name = f"{preds_path.name}___{others.split('___')[0]}"
            taken = {path.name for path in preds_path.parent.iterdir()}
            free = (f"{name}{number or ''}" for number in count(0, -1))
            preds_path.rename(preds_path.with_name(next(n for n in free if n not in taken)))
        if ours is not None:
            ours.rename(preds_path)
            return True
    write_json(preds_path / SOURCE, {"embeddings": embeddings})
    return False


NO_PREDICTIONS = (np.zeros(0, np.int32), np.zeros(0, object), np.zeros(0, np.float32))
"""What `read_predictions` returns for a recording in which nothing was found."""


def sorted_classes(labels: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Different names in alphabetical order, and the number of each label, int64."""
    import pandas as pd

    code, names = pd.factorize(labels)
    order = np.argsort(np.asarray(names, dtype=str))
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    return [str(names[i]) for i in order], rank[code]


def decode_dictionary(column: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """Codes and values of a dictionary column."""
    import pyarrow as pa

    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):  # a table without rows has no chunk
        return np.zeros(0, np.int32), np.zeros(0, object)
    return array.indices.to_numpy(), np.array(array.dictionary.to_pylist(), dtype=object)


def predictions_kinds() -> dict[str, Any]:
    """Columns of one recording's predictions, and their Arrow types."""
    import pyarrow as pa

    text = pa.dictionary(pa.int32(), pa.string())
    return {"window": pa.int32(), "class": text, "score": pa.float32()}


def detections_kinds() -> dict[str, Any]:
    """Columns of the table over all recordings, and their Arrow types."""
    import pyarrow as pa

    kinds, times = predictions_kinds(), {"start": pa.float64(), "end": pa.float64()}
    text = kinds.pop("class")
    return {"recording": text, **times, **kinds, "common_name": text}


def require_columns(schema: pa.Schema, kinds: Mapping[str, Any]) -> None:
    """Make sure that a file has certain columns.

    Parameters
    ----------
    schema : pyarrow.Schema
        Of the file.
    kinds : mapping of str to pyarrow.DataType
        The columns.

    Raises
    ------
    ValueError
        If one is missing, there twice, or of another type.
    """
    for name, kind in kinds.items():
        places = schema.get_all_field_indices(name)
        if len(places) != 1:
            raise ValueError(f"it has {len(places)} columns {name!r}")
        actual = schema.field(places[0]).type
        if actual != kind:
            raise ValueError(f"its column {name!r} holds {actual} instead of {kind}")


def require_values(table: pa.Table) -> None:
    """Raise a ValueError if a cell of a table is empty."""
    for name in table.column_names:
        if table[name].null_count:
            raise ValueError(f"its column {name!r} has empty cells")


def require_windows(window: np.ndarray, count: int) -> None:
    """Raise a ValueError unless all windows are windows of a recording that has `count`."""
    if len(window) and not (window.min() >= 0 and window.max() < count):
        raise ValueError(f"it is about windows that the recording does not have, of {count}")
