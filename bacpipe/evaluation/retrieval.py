"""Retrieval: whether windows of a label lie together, and which are most similar to one window.

For `retrieval_quality`, which needs no training, a window is only ever compared with windows of
other recordings, because those of one recording share its background and often the same animal;
similarity is the cosine of standardised embeddings.  `nearest_windows` finds windows by the cosine
of the embeddings as they are, without holding all of them in memory.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
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
from bacpipe.evaluation.labelled_windows import LabelledWindows
from bacpipe.evaluation.metrics import (
    MOST_REPLICATES,
    group_by,
    leave_out,
    mean_of_defined,
    notes_on_intervals,
    number,
    ratio,
    summarise,
)
from bacpipe.evaluation.retrieved_windows import (
    RetrievedWindows,
    read_retrieved,
    write_retrieved,
)
from bacpipe.evaluation.standardiser import directions
from bacpipe.evaluation.units import units_left_out
from bacpipe.options import Options
from bacpipe.store.embedding_set import read_embeddings
from bacpipe.store.fingerprints import read_result, write_result
from bacpipe.store.layout import RETRIEVAL_NEIGHBOURS, RETRIEVAL_RESULTS
from bacpipe.store.loader import Loader

logger = logging.getLogger(__name__)

Result = dict[str, Any]

_CHUNK = 512
_BINS = 2000
_REACH = 6  # times as many neighbours are kept as asked for: some may be left out
_SIMILARITIES = 65_536  # windows compared at once


def retrieval_quality(
    data: LabelledWindows,
    *,
    n_neighbors: int = 10,
    most: int = 20_000,
    samples: int = 1000,
    seed: int = 42,
    unit: str = "recording",
) -> dict[str, Any]:
    """Precision of the nearest neighbours, and AUROC of same-label pairs.

    Parameters
    ----------
    data : LabelledWindows
        Their recordings must be known.  Windows without a label are left out; where windows can
        have several, they stay among the neighbours, and a neighbour is right if it has any of
        the window's labels.
    n_neighbors : int
        Neighbours of a window that are looked at.
    most : int
        Of more labelled windows than this, a random sample is used.
    samples : int
        Most parts into which the recordings are divided for the intervals, each of which is left
        out once, among the queries and among the neighbours; 0 for no intervals.
    seed : int
        Seed of the sample of windows.
    unit : {'recording', 'site'}
        What is left out as a whole.

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
    return retrieve(data, n_neighbors, most, samples, seed, unit)[0]


def evaluate_retrieval(data: LabelledWindows, options: Options, *, overwrite: bool) -> Result:
    """Do what `retrieval_quality` does, as the settings say, and store that."""
    assert data.paths is not None
    unit = "site" if options.split == "site" else "recording"
    chosen = {
        "n_neighbors": options.retrieval_neighbors,
        "most": options.max_windows_for_pairs,
        "samples": options.bootstrap_samples,
        "seed": options.evaluation_seed,
    }
    fingerprint = data.fingerprint(retrieval={**chosen, "unit": unit})
    path = data.paths.clust_path / RETRIEVAL_RESULTS
    neighbours = path.with_name(RETRIEVAL_NEIGHBOURS)
    stored = None if overwrite else read_result(path, fingerprint)
    # Version 2.0 did not store the neighbours.
    if stored is not None and read_retrieved(neighbours, stored) is not None:
        return stored
    result, windows = retrieve(data, **chosen, unit=unit)
    write_retrieved(neighbours, windows, fingerprint)
    write_result(path, result, fingerprint)
    return result


