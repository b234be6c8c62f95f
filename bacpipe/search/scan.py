"""Which rows of a data set are nearest to some queries: exactly, and without an index.

All rows are compared by their codes (`bacpipe.store.codes`), with products of integers.  The codes
say how far they can be off, so a row is given up only if it is proven that k others are at least as
near: no similarity that its code allows reaches the k-th largest of those that the codes of others
guarantee.  The few that are left are computed anew from the embeddings, the most promising first,
until the next cannot be among the first k any more.  What comes out is what a comparison with all
embeddings in float64 finds.

The bound.  Let u be a row of length one, u' its code, e the stored bound of ``|u - u'|``; q a query
of length one and q' its integers.  Then ``|u·q - u'·q'| <= e + (1 + e) |q - q'|``, by Cauchy and
Schwarz; the stored e covers that products are rounded.  Of the rows that this leaves, u'·q is
computed, which is off by e alone, and leaves hardly more than k.
"""

from __future__ import annotations

import mmap
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from bacpipe.models.backends.cpu.integers import integer_products
from bacpipe.store.codes import Pack

_BLOCK = 2**25  # bytes of codes compared at a time
_SPARSE = 8  # if fewer than one row of so many is wanted, these are copied out first
_ROWS = 2**12  # candidates that are computed anew at a time
_ROUNDING = 2.0**-21  # of the size of what is added up: eight roundings to float32
_FAR = 1e37  # as good as infinite, and a number of float32
_TOLERANCE = 1e-5  # beyond which a code contradicts its embedding

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]


class Queries(NamedTuple):
    """What to look for.

    Attributes
    ----------
    directions : np.ndarray, float64, shape (m, dim)
        Of length one.
    by_length : bool
        Whether rows count by their product with a direction, as for linear classifiers, and not
        by its cosine.
    square_roots : bool
        Whether it is the product with the square roots of a row, of which codes say too little.
    """

    directions: Floats
    by_length: bool = False
    square_roots: bool = False


class Nearest(NamedTuple):
    """What was found for one query, the nearest first.

    Attributes
    ----------
    pack, row : np.ndarray, int64, shape (n,)
        Number of the pack, and row in it.
    similarity : np.ndarray, float64, shape (n,)
    rescored : int
        How many rows had to be computed anew.
    """

    pack: Rows
    row: Rows
    similarity: Floats
    rescored: int


class ContradictionError(Exception):
    """An embedding is not what its code allows; `pack` is the number of its pack."""

    def __init__(self, pack: int) -> None:
        super().__init__(pack)
        self.pack = pack


ReadRows = Callable[[int, Rows], Floats]
"""Embeddings of rows of a pack, float64 (n, dim), by the pack's number and ascending rows."""


@dataclass
class _Candidates:
    """Rows that may be among the first k of one query."""

    k: int
    kept: list[tuple[Rows, Rows, Floats]]  # number of the pack, row, highest similarity possible
    lowest: Floats  # the k largest similarities that are guaranteed
    bar: float = -np.inf  # what k rows have at least

    def add(self, pack: int, rows: Rows, similarity: Floats, error: Floats) -> None:
        lowest = np.concatenate([self.lowest, similarity - error])
        if len(lowest) > self.k:
            lowest = np.partition(lowest, len(lowest) - self.k)[-self.k :]
        self.lowest = lowest
        if len(lowest) == self.k:
            self.bar = float(lowest.min())
        possible = similarity + error
        keep = possible >= self.bar
        self.kept.append((np.full(keep.sum(), pack), rows[keep], possible[keep]))

    def take(self) -> tuple[Rows, Rows, Floats]:
        """Pack, row and highest possible similarity of all that are left."""
        if not self.kept:
            return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)
        pack, row, possible = (np.concatenate(column) for column in zip(*self.kept, strict=True))
        keep = possible >= self.bar
        return pack[keep], row[keep], possible[keep]


