"""Detections: predictions with their times, and how neighbouring ones become events."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

ChannelsOf = Callable[[str], np.ndarray]
"""Channel of every window of a recording, from 1, by its name."""

_TOLERANCE = 1e-6  # seconds; times in tables are rounded


class Detections(NamedTuple):
    """Predictions of one recording with their times.

    Attributes
    ----------
    recording : str
        Posix path relative to the audio folder.
    window : np.ndarray, int32, shape (n,)
        Index of the window.
    start, end : np.ndarray, float64, shape (n,)
        Of the window, in seconds.
    label : np.ndarray of object, shape (n,)
        Name of the class.
    score : np.ndarray, float32, shape (n,)
    """

    recording: str
    window: np.ndarray
    start: np.ndarray
    end: np.ndarray
    label: np.ndarray
    score: np.ndarray


def above(item: Detections, threshold: float) -> Detections:
    """Detections with at least this score."""
    kept = item.score >= np.float32(threshold)
    return Detections(item.recording, *(column[kept] for column in item[1:]))


class Intervals(NamedTuple):
    """Labelled intervals of one recording.

    Attributes
    ----------
    start, end : np.ndarray, float64, shape (n,)
        Seconds.
    label : np.ndarray, int64, shape (n,)
        Number of the label.
    """

    start: np.ndarray
    end: np.ndarray
    label: np.ndarray


def merge_intervals(intervals: Intervals, gap: float = 0.0) -> tuple[Intervals, np.ndarray]:
    """Join intervals of the same label that overlap, touch or follow within a gap.

    Parameters
    ----------
    intervals : Intervals
        In any order.
    gap : float
        Seconds that may lie between two intervals.

    Returns
    -------
    merged : Intervals
        Sorted by label, then by start.
    group : np.ndarray, int64, shape (n,)
        For each of the intervals given, the merged one that it went into.
    """
    start, end, label = intervals
    if not len(start):
        return intervals, np.zeros(0, dtype=np.int64)
    order = np.lexsort((end, start, label))
    # Labels one behind the other on one time axis, too far apart to be joined.
    _, rank = np.unique(label[order], return_inverse=True)
    shift = rank * (end.max() - start.min() + gap + 1.0)
    reach = np.maximum.accumulate(end[order] + shift)
    new = np.ones(len(order), dtype=bool)
    new[1:] = start[order][1:] + shift[1:] > reach[:-1] + gap + _TOLERANCE
    first = np.flatnonzero(new)
    group = np.empty(len(order), dtype=np.int64)
    group[order] = np.cumsum(new) - 1
    ends = np.maximum.reduceat(end[order], first)
    return Intervals(start[order[first]], ends, label[order[first]]), group


def merge_detections(
    item: Detections, gap: float | None, channels: np.ndarray | None = None
) -> Detections:
    """Join the detections of each class in one recording into events.

    Parameters
    ----------
    item : Detections
        Detections of single windows.
    gap : float or None
        Seconds that may lie between two windows of one event; None joins nothing.
    channels : np.ndarray, optional
        Channel of every window of the recording; an event is of one channel.

    Returns
    -------
    Detections
        Sorted by start, then by falling score.  The score is the best of the event's windows,
        `window` the first of them.
    """
    if gap is None or not len(item.window):
        return item
    names, code = np.unique(item.label.astype(str), return_inverse=True)
    several = 1 if channels is None else int(channels.max()) + 1
    if channels is not None:
        code = code * several + channels[item.window]
    merged, group = merge_intervals(Intervals(item.start, item.end, code), gap)
    score = np.zeros(len(merged.start), dtype=item.score.dtype)
    np.maximum.at(score, group, item.score)
    window = np.full(len(merged.start), np.iinfo(item.window.dtype).max, dtype=item.window.dtype)
    np.minimum.at(window, group, item.window)
    order = np.lexsort((merged.label, -score, merged.start))
    return Detections(
        item.recording,
        window[order],
        merged.start[order],
        merged.end[order],
        names.astype(object)[merged.label[order] // several],
        score[order],
    )
