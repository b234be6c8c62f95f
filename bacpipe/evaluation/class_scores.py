"""Scores of some of a classifier's classes for all windows of a data set.

Stored predictions are cut at a threshold, which threshold-free metrics cannot do with; the scores
of all classes would not fit into memory.  So the scores of the classes that matter are computed
again: from stored embeddings where the model allows it, else from the recordings, and kept in
``predictions/benchmark_scores.parquet``.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from bacpipe.errors import ResultsError
from bacpipe.inference.pipeline import run
from bacpipe.inference.report import RunReport
from bacpipe.store.plan import Source, look_at
from bacpipe.store.sets import read_embeddings
from bacpipe.store.sink import StreamEnd
from bacpipe.store.writer import write_table

if TYPE_CHECKING:
    from bacpipe.inference.embedder import Embedder
    from bacpipe.store.loader import Loader

logger = logging.getLogger(__name__)

FILE_NAME = "benchmark_scores.parquet"
_CHUNK = 1024


def class_scores(embedder: Embedder, loader: Loader, columns: Sequence[int]) -> np.ndarray:
    """Scores of some classes.

    Parameters
    ----------
    embedder : Embedder
        The model; it must have a classifier.
    loader : Loader
        Its embeddings of the data set.
    columns : sequence of int
        Which classes.

    Returns
    -------
    np.ndarray, float32, shape (windows, len(columns))
        In the order of ``Loader.embeddings('array')``.

    Raises
    ------
    ResultsError
        If a recording gives another number of windows than when it was embedded.
    """
    names = [embedder.classifier.classes[column] for column in columns]
    content = [loader.embeddings_state, str(loader.embed_dir), list(columns), names]
    fingerprint = hashlib.sha256(json.dumps(content).encode()).hexdigest()
    path = loader.paths.preds_path / FILE_NAME
    scores = _read(path, fingerprint)
    if scores is None:
        if getattr(embedder.model, "one_pass", False):
            scores = _from_recordings(embedder, loader, columns)
        else:
            scores = _from_embeddings(embedder, loader, columns)
        _write(path, scores, names, fingerprint)
    return scores


def _from_embeddings(embedder: Embedder, loader: Loader, columns: Sequence[int]) -> np.ndarray:
    found = loader.embedding_set
    assert found is not None
    index = torch.as_tensor(list(columns))
    parts = [np.zeros((0, len(columns)), np.float32)]
    with torch.inference_mode():
        for line in loader.lines.values():
            embeddings = torch.from_numpy(read_embeddings(found, line, verify=True))
            for chunk in embeddings.split(_CHUNK):
                scores = embedder.model.classifier_predictions(chunk.to(embedder.device))
                parts.append(torch.as_tensor(scores).cpu().float()[:, index].numpy())
    return np.concatenate(parts)


def _from_recordings(embedder: Embedder, loader: Loader, columns: Sequence[int]) -> np.ndarray:
    logger.info(
        "%s: scores of its classes cannot be had from embeddings, so the recordings are run "
        "through the model once more.",
        loader.model_name,
    )
    sink = _ColumnSink(columns)
    runner = embedder.runner(scores=True, dense=True)
    sources = []
    for name, line in loader.lines.items():
        segments = line.get("segments")
        parts = tuple((start, stop) for start, stop, _ in segments) if segments else None
        sources.append(look_at(loader.audio_dir / name, loader.audio_dir, parts))
    workload = embedder.workload(runner)
    run(sources, embedder.decode, runner, sink, workload, RunReport(str(loader.model_name)))
    return sink.scores({name: line["windows"] for name, line in loader.lines.items()})


class _ColumnSink:
    """Keeps the scores of some classes and forgets the rest."""

    def __init__(self, columns: Sequence[int]) -> None:
        self._columns = list(columns)
        self._parts: dict[str, list[np.ndarray]] = {}

    def add(self, source: Source, embeddings: np.ndarray, predictions: Any) -> None:
        self._parts.setdefault(source.name, []).append(predictions[:, self._columns])

    def finish(self, source: Source, end: StreamEnd) -> None:
        """Nothing is left to do for the recording."""

    def fail(self, source: Source, reason: str) -> None:
        raise ResultsError(
            f"{reason}; it was embedded before, so the recording has changed since. Run the "
            f"pipeline again."
        )

    def scores(self, windows: dict[str, int]) -> np.ndarray:
        rows = [np.zeros((0, len(self._columns)), np.float32)]
        for name, expected in windows.items():
            parts = self._parts.get(name, [])
            if sum(map(len, parts)) != expected:
                raise ResultsError(
                    f"{name}: {sum(map(len, parts))} windows now, but {expected} when it was "
                    f"embedded; run the pipeline again."
                )
            rows += parts
        return np.concatenate(rows)


def _write(path: Path, scores: np.ndarray, names: Sequence[str], fingerprint: str) -> None:
    import pyarrow as pa

    # Names of classes need not be unique, those of columns must be.
    table = pa.table({f"{i} {name}": scores[:, i] for i, name in enumerate(names)})
    write_table(path, table.replace_schema_metadata({"fingerprint": fingerprint}))


def _read(path: Path, fingerprint: str) -> np.ndarray | None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            metadata = file.schema_arrow.metadata or {}
            if metadata.get(b"fingerprint", b"").decode() != fingerprint:
                return None
            table = file.read()
    except FileNotFoundError:
        return None
    except (OSError, ValueError, pa.ArrowException) as error:
        logger.warning("%s: cannot be read and is made again (%s).", path, error)
        return None
    return np.stack([column.to_numpy() for column in table.columns], axis=1)
