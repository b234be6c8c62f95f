"""Several models over the same recordings: each recording is decoded once for all of them.

Every model has the run that it has alone, in a thread of its own: its plan, its lock, its journal,
its batches, its errors.  What they share are the threads that decode.  Whatever is not embedding
(loading, planning, writing tables) happens for one model at a time, so that nothing of it needs to
know of the others; and no more batches are computed at a time than there are cores.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

import torch

from bacpipe.errors import BacpipeError
from bacpipe.inference.batches import MOMENT, BatchBuffer
from bacpipe.inference.decoding import Decoder, decode_together, storable
from bacpipe.inference.pipeline import Crew, Target, decoding_threads, end, feed_all, wait_for
from bacpipe.inference.report import RunReport
from bacpipe.machine import available_cores, free_memory
from bacpipe.models.backends.pytorch import choose_device
from bacpipe.models.card import FileSet
from bacpipe.models.weights import checkpoints
from bacpipe.options import Options
from bacpipe.store.plan import Source

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

_TO_COMPUTE = 2 * 10**9
"""Bytes for batches and for what computing them takes, which models take by turns."""


class Job(NamedTuple, Generic[Result]):
    """The run of one model.

    Attributes
    ----------
    model : str
        Its name.
    needs : FileSet or None
        Its card; nothing is known of a user's own model.
    work : callable
        Does it.
    """

    model: str
    needs: FileSet | None
    work: Callable[[Together], Result]


def run_together(jobs: Sequence[Job[Result]], options: Options) -> Iterator[Future[Result]]:
    """Run models in as few groups as memory allows; each group decodes every recording once.

    Parameters
    ----------
    jobs : sequence of Job
        The models.
    options : Options
        Where weights are, and on which device models compute.

    Yields
    ------
    Future
        Result or error of each job, in their order, once its group is done.

    Raises
    ------
    BaseException
        What interrupts this thread, such as KeyboardInterrupt; the runs have ended with it then.
    """
    left = list(jobs)
    while left:
        runs = Together().run_all(left, options)
        yield from runs
        del left[: len(runs)]


def _has_room(job: Job[Result], options: Options) -> bool:
    """Whether there is memory for one more model beside those that are loaded; says if not."""
    weights = 0
    if job.needs is not None:
        try:
            files = checkpoints.resolve(job.needs, Path(options.model_base_path)).values()
        except BacpipeError:  # its own run says so
            return True
        weights = sum(path.stat().st_size for path in files)
    places = [("memory", free_memory(), 2 * weights)]  # the file's bytes and the tensors of them
    device = choose_device(options.device)
    if device.startswith("cuda"):
        places.append((f"memory of {device}", torch.cuda.mem_get_info(device)[0], weights))
    for place, free, needed in places:
        if free < needed + _TO_COMPUTE:
            logger.info(
                "%s runs after the models before it, not together with them: of %s, %.1f GB are "
                "free, and it may need %.1f GB.",
                job.model,
                place,
                free / 1e9,
                (needed + _TO_COMPUTE) / 1e9,
            )
            return False
    return True


@dataclass(eq=False)
class _Lane:
    """The recordings that one model waits for; `position` is that of the next."""

    sources: Sequence[Source]
    decoder: Decoder
    buffer: BatchBuffer
    report: RunReport
    position: int = 0

    @property
    def next(self) -> Source | None:
        return self.sources[self.position] if self.position < len(self.sources) else None


class Together:
    """Runs that share the decoding of their recordings; for one use.

    `run_all` starts them one after the other.  Each gives its `crew` to `pipeline.run`: there it
    waits, with its model loaded, until the last one has been started; then the recordings are
    decoded for all.
    """

    def __init__(self) -> None:
        self._turn = threading.Lock()  # to do anything but embed
        self._changed = threading.Condition()
        self._lanes: list[_Lane] = []
        self._broken: BaseException | None = None
        self._cores = _Cores(available_cores())

    def run_all(self, jobs: Sequence[Job[Result]], options: Options) -> list[Future[Result]]:
        """Do the first of some jobs, as many as there is memory for; they are done then."""
        threads = torch.get_num_threads()
        futures: list[Future[Result]] = []
        pool = ThreadPoolExecutor(len(jobs), thread_name_prefix="bacpipe-run")
        try:
            with self._ending(futures):
                for job in jobs:
                    if futures and not _has_room(job, options):
                        break
                    before = len(self._lanes)
                    futures.append(pool.submit(self._do, job.work))
                    self._wait_until_waiting(futures[-1], before)
                with (
                    decoding_threads(self._share(), self._decode) as start,
                    self._ending(futures),  # once more: before the end of those who decode
                ):
                    start()
                    wait_for(futures)
        finally:
            try:
                end(pool, futures)
            finally:
                torch.set_num_threads(threads)  # which runs change for the whole process
        return futures

    def crew(self, decoder: Decoder) -> Crew:
        """What one of the runs, whose recordings are to be decoded like this, works with."""
        return _SharedCrew(self, decoder)

    def check(self) -> None:
        """Raise what has interrupted the thread that waits for all runs, if anything has."""
        if self._broken is not None:
            raise self._broken

    def _do(self, work: Callable[[Together], Result]) -> Result:
        with self._turn:
            return work(self)

    def _wait_until_waiting(self, run: Future[Result], before: int) -> None:
        """Wait until one more run waits for recordings, or has ended without needing any."""

        def tell(_: Future[Result]) -> None:
            with self._changed:
                self._changed.notify_all()

        run.add_done_callback(tell)
        with self._changed:
            while not (run.done() or len(self._lanes) > before):
                self._changed.wait(MOMENT)

    def _share(self) -> int:
        """Let all reports tell of what is shared; returns the number of threads that decode."""
        decoders = max((lane.report.threads["decoders"] for lane in self._lanes), default=0)
        for lane in self._lanes:
            lane.report.threads["decoders"] = decoders
            lane.report.models = len(self._lanes)
        return decoders

    @contextmanager
    def _ending(self, runs: Sequence[Future[Result]]) -> Iterator[None]:
        """Let all runs end properly with what interrupts the block."""
        try:
            yield
        except BaseException as error:
            self._broken = error  # even if Ctrl-C interrupts this
            with self._changed:
                self._tell_all(error)
            wait_for(runs)
            raise

    def _tell_all(self, error: BaseException) -> None:
        for lane in self._lanes:
            lane.buffer.break_off(error)

    # ------------------------------------------------------------------ decoding

    def _decode(self) -> None:
        while (claimed := self._claim()) is not None:
            source, decoders, targets = claimed
            feed_all(source, storable(partial(decode_together, decoders=decoders)), targets)

    def _claim(self) -> tuple[Source, list[Decoder], list[Target]] | None:
        """The next recording, and who takes it; None when there is none left.

        All claim in the same order, so that the earliest recording that is open is the earliest
        for everybody who takes it: that is what their buffers let pass.
        """
        with self._changed:
            while True:
                if self._broken is not None:  # Ctrl-C again may interrupt who is to tell it
                    self._tell_all(self._broken)
                    return None
                heads = [(lane, source) for lane in self._lanes if (source := lane.next)]
                if not heads:
                    return None
                leader, first = min(heads, key=lambda head: head[1].name)
                decoders: list[Decoder] = []
                targets: list[Target] = []
                for lane, source in heads:
                    alike = lane.decoder.reading == leader.decoder.reading
                    if (source.name, source.segments) != (first.name, first.segments) or not alike:
                        continue
                    number = lane.buffer.claim()
                    if number is None:  # its run has ended
                        lane.position = len(lane.sources)
                        continue
                    lane.position += 1
                    decoders.append(lane.decoder)
                    targets.append(Target(lane.buffer, number, lane.report))
                if targets:
                    return first, decoders, targets

    # ------------------------------------------------------------------ what a run calls

    @contextmanager
    def decoding(
        self, decoder: Decoder, buffer: BatchBuffer, sources: Sequence[Source], report: RunReport
    ) -> Iterator[None]:
        """Let a run embed while others do, too; it has the turn before and after."""
        with self._changed:
            self.check()
            self._lanes.append(_Lane(sources, decoder, buffer, report))
            self._changed.notify_all()
        self._turn.release()
        try:
            yield
        finally:
            buffer.close()
            self._turn.acquire()
            report.blocked_seconds += self._blocked(buffer, report.threads["decoders"])

    def _blocked(self, buffer: BatchBuffer, decoders: int) -> float:
        """A run's share of the seconds that decoders waited for any of the models."""
        blocked = sum(lane.buffer.seconds_blocked for lane in self._lanes)
        if buffer.ended_at is not None:
            blocked += decoders * (time.perf_counter() - buffer.ended_at)
        return blocked / len(self._lanes)

    def computing(self, threads: int) -> AbstractContextManager[None]:
        """Wait until so many cores are free."""
        return self._cores.taken(threads)


class _SharedCrew:
    """See `Together.crew`."""

    def __init__(self, together: Together, decoder: Decoder) -> None:
        self._together, self._decoder = together, decoder

    def decoding(
        self, buffer: BatchBuffer, sources: Sequence[Source], report: RunReport
    ) -> AbstractContextManager[None]:
        return self._together.decoding(self._decoder, buffer, sources, report)

    def computing(self, threads: int) -> AbstractContextManager[None]:
        return self._together.computing(threads)


class _Cores:
    """Cores that are given out in the order of asking, so that nobody waits for ever."""

    def __init__(self, number: int) -> None:
        self._number = self._free = number
        self._waiting: deque[object] = deque()
        self._changed = threading.Condition()

    @contextmanager
    def taken(self, wanted: int) -> Iterator[None]:
        wanted, ticket = min(wanted, self._number), object()
        with self._changed:
            self._waiting.append(ticket)
            self._changed.wait_for(lambda: self._waiting[0] is ticket and self._free >= wanted)
            self._waiting.popleft()
            self._free -= wanted
            self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._free += wanted
                self._changed.notify_all()
