"""An approximate index, for data sets that are too large to be compared row by row.

Rows of length one are rotated at random, parted into lists of alike ones (k-means), and kept in one
bit a value (RaBitQ: Gao and Long 2024, doi:10.1145/3654970, by faiss).  A query looks into the
nearest lists, and the rows that seem best there are computed anew from the embeddings; so the
similarities of an answer are exact, but a window may be missing.  How often, is measured when the
index is built, against the exact search.
"""

from __future__ import annotations

import importlib
import logging
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bacpipe.errors import ResultsNotFoundError, SettingsError, StorageError, counted
from bacpipe.extras import cannot_import
from bacpipe.machine import free_memory
from bacpipe.search.index import SearchIndex, Wanted
from bacpipe.search.scan import (
    Floats,
    Nearest,
    Queries,
    Rows,
    merged,
    nearest,
    nearest_of,
)
from bacpipe.store.approximate_index import About, StoredIndex, read_index, write_index
from bacpipe.store.codes import Pack

if TYPE_CHECKING:
    from faiss import IndexIVFRaBitQ

logger = logging.getLogger(__name__)

FEW = 1_000_000  # windows that are compared one by one in less time than it takes to say more
_LISTS = 4096  # at most: assigning a row costs as much as there are
_OF_A_LIST = 40  # rows that a list is learnt from, on average
_BLOCK = 2**14  # rows added at a time
_TRIALS = 64  # windows that recall is measured with
_K = 50
_ENOUGH = 0.99  # recall, beyond which no more lists are looked into
_POOLS = (1000, 4000)

Values = NDArray[np.float32]


