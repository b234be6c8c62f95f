"""Silhouettes: how much closer windows are to their own label, or cluster, than to others."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from bacpipe.errors import counted
from bacpipe.evaluation.labelled_clusters import share_left_out
from bacpipe.evaluation.metrics import (
    MOST_REPLICATES,
    Groups,
    group_by,
    interval,
    leave_out,
    ratio,
)
from bacpipe.options import Options

logger = logging.getLogger(__name__)


def silhouette(
    embeds: np.ndarray,
    labels: np.ndarray,
    options: Options,
    units: np.ndarray | None = None,
    halves: Callable[[], np.ndarray] | None = None,
) -> dict[str, Any]:
    """Silhouette of labels; `units` are the recording, or site, of every window, if known.

    For labels that are clusters `halves` makes the clusters of half of the recordings, which their
    interval comes from.  Where some windows are noise there is none, and no halves are made.
    """
    rows = np.flatnonzero(labels >= 0)
    total, note, most = len(rows), None, options.max_windows_for_pairs
    if total > most:
        chosen = np.random.default_rng(options.evaluation_seed).choice(rows, most, replace=False)
        rows = np.sort(chosen)
        note = f"computed from a random sample of {most} of {total} windows."
        logger.info("silhouette score: %s", note)
    names, code = np.unique(labels[rows], return_inverse=True)
    if not 2 <= len(names) < len(rows):
        note = f"not defined for {counted(len(names), 'label')} of {counted(len(rows), 'window')}."
        return {"score": None, "interval": None, "n_windows": len(rows), "note": note}
    # Without recordings, windows are not independent, so that there is no interval.
    groups = Groups(np.zeros(len(rows), np.int64), 1)
    if units is not None:
        groups = group_by(units[rows], len(rows))
    samples = min(options.bootstrap_samples, MOST_REPLICATES) if halves is None else 0
    values = _silhouettes(np.asarray(embeds)[rows], code, groups, leave_out(groups, samples))
    left_out = None
    # Which windows are noise changes too much from half to half: intervals would be too narrow.
    if halves is not None and (labels >= 0).all():
        made = halves()
        values = np.append(values, [_plain_silhouette(embeds, each) for each in made])
        left_out = share_left_out(made, group_by(units, len(labels)))
    bounds = interval(values, low=-1.0, windows=len(rows), left_out=left_out)
    return {"score": float(values[0]), "interval": bounds, "n_windows": len(rows), "note": note}


def _plain_silhouette(points: np.ndarray, clusters: np.ndarray) -> float:
    """Mean silhouette of the windows in a cluster; NaN if it is not defined."""
    from sklearn.metrics import silhouette_score

    rows = np.flatnonzero(clusters >= 0)
    if not 2 <= len(np.unique(clusters[rows])) < len(rows):
        return float("nan")
    return float(silhouette_score(points[rows], clusters[rows]))


def _silhouettes(
    points: np.ndarray, code: np.ndarray, groups: Groups, weights: np.ndarray
) -> np.ndarray:
    """Mean silhouette (Rousseeuw 1987) of the windows that each row of weights keeps.

    Distances to what a row leaves out do not count either, so that they are summed up by label and
    by the row that leaves the other window out.
    """
    from sklearn.metrics import pairwise_distances_chunked

    n_rows, n_labels = len(weights), int(code.max()) + 1
    part = np.argmin(weights[:, groups.code], axis=0) if n_rows > 1 else np.zeros(len(code), int)
    cell = part * n_labels + code
    order = np.argsort(cell, kind="stable")
    cells, first = np.unique(cell[order], return_index=True)
    number = np.bincount(cell, minlength=n_rows * n_labels).reshape(n_rows, n_labels)
    sums, kept = np.zeros((2, n_rows))

    def add(distances: np.ndarray, start: int) -> None:
        here = np.arange(start, start + len(distances))
        by_cell = np.zeros((len(here), n_rows * n_labels))
        by_cell[:, cells] = np.add.reduceat(distances[:, order], first, axis=1, dtype=np.float64)
        to = by_cell.reshape(len(here), n_rows, n_labels)
        own = code[here][:, None] == np.arange(n_labels)
        everything, n_all = to.sum(axis=1), number.sum(axis=0)
        for row in range(n_rows):
            out = row > 0
            total = everything - to[:, row] if out else everything
            count = n_all - number[row] if out else n_all
            # The mean over the others of the own label, itself left out.
            inside = ratio(total[own], count[code[here]] - 1.0, np.nan)
            outside = np.where(own | (count == 0), np.inf, ratio(total, count + 0 * total, np.inf))
            between = outside.min(axis=1)
            values = ratio(between - inside, np.maximum(inside, between), 0)
            values[count[code[here]] == 1] = 0  # alone with its label
            use = (part[here] != row) if out else np.ones(len(here), bool)
            use &= np.isfinite(between)  # nothing else is left to be far from
            sums[row] += values[use].sum()
            kept[row] += use.sum()

    for start, distances in _with_starts(pairwise_distances_chunked(points)):
        add(distances, start)
    return ratio(sums, kept, np.nan)


def _with_starts(chunks: Iterator[np.ndarray]) -> Iterator[tuple[int, np.ndarray]]:
    start = 0
    for chunk in chunks:
        yield start, chunk
        start += len(chunk)
