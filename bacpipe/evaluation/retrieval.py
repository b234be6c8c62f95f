"""Retrieval: whether windows of a label lie together, and which are most similar to one window.

For `retrieval_quality`, which needs no training, a window is only ever compared with windows of
other recordings, because those of one recording share its background and often the same animal;
similarity is the cosine of standardised embeddings.  `nearest_windows` finds windows by the cosine
of the embeddings as they are, without holding all of them in memory.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch

from bacpipe.errors import (
    EvaluationError,
    ResultsError,
    ResultsNotFoundError,
    TooLittleDataError,
    counted,
)
from bacpipe.evaluation.labelled_windows import NO_LABEL, LabelledWindows
from bacpipe.evaluation.metrics import (
    Groups,
    draw_weights,
    group_by,
    mean_of_defined,
    notes_on_intervals,
    number,
    ratio,
    summarise,
)
from bacpipe.store.embedding_set import read_embeddings
from bacpipe.store.loader import Loader

logger = logging.getLogger(__name__)

_CHUNK = 512
_BINS = 2000
_SIMILARITIES = 65_536  # windows compared at once


def retrieval_quality(
    data: LabelledWindows,
    *,
    n_neighbors: int = 10,
    most: int = 20_000,
    samples: int = 1000,
    seed: int = 42,
) -> dict[str, Any]:
    """Precision of the nearest neighbours, and AUROC of same-label pairs.

    Parameters
    ----------
    data : LabelledWindows
        Windows without a label are left out; their recordings must be known.
    n_neighbors : int
        Neighbours of a window that are looked at.
    most : int
        Of more labelled windows than this, a random sample is used.
    samples, seed : int
        Bootstrap resamples over the recordings of the queries, and the seed.

    Returns
    -------
    dict
        ``overall`` and ``intervals`` of ``neighbour_precision`` (share of the neighbours that
        have the window's label, mean over labels), ``neighbour_precision_chance`` (the same for
        neighbours drawn at random) and ``same_label_auroc`` (probability that two windows of one
        label are more similar than two of different labels; 0.5 is chance); ``per_class``
        precision; ``notes``.

    Raises
    ------
    TooLittleDataError
        If no label is in two recordings, or there is only one label.
    EvaluationError
        If recordings are not known.
    """
    if data.recordings is None:
        raise EvaluationError(
            "Retrieval compares windows of different recordings, which are not known here; pass "
            "recordings= or paths=."
        )
    rows, notes = _choose_rows(data, most, seed)
    labels = data.labels[rows]
    groups = group_by(data.recordings[rows], len(rows))
    n_classes = len(data.classes)
    pair = np.unique(np.stack([labels, groups.code]), axis=1)[0]
    if len(np.unique(labels)) < 2 or np.bincount(pair).max(initial=0) < 2:
        raise TooLittleDataError(
            f"{data.model}: retrieval needs at least 2 labels and one of them in 2 recordings, but "
            f"found {counted(len(np.unique(labels)), 'label')} in "
            f"{counted(groups.number, 'recording')}."
        )
    precision, chance, same, other = _compare(
        _normalise(data.embeds[rows]), labels, groups, n_neighbors
    )
    weights = draw_weights(groups, samples, seed)
    by_class = _class_means(precision, labels, n_classes, groups, weights)
    chance_by_class = _class_means(chance, labels, n_classes, groups, weights)
    summary = summarise(
        {
            "neighbour_precision": mean_of_defined(by_class),
            "neighbour_precision_chance": mean_of_defined(chance_by_class),
            "same_label_auroc": _auroc(weights @ same, weights @ other),
        }
    )
    return {
        "model": data.model,
        "label_column": data.column,
        **summary,
        "n_neighbors": n_neighbors,
        "n_windows": len(rows),
        "n_recordings": groups.number,
        "per_class": {
            name: {"neighbour_precision": number(by_class[0, i]),
                   "chance": number(chance_by_class[0, i]),
                   "n_windows": int((labels == i).sum())}
            for i, name in enumerate(data.classes)
            if (labels == i).any()
        },
        "notes": notes + notes_on_intervals(groups, samples),
    }  # fmt: skip


def _choose_rows(data: LabelledWindows, most: int, seed: int) -> tuple[np.ndarray, list[str]]:
    rows = np.flatnonzero(data.labels != NO_LABEL)
    if len(rows) <= most:
        return rows, []
    note = f"Computed from a random sample of {most} of {len(rows)} labelled windows."
    logger.info("%s, retrieval: %s", data.model, note)
    return np.sort(np.random.default_rng(seed).choice(rows, most, replace=False)), [note]


def _normalise(embeds: np.ndarray) -> np.ndarray:
    deviation = embeds.std(axis=0)
    centred = (embeds - embeds.mean(axis=0)) / np.where(deviation > 0, deviation, 1)
    length = np.linalg.norm(centred, axis=1, keepdims=True)
    return centred / np.where(length > 0, length, 1)


def _compare(
    points: np.ndarray, labels: np.ndarray, groups: Groups, n_neighbors: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Compare every window with those of other recordings.

    Returns precision and chance of every window, NaN where no other recording has its label, and
    histograms of shape (recordings, bins): pairs of one label and of two by similarity and by the
    recording of the query.
    """
    n = len(points)
    precision, chance = np.full(n, np.nan), np.full(n, np.nan)
    k = min(n_neighbors, n)
    # Histograms of one recording after the other, for pairs of two labels, then of one.
    histograms = np.zeros(groups.number * 2 * _BINS + 1, np.int64)
    nowhere = groups.number * 2 * _BINS
    for part in _parts(n):
        similarity = points[part] @ points.T
        forbidden = groups.code[part, None] == groups.code
        equal = (labels[part, None] == labels) & ~forbidden
        n_allowed, n_equal = n - forbidden.sum(axis=1), equal.sum(axis=1)
        cell = ((similarity + 1) * (_BINS / 2)).astype(np.int32).clip(0, _BINS - 1)
        cell += equal * np.int32(_BINS)
        cell += (groups.code[part, None] * 2 * _BINS).astype(np.int32)
        cell[forbidden] = nowhere
        histograms += np.bincount(cell.ravel(), minlength=len(histograms))
        similarity[forbidden] = -np.inf
        nearest = torch.from_numpy(similarity).topk(k, dim=1, sorted=False).indices.numpy()
        hits = np.take_along_axis(equal, nearest, axis=1).sum(axis=1)
        defined = n_equal > 0
        # Fewer windows than neighbours asked for: all there are.
        precision[part] = np.where(defined, hits / np.clip(n_allowed, 1, k), np.nan)
        chance[part] = np.where(defined, n_equal / np.maximum(n_allowed, 1), np.nan)
    pairs = histograms[:-1].reshape(groups.number, 2, _BINS).astype(np.float64)
    return precision, chance, pairs[:, 1], pairs[:, 0]


