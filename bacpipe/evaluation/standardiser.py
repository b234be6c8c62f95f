"""One scale for all dimensions of embeddings: mean 0 and deviation 1."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

_CHUNK = 4096
_STILL = 1e-6  # of the largest deviation: a dimension that varies less does not


class Standardiser(NamedTuple):
    """Brings every dimension of embeddings to mean 0 and deviation 1.

    Attributes
    ----------
    mean, deviation : np.ndarray, float64, shape (dim,)
        Of the windows that it was made from; a deviation of 1 for dimensions that do not vary,
        which say nothing and must not be blown up either.
    """

    mean: np.ndarray
    deviation: np.ndarray

    @classmethod
    def of(cls, embeds: np.ndarray, rows: np.ndarray | None = None) -> Standardiser:
        """That of some rows of embeddings of shape (n, dim), or of all; at least one."""
        rows = np.arange(len(embeds)) if rows is None else rows
        # Sums of what is left after the first row: squares of large means would drown the rest.
        origin = embeds[rows[0]].astype(np.float64)
        total, squares = np.zeros_like(origin), np.zeros_like(origin)
        for first in range(0, len(rows), _CHUNK):
            part = embeds[rows[first : first + _CHUNK]].astype(np.float64) - origin
            total += part.sum(axis=0)
            squares += np.square(part).sum(axis=0)
        mean = total / len(rows)
        deviation = np.sqrt(np.maximum(squares / len(rows) - mean**2, 0))
        deviation[deviation < _STILL * max(deviation.max(initial=0), 1e-12)] = 1
        return cls(origin + mean, deviation)

    def __call__(self, embeds: np.ndarray) -> np.ndarray:
        """Standardised embeddings, float32 of shape (n, dim)."""
        result = np.empty(embeds.shape, np.float32)
        for first in range(0, len(embeds), _CHUNK):
            rows = slice(first, first + _CHUNK)
            result[rows] = (embeds[rows] - self.mean) / self.deviation
        return result


def directions(embeds: np.ndarray) -> np.ndarray:
    """Standardised embeddings of length 1, float32 of shape (n, dim), as cosines need them."""
    points = Standardiser.of(embeds)(embeds)
    length = np.linalg.norm(points, axis=1, keepdims=True)
    points /= np.where(length > 0, length, 1)
    return points
