"""Write the results of a run: one recording after the other, each at once and completely.

For each recording the embeddings grow in memory or in a temporary file.  When its last window
has arrived, the predictions are written to one, too; then both are renamed into place, and the
journal gets the recording's line; only the line makes it count as done.  Recordings that finish
while the disk is busy with earlier ones are written together, because waiting for the disk takes
as long for one file as for many.

Failure policy: what the disk refuses of one recording alone (its name, its size) is the failure of
that recording; what concerns all, such as a full disk, ends the run, and what was finished is kept.
"""

from __future__ import annotations

import errno
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from bacpipe.errors import ResultsLockedError, StorageError, counted, unexpected
from bacpipe.store.claims import Claim
from bacpipe.store.embedding_set import LEAST_HEARD, EmbeddingSet, heard_windows
from bacpipe.store.entries import (
    DONE,
    FinishedEntry,
    PredictionSettings,
    StoredEmbeddings,
    StoredPredictions,
)
from bacpipe.store.files import (
    EmbeddingFile,
    StagedFile,
    check_lengths,
    concerns_one_file,
    remove_empty_folders,
    remove_temporaries,
    remove_temporaries_of,
)
from bacpipe.store.journal import FileKind, FolderGoneError, RunJournal
from bacpipe.store.layout import (
    SOURCE,
    SPARSE_PREDICTIONS,
    ResultPaths,
    Stems,
    embeddings_name,
    path_inside,
    predictions_name,
)
from bacpipe.store.plan import Part, Source, StreamEnd
from bacpipe.store.predictions import (
    PredictionFiles,
    RecentPredictions,
    SparsePredictions,
    bring_forward,
    predictions_source,
    with_best_below,
)

logger = logging.getLogger(__name__)

