"""Batches of windows that decoders fill together, each with a recording of its own."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from bacpipe.audio.stream import Samples
from bacpipe.store.plan import StreamEnd


class Failure(NamedTuple):
    """Why a recording could not be embedded."""

    reason: str


@dataclass(frozen=True)
class Rows:
    """Some windows of a batch that belong to one recording."""

    recording: int
    count: int


@dataclass(frozen=True)
class Ended:
    """A recording is complete, or failed."""

    recording: int
    result: StreamEnd | Failure


@dataclass(eq=False)
class Batch:
    """Windows for one call of the model, and whose they are.

    Attributes
    ----------
    memory : np.ndarray, float32, shape (batch size, samples)
        Holds the windows; used again for later batches.
    parts : list of Rows and Ended
        In order; the counts of the rows add up to `count`.
    count : int
        Windows in it; 0 when only ends are left to tell.
    """

    memory: Samples
    parts: list[Rows | Ended] = field(default_factory=list)
    count: int = 0
    copying: int = 0
    closed: bool = False

    @property
    def windows(self) -> Samples:
        """The windows, float32 of shape (count, samples)."""
        return self.memory[: self.count]

    @property
    def complete(self) -> bool:
        """Whether nobody writes into it any more."""
        return self.closed and not self.copying


MOMENT = 0.5
"""Seconds after which whoever waits looks again.

