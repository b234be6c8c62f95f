"""Class predictions on disk: sparse, one Parquet file per recording, and tables over all.

``original_classifier_outputs/<recording>_<model>.parquet`` has a row per prediction (window,
class, score).  ``source.json`` beside that folder names the set of embeddings to which these
predictions belong; predictions of another set or another threshold do not count as done.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bacpipe.errors import ResultsError
from bacpipe.store.writer import replacing, write_json, write_table

if TYPE_CHECKING:
    import pandas as pd


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
) -> int:
    """Write one recording's predictions; returns the size of the file in bytes.

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
    """
    import pyarrow as pa

    used, codes = np.unique(predictions.label, return_inverse=True)
    names = pa.DictionaryArray.from_arrays(
        pa.array(codes.astype(np.int32)), pa.array([str(c) for c in classes[used]], pa.string())
    )
    table = pa.table({"window": predictions.window, "class": names, "score": predictions.score})
    table = table.replace_schema_metadata({"bacpipe": json.dumps(dict(provenance))})
    write_table(path, table)
    return path.stat().st_size


def read_predictions(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Windows (int32), class names (object) and scores (float32) of one recording.

    Raises
    ------
    ResultsError
        If the file is missing or damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            table = file.read(["window", "class", "score"])
    except FileNotFoundError:
        raise ResultsError(
            f"{path}: these predictions are gone; run the pipeline again to compute them anew."
        ) from None
    except (OSError, pa.ArrowException) as error:
        raise ResultsError(
            f"{path}: these predictions are damaged ({str(error).splitlines()[0]}); run the "
            f"pipeline again to compute them anew."
        ) from None
    return (
        table["window"].to_numpy(),
        np.asarray(table["class"].to_pylist(), dtype=object),
        table["score"].to_numpy(),
    )


def predictions_source(preds_path: Path) -> dict[str, Any]:
    """Which set and settings the predictions on disk belong to; empty when unknown."""
    try:
        source = json.loads((preds_path / "source.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return source if isinstance(source, dict) else {}


def claim_predictions(preds_path: Path, source: Mapping[str, Any]) -> None:
    """Say that the predictions from here on belong to this set and these settings."""
    if predictions_source(preds_path) != dict(source):
        write_json(preds_path / "source.json", dict(source))


class Detections(NamedTuple):
    """Predictions of one recording with their times, for the tables over all recordings."""

    recording: str
    window: np.ndarray
    start: np.ndarray
    end: np.ndarray
    label: np.ndarray
    score: np.ndarray


def wide_frame(detections: Iterable[Detections]) -> pd.DataFrame:
    """One row per window with a prediction, one column per class that was found.

    Returns
    -------
    pandas.DataFrame
        Columns audiofilename, start, end (seconds), then a float32 column of scores for each
        class in alphabetical order; 0 where a class was not predicted.
    """
    import pandas as pd

    parts = [item for item in detections if len(item.window)]
    labels = np.concatenate([item.label for item in parts]) if parts else np.zeros(0, object)
    classes, column = np.unique(labels.astype(str), return_inverse=True)
    row_parts, rows, offset = [], [], 0
    for item in parts:
        _, first, inverse = np.unique(item.window, return_index=True, return_inverse=True)
        row_parts.append(offset + inverse)
        rows.append((item.recording, item.start[first], item.end[first]))
        offset += len(first)
    scores = np.zeros((offset, len(classes)), np.float32)
    if parts:
        scores[np.concatenate(row_parts), column] = np.concatenate([i.score for i in parts])
    frame = pd.DataFrame(
        {
            "audiofilename": [name for name, start, _ in rows for _ in start],
            "start": np.concatenate([start for _, start, _ in rows]) if rows else np.zeros(0),
            "end": np.concatenate([end for _, _, end in rows]) if rows else np.zeros(0),
        }
    )
    return pd.concat([frame, pd.DataFrame(scores, columns=list(classes))], axis=1)


def write_combined_tables(preds_path: Path, model: str, detections: Iterable[Detections]) -> None:
    """Write ``<model>_classifier_annotations.csv`` and ``<model>_all_predictions.parquet``."""
    import pyarrow as pa

    kept = list(detections)
    write_classifier_annotations(preds_path / f"{model}_classifier_annotations.csv", kept)
    table = pa.Table.from_pandas(wide_frame(kept), preserve_index=False)
    write_table(preds_path / f"{model}_all_predictions.parquet", table)


def write_classifier_annotations(path: Path, detections: Iterable[Detections]) -> None:
    """Write the best prediction of every window as an annotation table (CSV).

    Columns start, end (seconds), audiofilename, label:default_classifier, label:confidence.
    """
    import csv
    import io

    with replacing(path) as file:
        text = io.StringIO(newline="")
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(
            ["start", "end", "audiofilename", "label:default_classifier", "label:confidence"]
        )
        for item in detections:
            rows.writerows(_best_rows(item))
            file.write(text.getvalue().encode())
            text.seek(0)
            text.truncate()


def _best_rows(item: Detections) -> Iterator[tuple[str, str, str, str, str]]:
    # Scores descend within a window, so the first row of a window is its best one.
    _, first = np.unique(item.window, return_index=True)
    for i in first:
        yield (
            f"{item.start[i]:.3f}",
            f"{item.end[i]:.3f}",
            item.recording,
            str(item.label[i]),
            f"{item.score[i]:.4f}",
        )


RAVEN_COLUMNS = (
    "Selection",
    "View",
    "Channel",
    "Begin Time (s)",
    "End Time (s)",
    "Low Freq (Hz)",
    "High Freq (Hz)",
    "Label",
    "Confidence",
    "Begin Path",
    "File Offset (s)",
)


def write_raven_table(path: Path, item: Detections, audio: Path, high_frequency: float) -> None:
    """Write one recording's predictions as a Raven selection table.

    Parameters
    ----------
    path : Path
        Where to.
    item : Detections
        The predictions.
    audio : Path
        The recording, which Raven opens.
    high_frequency : float
        Nyquist frequency in Hz of the model or of the recording, whichever is lower.
    """
    lines = ["\t".join(RAVEN_COLUMNS)]
    for number, (start, end, label, score) in enumerate(
        zip(item.start, item.end, item.label, item.score, strict=True), start=1
    ):
        # A tab or newline in a name would shift the columns.
        name = " ".join(str(label).split())
        lines.append(
            f"{number}\tSpectrogram 1\t1\t{start:.3f}\t{end:.3f}\t0\t{high_frequency:.1f}\t{name}"
            f"\t{score:.4f}\t{audio}\t{start:.3f}"
        )
    with replacing(path) as file:
        file.write(("\n".join(lines) + "\n").encode())
