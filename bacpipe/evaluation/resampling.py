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


def interval(values: np.ndarray) -> list[float] | None:
    """95 % percentile interval of resamples; None if there are too few that are defined."""
    defined = values[np.isfinite(values)]
    if len(defined) < 10:
        return None
    low, high = np.percentile(defined, [2.5, 97.5])
    return [float(low), float(high)]
