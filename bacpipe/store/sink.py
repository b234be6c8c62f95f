"""Where a run's results go: one recording after the other, each at once and completely.

For each recording the embeddings grow in a temporary file.  When its last window has
arrived, the embeddings are renamed into place, then the predictions are written, then the
journal gets its line; only the line makes the recording count as done.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bacpipe.errors import StorageError, unexpected
from bacpipe.store.identity import prediction_settings, settings_identity
from bacpipe.store.layout import ResultPaths, dataset_name, path_inside, result_stems
from bacpipe.store.ledger import Ledger
from bacpipe.store.lock import exclusive
from bacpipe.store.plan import Source, look_at
from bacpipe.store.predictions import (
    SparsePredictions,
    claim_predictions,
    predictions_source,
    write_predictions,
)
from bacpipe.store.sets import EmbeddingSet, create_set
from bacpipe.store.storage import concerns_one_file
from bacpipe.store.writer import EmbeddingFile, remove_empty_folders, remove_temporaries

if TYPE_CHECKING:
    from bacpipe.store.loader import Loader

logger = logging.getLogger(__name__)

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
    read : (int, int) or None
        Size in bytes and modification time in ns of the file that was read, which may have
        been replaced since the run was planned; None for what was not read from a file.
    resampling : float
        Wall-clock seconds of the decoding that were spent on resampling.
    """

    duration: float
    padded: int
    truncated: float | None = None
    segments: list[tuple[float, float, int]] | None = None
    read: tuple[int, int] | None = None
    resampling: float = 0.0


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

    Attributes
    ----------
    unwritten : dict
        Reason by recording, of recordings whose results could not be written although those of
        others could; complete after `close`.
    bytes_written, bytes_read : int
        Size of the results that are written, and of the recordings that they are of.
    seconds_written, seconds_waited : float
        How long the thread that writes has worked, and how long the run has waited for it.
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
        self._written: list[str] = []  # a tenth of the memory that paths take
        self._finished: list[str] = []
        self.unwritten: dict[str, str] = {}
        self.bytes_written = self.bytes_read = 0
        self.seconds_written = self.seconds_waited = 0.0
        self._classified: list[str] = []
        self._is_new = not found.content.recordings
        remove_temporaries(found.folder)
        remove_temporaries(paths.preds_path)
        self._journal = Ledger(found.folder, found.content.recordings)
        if self._classes.size:
            self._claim_predictions()
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
        self._submit(self._attempt, source, self._commit, source, entry, end)

    def fail(self, source: Source, reason: str) -> None:
        """Record that a recording could not be embedded."""
        entry = self._open.pop(source.name, None)
        if entry is not None:
            entry.embeddings.discard()
        self._submit(self._append_failure, source.name, reason)

    def classify(self, source: Source, predictions: SparsePredictions) -> None:
        """Store new predictions of a recording whose embeddings are there already."""
        line = dict(self._set.content.recordings[source.name])
        self._submit(self._attempt, source, self._commit_predictions, line, predictions)

    def mark(self, names: Sequence[str], status: str) -> None:
        """Give recordings of the journal another status, and keep the rest of their lines."""
        for name in names:
            line = {**self._set.content.recordings[name], "status": status}
            self._submit(self._journal.append, line)

    def close(self) -> None:
        """Write what waits, drop what is incomplete, and close the journal; once is enough."""
        if self._journal.closed:
            return
        try:
            while self._waiting:
                self._waiting.popleft().result()
            self._journal.check()
        finally:
            self._writer.shutdown(wait=True)
            for entry in self._open.values():
                entry.embeddings.discard()
            self._open.clear()
            try:
                self._journal.close()
            finally:
                self._set.reload()

    def discard_run(self) -> None:
        """Delete what this run wrote, and nothing else, after `close`."""
        # The journal first: a run that is killed here must not leave lines about missing files.
        journal = Ledger(self._set.folder, self._set.content.recordings)
        for name in self._finished:
            journal.append({"file": name, "status": "discarded"})
        for name in set(self._classified) - set(self._finished):
            journal.append({**journal.lines[name], "predictions": None})
        journal.close()
        for path in self._written:
            Path(path).unlink(missing_ok=True)
        if self._is_new:
            journal.path.unlink()
        remove_empty_folders(self._paths.preds_path)
        remove_empty_folders(self._set.folder)
        if self._set.folder.is_dir():
            self._set.reload()

    def _claim_predictions(self) -> None:
        """Say whose the predictions on disk are from here on."""
        claim = {"embeddings": self._set.folder.name}
        if predictions_source(self._paths.preds_path) != claim:
            # Files of the other set may happen to have the size that our journal names.
            self._journal.forget_predictions()
            claim_predictions(self._paths.preds_path, claim)

    def _entry(self, source: Source) -> _Open:
        if source.name not in self._open:
            name = f"{self._stems[source.name]}_{self._model}.npy"
            path = path_inside(self._set.folder, name, what="a link")
            self._open[source.name] = _Open(path)
        return self._open[source.name]

    def _submit(self, function: Any, *arguments: Any) -> None:
        self._waiting.append(self._writer.submit(self._timed, function, *arguments))
        # A full disk must stop the run, not only the writer.
        while self._waiting and (len(self._waiting) > _BACKLOG or self._waiting[0].done()):
            started = time.perf_counter()
            self._waiting.popleft().result()
            self.seconds_waited += time.perf_counter() - started

    def _timed(self, function: Any, *arguments: Any) -> None:
        started = time.perf_counter()
        try:
            function(*arguments)
        finally:
            self.seconds_written += time.perf_counter() - started

    def _attempt(self, source: Source, function: Any, *arguments: Any) -> None:
        """Write the results of one recording; what goes wrong with these alone is its failure."""
        self._journal.check()
        try:
            function(*arguments)
        except StorageError as error:
            if not concerns_one_file(error):
                self._journal.check()
                raise
            reason = str(error)
        except Exception as error:
            # A fault of ours in one recording must not cost the user all the others.
            logger.exception("%s: unexpected error while writing", source.name)
            reason = unexpected(source.name, error)
        else:
            return
        self.unwritten[source.name] = reason
        self._append_failure(source.name, reason)

    def _append_failure(self, name: str, reason: str) -> None:
        line = {"file": name, "status": "failed", "reason": reason}
        if self._journal.lines.get(name) != line:
            self._journal.append(line)

    def _commit(self, source: Source, entry: _Open, end: StreamEnd) -> None:
        before = self._journal.lines.get(source.name)
        path = entry.embeddings.path.relative_to(self._set.folder).as_posix()
        self._journal.replace_embeddings(source.name, path)
        written = entry.embeddings.commit()
        size, mtime_ns = end.read or (source.size, source.mtime_ns)
        self._written.append(str(entry.embeddings.path))
        line: dict[str, Any] = {
            "file": source.name,
            "status": "done",
            "size": size,
            "mtime_ns": mtime_ns,
            "duration": end.duration,
            "windows": entry.embeddings.windows,
            "padded": end.padded,
            "truncated": end.truncated,
            "segments": end.segments,
            "segments_hash": source.segments_hash,
            "embeddings": {"path": path, **written},
            "predictions": None,
        }
        if self._classes.size:
            self._commit_predictions(line, SparsePredictions.join(entry.predictions), before)
        else:
            self._journal.append(line)
        self._finished.append(source.name)
        self._drop_superseded(source.name, before, "embeddings", self._set.folder)
        self.bytes_read += max(source.size, 0)
        self.bytes_written += written["bytes"] + (line["predictions"] or {}).get("bytes", 0)

    def _commit_predictions(
        self,
        line: dict[str, Any],
        predictions: SparsePredictions,
        before: Mapping[str, Any] | None = None,
    ) -> None:
        name: str | None = f"{self._stems[line['file']]}_{self._model}.parquet"
        path = path_inside(self._paths.sparse_predictions_path, str(name), what="a link")
        before = before or self._journal.lines.get(line["file"])
        self._journal.replace_predictions(line["file"], str(name))
        if len(predictions.window):
            stored = write_predictions(path, predictions, self._classes, self._provenance)
            self._written.append(str(path))
        else:
            # The journal says that there are none; most short recordings hold nothing.
            path.unlink(missing_ok=True)
            name, stored = None, {"bytes": 0}
        line["status"] = "done"
        line["predictions"] = {"path": name, **stored, **self._prediction_settings}
        self._journal.append(line)
        self._classified.append(line["file"])
        folder = self._paths.sparse_predictions_path
        self._drop_superseded(line["file"], before, "predictions", folder)

    def _drop_superseded(
        self, name: str, before: Mapping[str, Any] | None, what: str, folder: Path
    ) -> None:
        """Delete the earlier file of a recording whose results have moved to another name."""
        path = self._journal.superseded(before, what, name)
        if path is not None:
            path_inside(folder, path, what="the journal").unlink(missing_ok=True)


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
            list(dict.fromkeys([*loader.stems(), name])),
            prediction_settings=prediction_settings(loader.options),
            provenance={},
        )
        try:
            sink.add(source, embeddings, None)
            sink.finish(source, StreamEnd(duration=0.0, padded=0))
        finally:
            sink.close()
    return found, found.embedding_path(found.content.done[name])
