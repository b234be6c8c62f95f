"""Batches across recordings, in order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Rows:
    """Some windows of a batch that belong to one recording."""

    recording: int
    count: int


@dataclass(frozen=True)
class Ended:
    """A recording is complete, or failed."""

    recording: int
    result: Any


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

    windows: np.ndarray
    parts: tuple[Rows | Ended, ...]


def make_batches(
    items: Iterable[tuple[int, np.ndarray | Ended]], batch_size: int, in_flight: int = 0
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
    chunks: list[np.ndarray] = []
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
        self._ring: list[np.ndarray] = []
        self._next = 0

    def join(self, chunks: list[np.ndarray]) -> np.ndarray:
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