# Recordings that may wait for the disk before the run waits for it too.
_BACKLOG = 32
# Recordings that are written together: a kill costs all of those that wait for the disk.
_TOGETHER = 8


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
    entry : FinishedEntry
        For the journal; complete but for what is known only of written files.
    predictions : SparsePredictions
        What was found; only detections, once they are written.
    embeddings : EmbeddingFile or None
        None if they have been there before.
    table : StagedFile or None
        The predictions, once they are written.
    table_hash : str or None
        Hash of `table`.
    """

    entry: FinishedEntry
    predictions: SparsePredictions
    embeddings: EmbeddingFile | None = None
    table: StagedFile | None = None
    table_hash: str | None = None

    def begin_sync(self) -> None:
        for file in (self.embeddings, self.table):
            if file is not None:
                file.begin_sync()

    def wait(self) -> None:
        for file in (self.embeddings, self.table):
            if file is not None:
                file.wait()

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


class ResultWriter:
    """Writes the results of one run; the caller holds the lock.

    Parameters
    ----------
    embedding_set : EmbeddingSet
        The set that receives them.
    paths : ResultPaths
        Folders of the results.
    model : str
        Name of the model.
    recordings : sequence of str
        All recordings of the data set, which decide the names of the files.
    classes : sequence of str
        Names of the classes; empty when no predictions are stored.
    prediction_settings : PredictionSettings
        Threshold and number per window, as the journal records them.
    provenance : mapping
        Kept with every table of predictions.
    part : Part, optional
        The recordings are this part of the data set; others work on other parts meanwhile.
    claim : Claim, optional
        What gives the right to, as long as nobody else has taken it over.

    Attributes
    ----------
    unwritten : dict
        Reason by recording, of recordings whose results could not be written although those of
        others could; complete after `close`.
    recent : RecentPredictions
        Those that were written last.
    bytes_written, bytes_read : int
        Size of the results that are written, and of the recordings that they are of.
    seconds_written, seconds_waited : float
        How long the thread that writes has worked, and how long the run has waited for it.
    """

    def __init__(
        self,
        embedding_set: EmbeddingSet,
        paths: ResultPaths,
        model: str,
        recordings: Sequence[str],
        *,
        classes: Sequence[str] = (),
        prediction_settings: PredictionSettings,
        provenance: Mapping[str, object],
        part: Part | None = None,
        claim: Claim | None = None,
    ) -> None:
        self._part, self._claim = part, claim
        self._set = embedding_set
        self._paths = paths
        self._model = model
        self._stems = Stems(recordings) if part is None else Stems.given(part.unusual_stems)
        self._classes = np.asarray(classes, dtype=object)
        self._prediction_settings = prediction_settings
        self._threshold = prediction_settings["threshold"] or 0.0
        self._files = (
            PredictionFiles(self._classes, provenance, self._threshold)
            if self._classes.size
            else None
        )
        self.recent = RecentPredictions(classes)
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
        self._unheard = 0
        self._is_new = not embedding_set.content.recordings
        check_lengths(embedding_set.folder, map(self._embeddings_name, recordings))
        if self._classes.size:
            check_lengths(paths.sparse_predictions_path, map(self._predictions_name, recordings))
        self._remove_temporaries(embedding_set.folder, recordings, self._embeddings_name)
        self._journal = self._open_journal()
        self._before = predictions_source(paths.preds_path)
        if self._classes.size and not bring_forward(paths.preds_path, embedding_set.folder.name):
            # Files of another set may happen to have the size that our journal names.
            self._journal.drop_all_predictions()
        if part is None:
            remove_temporaries(paths.preds_path)
        else:
            folder = paths.sparse_predictions_path
            self._remove_temporaries(folder, recordings, self._predictions_name)
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="bacpipe-writer")

    def _open_journal(self) -> RunJournal:
        folder, content = self._set.folder, self._set.content
        if self._part is None:
            return RunJournal(folder, content.recordings)
        return RunJournal(folder, content.recordings, self._part.journal, content.header)

    def _remove_temporaries(
        self, folder: Path, recordings: Sequence[str], name_of: Callable[[str], str]
    ) -> None:
        """Remove what a killed run left, but nothing that others are writing now."""
        if self._part is None:
            remove_temporaries(folder)
        else:
            remove_temporaries_of([folder / name_of(name) for name in recordings])

    def _check(self) -> None:
        """Make sure that nobody has moved the results or taken over this part of them."""
        self._journal.check()
        if self._claim is not None:
            self._claim.check()

    @property
    def classes(self) -> list[str]:
        """Names of the classes; empty when no predictions are stored."""
        names: list[str] = self._classes.tolist()
        return names

    def add(
        self, source: Source, embeddings: np.ndarray, predictions: SparsePredictions | None
    ) -> None:
        """Take the next windows of a recording, in order."""
        arriving = self._arriving(source)
        if predictions is not None:
            first = arriving.embeddings.windows
            arriving.predictions.append(predictions._replace(window=predictions.window + first))
        arriving.embeddings.append(embeddings)

    def finish(self, source: Source, end: StreamEnd) -> None:
        """Complete a recording."""
        arriving = self._arriving(source)
        del self._open[source.name]
        size, mtime_ns, fingerprint = end.read or (source.size, source.mtime_ns, None)
        entry = FinishedEntry(
            source.name,
            DONE,
            size,
            mtime_ns,
            end.duration,
            arriving.embeddings.windows,
            end.padded,
            end.truncated,
            None if end.segments is None else tuple(end.segments),
            source.segments_hash,
            StoredEmbeddings(self._embeddings_name(source.name), 0, 0),
            None,
            fingerprint=fingerprint,
        )
        predictions = self._to_store(
            entry, SparsePredictions.join(arriving.predictions), arriving.embeddings.dim
        )
        self._submit(_Result(entry, predictions, arriving.embeddings))

    def replace(self, source: Source, embeddings: np.ndarray) -> None:
        """Give a recording that is done other embeddings; what is known of it stays.

        Its predictions are those of the former ones, and are dropped.
        """
        entry = self._set.content.recordings.finished(source.name)
        assert entry is not None
        file = self._arriving(source).embeddings
        del self._open[source.name]
        file.append(embeddings)
        stored = StoredEmbeddings(self._embeddings_name(source.name), 0, 0)
        entry = replace(entry, status=DONE, embeddings=stored, predictions=None)
        self._submit(_Result(entry, SparsePredictions.join([]), file))

    def fail(self, source: Source, reason: str) -> None:
        """Record that a recording could not be embedded."""
        arriving = self._open.pop(source.name, None)
        if arriving is not None:
            arriving.embeddings.discard()
        self._submit(partial(self._journal.append_failure, source.name, reason))

    def classify(self, source: Source, predictions: SparsePredictions) -> None:
        """Store new predictions of a recording whose embeddings are there already."""
        entry = self._set.content.recordings.finished(source.name)
        assert entry is not None
        kept = self._to_store(entry, predictions, entry.embeddings.dim)
        self._submit(_Result(entry.with_status(DONE), kept))

    def _to_store(
        self, entry: FinishedEntry, predictions: SparsePredictions, dim: int
    ) -> SparsePredictions:
        """Those predictions that are stored: none of windows that are mostly padding."""
        if not self._classes.size:
            return predictions
        heard = heard_windows(entry, self._set.content.header)
        self._unheard += not heard.any()
        kept = heard[predictions.window]
        predictions = SparsePredictions(*(column[kept] for column in predictions))
        return with_best_below(predictions, self._threshold, 4 * entry.windows * dim)

    def mark(self, names: Sequence[str], status: str) -> None:
        """Give recordings that were finished another status."""
        for name in names:
            entry = self._set.content.recordings.finished(name)
            assert entry is not None
            self._submit(partial(self._journal.append, entry.with_status(status)))

    def close(self) -> None:
        """Write what waits, drop what is incomplete, and close the journal; once is enough."""
        if self._journal.closed:
            return
        try:
            self._finish_writing()
            self._journal.check()
        finally:
            self._writer.shutdown(wait=True)
            for arriving in self._open.values():
                arriving.embeddings.discard()
            self._open.clear()
            try:
                self._journal.close()
            finally:
                self._set.reload()
        if self._unheard:
            logger.warning(
                "%s: no predictions of %s shorter than %.0f %% of a window.",
                self._model,
                counted(self._unheard, "recording"),
                100 * LEAST_HEARD,
            )

    def discard_run(self) -> None:
        """Delete what this run wrote, and nothing else, after `close`."""
        # The journal first: a run that is killed here must not leave lines about missing files.
        journal = self._open_journal()
        for name in self._finished:
            journal.discard(name)
        for name in set(self._classified) - set(self._finished):
            journal.drop_predictions(name)
        journal.close()
        for name in self._embedded:
            (self._set.folder / self._embeddings_name(name)).unlink(missing_ok=True)
        for name in self._predicted:
            path = self._paths.sparse_predictions_path / self._predictions_name(name)
            path.unlink(missing_ok=True)
        if self._is_new:
            journal.path.unlink()
        preds = self._paths.preds_path
        if self._part is not None:
            return  # others may be about to write there
        if not any((preds / SPARSE_PREDICTIONS).rglob("*.parquet")):
            (preds / SOURCE).unlink(missing_ok=True)
        remove_empty_folders(preds)
        if self._before is not None:
            bring_forward(preds, self._before)
        remove_empty_folders(self._set.folder)
        if self._set.folder.is_dir():
            self._set.reload()

    def _arriving(self, source: Source) -> _Open:
        if source.name not in self._open:
            name = self._embeddings_name(source.name)
            path = path_inside(self._set.folder, name, what="a link")
            self._open[source.name] = _Open(path)
        return self._open[source.name]

    def _embeddings_name(self, recording: str) -> str:
        return embeddings_name(self._stems.of(recording), self._model)

    def _predictions_name(self, recording: str) -> str:
        return predictions_name(self._stems.of(recording), self._model)

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
            if self._turn.done():  # and not Ctrl-C, while it still writes
                self._turn = self._writer.submit(self._work) if self._jobs else None
        if errors:
            raise errors[0]

    def _work(self) -> None:
        while True:
            with self._lock:
                jobs = [self._jobs.popleft() for _ in range(min(len(self._jobs), _TOGETHER))]
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
        # Names come after: the disk has less to do for each file while nothing else changes on it.
        ready: set[int] = set()
        for result in staged:
            with _kept(errors):
                if self._attempt(result, _Result.wait):
                    ready.add(id(result))
        for job in jobs:
            with _kept(errors):
                if not isinstance(job, _Result):
                    self._check()
                    job()
                elif id(job) in ready:
                    self._attempt(job, self._commit)
        if errors:
            raise errors[0]

    def _attempt(self, result: _Result, function: Callable[[_Result], None]) -> bool:
        """Write results of one recording; what goes wrong with these alone is its failure."""
        done, name = False, result.entry.file
        try:
            function(result)
            done = True
            return True
        except (ResultsLockedError, FolderGoneError):
            raise
        except StorageError as error:
            if not concerns_one_file(error):
                self._check()
                if error.errno == errno.ENOENT:  # the journal goes last
                    raise FolderGoneError(self._set.folder) from error
                raise
            reason = str(error)
        except Exception as error:
            # A fault of ours in one recording must not cost the user all the others.
            logger.exception("%s: unexpected error while writing", name)
            reason = unexpected(name, error)
        finally:
            if not done:
                result.discard()
        self.unwritten[name] = reason
        self._journal.append_failure(name, reason)
        return False

    def _stage(self, result: _Result) -> None:
        """Write files, which nobody sees yet."""
        if result.embeddings is not None:
            result.embeddings.stage()
        if self._files is not None and len(result.predictions.window):
            path = self._predictions_path(result.entry.file)
            staged = self._files.stage(path, result.predictions)
            result.table, result.table_hash, result.predictions = staged

    def _commit(self, result: _Result) -> None:
        self._check()
        entry, name = result.entry, result.entry.file
        before = self._journal.entries.finished(name)
        if result.embeddings is not None:
            path = entry.embeddings.path
            self._journal.replace_embeddings(name, path)
            size, sha256, dim = result.embeddings.commit()
            entry = replace(entry, embeddings=StoredEmbeddings(path, size, dim, sha256))
            self._embedded.append(name)
        if self._classes.size:
            entry = self._commit_predictions(entry, result)
        self._journal.append(entry)
        if self._classes.size:
            self._classified.append(name)
            if result.table_hash is not None:
                self.recent.keep(result.table_hash, result.predictions)
            folder = self._paths.sparse_predictions_path
            self._drop_superseded(before, "predictions", folder)
        if result.embeddings is not None:
            self._finished.append(name)
            self.bytes_read += max(entry.size or 0, 0)
            self.bytes_written += entry.embeddings.bytes
            if entry.predictions is not None:
                self.bytes_written += entry.predictions.bytes
            self._drop_superseded(before, "embeddings", self._set.folder)

    def _commit_predictions(self, entry: FinishedEntry, result: _Result) -> FinishedEntry:
        """Put a recording's predictions in place; returns its entry with these."""
        name: str | None = self._predictions_name(entry.file)
        self._journal.replace_predictions(entry.file, str(name))
        size = 0
        if result.table is not None:
            table, result.table = result.table, None
            table.commit()
            size = table.size
            self._predicted.append(entry.file)
        else:
            # The journal says that there are none; most short recordings hold nothing.
            self._predictions_path(entry.file).unlink(missing_ok=True)
            name = None
        stored = StoredPredictions(name, size, result.table_hash, **self._prediction_settings)
        return replace(entry, predictions=stored)

    def _predictions_path(self, recording: str) -> Path:
        name = self._predictions_name(recording)
        return path_inside(self._paths.sparse_predictions_path, name, what="a link")

    def _drop_superseded(self, before: FinishedEntry | None, kind: FileKind, folder: Path) -> None:
        """Delete the earlier file of a recording whose results have moved to another name."""
        path = self._journal.superseded(before, kind)
        if path is not None:
            path_inside(folder, path, what="the journal").unlink(missing_ok=True)