class ApproximateIndex:
    """An index that is ready to answer.

    Parameters
    ----------
    index : SearchIndex
        The windows of the set.
    stored : StoredIndex, optional
        What was built; read from the folder of the set if left out.

    Attributes
    ----------
    about : About
        Recall among other things.

    Raises
    ------
    ResultsNotFoundError
        If none was built.
    ResultsError
        If it is damaged.
    SettingsError
        If faiss is missing.
    StorageError
        If it does not fit in the memory.
    """

    def __init__(self, index: SearchIndex, stored: StoredIndex | None = None) -> None:
        faiss = import_faiss()
        self._index = index
        folder = index.loader.get_embedding_dir()
        if stored is None:
            stored = read_index(Path(folder))
        self.about = stored.about
        self._faiss = faiss
        self._rotation = stored.rotation
        dim = stored.centres.shape[1]
        if dim != index.dim:
            raise ResultsNotFoundError(
                f"{folder}: the approximate index is for embeddings of {dim} values, these have "
                f"{index.dim}; build it again with bacpipe.build_search_index."
            )
        self._lists = _empty(faiss, stored.centres)
        if stored.codes.shape[1] != self._lists.code_size:
            raise ResultsNotFoundError(
                f"{folder}: the approximate index was built with another faiss; build it again "
                "with bacpipe.build_search_index."
            )
        if stored.codes.nbytes + stored.rows.nbytes > free_memory():
            raise StorageError(
                f"{folder}: the approximate index does not fit into the memory that is free; "
                "search without it (approximate=False)."
            )
        ends = np.cumsum(stored.sizes).tolist()
        inside = self._lists.invlists
        assert inside is not None
        for number, (first, end) in enumerate(pairwise([0, *ends])):
            rows = np.ascontiguousarray(stored.rows[first:end])
            codes = np.ascontiguousarray(stored.codes[first:end])
            inside.add_entries(number, end - first, faiss.swig_ptr(rows), faiss.swig_ptr(codes))
        self._lists.ntotal = len(stored.rows)
        self._recordings = stored.recordings
        self._firsts = np.cumsum([0, *(item.windows for item in stored.recordings)])
        self._seen: list[Pack] | None = None

    def answers(self, queries: Queries, wanted: Wanted | None) -> bool:
        """Whether it pays: not for few windows, and not where rows count by their length."""
        if queries.by_length or self._index.windows <= FEW:
            return False
        return wanted is None or self._wanted(wanted) > FEW

    def _wanted(self, wanted: Wanted) -> int:
        entries = self._index.entries
        return sum(
            entries[name].windows if mask is True else int(np.sum(mask))
            for name, mask in wanted.items()
        )

    def nearest(self, wanted: Wanted | None, queries: Queries, k: int) -> list[Nearest]:
        """As `SearchIndex.find` asks for; recordings that the index does not know are compared."""
        self._look()
        index = self._index
        chosen = self._chosen(wanted)
        unknown, masks = [], []
        for number, known in enumerate(self._known):
            if known.all():
                continue
            mask = index.mask(number, wanted)
            new = np.repeat(~known, np.diff(index.firsts[number]))
            mask = new if mask is None else mask & new
            if mask.any():
                unknown.append(number)
                masks.append(mask)
        packs = [index.packs[number] for number in unknown]
        compared = nearest(
            packs, masks, queries, k, lambda pack, rows: index.read_rows(unknown[pack], rows)
        )
        compared = [item._replace(pack=np.array(unknown, np.int64)[item.pack]) for item in compared]
        pool = max(self.about.pool, 4 * k)
        there = self._lists.ntotal if chosen is None else int(chosen.sum())
        lists = self.about.lists
        candidates = self._candidates(queries.directions, pool, lists, chosen)
        while (
            min(len(row) for _, row in candidates) < min(pool, there) and lists < self._lists.nlist
        ):
            lists = min(4 * lists, self._lists.nlist)  # as many as were asked for, or all there are
            candidates = self._candidates(queries.directions, pool, lists, chosen)
        return [
            merged(nearest_of(index.packs, *place, direction, k, index.read_rows), other, k)
            for direction, place, other in zip(
                queries.directions, candidates, compared, strict=True
            )
        ]

    def _candidates(
        self, directions: Floats, pool: int, lists: int, chosen: NDArray[np.bool_] | None = None
    ) -> list[tuple[Rows, Rows]]:
        """Pack and row of what seems nearest to each of some directions, the best first."""
        rotated = np.ascontiguousarray(directions.astype(np.float32) @ self._rotation)
        selector = None
        if chosen is not None:
            bits = np.packbits(chosen, bitorder="little")
            selector = self._faiss.IDSelectorBitmap(bits)
        parameters = self._faiss.SearchParametersIVF(nprobe=lists, sel=selector)
        _, numbers = self._lists.search(rotated, pool, params=parameters)
        places = []
        for row in numbers:
            row = row[row >= 0]  # fewer than asked for
            part = np.searchsorted(self._firsts, row, side="right") - 1
            pack, first = self._place[part].T
            places.append((pack, first + row - self._firsts[part]))
        return places

    def tune(self) -> tuple[int, int, float]:
        """How many lists to look into and rows to compute anew, and the recall of that."""
        self._look()
        index, rng = self._index, np.random.default_rng(1)
        names = [name for name in index.names if index.entries[name].windows]
        rows = []
        for name in rng.choice(names, _TRIALS):
            row = index.embedding(name, int(rng.integers(index.entries[name].windows)))
            if np.linalg.norm(row) > 0 and np.isfinite(row).all():
                rows.append(row / np.linalg.norm(row))
        directions = np.stack(rows)
        # The nearest is the window itself, which every index finds.
        truth = [
            set(zip(item.pack[1 : _K + 1].tolist(), item.row[1 : _K + 1].tolist(), strict=True))
            for item in index.nearest(None, Queries(directions), _K + 1)
        ]
        lists = min(8, self._lists.nlist)
        while True:
            candidates = self._candidates(directions, _POOLS[-1], lists)
            for pool in _POOLS:
                hits = [
                    len(nearby & set(zip(pack[:pool].tolist(), row[:pool].tolist(), strict=True)))
                    for nearby, (pack, row) in zip(truth, candidates, strict=True)
                ]
                recall = sum(hits) / max(1, sum(map(len, truth)))
                if recall >= _ENOUGH:
                    return lists, pool, recall
            if lists == self._lists.nlist:
                return lists, pool, recall
            lists = min(2 * lists, self._lists.nlist)

    def _look(self) -> None:
        """Where the rows of the index are now; recordings may have been added or changed."""
        index = self._index
        if self._seen is index.packs:
            return
        rank = {recording: i for i, recording in enumerate(self._recordings)}
        self._place = np.full((len(self._recordings), 2), -1, np.int64)
        self._names = [""] * len(self._recordings)
        self._known = []
        for number, pack in enumerate(index.packs):
            known = index.ranks[number] < 0  # not to be read at all
            for part, (recording, first, _) in enumerate(pack.parts()):
                if not known[part] and (i := rank.get(recording)) is not None:
                    known[part] = True
                    self._place[i] = number, first
                    self._names[i] = index.names[index.ranks[number][part]]
            self._known.append(known)
        self._seen = index.packs

    def _chosen(self, wanted: Wanted | None) -> NDArray[np.bool_] | None:
        """Which rows of the index may be found; None for all."""
        there = self._place[:, 0] >= 0
        if wanted is None and there.all():
            return None
        chosen = np.repeat(there, np.diff(self._firsts))
        if wanted is not None:
            for i in np.flatnonzero(there).tolist():
                mask = wanted.get(self._names[i], False)
                chosen[self._firsts[i] : self._firsts[i + 1]] = mask
        return chosen


