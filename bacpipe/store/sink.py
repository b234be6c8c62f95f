"""Where a run's results go: one recording after the other, each at once and completely.

For each recording the embeddings grow in memory or in a temporary file.  When its last window
has arrived, the predictions are written to one, too; then both are renamed into place, and the
journal gets the recording's line; only the line makes it count as done.  Recordings that finish
while the disk is busy with earlier ones are written together, because waiting for the disk takes
as long for one file as for many.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bacpipe.errors import StorageError, unexpected
from bacpipe.store.embedding_set import (
    EmbeddingSet,
    create_set,
    prediction_settings,
    settings_identity,
)
from bacpipe.store.files import (
    EmbeddingFile,
    StagedFile,
    concerns_one_file,
    remove_empty_folders,
    remove_temporaries,
)
from bacpipe.store.journal import Ledger
from bacpipe.store.layout import ResultPaths, Stems, dataset_name, path_inside
from bacpipe.store.lock import exclusive
from bacpipe.store.plan import Source, look_at
from bacpipe.store.predictions import (
    SparsePredictions,
    claim_predictions,
    predictions_source,
    stage_predictions,
)

if TYPE_CHECKING:
    from bacpipe.store.loader import Loader

logger = logging.getLogger(__name__)

# Recordings that may wait for the disk before the run waits for it too, and that are written
# together.
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


@dataclass
class _Result:
    """Results of one recording, on their way to the disk.

    Attributes
    ----------
    name : str
        Of the recording.
    line : dict
        For the journal; complete but for what is known only of written files.
    predictions : SparsePredictions
        What was found.
    embeddings : EmbeddingFile or None
        None if they have been there before.
    table : StagedFile or None
        The predictions, once they are written.
    stored : dict
        Size and hash of `table`.
    """

    name: str
    line: dict[str, Any]
    predictions: SparsePredictions
    embeddings: EmbeddingFile | None = None
    table: StagedFile | None = None
    stored: dict[str, Any] = field(default_factory=lambda: {"bytes": 0})

    def begin_sync(self) -> None:
        for file in (self.embeddings, self.table):
            if file is not None:
                file.begin_sync()

    def discard(self) -> None:
        if self.embeddings is not None:
            self.embeddings.discard()
        if self.table is not None:
            self.table.discard()
            self.table = None


@contextmanager
def _kept(errors: list[BaseException]) -> Iterator[None]:
    """Keep the error of a block for later."""
    try:
        yield
    except BaseException as error:
        errors.append(error)


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
        self._stems = Stems(recordings)
        self._classes = np.asarray(classes, dtype=object)
        self._prediction_settings = dict(prediction_settings)
        self._provenance = dict(provenance)
        self._open: dict[str, _Open] = {}
        self._jobs: deque[_Result | Callable[[], None]] = deque()
        self._working = False
        self._lock = threading.Lock()
        self._turn: Future[None] | None = None
        # Names, which are there anyway; paths would take a third of a kilobyte for a recording.
        self._embedded: list[str] = []
        self._predicted: list[str] = []
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
        size, mtime_ns = end.read or (source.size, source.mtime_ns)
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
            "embeddings": None,
            "predictions": None,
        }
        predictions = SparsePredictions.join(entry.predictions)
        self._submit(_Result(source.name, line, predictions, entry.embeddings))

    def fail(self, source: Source, reason: str) -> None:
        """Record that a recording could not be embedded."""
        entry = self._open.pop(source.name, None)
        if entry is not None:
            entry.embeddings.discard()
        self._submit(partial(self._append_failure, source.name, reason))

    def classify(self, source: Source, predictions: SparsePredictions) -> None:
        """Store new predictions of a recording whose embeddings are there already."""
        line = dict(self._set.content.recordings[source.name])
        self._submit(_Result(source.name, line, predictions))

    def mark(self, names: Sequence[str], status: str) -> None:
        """Give recordings of the journal another status, and keep the rest of their lines."""
        for name in names:
            line = {**self._set.content.recordings[name], "status": status}
            self._submit(partial(self._journal.append, line))

    def close(self) -> None:
        """Write what waits, drop what is incomplete, and close the journal; once is enough."""
        if self._journal.closed:
            return
        try:
            self._finish_writing()
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
        for name in self._embedded:
            (self._set.folder / self._file_name(name, "npy")).unlink(missing_ok=True)
        for name in self._predicted:
            path = self._paths.sparse_predictions_path / self._file_name(name, "parquet")
            path.unlink(missing_ok=True)
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
            name = self._file_name(source.name, "npy")
            path = path_inside(self._set.folder, name, what="a link")
            self._open[source.name] = _Open(path)
        return self._open[source.name]

    def _file_name(self, recording: str, suffix: str) -> str:
        return f"{self._stems.of(recording)}_{self._model}.{suffix}"

    # ------------------------------------------------------------------ the thread that writes

    def _submit(self, job: _Result | Callable[[], None]) -> None:
        with self._lock:
            self._jobs.append(job)
            idle, self._working = not self._working, True
        if idle:
            self._wait()
            self._turn = self._writer.submit(self._work)
        elif len(self._jobs) > _BACKLOG:
            self._wait()

    def _wait(self) -> None:
        """Wait until nothing is left to write; a full disk must stop the run, too."""
        started = time.perf_counter()
        if self._turn is not None:
            self._turn.result()
        self.seconds_waited += time.perf_counter() - started

    def _finish_writing(self) -> None:
        """Write all that waits, even if the disk has refused something of it."""
        errors: list[BaseException] = []
        while self._turn is not None:
            with _kept(errors):
                self._turn.result()
            self._turn = self._writer.submit(self._work) if self._jobs else None
        if errors:
            raise errors[0]

    def _work(self) -> None:
        while True:
            with self._lock:
                jobs = [self._jobs.popleft() for _ in range(min(len(self._jobs), _BACKLOG))]
                self._working = bool(jobs)
            if not jobs:
                return
            started = time.perf_counter()
            try:
                self._write(jobs)
            except BaseException:
                with self._lock:
                    self._working = False
                raise
            finally:
                self.seconds_written += time.perf_counter() - started

    def _write(self, jobs: Sequence[_Result | Callable[[], None]]) -> None:
        """Do some jobs in order; all are tried before an error is raised."""
        errors: list[BaseException] = []
        staged: list[_Result] = []
        for job in jobs:
            with _kept(errors):
                if isinstance(job, _Result) and self._attempt(job, self._stage):
                    staged.append(job)
        for result in staged:
            result.begin_sync()
        ready = {id(result) for result in staged}
        for job in jobs:
            with _kept(errors):
                if not isinstance(job, _Result):
                    job()
                elif id(job) in ready:
                    self._attempt(job, self._commit)
        if errors:
            raise errors[0]

    def _attempt(self, result: _Result, function: Callable[[_Result], None]) -> bool:
        """Write results of one recording; what goes wrong with these alone is its failure."""
        done = False
        try:
            function(result)
            done = True
            return True
        except StorageError as error:
            if not concerns_one_file(error):
                self._journal.check()
                raise
            reason = str(error)
        except Exception as error:
            # A fault of ours in one recording must not cost the user all the others.
            logger.exception("%s: unexpected error while writing", result.name)
            reason = unexpected(result.name, error)
        finally:
            if not done:
                result.discard()
        self.unwritten[result.name] = reason
        self._append_failure(result.name, reason)
        return False

    def _append_failure(self, name: str, reason: str) -> None:
        line = {"file": name, "status": "failed", "reason": reason}
        if self._journal.lines.get(name) != line:
            self._journal.append(line)

    def _stage(self, result: _Result) -> None:
        """Write files, which nobody sees yet."""
        if result.embeddings is not None:
            result.embeddings.stage()
        if len(result.predictions.window):
            path = self._predictions_path(result.name)
            result.table, result.stored = stage_predictions(
                path, result.predictions, self._classes, self._provenance
            )

    def _commit(self, result: _Result) -> None:
        self._journal.check()
        line, before = result.line, self._journal.lines.get(result.name)
        if result.embeddings is not None:
            path = result.embeddings.path.relative_to(self._set.folder).as_posix()
            self._journal.replace_embeddings(result.name, path)
            line["embeddings"] = {"path": path, **result.embeddings.commit()}
            self._embedded.append(result.name)
        if self._classes.size:
            self._commit_predictions(line, result, before)
        else:
            self._journal.append(line)
        if result.embeddings is not None:
            self._finished.append(result.name)
            self.bytes_read += max(line["size"], 0)
            self.bytes_written += line["embeddings"]["bytes"] + result.stored["bytes"]
            self._drop_superseded(result.name, before, "embeddings", self._set.folder)

    def _commit_predictions(
        self, line: dict[str, Any], result: _Result, before: Mapping[str, Any] | None
    ) -> None:
        name: str | None = self._file_name(result.name, "parquet")
        self._journal.replace_predictions(result.name, str(name))
        if result.table is not None:
            table, result.table = result.table, None
            table.commit()
            self._predicted.append(result.name)
        else:
            # The journal says that there are none; most short recordings hold nothing.
            self._predictions_path(result.name).unlink(missing_ok=True)
            name = None
        line["status"] = "done"
        line["predictions"] = {"path": name, **result.stored, **self._prediction_settings}
        self._journal.append(line)
        self._classified.append(result.name)
        folder = self._paths.sparse_predictions_path
        self._drop_superseded(result.name, before, "predictions", folder)

    def _predictions_path(self, recording: str) -> Path:
        name = self._file_name(recording, "parquet")
        return path_inside(self._paths.sparse_predictions_path, name, what="a link")

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
            list(dict.fromkeys([*loader.recording_names, name])),
            prediction_settings=prediction_settings(loader.options),
            provenance={},
        )
        try:
            sink.add(source, embeddings, None)
            sink.finish(source, StreamEnd(duration=0.0, padded=0))
        finally:
            sink.close()
    return found, found.embedding_path(found.content.done[name])
