"""Where a run's results go: one recording after the other, each at once and completely.

For each recording the embeddings grow in a temporary file.  When its last window has
arrived, the embeddings are renamed into place, then the predictions are written, then the
journal gets its line; only the line makes the recording count as done.
"""

from __future__ import annotations

import shutil
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bacpipe.store.identity import prediction_settings, settings_identity
from bacpipe.store.journal import Journal
from bacpipe.store.layout import ResultPaths, dataset_name, result_stems
from bacpipe.store.lock import exclusive
from bacpipe.store.plan import Source, look_at
from bacpipe.store.predictions import SparsePredictions, claim_predictions, write_predictions
from bacpipe.store.sets import EmbeddingSet, create_set
from bacpipe.store.writer import EmbeddingFile, remove_temporaries

if TYPE_CHECKING:
    from bacpipe.store.loader import Loader

# Recordings that may wait for the disk before the run waits for it too.
_BACKLOG = 32


class StreamEnd(NamedTuple):
    """What is known of a recording when its last window has been cut.

    Attributes
    ----------
    duration : float
        Seconds that were read.
    padded : int
        Samples of padding in the last window.
    truncated : float or None
        Seconds at which the recording ended although its header promised more.
    segments : list of (start, stop, windows), or None
        Annotated segments with the number of their windows.
    """

    duration: float
    padded: int
    truncated: float | None = None
    segments: list[tuple[float, float, int]] | None = None


class _Open:
    """A recording whose windows are arriving."""

    def __init__(self, path: Path) -> None:
        self.embeddings = EmbeddingFile(path)
        self.predictions: list[SparsePredictions] = []