On Windows, Ctrl-C interrupts no waiting without an end; and it may interrupt who is to wake others.
"""


class BufferClosedError(Exception):
    """The consumer is gone; producers stop."""


def _in_memory(rows: int, samples: int) -> Samples:
    return np.empty((rows, samples), np.float32)


class BatchBuffer:
    """Batches that several threads fill and one takes.

    Producers copy the windows of recordings, one recording each at a time, straight into the
    batch that is being filled, so that one long recording keeps nobody waiting.  The windows of
    a recording stay in order; how recordings mix depends on who is first.

    The earliest of the open recordings may always go on while there is memory; others only while
    few full batches wait.  Where the model holds the run up, recordings therefore end one after
    the other, and a run that breaks off loses little.  The first batch is the first recording's,
    as far as that goes: what a model returns for it is what is expected of the others.

    Parameters
    ----------
    recordings : int
        Number of recordings, which are numbered from 0.
    batch_size : int
        Windows per batch; only the last batch may be smaller.
    most : int, optional
        Batches in memory, those that were taken and not given back included; any number
        without it.
    ahead : int
        Full batches that may wait before only the earliest recording goes on.
    allocate : callable
        Memory for a batch, from the numbers of windows and of samples in each.

    Attributes
    ----------
    seconds_blocked : float
        How long producers have waited, added up over threads.
    ended_at : float or None
        When the last recording ended, by ``time.perf_counter``; None before.
    """

    def __init__(
        self,
        recordings: int,
        batch_size: int,
        *,
        most: int | None = None,
        ahead: int = 1,
        allocate: Callable[[int, int], Samples] = _in_memory,
    ) -> None:
        self.seconds_blocked = 0.0
        self._recordings, self._batch_size = recordings, batch_size
        self._most, self._ahead, self._allocate = most, ahead, allocate
        self.ended_at: float | None = None
        self._claimed = self._ended = self._made = 0
        self._open: set[int] = set()
        self._queue: deque[Batch] = deque()  # in the order of handing out; the last may be open
        self._free: list[Samples] = []
        self._begun = False  # the first batch is full, or the first recording has ended
        self._closed = False
        self._broken: BaseException | None = None
        lock = threading.Lock()
        # Two, since most calls that change something concern the other side only.
        self._room, self._ready = threading.Condition(lock), threading.Condition(lock)

    def claim(self) -> int | None:
        """Number of the next recording to decode; None when there is none left."""
        with self._room:
            if self._closed or self._claimed == self._recordings:
                return None
            self._claimed += 1
            self._open.add(self._claimed - 1)
            return self._claimed - 1

    def put(self, recording: int, windows: Samples) -> None:
        """Add windows, float32 of shape (n, samples), of a claimed recording; waits for room.

        Raises
        ------
        BufferClosedError
            If the consumer has stopped.
        """
        while len(windows):
            batch, first, count = self._reserve(recording, *windows.shape)
            try:
                batch.memory[first : first + count] = windows[:count]
            finally:
                with self._ready:
                    batch.copying -= 1
                    if batch.complete:
                        self._ready.notify()
            windows = windows[count:]

    def end(self, recording: int, item: Ended) -> None:
        """Add the end of a claimed recording; never waits."""
        with self._room:
            self._open.discard(recording)
            self._ended += 1
            self._begun = True
            if not self._queue:
                self._queue.append(Batch(np.zeros((0, 0), np.float32), closed=True))
            last = self._queue[-1]
            last.parts.append(item)
            if self._ended == self._recordings:
                last.closed, self.ended_at = True, time.perf_counter()
            self._room.notify_all()  # another recording is the earliest
            self._ready.notify()

    def __iter__(self) -> Iterator[Batch]:
        """Hand out all batches, as soon as each is complete; give them back with `release`."""
        while (batch := self.take()) is not None:
            yield batch

    def take(self, *, wait: bool = True) -> Batch | None:
        """Hand out the next batch; None after the last, or if it is not complete yet.

        Raises whatever `break_off` was given.
        """
        with self._ready:
            while wait and not self._ready.wait_for(self._has_news, MOMENT):
                pass
            if self._broken is not None:
                raise self._broken
            if not (self._queue and self._queue[0].complete):
                return None
            self._room.notify_all()
            return self._queue.popleft()

    def release(self, batch: Batch) -> None:
        """Take back the memory of a batch whose results have been delivered."""
        with self._room:
            if batch.count:
                self._free.append(batch.memory)
                self._room.notify_all()

    def close(self) -> None:
        """Stop: waiting producers are released with an error."""
        self._closed = True  # even if Ctrl-C interrupts this; they look from time to time
        with self._room:
            self._room.notify_all()

    def break_off(self, error: BaseException) -> None:
        """Let whoever takes batches get an error instead of the next one."""
        self._broken = error  # as in `close`
        with self._ready:
            self._ready.notify_all()

    def _reserve(self, recording: int, windows: int, samples: int) -> tuple[Batch, int, int]:
        """Rows of the batch that is being filled: the batch, the first of them, how many."""
        with self._room:
            if not self._has_room(recording):
                started = time.perf_counter()
                while not self._room.wait_for(lambda: self._has_room(recording), MOMENT):
                    pass
                self.seconds_blocked += time.perf_counter() - started
            if self._closed:
                raise BufferClosedError
            if not self._queue or self._queue[-1].closed:
                self._queue.append(Batch(self._memory(samples)))
            batch = self._queue[-1]
            first, count = batch.count, min(windows, self._batch_size - batch.count)
            batch.count += count
            batch.copying += 1
            if batch.count == self._batch_size:
                batch.closed = True
                if not self._begun:
                    self._begun = True
                    self._room.notify_all()
            batch.parts.append(Rows(recording, count))
            return batch, first, count

    def _has_news(self) -> bool:
        if self._broken is not None:
            return True
        return self._queue[0].complete if self._queue else self._ended == self._recordings

    def _has_room(self, recording: int) -> bool:
        filling = bool(self._queue) and not self._queue[-1].closed
        if self._closed or self._most is None:
            return True
        if not (filling or self._free or self._made < self._most):
            return False
        few = self._begun and len(self._queue) - filling < self._ahead
        return few or recording == min(self._open)

    def _memory(self, samples: int) -> Samples:
        if self._free:
            return self._free.pop()
        memory = self._allocate(self._batch_size, samples)
        self._made += 1  # and not if there is no memory: others would wait for it for ever
        return memory