def retrieve(
    data: LabelledWindows,
    n_neighbors: int = 10,
    most: int = 20_000,
    samples: int = 1000,
    seed: int = 42,
    unit: str = "recording",
) -> tuple[Result, RetrievedWindows]:
    """Do what `retrieval_quality` does; also returns what models are compared by."""
    if data.recordings is None:
        raise EvaluationError(
            "Retrieval compares windows of different recordings, which are not known here; pass "
            "recordings= or paths=."
        )
    rows, notes = _choose_rows(data, most, seed)
    presence = data.presence_of(rows)
    groups = group_by(data.recordings[rows], len(rows))
    windows = RetrievedWindows(
        data.classes, presence, data.recordings[rows], np.empty((len(rows), 0), np.int32),
        n_neighbors, data.multi_label, data.sites,
    )  # fmt: skip
    n_labels = int(presence.any(axis=0).sum())
    if n_labels < 2 or not windows.compared:
        raise TooLittleDataError(
            f"{data.model}: retrieval needs at least 2 labels and one of them in 2 recordings, but "
            f"found {counted(n_labels, 'label')} in {counted(groups.number, 'recording')}."
        )
    units = units_left_out(data.recordings[rows], len(rows), unit, data.sites)
    kept = leave_out(units, min(samples, MOST_REPLICATES))
    # The replicate that leaves out each window; all of them the first if there is only one.
    part = np.argmin(kept[:, units.code], axis=0) if len(kept) > 1 else np.zeros(len(rows), int)
    nearest, same, other = _compare(
        directions(data.embeds[rows]), presence, groups.code, part, len(kept), _REACH * n_neighbors
    )
    windows = replace(windows, nearest=nearest)
    precision, chance = windows.by_class(units, kept)
    summary = summarise(
        {
            "neighbour_precision": mean_of_defined(precision),
            "neighbour_precision_chance": mean_of_defined(chance),
            "same_label_auroc": _auroc(same, other),
        },
        len(rows),
    )
    result = {
        "model": data.model,
        "label_column": data.column,
        **summary,
        "n_neighbors": n_neighbors,
        "n_windows": len(rows),
        "n_recordings": groups.number,
        "unit": unit,
        "per_class": {
            name: {"neighbour_precision": number(precision[0, i]),
                   "chance": number(chance[0, i]),
                   "n_windows": int(presence[:, i].sum())}
            for i, name in enumerate(data.classes)
            if presence[:, i].any()
        },
        "notes": notes + notes_on_intervals(units, samples),
    }  # fmt: skip
    return result, windows


def _choose_rows(data: LabelledWindows, most: int, seed: int) -> tuple[np.ndarray, list[str]]:
    rows = np.flatnonzero(data.used)
    if len(rows) <= most:
        return rows, []
    note = f"Computed from a random sample of {most} of {len(rows)} labelled windows."
    logger.info("%s, retrieval: %s", data.model, note)
    return np.sort(np.random.default_rng(seed).choice(rows, most, replace=False)), [note]


def _compare(
    points: np.ndarray,
    presence: np.ndarray,
    recording: np.ndarray,
    part: np.ndarray,
    n_rows: int,
    kept: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compare every window with those of other recordings; `part` is the row without it.

    Returns the nearest windows, int32 of shape (windows, kept), -1 where there is none, and pairs
    with the same label and with another one by similarity, float64 of shape (rows, bins): with
    everything in the first row, and without one part in each further row.
    """
    nothing = ~presence.any(axis=1)
    # Single labels are compared as numbers, which is much faster; nothing equals nothing else.
    single = presence.sum(axis=1).max(initial=0) <= 1
    label = presence.argmax(axis=1) if single else presence.astype(np.float32)
    nearest = np.full((len(points), min(kept, len(points))), -1, np.int32)
    # Pairs by part of the query, by whether the other window is of the same part, and by whether
    # it has the same label.
    histograms = np.zeros(n_rows * 4 * _BINS + 1, np.int64)
    nowhere = n_rows * 4 * _BINS
    for span in _parts(len(points)):
        similarity = points[span] @ points.T
        forbidden = recording[span, None] == recording
        forbidden |= nothing[span, None] & nothing  # two windows without labels say nothing
        if single:
            equal = (label[span, None] == label) & ~(nothing[span, None] | nothing | forbidden)
        else:
            equal = (label[span] @ label.T > 0) & ~forbidden
        cell = ((similarity + 1) * (_BINS / 2)).astype(np.int32).clip(0, _BINS - 1)
        cell += equal * np.int32(_BINS)
        cell += (part[span, None] == part) * np.int32(2 * _BINS)
        cell += (part[span, None] * 4 * _BINS).astype(np.int32)
        cell[forbidden] = nowhere
        histograms += np.bincount(cell.ravel(), minlength=len(histograms))
        similarity[forbidden] = -np.inf
        closeness, rows = torch.from_numpy(similarity).topk(nearest.shape[1], dim=1)
        nearest[span] = np.where(np.isfinite(closeness.numpy()), rows.numpy(), -1)
    of_part = histograms[:-1].reshape(n_rows, 2, 2, _BINS).astype(np.float64)
    total = of_part.sum(axis=(0, 1))
    # A pair counts twice, once from either side, so that leaving out a part takes away twice what
    # its windows are compared with, but once what is within it.
    pairs = total - 2 * of_part.sum(axis=1) + of_part[:, 1]
    pairs[0] = total
    return nearest, pairs[:, 1], pairs[:, 0]


def _parts(n: int) -> Iterator[slice]:
    for first in range(0, n, _CHUNK):
        yield slice(first, min(first + _CHUNK, n))


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
