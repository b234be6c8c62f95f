"""Windows of many recordings, in order: a buffer that threads fill, and batches made from it."""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

import numpy as np

from bacpipe.audio.stream import Samples
from bacpipe.store.plan import StreamEnd

Item = TypeVar("Item")


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


@dataclass(frozen=True)
class Batch:
    """Windows for one call of the model, and whose they are.

    Attributes
    ----------
    windows : np.ndarray, float32, shape (n, samples)
        At most as many as the batch size; empty when only ends are left to tell.
    parts : tuple of Rows and Ended
        In order; the counts of the rows add up to n.
    """

    windows: Samples
    parts: tuple[Rows | Ended, ...]


def make_batches(
    items: Iterable[tuple[int, Samples | Ended]], batch_size: int, in_flight: int = 0
) -> Iterator[Batch]:
    """Fill batches with windows of successive recordings.

    Parameters
    ----------
    items : iterable of (recording, windows or Ended)
        float32 windows of shape (n, samples), any n, and the end of every recording.
    batch_size : int
        Windows per batch; only the last batch may be smaller.
    in_flight : int
        Batches that are in use when the next one is asked for.  Their arrays are used again
        for later ones, since fresh memory costs more than the copy into it; 0 makes new arrays.

    Yields
    ------
    Batch
        Every part once, in the order of the items.
    """
    arrays = _Arrays(batch_size, in_flight)
    chunks: list[Samples] = []
    parts: list[Rows | Ended] = []
    filled = 0
    for recording, item in items:
        if isinstance(item, Ended):
            parts.append(item)
            if not filled:
                yield Batch(arrays.join(chunks), tuple(parts))
                parts = []
            continue
        while len(item):
            taken = item[: batch_size - filled]
            item = item[len(taken) :]
            chunks.append(taken)
            parts.append(Rows(recording, len(taken)))
            filled += len(taken)
            if filled == batch_size:
                yield Batch(arrays.join(chunks), tuple(parts))
                chunks, parts, filled = [], [], 0
    if parts:
        yield Batch(arrays.join(chunks), tuple(parts))


class _Arrays:
    """Memory for batches, used in turn."""

    def __init__(self, batch_size: int, in_flight: int) -> None:
        self._batch_size = batch_size
        self._count = in_flight + 1 if in_flight else 0
        self._ring: list[Samples] = []
        self._next = 0

    def join(self, chunks: list[Samples]) -> Samples:
        if not chunks:
            return np.zeros((0, 0), np.float32)
        if len(chunks) == 1:
            return chunks[0]
        if not self._count:
            return np.concatenate(chunks)
        if len(self._ring) < self._count:
            self._ring.append(np.empty((self._batch_size, chunks[0].shape[1]), np.float32))
        array = self._ring[self._next % self._count]
        self._next += 1
        return np.concatenate(chunks, out=array[: sum(map(len, chunks))])


class BufferClosedError(Exception):
    """The consumer is gone; producers stop."""


class OrderedBuffer(Generic[Item]):
    """Items of many recordings, handed out in the order of the recordings.

    Producers decode several recordings at once.  The consumer sees them one after the other,
    so that the order of results does not depend on the threads.  The recording that the
    consumer waits for may always put one more item, whatever the others have put; that keeps
    the buffer free of deadlock.

    Parameters
    ----------
    recordings : int
        Number of recordings, which are numbered from 0.
    capacity : int
        Sum of the sizes of the items that may wait.
    """

    def __init__(self, recordings: int, capacity: int) -> None:
        self._recordings = recordings
        self._capacity = capacity
        self._items: defaultdict[int, deque[tuple[Item, int]]] = defaultdict(deque)
        self._filled = 0
        self._head = 0
        self._next = 0
        self._closed = False
        self._changed = threading.Condition()

    def claim(self) -> int | None:
        """Number of the next recording to decode; None when there is none left."""
        with self._changed:
            # Decoding far ahead of a full buffer would only open files.
            self._changed.wait_for(
                lambda: (
                    self._closed
                    or self._next >= self._recordings
                    or self._filled < self._capacity
                    or self._next == self._head
                )
            )
            if self._closed or self._next >= self._recordings:
                return None
            self._next += 1
            return self._next - 1

    def put(self, recording: int, item: Item, size: int) -> None:
        """Add an item; waits while the buffer is full.

        Raises
        ------
        BufferClosedError
            If the consumer has stopped.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: (
                    self._closed
                    or self._filled + size <= self._capacity
                    or (recording == self._head and not self._items[recording])
                )
            )
            if self._closed:
                raise BufferClosedError
            self._items[recording].append((item, size))
            self._filled += size
            self._changed.notify_all()

    def end(self, recording: int, item: Item) -> None:
        """Add the last item of a recording; never waits."""
        with self._changed:
            self._items[recording].append((item, -1))
            self._changed.notify_all()

    def __iter__(self) -> Iterator[tuple[int, Item]]:
        """Hand out ``(recording, item)``, all items of a recording before the next one's."""
        for recording in range(self._recordings):
            size = 0
            while size >= 0:
                with self._changed:
                    self._head = recording
                    self._changed.notify_all()
                    self._changed.wait_for(self._head_has_items)
                    item, size = self._items[recording].popleft()
                    self._filled -= max(size, 0)
                    self._changed.notify_all()
                yield recording, item
            del self._items[recording]

    def _head_has_items(self) -> bool:
        return bool(self._items[self._head])

    def close(self) -> None:
        """Stop: waiting producers are released with an error."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