class _RoundedQueries:
    """Queries as whole numbers: q' is ``steps * whole + middles``."""

    def __init__(self, queries: Queries) -> None:
        self._by_length = queries.by_length
        low, high = queries.directions.min(axis=1), queries.directions.max(axis=1)
        self._steps, self._middles = np.maximum(high - low, 1e-30) / 254, (low + high) / 2
        around = queries.directions - self._middles[:, None]
        whole = np.rint(around / self._steps[:, None])
        scaled = whole * self._steps[:, None]
        self._whole, self._sums = torch.from_numpy(whole.astype(np.int8)), scaled.sum(axis=1)
        self._lost = float(np.linalg.norm(around - scaled, axis=1).max())
        self._longest = float(np.linalg.norm(scaled, axis=1).max())
        self._highest = float(np.abs(self._middles).max())

    def reaching(
        self, codes: torch.Tensor, numbers: torch.Tensor, bars: Floats
    ) -> tuple[Rows, Rows, Floats, Floats]:
        """Query, row, similarity to q' and its bound of what may be as near as a query's bar.

        Queries ascend.
        """
        scale, shift, total, error, norm = numbers
        bound = error + (1 + error) * self._lost
        length = norm if self._by_length else torch.ones_like(norm)
        # What the sums below may lose in float32.
        size = (shift.abs() + 128 * scale) * (codes.shape[1] ** 0.5 * self._longest)
        rounding = _ROUNDING * (size + total.abs() * self._highest)
        # u'·q' is scale * steps * products + shift * sums + total * middles.  By how much it and
        # its bound are above the bar is computed for all, in units of steps.
        terms = torch.stack([shift * length, total * length, (bound + rounding) * length,
                             torch.ones_like(norm)])  # fmt: skip
        weights = np.stack([self._sums, self._middles, np.ones_like(bars), -bars]) / self._steps
        weights = np.minimum(weights, _FAR).astype(np.float32)
        products = integer_products(self._whole, codes).float()
        above = (torch.from_numpy(weights).T @ terms).addcmul_(products, scale * length)
        places = np.flatnonzero(above.numpy() >= 0)
        query, row = np.divmod(places, len(codes))
        scale, shift, total, bound, length = (
            column.numpy()[row].astype(np.float64)
            for column in (scale, shift, total, bound, length)
        )
        similarity = (
            products.numpy().ravel()[places] * scale * self._steps[query]
            + shift * self._sums[query] + total * self._middles[query]
        ) * length  # fmt: skip
        return query, row, similarity, bound * length


def nearest(
    packs: Sequence[Pack],
    wanted: Sequence[NDArray[np.bool_] | None],
    queries: Queries,
    k: int,
    read_rows: ReadRows,
) -> list[Nearest]:
    """Find the k nearest rows to each of some queries.

    Parameters
    ----------
    packs : sequence of Pack
        All rows.
    wanted : sequence of np.ndarray or None
        For each pack, which of its rows to look at; None for all.
    queries : Queries
        What to look for.
    k : int
        How many rows; fewer are found if there are not as many.
    read_rows : callable
        Reads embeddings.

    Returns
    -------
    list of Nearest
        One for each query.

    Raises
    ------
    ContradictionError
        If a pack is damaged.
    """
    candidates = [_Candidates(k, [], np.zeros(0)) for _ in queries.directions]
    rounded = _RoundedQueries(queries)
    for number, (pack, mask) in enumerate(zip(packs, wanted, strict=True)):
        for rows, codes, numbers in _blocks(pack, mask):
            bars = np.array([item.bar for item in candidates])
            query, row, similarity, bound = rounded.reaching(codes, numbers, bars)
            if not len(row):
                continue
            firsts = np.searchsorted(query, np.arange(len(candidates) + 1))
            for one, first, last in zip(candidates, firsts, firsts[1:], strict=False):
                if first < last:
                    at = slice(first, last)
                    one.add(number, rows[row[at]], similarity[at], bound[at])
    return [
        _rescore(packs, item, direction, read_rows, queries.by_length)
        for item, direction in zip(candidates, queries.directions, strict=True)
    ]


def nearest_of(
    packs: Sequence[Pack],
    pack: Rows,
    row: Rows,
    direction: Floats,
    k: int,
    read_rows: ReadRows,
) -> Nearest:
    """Find the k rows among some that are nearest to a direction, by cosine.

    Parameters
    ----------
    packs : sequence of Pack
        All rows.
    pack, row : np.ndarray, int64, shape (n,)
        Number of the pack, and row in it, of those to choose from.
    direction : np.ndarray, float64, shape (dim,)
        Of length one.
    k : int
        How many.
    read_rows : callable
        Reads embeddings.

    Raises
    ------
    ContradictionError
        If a pack is damaged.
    """
    heard = np.zeros(len(row), bool)
    for number in np.unique(pack):
        at = np.flatnonzero(pack == number)
        heard[at] = np.isfinite(packs[number].numbers[3, row[at]])
    pack, row = pack[heard], row[heard]
    some = _Candidates(k, [(pack, row, np.full(len(row), np.inf))], np.zeros(0))
    return _rescore(packs, some, direction, read_rows, by_length=False)


def merged(one: Nearest, other: Nearest, k: int) -> Nearest:
    """The k nearest of both, and all that are as near as the last."""
    pack = np.concatenate([one.pack, other.pack])
    row = np.concatenate([one.row, other.row])
    similarity = np.concatenate([one.similarity, other.similarity])
    order = np.lexsort((row, pack, -similarity))
    if len(order) > k:
        order = order[similarity[order] >= similarity[order[k - 1]]]
    rescored = one.rescored + other.rescored
    return Nearest(pack[order], row[order], similarity[order], rescored)


