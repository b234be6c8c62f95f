"""Segments of equal length, for protocols that do not count the windows of a model."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import numpy as np

from bacpipe.labels.ground_truth import find_overlaps
from bacpipe.labels.model_windows import ModelWindows
from bacpipe.store.detections import Intervals

BIRDSET_SECONDS = 5.0
"""Segments of BirdSet (Rauch et al. 2024, https://arxiv.org/abs/2403.10380)."""

_HALF = 0.5


class Segments:
    """Segments that follow one another in the recordings of some windows, the last one cut short.

    Parameters
    ----------
    windows : ModelWindows
        Recordings without windows have no segments.
    seconds : float
        Length of a segment.
    """

    def __init__(self, windows: ModelWindows, seconds: float) -> None:
        self._windows = windows
        self.seconds = seconds
        _, end = windows.times
        self._lengths = [end[rows].max(initial=0.0) for _, rows in windows.slices()]

    @property
    def recordings(self) -> list[str]:
        """Posix paths relative to the audio folder."""
        return self._windows.recordings

    @cached_property
    def counts(self) -> np.ndarray:
        """Segments of each recording, int64."""
        return np.ceil(np.array(self._lengths) / self.seconds - 1e-6).astype(np.int64)

    @cached_property
    def times(self) -> tuple[np.ndarray, np.ndarray]:
        """Start and end of every segment in seconds of its recording, float64."""
        starts = [np.arange(n) * self.seconds for n in self.counts]
        ends = [np.minimum(s + self.seconds, n) for s, n in zip(starts, self._lengths, strict=True)]
        return np.concatenate([np.zeros(0), *starts]), np.concatenate([np.zeros(0), *ends])

    def __len__(self) -> int:
        return int(self.counts.sum())

    def slices(self) -> Iterator[tuple[str, slice]]:
        """Recordings, each with the rows of its segments."""
        stops = np.cumsum(self.counts)
        for name, count, stop in zip(self.recordings, self.counts, stops, strict=True):
            yield name, slice(int(stop - count), int(stop))

    def highest(self, scores: np.ndarray) -> np.ndarray:
        """Highest scores of the windows of each segment, float32 of shape (segments, classes).

        A window belongs to a segment if they share at least half of the shorter of the two;
        segments without such a window have the score 0.
        """
        start, end = self._windows.times
        rows = np.arange(len(start))
        timed = {
            name: Intervals(start[part], end[part], rows[part])
            for name, part in self._windows.slices()
        }
        pairs, _ = find_overlaps(self, timed, _HALF)
        result = np.zeros((len(self), scores.shape[1]), np.float32)
        np.maximum.at(result, pairs.window, scores[pairs.label])
        return result
