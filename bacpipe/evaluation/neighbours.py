"""The windows most similar to one window, found without holding all embeddings in memory."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from bacpipe.errors import ResultsError, ResultsNotFoundError
from bacpipe.store.loader import Loader
from bacpipe.store.sets import read_embeddings

logger = logging.getLogger(__name__)

_CHUNK = 65_536  # windows compared at once


class Neighbours(NamedTuple):
    """Windows in the order of their similarity, the most similar first.

    Attributes
    ----------
    rows : np.ndarray, int64, shape (n,)
        Rows of ``Loader.embeddings('array')``.
    similarity : np.ndarray, float32, shape (n,)
        Cosine, from -1 to 1.
    skipped : int
        Recordings whose embeddings could not be read.
    """

    rows: np.ndarray
    similarity: np.ndarray
    skipped: int = 0


def nearest_windows(
    loader: Loader,
    row: int,
    *,
    count: int = 10,
    other_recordings: bool = False,
    wanted: Callable[[], bool] = lambda: True,
) -> Neighbours:
    """Find the windows whose embeddings have the highest cosine with that of one window.

    The embeddings are read one recording after the other, so that memory is bounded by the
    longest recording.

    Parameters
    ----------
    loader : Loader
        With embeddings.
    row : int
        The window, a row of ``Loader.embeddings('array')``.
    count : int
        How many windows to find.
    other_recordings : bool
        True leaves out the window's own recording, with which it shares the background.
    wanted : callable
        Asked between recordings; once it says False, the search ends with what it has.

    Returns
    -------
    Neighbours
        The window itself is not among them.

    Raises
    ------
    ResultsNotFoundError
        If there are no embeddings or no such row.
    ResultsError
        If the embedding of the window itself cannot be read.
    """
    loader.get_embedding_dir()
    found = loader.embedding_set
    assert found is not None
    lines = loader.lines
    stops = np.cumsum([line["windows"] for line in lines.values()])
    if not 0 <= row < (stops[-1] if len(stops) else 0):
        raise ResultsNotFoundError(f"{loader.model_name} has no window {row}.")
    place = int(np.searchsorted(stops, row, side="right"))
    own = list(lines)[place]
    first = int(stops[place]) - lines[own]["windows"]
    query = read_embeddings(found, lines[own], verify=False)[row - first]
    best, skipped = Neighbours(np.zeros(0, np.int64), np.zeros(0, np.float32)), 0
    for (name, line), stop in zip(lines.items(), stops, strict=True):
        if not wanted():
            break
        if other_recordings and name == own:
            continue
        try:
            embeddings = read_embeddings(found, line, verify=False)
        except ResultsError as error:
            logger.warning("left out of the search for neighbours: %s", error)
            skipped += 1
            continue
        for begin in range(0, len(embeddings), _CHUNK):
            part = _cosine(embeddings[begin : begin + _CHUNK], query)
            rows = int(stop) - line["windows"] + begin + np.arange(len(part))
            best = _merge(best, rows[rows != row], part[rows != row], count)
    return best._replace(skipped=skipped)


def _cosine(embeddings: np.ndarray, query: np.ndarray) -> np.ndarray:
    """Cosine of each embedding with a query; 0 where either has no length."""
    # In one thread: a product as small as one recording gains nothing from more, and BLAS
    # makes other work wait for them.
    product = np.einsum("ij,j->i", embeddings, query)
    length = np.sqrt(np.einsum("ij,ij->i", embeddings, embeddings) * np.dot(query, query))
    return np.divide(product, length, out=np.zeros_like(product), where=length > 0)


def _merge(best: Neighbours, rows: np.ndarray, similarity: np.ndarray, count: int) -> Neighbours:
    rows = np.concatenate([best.rows, rows])
    similarity = np.concatenate([best.similarity, similarity])
    if len(rows) > count:  # a full sort of every recording would take most of the time
        kept = np.argpartition(-similarity, count)[:count]
        rows, similarity = rows[kept], similarity[kept]
    order = np.lexsort((rows, -similarity))
    return Neighbours(rows[order], similarity[order])
