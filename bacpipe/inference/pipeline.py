"""Recordings to results: threads that decode, the model, and whoever receives the results.

Threads decode recordings into windows; batches mix windows of all recordings that are open; the
model runs on them; results leave as recordings are complete.  What is in flight is bounded,
whatever the length or number of recordings.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from bacpipe.audio.stream import Samples
from bacpipe.errors import AudioError, BacpipeError, unexpected
from bacpipe.inference.batches import (
    MOMENT,
    Batch,
    BatchBuffer,
    BufferClosedError,
    Ended,
    Failure,
    Rows,
)
from bacpipe.inference.report import RunProgress, RunReport, printable
from bacpipe.inference.runner import (
    BatchResult,
    ModelRunner,
    first_invalid,
    limited_threads,
)
from bacpipe.machine import available_cores
from bacpipe.store.plan import Source, StreamEnd
from bacpipe.store.predictions import SparsePredictions

logger = logging.getLogger(__name__)

Decode = Callable[[Source], Generator[Samples, None, StreamEnd]]
"""Decodes one recording: yields windows, float32 of shape (n, samples), and returns its end."""

DecodeForAll = Callable[[Source], Generator[tuple[int, Samples], None, Sequence[StreamEnd | None]]]
"""Does so for several who take it: yields for which of them, too, and returns an end for each."""


class ResultReceiver(Protocol):
    """Takes the results of a run, recording after recording."""

    def add(
        self,
        source: Source,
        embeddings: NDArray[np.float32],
        predictions: Any,  # noqa: ANN401  # sparse or dense, as the runner was asked for
    ) -> None:
        """Take the next windows of a recording, float32 of shape (n, dim)."""

    def finish(self, source: Source, end: StreamEnd) -> None:
        """Complete a recording."""

    def fail(self, source: Source, reason: str) -> None:
        """Drop a recording."""


class Crew(Protocol):
    """Who decodes for a run in threads, and when the run may compute."""

    def decoding(
        self, buffer: BatchBuffer, sources: Sequence[Source], report: RunReport
    ) -> AbstractContextManager[None]:
        """Fill a buffer with the recordings, numbered in their order, while the block lasts.

        At its end the buffer is closed, and nobody puts anything into it any more.
        """

    def computing(self, threads: int) -> AbstractContextManager[None]:
        """Wait for the turn to compute a batch with so many threads."""


class Outcome(NamedTuple):
    """Results of some rows of a batch, and perhaps of others: these begin at `row`."""

    result: BatchResult
    row: int


class Workload(NamedTuple):
    """How many things happen at once.

    Attributes
    ----------
    batch_size : int
        Windows per batch.
    workers : int
        Batches computed at the same time.
    decoders : int
        Recordings decoded at the same time; 0 decodes and computes by turns, without threads.
    """

    batch_size: int
    workers: int
    decoders: int


def run(
    sources: Sequence[Source],
    decode: Decode,
    runner: ModelRunner,
    receiver: ResultReceiver,
    workload: Workload,
    report: RunReport,
    progress: RunProgress | None = None,
    *,
    isolate: bool = True,
    crew: Crew | None = None,
) -> None:
    """Embed recordings.

    Parameters
    ----------
    sources : sequence of Source
        What to embed, begun in this order.  Several are open at a time: the receiver gets the
        windows of each in order, but those of others in between.
    decode : callable
        See `Decode`.  An `AudioError` or `OSError` makes the recording a failure; the run
        goes on.
    runner : ModelRunner
        The model.
    receiver : ResultReceiver
        Takes the results, in this thread.
    workload : Workload
        How many things happen at once.
    report : RunReport
        Is filled in.
    progress : RunProgress, optional
        Is advanced by every recording.
    isolate : bool
        Whether an error of the model makes only those recordings failures whose windows it
        cannot do; False raises it.
    crew : Crew, optional
        Who decodes, if not threads of this run alone; runs without threads decode by themselves.

    Raises
    ------
    BacpipeError
        If the model fails whatever it is given.
    """
    started, preprocessed = time.perf_counter(), runner.preprocess_seconds
    decoders = min(workload.decoders, len(sources))
    report.threads = {"decoders": decoders, "workers": workload.workers, "writers": 1}
    report.device, report.cores = runner.computes_on, available_cores()
    report.gpu_here = torch.cuda.is_available()
    delivery = _Delivery(sources, receiver, report, progress)
    compute = _Computer(runner, report, [source.name for source in sources], isolate=isolate)
    try:
        if workload.decoders:
            _run_in_threads(sources, crew or _OwnCrew(decode), compute, workload, delivery, report)
        else:
            for batch in _decode_by_turns(sources, decode, workload.batch_size, report):
                delivery(batch, compute(batch))
    finally:
        report.wall_seconds += time.perf_counter() - started
        report.add_time("preprocess", runner.preprocess_seconds - preprocessed)
        report.add_time("model", preprocessed - runner.preprocess_seconds)


def _run_in_threads(
    sources: Sequence[Source],
    crew: Crew,
    compute: _Computer,
    workload: Workload,
    delivery: _Delivery,
    report: RunReport,
) -> None:
    in_flight, ahead = workload.workers, max(1, workload.workers // 2)
    buffer = BatchBuffer(
        len(sources),
        workload.batch_size,
        most=in_flight + ahead + 2,  # one is delivered and one filled meanwhile
        ahead=ahead,
        allocate=compute.allocate,
    )
    waiting: deque[tuple[Batch, Future[list[Outcome | Failure]]]] = deque()
    with limited_threads(workload.workers) as threads:

        def compute_in_turn(batch: Batch) -> list[Outcome | Failure]:
            with crew.computing(threads):
                return compute(batch)

        pool = ThreadPoolExecutor(
            workload.workers,
            thread_name_prefix="bacpipe-model",
            # PyTorch keeps the number of threads for each calling thread.
            initializer=torch.set_num_threads,
            initargs=(threads,),
        )
        try:
            with crew.decoding(buffer, sources, report):
                for batch in buffer:
                    waiting.append((batch, pool.submit(compute_in_turn, batch)))
                    while len(waiting) > in_flight or (waiting and waiting[0][1].done()):
                        first, future = waiting[0]
                        delivery(first, future.result())
                        waiting.popleft()
                        buffer.release(first)
                for first, future in waiting:
                    delivery(first, future.result())
        finally:
            end(pool, [future for _, future in waiting])


class _OwnCrew:
    """Threads that decode for one run, which computes whenever it likes."""

    def __init__(self, decode: Decode) -> None:
        self._decode = decode

    @contextmanager
    def decoding(
        self, buffer: BatchBuffer, sources: Sequence[Source], report: RunReport
    ) -> Iterator[None]:
        def produce() -> None:
            while (number := buffer.claim()) is not None:
                feed_all(sources[number], _alone(self._decode), [Target(buffer, number, report)])

        producers = report.threads["decoders"]
        with decoding_threads(producers, produce) as start:
            try:
                start()
                yield
            finally:
                buffer.close()
                report.blocked_seconds += buffer.seconds_blocked
                if buffer.ended_at is not None:
                    idle = time.perf_counter() - buffer.ended_at
                    report.blocked_seconds += producers * idle

    def computing(self, threads: int) -> AbstractContextManager[None]:
        return nullcontext()


@contextmanager
def decoding_threads(number: int, work: Callable[[], None]) -> Iterator[Callable[[], None]]:
    """What starts threads that decode, as many of them as this computer has left.

    The end of the block waits for their end, which whoever starts them has to bring about before.
    """
    pool = ThreadPoolExecutor(max(1, number), thread_name_prefix="bacpipe-decoder")
    running: list[Future[None]] = []

    def start() -> None:
        while len(running) < number:
            try:
                running.append(pool.submit(work))
                running[-1].add_done_callback(_say_what_ended_it)
            except RuntimeError:
                if not running:
                    raise
                logger.warning(
                    "This computer has no thread left; %d decode recordings.", len(running)
                )
                break

    try:
        yield start
    finally:
        end(pool, running)


def _say_what_ended_it(decoder: Future[None]) -> None:
    if not decoder.cancelled() and (error := decoder.exception()) is not None:
        logger.error("unexpected error in a thread that decodes", exc_info=error)


def end(pool: ThreadPoolExecutor, running: Sequence[Future[Any]]) -> None:
    """Begin nothing more, and wait for what runs.

    Threads are joined only when they do nothing any more.  Python before 3.13 takes one whose join
    is interrupted by Ctrl-C for ended, and does not wait for it at its own end: if it computes
    then, the process is aborted.
    """
    pool.shutdown(wait=False, cancel_futures=True)
    wait_for([future for future in running if not future.cancelled()])
    pool.shutdown(wait=True)


def wait_for(running: Sequence[Future[Any]]) -> None:
    """Wait for the end of what runs, whatever it is; Ctrl-C interrupts this."""
    while wait(running, MOMENT).not_done:
        pass


class Target(NamedTuple):
    """Who takes the windows of a recording: a buffer, its number there, and who counts."""

    buffer: BatchBuffer
    number: int
    report: RunReport


def feed_all(source: Source, decode: DecodeForAll, targets: Sequence[Target]) -> None:
    """Decode a recording into buffers, in a thread that nobody watches."""
    try:
        for _ in _feed(source, decode, targets):
            pass
    except BaseException as error:
        # Whatever ends this thread: somebody waits for the end of this recording.
        logger.exception("%s: unexpected error while decoding", source.name)
        for buffer, number, _ in targets:
            buffer.end(number, Ended(number, Failure(unexpected(source.name, error))))


def _feed(source: Source, decode: DecodeForAll, targets: Sequence[Target]) -> Iterator[None]:
    """Decode a recording into buffers, with a stop after each block; what goes wrong is an end."""
    blocks: Generator[tuple[int, Samples], None, Sequence[StreamEnd | None]] | None = None
    ends: Sequence[StreamEnd | Failure | None] | None = None
    taking, spent = set(range(len(targets))), 0.0
    while ends is None and taking:
        started = time.perf_counter()
        try:
            blocks = blocks or decode(source)
            which, windows = next(blocks)
        except StopIteration as stop:
            ends = stop.value
        except AudioError as error:
            ends = [Failure(str(error))] * len(targets)
        except OSError as error:
            reason = f"{source.name}: cannot be read ({error.strerror or error})"
            ends = [Failure(reason)] * len(targets)
        except Exception as error:
            # A fault of ours in one recording must not cost the user all the others.
            logger.exception("%s: unexpected error while decoding", source.name)
            ends = [Failure(unexpected(source.name, error))] * len(targets)
        finally:
            spent += time.perf_counter() - started
        if ends is None and which in taking:
            try:
                targets[which].buffer.put(targets[which].number, windows)
            except BufferClosedError:
                taking.discard(which)
            yield
    if blocks is not None:
        blocks.close()
    if ends is None:  # nobody is there any more
        return
    resampling = [end.resampling if isinstance(end, StreamEnd) else 0.0 for end in ends]
    decoding = (spent - sum(resampling)) / len(targets)
    for (buffer, number, report), end, resampled in zip(targets, ends, resampling, strict=True):
        report.add_time("decode", decoding)
        report.add_time("resample", resampled)
        silent = Failure(f"{source.name}: its decoder stopped without a word")
        buffer.end(number, Ended(number, end or silent))
    yield


def _decode_by_turns(
    sources: Sequence[Source], decode: Decode, batch_size: int, report: RunReport
) -> Iterator[Batch]:
    buffer = BatchBuffer(len(sources), batch_size)
    while (number := buffer.claim()) is not None:
        for _ in _feed(sources[number], _alone(decode), [Target(buffer, number, report)]):
            while (batch := buffer.take(wait=False)) is not None:
                yield batch
                buffer.release(batch)


def _alone(decode: Decode) -> DecodeForAll:
    """Decode for the only one who takes the windows."""

    def decode_alone(
        source: Source,
    ) -> Generator[tuple[int, Samples], None, Sequence[StreamEnd | None]]:
        blocks = decode(source)
        while True:
            try:
                windows = next(blocks)
            except StopIteration as stop:
                return [stop.value]
            yield 0, windows

    return decode_alone


class _Computer:
    """Calls the model on batches; its errors belong to the recordings that cause them."""

    def __init__(
        self, runner: ModelRunner, report: RunReport, names: Sequence[str], *, isolate: bool
    ) -> None:
        self._runner, self._report, self._names = runner, report, names
        self._isolate = isolate
        self.allocate = runner.allocate

    def __call__(self, batch: Batch) -> list[Outcome | Failure]:
        """Results of the batch's rows: one entry for each of its `Rows`."""
        rows = [part for part in batch.parts if isinstance(part, Rows)]
        if not rows:
            return []
        firsts = np.cumsum([0, *(part.count for part in rows)]).tolist()
        started = time.perf_counter()
        try:
            result = self._runner(batch.windows)
            return [Outcome(result, first) for first in firsts[:-1]]
        except Exception as error:
            if not self._isolate:
                raise
            return self._one_by_one(batch, rows, firsts, error)
        finally:
            self._report.add_time("model", time.perf_counter() - started)

    def _one_by_one(
        self, batch: Batch, rows: Sequence[Rows], firsts: Sequence[int], error: Exception
    ) -> list[Outcome | Failure]:
        logger.debug("the model failed with a batch", exc_info=error)
        outcomes: list[Outcome | Failure] = []
        for part, first in zip(rows, firsts, strict=False):
            try:
                result = self._runner(batch.windows[first : first + part.count])
                outcomes.append(Outcome(result, 0))
            except Exception as reason:
                outcomes.append(Failure(_model_failure(self._names[part.recording], reason)))
        if all(isinstance(outcome, Failure) for outcome in outcomes):
            self._runner.check()
        return outcomes


