"""Which window holds which annotation.

The rule: annotations of the same label that overlap or touch count as one.  Such an annotation
labels a window if they share at least ``annotation_overlap`` times the length of the shorter
of the two.  So a short call labels the window that holds most of it, and a long annotation the
windows that it covers for the most part.  With the default of 0.5 and windows that follow one
another, no annotation is lost; with 0, touching is enough.  The length of a padded window is
that of its recorded part.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bacpipe.labels.model_windows import ModelWindows
from bacpipe.store.events import Intervals, merge_intervals

_TOLERANCE = 1e-6  # seconds; times in tables are rounded


class Overlaps(NamedTuple):
    """Pairs of a window and a label, each once, sorted by window, then by falling overlap.

    Attributes
    ----------
    window : np.ndarray, int64, shape (n,)
        Index of the window.
    label : np.ndarray, int64, shape (n,)
        Number of the label.
    seconds : np.ndarray, float64, shape (n,)
        How much of the window the label covers.
    """

    window: np.ndarray
    label: np.ndarray
    seconds: np.ndarray


def find_overlaps(
    windows: ModelWindows, annotated: dict[str, Intervals], fraction: float
) -> tuple[Overlaps, int]:
    """Find the labels of every window.

    Parameters
    ----------
    windows : ModelWindows
        All windows.
    annotated : dict of Intervals
        Labelled intervals by recording.
    fraction : float
        Setting ``annotation_overlap``.

    Returns
    -------
    overlaps : Overlaps
        Indices of windows count through all recordings.
    lost : int
        Annotations (after joining those of one label) that label no window.
    """
    starts, ends = windows.times
    parts, lost = [], 0
    for name, rows in windows.slices():
        if name in annotated:
            intervals, _ = merge_intervals(annotated[name])
            found, unused = _overlaps_of_one(starts[rows], ends[rows], intervals, fraction)
            parts.append(found._replace(window=found.window + rows.start))
            lost += unused
    if not parts:
        return Overlaps(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)), lost
    return Overlaps(*(np.concatenate(column) for column in zip(*parts, strict=True))), lost


def _overlaps_of_one(
    start: np.ndarray, end: np.ndarray, intervals: Intervals, fraction: float
) -> tuple[Overlaps, int]:
    # Windows of annotated segments may lie in any order; sorted by start, candidates are a run.
    order = np.argsort(start, kind="stable")
    longest = (end - start).max(initial=0.0)
    first = np.searchsorted(start[order], intervals.start - longest - _TOLERANCE, "left")
    last = np.searchsorted(start[order], intervals.end, "left")
    counts = np.maximum(last - first, 0)
    which = np.repeat(np.arange(len(counts)), counts)
    within = np.arange(len(which)) - np.repeat(np.cumsum(counts) - counts, counts)
    window = order[first[which] + within]
    shared = np.minimum(end[window], intervals.end[which]) - np.maximum(
        start[window], intervals.start[which]
    )
    shorter = np.minimum(end[window] - start[window], intervals.end[which] - intervals.start[which])
    kept = (shared > _TOLERANCE) & (shared >= fraction * shorter - _TOLERANCE)
    lost = len(counts) - len(np.unique(which[kept]))
    return _sum_up(window[kept], intervals.label[which[kept]], shared[kept]), lost


def _sum_up(window: np.ndarray, label: np.ndarray, seconds: np.ndarray) -> Overlaps:
    """Add up the overlaps of each window and label, and sort them."""
    pairs, group = np.unique(np.stack([window, label]), axis=1, return_inverse=True)
    total = np.bincount(group.ravel(), seconds, minlength=pairs.shape[1])
    # Rounding hides differences that are none; the number of the label then decides.
    order = np.lexsort((pairs[1], -total.round(6), pairs[0]))
    return Overlaps(pairs[0][order], pairs[1][order], total[order])
