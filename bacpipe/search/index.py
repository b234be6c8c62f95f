"""The windows of one set of embeddings, to be searched as often as wanted."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bacpipe.audio.fingerprint import content_fingerprint
from bacpipe.errors import REPAIR, ResultsError, ResultsNotFoundError
from bacpipe.search.by_roots import nearest_by_roots
from bacpipe.search.scan import ContradictionError, Floats, Nearest, Queries, Rows, nearest
from bacpipe.store.arrays import read_header, read_npy
from bacpipe.store.codes import coded_as, current_packs, discard
from bacpipe.store.embedding_set import EmbeddingSet, read_embeddings, window_times
from bacpipe.store.entries import FinishedEntry
from bacpipe.store.files import npy_header
from bacpipe.store.loader import Loader
from bacpipe.store.plan import look_at_name

logger = logging.getLogger(__name__)

_SAMPLE = 4096  # windows that the mean of all is taken of
_MORE = 4  # times as many windows are looked for again, if too many were left out
_MORE_OF_ALL = 64  # instead, where all embeddings are read for each look

Wanted = Mapping[str, NDArray[np.bool_] | bool]
"""Which windows of a recording, by its name, may be found; those that are not there may not."""


Way = Callable[[Wanted | None, Queries, int], list[Nearest]]
"""Finds the k nearest rows, as `SearchIndex.nearest` does."""


class Hits(NamedTuple):
    """Windows that were found for one query, the nearest first.

    Attributes
    ----------
    recording : list of str
    window : np.ndarray, int64, shape (n,)
    similarity : np.ndarray, float64, shape (n,)
    """

    recording: list[str]
    window: Rows
    similarity: Floats


class SearchIndex:
    """All windows of a model and data set, ready to be searched.

    Nothing is built: what is new since the last search is looked at by `refresh`.

    Parameters
    ----------
    loader : Loader
        Results with embeddings.

    Attributes
    ----------
    loader : Loader
    entries : dict of str to FinishedEntry
        Of the recordings, sorted by name.
    names : list of str
        Of the recordings; the place of one is its rank.
    packs : list of Pack
        Their search codes.
    ranks, firsts : list of np.ndarray, int64
        For each pack, the rank of the recording of each of its parts, -1 if it is not to be read;
        and the first row of each, with the number of all behind it.
    approximation : object
        The approximate index, once it was read.

    Raises
    ------
    ResultsNotFoundError
        If there are no embeddings.
    """

    def __init__(self, loader: Loader) -> None:
        self.loader = loader
        self.approximation: object = None
        self._set: EmbeddingSet | None = None
        self._seen: tuple[object, int] = (None, 0)
        self.refresh()

    def refresh(self) -> None:
        """Take in recordings that are new or have changed since."""
        self.loader.get_embedding_dir()  # or says that there are none
        embedding_set = self.loader.embedding_set
        assert embedding_set is not None
        if not embedding_set.is_current:
            embedding_set.reload()
        seen = (embedding_set.content.recordings, embedding_set.content.recordings.version)
        if embedding_set is self._set and seen[0] is self._seen[0] and seen[1] == self._seen[1]:
            return
        self._set, self._seen = embedding_set, seen
        self.entries: dict[str, FinishedEntry] = dict(embedding_set.content.done.sorted())
        self.names = list(self.entries)
        self.packs = current_packs(embedding_set)
        rank = {coded_as(embedding_set, entry): i for i, entry in enumerate(self.entries.values())}
        self.ranks: list[NDArray[np.int64]] = []
        self.firsts: list[NDArray[np.int64]] = []
        self._places: dict[int, tuple[int, int]] = {}
        self._paths: dict[str, Path] = {}
        for number, pack in enumerate(self.packs):
            ranks, firsts = [], []
            for recording, first, _ in pack.parts():
                known = rank.get(recording, -1)
                if known in self._places:
                    known = -1  # two searches have added it at the same time
                elif known >= 0:
                    self._places[known] = (number, first)
                ranks.append(known)
                firsts.append(first)
            self.ranks.append(np.array(ranks, np.int64))
            self.firsts.append(np.array([*firsts, len(pack.codes)], np.int64))
        dims = {pack.codes.shape[1] for pack in self.packs if len(pack.codes)}
        if len(dims) > 1:
            raise ResultsError(
                f"{embedding_set.folder}: holds embeddings of "
                f"{' and '.join(map(str, sorted(dims)))} values; those of one model have "
                f"one length, so {REPAIR}"
            )
        if not dims:
            raise ResultsNotFoundError(
                f"{embedding_set.folder}: these recordings have no windows, so there is nothing to "
                f"search."
            )
        (self.dim,) = dims

    @property
    def windows(self) -> int:
        """How many there are."""
        return sum(entry.windows for entry in self.entries.values())

    @property
    def identity(self) -> dict[str, Any]:
        """What the embeddings were computed with, as far as it is known."""
        return (self._set and self._set.identity) or {}

    def changed(self, recording: str) -> bool:
        """Whether a recording is there, but not the one that was embedded."""
        entry = self.entries[recording]
        now = look_at_name(recording, self.loader.audio_dir)
        if now.size < 0 or entry.size is None:
            return False
        known = entry.fingerprint
        return now.size != entry.size or known not in (None, content_fingerprint(now.path))

    def embedding(self, recording: str, window: int) -> Floats:
        """Embedding of one window, float64 of shape (dim,)."""
        row: Floats = self._read(self.entries[recording], np.array([window]))[0]
        return row

    def times(self, recording: str) -> tuple[Floats, Floats]:
        """Start and end of every window of a recording in seconds."""
        assert self._set is not None
        return window_times(self.entries[recording], self._set.content.header)

    def mean_direction(self) -> Floats:
        """Mean of windows spread evenly over all, each of length one; float64 of shape (dim,)."""
        counts = np.cumsum([0, *(entry.windows for entry in self.entries.values())])
        chosen = np.unique(np.linspace(0, counts[-1] - 1, _SAMPLE).astype(np.int64))
        rank = np.searchsorted(counts, chosen, side="right") - 1
        total: Floats = np.zeros(self.dim)
        for pack, rows in self._by_pack(rank, chosen - counts[rank]):
            scale, shift, _, error, _ = self.packs[pack].numbers[:, rows].astype(np.float64)
            heard = np.isfinite(error)
            codes = self.packs[pack].codes[rows[heard]]
            total += scale[heard] @ codes + shift[heard].sum()
        mean: Floats = total / len(chosen)
        return mean

    def _by_pack(self, rank: Rows, window: Rows) -> Iterator[tuple[int, Rows]]:
        place = np.array([self._places[i] for i in rank.tolist()], np.int64).reshape(-1, 2)
        for pack in np.unique(place[:, 0]):
            here = place[:, 0] == pack
            yield int(pack), place[here, 1] + window[here]

    # ------------------------------------------------------------------ searching

    def find(
        self,
        queries: Queries,
        k: int,
        *,
        wanted: Wanted | None = None,
        min_gap: float | None = None,
        by: Way | None = None,
    ) -> list[Hits]:
        """Find the windows that are nearest to some queries.

        Parameters
        ----------
        queries : Queries
            What to look for.
        k : int
            How many windows for each.
        wanted : mapping, optional
            Which windows may be found.
        min_gap : float, optional
            Seconds between the starts of two windows of one recording that are found; of nearer
            ones, the best is kept.
        by : callable, optional
            Another way than to compare all rows.

        Returns
        -------
        list of Hits
            One for each query; of equally near windows, those of recordings that come first.

        Raises
        ------
        ResultsError
            If embeddings are missing or damaged.
        """
        more = _MORE_OF_ALL if queries.square_roots else _MORE
        most = k if min_gap is None else more * k
        while True:
            hits = [self._named(item, most) for item in self._nearest(wanted, queries, most, by)]
            spread = [self._spread(item, k, min_gap) for item in hits]
            if all(
                len(item.recording) == k or len(every.recording) < most
                for item, every in zip(spread, hits, strict=True)
            ):
                return spread
            most *= more

    def nearest(self, wanted: Wanted | None, queries: Queries, k: int) -> list[Nearest]:
        """Compare all rows that are wanted."""
        masks = [self.mask(number, wanted) for number in range(len(self.packs))]
        if queries.square_roots:
            return nearest_by_roots(self.packs, masks, queries.directions, k, self._read_recordings)
        return nearest(self.packs, masks, queries, k, self.read_rows)

    def _nearest(
        self, wanted: Wanted | None, queries: Queries, k: int, by: Way | None
    ) -> list[Nearest]:
        for attempt in (1, 2):
            try:
                return (by or self.nearest)(wanted, queries, k)
            except ContradictionError as error:
                pack = self.packs[error.pack]
                if attempt == 2 or pack.path is None:
                    break
                logger.warning("%s: damaged; these search codes are made again.", pack.path)
                discard(pack.path)
                self._set = None
                self.refresh()
        raise ResultsError(
            f"{self.loader.embed_dir}: embeddings have changed since they were written; {REPAIR}"
        )

    def mask(self, number: int, wanted: Wanted | None) -> NDArray[np.bool_] | None:
        """Which rows of a pack may be found; None for all."""
        ranks, firsts = self.ranks[number], self.firsts[number]
        if wanted is None:
            if (ranks >= 0).all():
                return None
            return np.repeat(ranks >= 0, np.diff(firsts))
        mask = np.zeros(firsts[-1], bool)
        for i, rank in enumerate(ranks.tolist()):
            if rank >= 0 and (chosen := wanted.get(self.names[rank])) is not None:
                mask[firsts[i] : firsts[i + 1]] = chosen
        return mask

    def _named(self, rows: Nearest, k: int) -> Hits:
        """Rows as windows of recordings, in their final order."""
        pack, row, similarity, _ = rows
        rank, window = np.zeros_like(row), np.zeros_like(row)
        for number in np.unique(pack):
            here = pack == number
            part = self._parts_of(number, row[here])
            rank[here] = self.ranks[number][part]
            window[here] = row[here] - self.firsts[number][part]
        order = np.lexsort((window, rank, -similarity))[:k]
        names = [self.names[i] for i in rank[order].tolist()]
        return Hits(names, window[order], similarity[order])

    def _parts_of(self, number: int, rows: Rows) -> Rows:
        part: Rows = np.searchsorted(self.firsts[number], rows, side="right") - 1
        return part

    def _spread(self, hits: Hits, k: int, min_gap: float | None) -> Hits:
        """The first k, of which none is too near to a better one."""
        kept: list[int] = []
        taken: dict[str, tuple[Floats, list[float]]] = {}
        for i, (name, window) in enumerate(zip(hits.recording, hits.window, strict=True)):
            if len(kept) == k:
                break
            if min_gap is not None:
                if name not in taken:
                    taken[name] = self.times(name)[0], []
                starts, others = taken[name]
                start = float(starts[window])
                if any(abs(start - other) < min_gap for other in others):
                    continue
                others.append(start)
            kept.append(i)
        return Hits([hits.recording[i] for i in kept], hits.window[kept], hits.similarity[kept])

    # ------------------------------------------------------------------ reading embeddings

    def read_rows(self, number: int, rows: Rows) -> Floats:
        """Embeddings of rows of a pack, float64."""
        part = self._parts_of(number, rows)
        result = np.empty((len(rows), self.dim))
        for one in np.unique(part):
            here = part == one
            entry = self.entries[self.names[self.ranks[number][one]]]
            result[here] = self._read(entry, rows[here] - self.firsts[number][one])
        return result

    def _read_recordings(
        self, number: int, wanted: NDArray[np.bool_]
    ) -> Iterator[tuple[Rows, NDArray[np.float32]]]:
        """Rows of a pack that are wanted and their embeddings, recording by recording."""
        assert self._set is not None
        firsts = self.firsts[number]
        for rank, first, last in zip(self.ranks[number], firsts, firsts[1:], strict=False):
            rows = first + np.flatnonzero(wanted[first:last])
            if not len(rows):
                continue
            entry = self.entries[self.names[rank]]
            embeddings = read_embeddings(self._set, entry, verify=True)
            if embeddings.shape[1] != self.dim:
                raise ResultsError(
                    f"{self._set.embedding_path(entry)}: holds embeddings of "
                    f"{embeddings.shape[1]} numbers, expected {self.dim}; {REPAIR}"
                )
            yield rows, embeddings if len(rows) == len(embeddings) else embeddings[rows - first]

    def _read(self, entry: FinishedEntry, windows: Rows) -> Floats:
        """Some embeddings of a recording; the others are not read."""
        assert self._set is not None
        name = entry.embeddings.path
        if name not in self._paths:
            self._paths[name] = self._set.embedding_path(entry)
        path = self._paths[name]
        try:
            with path.open("rb", buffering=0) as file:
                header = npy_header(entry.windows, self.dim)
                if file.read(len(header)) == header:  # as all that we write; quicker than numpy
                    return _rows_at(file, np.dtype("<f4"), windows, self.dim)
                file.seek(0)
                shape, in_columns, kind = read_header(file)
                if shape != (entry.windows, self.dim):
                    raise ValueError(f"its shape is {shape}")
                if in_columns:
                    return read_npy(path)[windows].astype(np.float64)
                return _rows_at(file, kind, windows, self.dim)
        except FileNotFoundError:
            raise ResultsError(
                f"{path}: these embeddings are gone; run the pipeline again to compute them anew."
            ) from None
        except (OSError, ValueError) as error:
            raise ResultsError(
                f"{path}: these embeddings are damaged ({error}); {REPAIR}"
            ) from None


def _rows_at(file: IO[bytes], kind: np.dtype[Any], windows: Rows, dim: int) -> Floats:
    """Some rows of a file that stands at the first."""
    first, rows = file.tell(), np.empty((len(windows), dim))
    for i, window in enumerate(windows.tolist()):
        file.seek(first + window * dim * kind.itemsize)
        values = np.frombuffer(file.read(dim * kind.itemsize), kind)
        if len(values) != dim:
            raise ValueError("it is cut off")
        rows[i] = values
    return rows
