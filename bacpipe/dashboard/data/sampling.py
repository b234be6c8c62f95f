"""Which points of a map are drawn when there are more than a browser can move smoothly."""

from __future__ import annotations

import numpy as np

# Browsers without a graphics card take 30 µs for each in every frame.
MOST_POINTS = 10_000


def drawing_order(codes: np.ndarray, seed: int = 0) -> np.ndarray:
    """Order in which points are drawn first, so that rare labels are not lost.

    Parameters
    ----------
    codes : np.ndarray, int, shape (n,)
        Label of each point.

    Returns
    -------
    np.ndarray, float32, shape (n,)
        Between 0 and 1.  The points of a label below some order are a random sample of them;
        the sample of a rare label is larger in proportion (by the square root of its rarity).
    """
    order = np.random.default_rng(seed).random(len(codes), dtype=np.float32)
    if not len(codes):
        return order
    shifted = codes - codes.min()
    counts = np.bincount(shifted)
    weight = np.sqrt(counts / counts.max()).astype(np.float32)
    return order * weight[shifted]


def choose_points(
    points: np.ndarray,
    shown: np.ndarray,
    order: np.ndarray,
    view: tuple[float, float, float, float] | None = None,
    most: int = MOST_POINTS,
) -> tuple[np.ndarray, int]:
    """Rows of the points to draw.

    Parameters
    ----------
    points : np.ndarray, float, shape (n, 2 or 3)
        Places in the map; NaN for points without a place.
    shown : np.ndarray, bool, shape (n,)
        Points that a filter lets through.
    order : np.ndarray, float, shape (n,)
        What is drawn first, from `drawing_order`.
    view : (left, right, bottom, top), optional
        Part of the map that is seen.
    most : int
        Points at most.

    Returns
    -------
    rows : np.ndarray, int64
        Sorted.
    inside : int
        Number of points that could have been drawn.
    """
    inside = shown & np.isfinite(points[:, 0])
    if view is not None:
        left, right, bottom, top = view
        x, y = points[:, 0], points[:, 1]
        inside = inside & (x >= left) & (x <= right) & (y >= bottom) & (y <= top)
    rows = np.flatnonzero(inside)
    if len(rows) > most:
        first = np.argpartition(order[rows], most)[:most]
        return np.sort(rows[first]), len(rows)
    return rows, len(rows)