def _parts(n: int) -> Iterator[slice]:
    for first in range(0, n, _CHUNK):
        yield slice(first, min(first + _CHUNK, n))


def _class_means(
    values: np.ndarray, labels: np.ndarray, n_classes: int, groups: Groups, weights: np.ndarray
) -> np.ndarray:
    """Mean of the defined values by class, shape (weights, classes)."""
    use = np.isfinite(values)
    total, count = np.zeros((2, groups.number, n_classes))
    np.add.at(total, (groups.code[use], labels[use]), values[use])
    np.add.at(count, (groups.code[use], labels[use]), 1)
    return ratio(weights @ total, weights @ count, np.nan)


def _auroc(same: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Area under the ROC curve from histograms, rows by row; ties within a bin count half."""
    below = other.cumsum(axis=1) - other
    area = (same * (below + other / 2)).sum(axis=1)
    return ratio(area, same.sum(axis=1) * other.sum(axis=1), np.nan)


# ---------------------------------------------------------------------- of one window


class Neighbours(NamedTuple):
    """Windows in the order of their similarity, the most similar first."""

    rows: np.ndarray  # int64, shape (n,): rows of ``Loader.embeddings('array')``
    similarity: np.ndarray  # float32, shape (n,): cosine, from -1 to 1
    skipped: int = 0  # recordings whose embeddings could not be read


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
    row : int
        The window, a row of ``Loader.embeddings('array')``; it is not among those found.
    count : int
        How many windows to find.
    other_recordings : bool
        True leaves out the window's own recording, with which it shares the background.
    wanted : callable
        Asked between recordings; once it says False, the search ends with what it has.

    Raises
    ------
    ResultsNotFoundError
        If there are no embeddings or no such row.
    ResultsError
        If the embedding of the window itself cannot be read.
    """
    loader.get_embedding_dir()
    stored = loader.embedding_set
    assert stored is not None
    entries = loader.entries
    stops = np.cumsum([entry.windows for entry in entries.values()])
    if not 0 <= row < (stops[-1] if len(stops) else 0):
        raise ResultsNotFoundError(f"{loader.model_name} has no window {row}.")
    place = int(np.searchsorted(stops, row, side="right"))
    own = list(entries)[place]
    first = int(stops[place]) - entries[own].windows
    query = read_embeddings(stored, entries[own], verify=False)[row - first]
    best, skipped = Neighbours(np.zeros(0, np.int64), np.zeros(0, np.float32)), 0
    for (name, entry), stop in zip(entries.items(), stops, strict=True):
        if not wanted():
            break
        if other_recordings and name == own:
            continue
        try:
            embeddings = read_embeddings(stored, entry, verify=False)
        except ResultsError as error:
            logger.warning("left out of the search for neighbours: %s", error)
            skipped += 1
            continue
        for begin in range(0, len(embeddings), _SIMILARITIES):
            part = _cosine(embeddings[begin : begin + _SIMILARITIES], query)
            rows = int(stop) - entry.windows + begin + np.arange(len(part))
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