def _blocks(
    pack: Pack, mask: NDArray[np.bool_] | None
) -> Iterator[tuple[Rows, torch.Tensor, torch.Tensor]]:
    """Rows of a pack piece by piece: their numbers, codes and other numbers."""
    count, dim = pack.codes.shape
    codes, numbers = _tensor(pack.codes), _tensor(pack.numbers)
    step = max(256, _BLOCK // max(1, dim))
    for first in range(0, count, step):
        last = min(first + step, count)
        _read_ahead(pack.codes, last, last + step)
        if mask is None:
            yield np.arange(first, last), codes[first:last], numbers[:, first:last]
            continue
        rows = first + np.flatnonzero(mask[first:last])
        if not len(rows):
            continue
        if _SPARSE * len(rows) >= last - first and rows[-1] - rows[0] + 1 > len(rows):
            # Copying costs more than comparing a few rows in vain; these cannot be chosen.
            shut_out = torch.from_numpy(~mask[first:last])
            part = numbers[:, first:last].clone()
            part[3, shut_out] = torch.nan
            yield np.arange(first, last), codes[first:last], part
        elif rows[-1] - rows[0] + 1 == len(rows):
            run = slice(rows[0], rows[-1] + 1)
            yield rows, codes[run], numbers[:, run]
        else:
            index = torch.from_numpy(rows)
            yield rows, codes[index], numbers[:, index]


def _tensor(array: NDArray[np.int8] | NDArray[np.float32]) -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*not writable")  # nobody writes to it
        return torch.from_numpy(array)


def _read_ahead(codes: NDArray[np.int8], first: int, last: int) -> None:
    """Have the disk begin to read rows that are needed soon."""
    content = codes.base
    while isinstance(content, np.ndarray):
        content = content.base
    if isinstance(content, memoryview):
        content = content.obj
    if isinstance(content, mmap.mmap) and hasattr(content, "madvise"):
        dim = codes.shape[1]
        start = min(first, len(codes)) * dim // mmap.PAGESIZE * mmap.PAGESIZE
        length = min(last, len(codes)) * dim - start
        if length > 0:
            content.madvise(mmap.MADV_WILLNEED, start, length)


def _rescore(
    packs: Sequence[Pack],
    candidates: _Candidates,
    direction: Floats,
    read_rows: ReadRows,
    by_length: bool,
) -> Nearest:
    pack, row, possible = candidates.take()
    guess, bound = np.empty(len(pack)), np.empty(len(pack))
    for number in np.unique(pack):
        at = np.flatnonzero(pack == number)
        guess[at], bound[at] = _closer(packs[number], row[at], direction, by_length)
    # The query was rounded before; without that, many are out.
    possible = np.minimum(possible, guess + bound)
    if len(guess) > candidates.k:
        keep = possible >= np.partition(guess - bound, -candidates.k)[-candidates.k]
        pack, row, guess, possible, bound = (
            column[keep] for column in (pack, row, guess, possible, bound)
        )
    order = np.lexsort((row, pack, -guess))
    exact = np.full(len(order), -np.inf)
    bar, first = -np.inf, 0
    size = candidates.k
    while first < len(order):
        part = order[first : first + size]
        part = part[possible[part] >= bar]
        for number in np.unique(pack[part]):
            at = part[pack[part] == number]
            at = at[np.argsort(row[at])]
            exact[at] = _similarity(read_rows(int(number), row[at]), direction, by_length)
            if not (np.abs(exact[at] - guess[at]) <= bound[at] * (1 + _TOLERANCE)).all():
                raise ContradictionError(int(number))
        first += size
        size = _ROWS
        if (exact > -np.inf).sum() >= candidates.k:
            bar = float(np.partition(exact, -candidates.k)[-candidates.k])
    computed = np.flatnonzero(exact > -np.inf)
    best = computed[np.lexsort((row[computed], pack[computed], -exact[computed]))]
    if len(best) > candidates.k:
        # All that are as near as the k-th: which of them are taken is for the caller to say.
        best = best[exact[best] >= exact[best[candidates.k - 1]]]
    return Nearest(pack[best], row[best], exact[best], len(computed))


def _closer(pack: Pack, rows: Rows, direction: Floats, by_length: bool) -> tuple[Floats, Floats]:
    """Similarity of codes to a query that is not rounded, and how far it can be off."""
    dim = len(direction)
    column = torch.from_numpy(direction.astype(np.float32))
    products = np.empty(len(rows))
    for first in range(0, len(rows), _ROWS):
        part = slice(first, first + _ROWS)
        products[part] = torch.from_numpy(pack.codes[rows[part]]).float() @ column
    scale, shift, _, error, norm = pack.numbers[:, rows].astype(np.float64)
    similarity = scale * products + shift * direction.sum()
    # However the products were added up in float32.
    error = error + dim * 2.0**-24 * (1 + error + np.abs(shift) * dim**0.5)
    return (similarity * norm, error * norm) if by_length else (similarity, error)


def _similarity(rows: Floats, direction: Floats, by_length: bool) -> Floats:
    products: Floats = rows @ direction
    if by_length:
        return products
    length = np.linalg.norm(rows, axis=1)
    cosines: Floats = np.clip(products / np.where(length > 0, length, 1), -1, 1)
    return cosines