def build(index: SearchIndex) -> ApproximateIndex:
    """Build the approximate index of a set and write it.

    Parameters
    ----------
    index : SearchIndex
        All windows.

    Returns
    -------
    ApproximateIndex
        Which says how much it finds.

    Raises
    ------
    SettingsError
        If faiss is missing.
    StorageError
        If memory or disk do not suffice.
    """
    faiss = import_faiss()
    started = time.perf_counter()
    folder = Path(index.loader.get_embedding_dir())
    dim, count = index.dim, index.windows
    number = max(1, min(_LISTS, int(4 * count**0.5), count // _OF_A_LIST))
    # A row's code and number, three times: in faiss, to be written, and as the bytes of the file.
    needed = 3 * count * (dim // 8 + 16) + 8 * dim * _OF_A_LIST * number
    if needed > free_memory():
        raise StorageError(
            f"{folder}: an approximate index of {counted(count, 'window')} takes "
            f"{needed / 1e9:.1f} GB of memory to build, but {free_memory() / 1e9:.1f} GB are free."
        )
    rng = np.random.default_rng(0)
    rotation = np.linalg.qr(rng.standard_normal((dim, dim)))[0].astype(np.float32)
    step = max(1, count // (_OF_A_LIST * number))
    sample = np.concatenate(list(_decoded(index, step))) @ rotation
    kmeans = faiss.Kmeans(dim, number, niter=10, spherical=True, seed=0, min_points_per_centroid=1)
    kmeans.train(sample)
    del sample
    lists = _empty(faiss, kmeans.centroids)
    for rows in _decoded(index):
        lists.add(rows @ rotation)
    inside = lists.invlists
    assert inside is not None
    sizes = [inside.list_size(i) for i in range(number)]
    # Copies: what faiss shows of its own is gone with `lists`.
    ids = [faiss.rev_swig_ptr(inside.get_ids(i), n).copy() for i, n in enumerate(sizes)]
    codes = [
        faiss.rev_swig_ptr(inside.get_codes(i), n * lists.code_size).copy()
        for i, n in enumerate(sizes)
    ]
    stored = StoredIndex(
        [
            recording
            for number, pack in enumerate(index.packs)
            for rank, recording in zip(index.ranks[number].tolist(), pack.recordings, strict=True)
            if rank >= 0
        ],
        rotation,
        kmeans.centroids,
        np.array(sizes, np.int64),
        np.concatenate(ids),
        np.concatenate(codes).reshape(-1, lists.code_size),
        About(1, 1, 0, 0, ""),
    )
    del inside, lists, ids, codes
    built = ApproximateIndex(index, stored)
    probed, pool, recall = built.tune()
    seconds = time.perf_counter() - started
    built.about = About(probed, pool, recall, seconds, datetime.now(UTC).isoformat("T", "seconds"))
    path = write_index(replace(stored, about=built.about), folder)
    logger.info("%s: %s, %s.", path, counted(count, "window"), built.about)
    return built


def _decoded(index: SearchIndex, step: int = 1) -> Iterator[Values]:
    """Every so many-th row of the set from its codes, of length one, in pieces."""
    for number, pack in enumerate(index.packs):
        mask = np.repeat(index.ranks[number] >= 0, np.diff(index.firsts[number]))
        chosen = np.flatnonzero(mask)[::step]
        for first in range(0, len(chosen), _BLOCK):
            rows = chosen[first : first + _BLOCK]
            scale, shift = pack.numbers[:2, rows, None]
            yield scale * pack.codes[rows] + shift


def _empty(faiss: ModuleType, centres: Values) -> IndexIVFRaBitQ:
    """An index of faiss with lists, and nothing in them."""
    quantizer = faiss.IndexFlatIP(centres.shape[1])
    quantizer.add(np.ascontiguousarray(centres))
    lists: IndexIVFRaBitQ = faiss.IndexIVFRaBitQ(
        quantizer, centres.shape[1], len(centres), faiss.METRIC_INNER_PRODUCT
    )
    vars(lists)["kept"] = quantizer  # faiss itself keeps no reference
    lists.is_trained = True
    lists.qb = 8
    return lists


def import_faiss() -> ModuleType:
    """The package faiss.

    Raises
    ------
    SettingsError
        If it cannot be imported, naming the extra.
    """
    try:
        return importlib.import_module("faiss")
    except Exception as error:  # packages that are broken raise anything
        raise SettingsError(cannot_import("An approximate search", "search", error)) from None
