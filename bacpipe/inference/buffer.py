"""A bounded buffer that many threads fill and one empties, recording after recording."""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from collections.abc import Iterator
from typing import Any


class BufferClosedError(Exception):
    """The consumer is gone; producers stop."""


class OrderedBuffer:
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
        self._items: defaultdict[int, deque[tuple[Any, int]]] = defaultdict(deque)
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

    def put(self, recording: int, item: Any, size: int) -> None:
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

    def end(self, recording: int, item: Any) -> None:
        """Add the last item of a recording; never waits."""
        with self._changed:
            self._items[recording].append((item, -1))
            self._changed.notify_all()

    def __iter__(self) -> Iterator[tuple[int, Any]]:
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