def _model_failure(name: str, error: Exception) -> str:
    if isinstance(error, BacpipeError):
        return f"{name}: {error}"
    return unexpected(name, error, "the model failed")


class _Delivery:
    """Gives each recording its part of the batches' results, and counts."""

    def __init__(
        self,
        sources: Sequence[Source],
        receiver: ResultReceiver,
        report: RunReport,
        progress: RunProgress | None,
    ) -> None:
        self._sources, self._receiver = sources, receiver
        self._report, self._progress = report, progress
        self._windows: dict[int, int] = {}
        self._broken: dict[int, str] = {}

    def __call__(self, batch: Batch, outcomes: Sequence[Outcome | Failure]) -> None:
        started = time.perf_counter()
        left = iter(outcomes)
        for part in batch.parts:
            if isinstance(part, Rows):
                self._rows(part, next(left))
            else:
                self._end(part)
        self._report.add_time("write", time.perf_counter() - started)

    def _rows(self, part: Rows, outcome: Outcome | Failure) -> None:
        number = part.recording
        before = self._windows.get(number, 0)
        self._windows[number] = before + part.count
        if isinstance(outcome, Failure):
            self._broken.setdefault(number, outcome.reason)
            return
        result, row = outcome
        embeddings = result.embeddings[row : row + part.count]
        if (invalid := first_invalid(embeddings)) is not None:
            self._broken.setdefault(
                number,
                f"{self._sources[number].name}: the model returned values that are not numbers "
                f"for window {before + invalid}",
            )
        if number in self._broken:
            return
        self._receiver.add(self._sources[number], embeddings, _predictions(result, row, part.count))

    def _end(self, part: Ended) -> None:
        source, end = self._sources[part.recording], part.result
        windows = self._windows.pop(part.recording, 0)
        if isinstance(end, StreamEnd) and part.recording in self._broken:
            end = Failure(self._broken.pop(part.recording))
        if isinstance(end, StreamEnd) and not windows:
            end = Failure(f"{source.name}: holds no samples")
        if isinstance(end, Failure):
            self._receiver.fail(source, end.reason)
            self._report.failed.append((source.name, end.reason))
            logger.debug("failed: %s", printable(end.reason))  # the report tells it
        else:
            self._receiver.finish(source, end)
            self._report.done += 1
            self._report.windows += windows
            self._report.audio_seconds += end.duration
            if end.truncated is not None:
                self._report.notes.append(
                    f"{source.name}: ends at {end.truncated:.1f} s, before its header says; the "
                    f"readable part was used."
                )
        if self._progress is not None:
            seconds = end.duration if isinstance(end, StreamEnd) else 0.0
            self._progress.advance(source.size, seconds)


def _predictions(
    result: BatchResult, row: int, count: int
) -> SparsePredictions | NDArray[np.float32] | None:
    """Predictions of some rows of a batch; all scores if those were asked for."""
    if result.scores is not None:
        return result.scores[row : row + count]
    if result.predictions is None:
        return None
    window, label, score = result.predictions
    first, last = np.searchsorted(window, [row, row + count])
    return SparsePredictions(
        window[first:last] - np.int32(row), label[first:last], score[first:last]
    )
