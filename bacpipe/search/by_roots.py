"""Which windows a recogniser on square roots is most sure of: all embeddings are read.

Codes say how far an embedding can be off, but little of its square roots, of which those of small
values are off the most.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from bacpipe.search.scan import Floats, Nearest, Rows, merged
from bacpipe.store.codes import Pack
from bacpipe.store.recognisers import square_roots

_ROWS = 1024  # of which square roots are taken at a time
_WAITING = 2**16  # rows that are compared with the best at a time


ReadRecordings = Callable[[int, NDArray[np.bool_]], Iterator[tuple[Rows, NDArray[np.float32]]]]
"""The wanted rows of a pack, recording by recording, and their embeddings, (rows, dim)."""


def nearest_by_roots(
    packs: Sequence[Pack],
    wanted: Sequence[NDArray[np.bool_] | None],
    directions: Floats,
    k: int,
    read: ReadRecordings,
) -> list[Nearest]:
    """Find the k rows whose square roots have the largest products with each direction.

    For parameters and errors see `bacpipe.search.scan.nearest`; `read` reads embeddings.
    """
    best = _Best(len(directions), k)
    for number, (pack, mask) in enumerate(zip(packs, wanted, strict=True)):
        heard = np.isfinite(pack.numbers[3])
        for rows, embeddings in read(number, heard if mask is None else heard & mask):
            for first in range(0, len(rows), _ROWS):
                some = slice(first, first + _ROWS)
                roots = square_roots(embeddings[some].astype(np.float64))
                best.add(number, rows[some], roots @ directions.T)
    return best.all()


class _Best:
    """The k best rows for each direction, of all that were added."""

    def __init__(self, directions: int, k: int) -> None:
        self._k = k
        nothing = np.zeros(0, np.int64)
        self._found = [Nearest(nothing, nothing, np.zeros(0), 0)] * directions
        self._waiting: list[tuple[Rows, Rows, Floats]] = []
        self._count = 0

    def add(self, pack: int, rows: Rows, products: Floats) -> None:
        """Rows of a pack, and their products, shape (rows, directions)."""
        self._waiting.append((np.full(len(rows), pack), rows, products))
        self._count += len(rows)
        if self._count >= max(_WAITING, self._k):
            self.all()

    def all(self) -> list[Nearest]:
        """For each direction, the best first."""
        if self._waiting:
            pack, row, products = (np.concatenate(c) for c in zip(*self._waiting, strict=True))
            self._waiting, self._count = [], 0
            for i, values in enumerate(products.T):
                found = self._found[i].similarity
                near = values >= (found[self._k - 1] if len(found) >= self._k else -np.inf)
                new = Nearest(pack[near], row[near], values[near], int(near.sum()))
                self._found[i] = merged(self._found[i], new, self._k)
        return self._found