class RunSink:
    """Writes the results of one run; the caller holds the lock.

    Parameters
    ----------
    found : EmbeddingSet
        The set that receives them.
    paths : ResultPaths
        Folders of the results.
    model : str
        Name of the model.
    recordings : sequence of str
        All recordings of the data set, which decide the names of the files.
    classes : sequence of str
        Names of the classes; empty when no predictions are stored.
    prediction_settings : mapping
        Threshold and number per window, as the journal records them.
    provenance : mapping
        Kept with every table of predictions.
    """

    def __init__(
        self,
        found: EmbeddingSet,
        paths: ResultPaths,
        model: str,
        recordings: Sequence[str],
        *,
        classes: Sequence[str] = (),
        prediction_settings: Mapping[str, Any],
        provenance: Mapping[str, Any],
    ) -> None:
        self._set = found
        self._paths = paths
        self._model = model
        self._stems = result_stems(recordings)
        self._classes = np.asarray(classes, dtype=object)
        self._prediction_settings = dict(prediction_settings)
        self._provenance = dict(provenance)
        self._open: dict[str, _Open] = {}
        self._waiting: deque[Future[None]] = deque()
        self._written: list[Path] = []
        self._finished: list[str] = []
        remove_temporaries(found.folder)
        remove_temporaries(paths.preds_path)
        if self._classes.size:
            claim_predictions(paths.preds_path, {"embeddings": found.folder.name})
        self._journal = Journal(found.folder)
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="bacpipe-writer")

    def add(
        self, source: Source, embeddings: np.ndarray, predictions: SparsePredictions | None
    ) -> None:
        """Take the next windows of a recording, in order."""
        entry = self._entry(source)
        if predictions is not None:
            first = entry.embeddings.windows
            entry.predictions.append(predictions._replace(window=predictions.window + first))
        entry.embeddings.append(embeddings)

    def finish(self, source: Source, end: StreamEnd) -> None:
        """Complete a recording."""
        entry = self._entry(source)
        del self._open[source.name]
        self._submit(self._commit, source, entry, end)

    def fail(self, source: Source, reason: str) -> None:
        """Record that a recording could not be embedded."""
        entry = self._open.pop(source.name, None)
        if entry is not None:
            entry.embeddings.discard()
        line = {"file": source.name, "status": "failed", "reason": reason}
        if self._set.content.recordings.get(source.name) != line:
            self._submit(self._journal.append, line)

    def classify(self, source: Source, predictions: SparsePredictions) -> None:
        """Store new predictions of a recording whose embeddings are there already."""
        line = dict(self._set.content.recordings[source.name])
        self._submit(self._commit_predictions, line, predictions)

    def mark(self, names: Sequence[str], status: str) -> None:
        """Give recordings of the journal another status, and keep the rest of their lines."""
        for name in names:
            line = {**self._set.content.recordings[name], "status": status}
            self._submit(self._journal.append, line)

    def close(self) -> None:
        """Write what waits, drop what is incomplete, and close the journal."""
        try:
            while self._waiting:
                self._waiting.popleft().result()
        finally:
            self._writer.shutdown(wait=True)
            for entry in self._open.values():
                entry.embeddings.discard()
            self._open.clear()
            self._journal.close()
            self._set.reload()

    def discard_run(self) -> None:
        """Delete what this run wrote, after `close`."""
        for path in self._written:
            path.unlink(missing_ok=True)
        if set(self._finished) >= set(self._set.content.done):
            shutil.rmtree(self._set.folder)
            return
        journal = Journal(self._set.folder)
        for name in self._finished:
            journal.append({"file": name, "status": "discarded"})
        journal.close()
        self._set.reload()

    def _entry(self, source: Source) -> _Open:
        if source.name not in self._open:
            path = self._set.folder / f"{self._stems[source.name]}_{self._model}.npy"
            self._open[source.name] = _Open(path)
        return self._open[source.name]

    def _submit(self, function: Any, *arguments: Any) -> None:
        self._waiting.append(self._writer.submit(function, *arguments))
        # A full disk must stop the run, not only the writer.
        while self._waiting and (len(self._waiting) > _BACKLOG or self._waiting[0].done()):
            self._waiting.popleft().result()

    def _commit(self, source: Source, entry: _Open, end: StreamEnd) -> None:
        written = entry.embeddings.commit()
        self._written.append(entry.embeddings.path)
        line = {
            "file": source.name,
            "status": "done",
            "size": source.size,
            "mtime_ns": source.mtime_ns,
            "duration": end.duration,
            "windows": entry.embeddings.windows,
            "padded": end.padded,
            "truncated": end.truncated,
            "segments": end.segments,
            "segments_hash": source.segments_hash,
            "embeddings": {
                "path": entry.embeddings.path.relative_to(self._set.folder).as_posix(),
                **written,
            },
            "predictions": None,
        }
        if self._classes.size:
            self._commit_predictions(line, SparsePredictions.join(entry.predictions))
        else:
            self._journal.append(line)
        self._finished.append(source.name)

    def _commit_predictions(self, line: dict[str, Any], predictions: SparsePredictions) -> None:
        name: str | None = f"{self._stems[line['file']]}_{self._model}.parquet"
        path = self._paths.sparse_predictions_path / str(name)
        if len(predictions.window):
            size = write_predictions(path, predictions, self._classes, self._provenance)
            self._written.append(path)
        else:
            # The journal says that there are none; most short recordings hold nothing.
            path.unlink(missing_ok=True)
            name, size = None, 0
        line["status"] = "done"
        line["predictions"] = {"path": name, "bytes": size, **self._prediction_settings}
        self._journal.append(line)


def save_embeddings(loader: Loader, name: str, embeddings: np.ndarray) -> tuple[EmbeddingSet, Path]:
    """Store embeddings that were computed elsewhere (`Loader.save_embedding_file`)."""
    model = loader.model_name or "none"
    parent = loader.paths.main_embeds_path
    with exclusive(parent, model):
        found = loader.embedding_set or create_set(
            parent,
            model,
            dataset_name(loader.audio_dir),
            {"model": model, **settings_identity(loader.options)},
            {},
        )
        source = look_at(loader.audio_dir / name, loader.audio_dir)
        sink = RunSink(
            found,
            loader.paths,
            model,
            [*loader.stems(), name],
            prediction_settings=prediction_settings(loader.options),
            provenance={},
        )
        try:
            sink.add(source, embeddings, None)
            sink.finish(source, StreamEnd(duration=0.0, padded=0))
        finally:
            sink.close()
    return found, found.embedding_path(found.content.done[name])
