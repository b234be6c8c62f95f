"""Windows of one model and those of another that hold the same sound.

Models have windows of different lengths and hops, so windows are matched by time: two windows
overlap if they are of the same recording and share more than a microsecond of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from bacpipe.labels.model_windows import ModelWindows

NO_MATCH = -1
_TOLERANCE = 1e-6  # seconds; times come from divisions
_PAIRS_AT_ONCE = 2_000_000


class _Times(NamedTuple):
    """Windows on one time axis on which the recordings of two models follow one another."""

    start: np.ndarray
    end: np.ndarray


def overlapping_windows(one: ModelWindows, rows: np.ndarray, other: ModelWindows) -> np.ndarray:
    """Find all windows of another model that overlap with any of some windows.

    Returns rows of `other` for these rows of `one`, both int64 and the former sorted.
    """
    mine, others = _on_one_axis(one, other)
    start, end = _union(mine.start[rows], mine.end[rows])
    if not len(start):
        return np.zeros(0, np.int64)
    # The parts of the union are disjoint, so that only the last one that begins before a window
    # ends can reach into it.
    last = np.searchsorted(start, others.end - _TOLERANCE, "left") - 1
    reached = (last >= 0) & (end[np.maximum(last, 0)] > others.start + _TOLERANCE)
    return np.flatnonzero(reached)


def best_matches(one: ModelWindows, other: ModelWindows) -> np.ndarray:
    """Find the window of another model that shares the most time with each window.

    Returns a row of `other` for each window of `one`, int64; -1 where none overlaps.  Among windows
    that share equally much it is the one whose middle is nearest, then the first.
    """
    return _best(*_on_one_axis(one, other))


def matched_pairs(one: ModelWindows, other: ModelWindows) -> np.ndarray:
    """Pair windows of two models that are each other's best match.

    Returns rows of `one` and `other`, each at most once, int64 of shape (n, 2), sorted by the
    first.
    """
    mine, others = _on_one_axis(one, other)
    forth, back = _best(mine, others), _best(others, mine)
    rows = np.flatnonzero(forth != NO_MATCH)
    mutual = rows[back[forth[rows]] == rows]
    return np.column_stack([mutual, forth[mutual]])


def _on_one_axis(one: ModelWindows, other: ModelWindows) -> tuple[_Times, _Times]:
    number = {name: i for i, name in enumerate(dict.fromkeys([*one.entries, *other.entries]))}
    codes = []
    lengths = np.zeros(len(number))
    for windows in (one, other):
        of_recordings = np.array([number[name] for name in windows.entries], np.int64)
        codes.append(np.repeat(of_recordings, windows.counts))
        np.maximum.at(lengths, codes[-1], windows.times[1])
    # A second lies between recordings, so that no rounding makes them overlap.
    begin = np.concatenate([[0.0], np.cumsum(lengths + 1.0)])
    mine, others = (
        _Times(windows.times[0] + begin[code], windows.times[1] + begin[code])
        for windows, code in zip((one, other), codes, strict=True)
    )
    return mine, others


def _union(start: np.ndarray, end: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Join intervals that overlap or touch."""
    order = np.argsort(start, kind="stable")
    start, reach = start[order], np.maximum.accumulate(end[order])
    first = np.flatnonzero(np.concatenate([[True], start[1:] > reach[:-1] + _TOLERANCE]))
    if not len(start):
        return start, reach
    return start[first], reach[np.concatenate([first[1:] - 1, [len(reach) - 1]])]


def _best(mine: _Times, others: _Times) -> np.ndarray:
    match = np.full(len(mine.start), NO_MATCH, np.int64)
    # Windows of annotated segments may lie in any order; sorted by start, candidates are a run.
    order = np.argsort(others.start, kind="stable")
    start, end = others.start[order], others.end[order]
    longest = (end - start).max(initial=0.0)
    first = np.searchsorted(start, mine.start - longest - _TOLERANCE, "left")
    count = np.searchsorted(start, mine.end, "left") - first
    for part in _parts(count):
        row, candidate = runs(first[part], count[part])
        row += part.start
        shared = np.minimum(mine.end[row], end[candidate])
        shared -= np.maximum(mine.start[row], start[candidate])
        away = np.abs(mine.start[row] + mine.end[row] - start[candidate] - end[candidate])
        enough = shared > _TOLERANCE
        row, candidate, shared, away = (x[enough] for x in (row, candidate, shared, away))
        # Rounding hides differences that are none.
        best = np.lexsort((order[candidate], away.round(5), -shared.round(5), row))
        rows, at = np.unique(row[best], return_index=True)
        match[rows] = order[candidate[best][at]]
    return match


def runs(first: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Numbers that count up from `first`, `count` of each, and which of the runs each is in."""
    run = np.repeat(np.arange(len(count)), count)
    return run, first[run] + np.arange(len(run)) - np.repeat(np.cumsum(count) - count, count)


def _parts(count: np.ndarray) -> Iterator[slice]:
    """Divide windows so that each part has a bounded number of candidates."""
    total, first = np.cumsum(count), 0
    while first < len(count):
        before = total[first - 1] if first else 0
        stop = int(np.searchsorted(total, before + _PAIRS_AT_ONCE, "right"))
        stop = max(stop, first + 1)
        yield slice(first, stop)
        first = stop
