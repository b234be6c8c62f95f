"""Bootstrap over recordings.

Windows of one recording are not independent, so whole recordings are drawn with replacement.
A resample is a weight per recording: how often it was drawn.  Metrics take weights, so that the
metric itself (all weights 1) and its resamples are computed by the same code, all at once.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

FEW_RECORDINGS = 5
"""Intervals from fewer recordings than this are hardly worth the name."""


class Groups(NamedTuple):
    """Recordings of the evaluated windows.

    Attributes
    ----------
    code : np.ndarray, int64, shape (n,)
        Index of the recording of every window.
    number : int
        How many recordings there are.
    """

    code: np.ndarray
    number: int


def group_by(recordings: np.ndarray | None, n_windows: int) -> Groups:
    """Number the recordings; without them, every window counts by itself."""
    if recordings is None:
        return Groups(np.arange(n_windows), n_windows)
    names, code = np.unique(np.asarray(recordings, dtype=str), return_inverse=True)
    return Groups(code.astype(np.int64), len(names))


def draw_weights(groups: Groups, samples: int, seed: int) -> np.ndarray:
    """How often each recording was drawn.

    Returns
    -------
    np.ndarray, float64, shape (1 + samples, recordings)
        The first row is the data as they are; no further row for a single recording, which
        cannot be drawn in two ways.
    """
    once = np.ones((1, groups.number))
    if samples < 1 or groups.number < 2:
        return once
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(groups.number, np.full(groups.number, 1 / groups.number), samples)
    return np.concatenate([once, drawn.astype(np.float64)])


def interval(values: np.ndarray, estimate: float) -> list[float] | None:
    """95 % interval of a score in [0, 1] (or [-1, 1]) from its resamples.

    Resamples hold some recordings twice, which makes ranking metrics look better than they are.
    So the percentiles are shifted until the median of the resamples is the estimate.

    Returns
    -------
    list of two floats, or None
        None if there are too few resamples for which the score is defined.
    """
    defined = values[np.isfinite(values)]
    if len(defined) < 10 or not np.isfinite(estimate):
        return None
    low, middle, high = np.percentile(defined, [2.5, 50, 97.5])
    shift = estimate - middle
    return [float(max(low + shift, -1 if low < 0 else 0)), float(min(high + shift, 1))]
