"""Agreement between two models about which windows are similar.

The measure is mutual nearest-neighbour alignment (Huh, Cheung, Wang & Isola 2024, "The Platonic
Representation Hypothesis", https://arxiv.org/abs/2405.07987): the windows of two models are
paired, the k nearest neighbours of every pair are looked up in both embedding spaces (cosine),
and the share of neighbours that both have in common is averaged.  1 means that both spaces have
the same neighbourhoods, whatever their sizes and scales; unrelated spaces share as many as two
random draws would.

What differs from images, for which it was made:

- Models cut a recording into different windows.  Pairs are windows that are each other's best
  match in time (`bacpipe.labels.matching.matched_pairs`), so each window is in one pair at most.
- Overlapping windows hold the same sound, and all models find it similar to itself.  A window
  that overlaps in time with another one is therefore never counted as its neighbour.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from bacpipe.errors import TooLittleDataError
from bacpipe.evaluation.metrics import MOST_REPLICATES, Groups, interval, leave_out, ratio
from bacpipe.labels.matching import NO_MATCH, best_matches, matched_pairs
from bacpipe.labels.model_windows import ModelWindows, model_windows
from bacpipe.store.embedding_set import read_embeddings
from bacpipe.store.loader import Loader

logger = logging.getLogger(__name__)

_CHUNK = 512
_REACH = 6  # times as many neighbours are kept as asked for: some are left out
_TOLERANCE = 1e-6  # seconds


class MeanAgreement(NamedTuple):
    """Agreement of several pairs of windows.

    The mean share of common neighbours, what neighbours drawn at random would give, and the number
    of pairs.
    """

    share: float
    chance: float
    windows: int


@dataclass(frozen=True)
class NeighbourAgreement:
    """How far the neighbourhoods of two models agree."""

    pairs: np.ndarray  # int64, shape (n, 2): window of the first and of the second model, sorted
    # float64, shape (n,): Share of the neighbours of each pair that both models have; NaN if it has
    # no candidates
    shares: np.ndarray
    chance: np.ndarray  # float64, shape (n,): its expectation for neighbours drawn at random
    # 95 % interval of the mean share, from leaving out recordings; None of fewer than five
    interval: list[float] | None
    n_neighbors: int  # neighbours that were looked up
    n_matched: int  # pairs that there are; more than `pairs` if those are a random sample

    @property
    def overall(self) -> MeanAgreement:
        """Mean over all pairs."""
        return _mean(self.shares, self.chance)

    def by_label(self, codes: np.ndarray, side: int = 0) -> dict[int, MeanAgreement]:
        """Mean over the pairs of each label.

        `codes` is the label of every window, negative for none, of the first (`side` 0) or the
        second model.
        """
        label = codes[self.pairs[:, side]]
        return {
            int(code): _mean(self.shares[label == code], self.chance[label == code])
            for code in np.unique(label[label >= 0])
        }

    def of_windows(self, windows: ModelWindows, other: ModelWindows, side: int = 0) -> np.ndarray:
        """Agreement for every window of the first (`side` 0) or the second model, float64.

        A window that is in no pair gets what the pair of its best match in time has; NaN if there
        is none.
        """
        values = np.full(len(windows), np.nan)
        of_other = np.full(len(other), np.nan)
        of_other[self.pairs[:, 1 - side]] = self.shares
        match = best_matches(windows, other)
        matched = match != NO_MATCH
        values[matched] = of_other[match[matched]]
        values[self.pairs[:, side]] = self.shares
        return values


def neighbour_agreement(
    one: Loader,
    other: Loader,
    *,
    n_neighbors: int = 10,
    most: int = 20_000,
    samples: int = 1000,
    seed: int = 42,
) -> NeighbourAgreement:
    """Compare the neighbourhoods of two models over one data set.

    Parameters
    ----------
    one, other : Loader
    n_neighbors : int
        Neighbours of a window that are looked at.
    most : int
        Of more pairs of windows than this, a random sample is used (setting
        ``max_windows_for_pairs``); neighbours are then looked for in the sample.
    samples, seed : int
        Most parts into which the recordings are divided for the interval (100 at most; 0: no
        interval), and the seed of the sample of pairs.

    Raises
    ------
    TooLittleDataError
        If the models have fewer than 3 windows in common.
    ResultsError
        If embeddings are missing or damaged.
    """
    first, second = model_windows(one), model_windows(other)
    pairs = matched_pairs(first, second)
    matched = len(pairs)
    if matched < 3:
        raise TooLittleDataError(
            f"{one.model_name} and {other.model_name} have {matched} windows in common; expected "
            f"at least 3. Run both on the same recordings."
        )
    if matched > most:
        chosen = np.random.default_rng(seed).choice(matched, most, replace=False)
        pairs = pairs[np.sort(chosen)]
        logger.info("neighbourhoods are compared for %d of %d windows.", most, matched)
    code = np.repeat(np.arange(len(first.counts)), first.counts)[pairs[:, 0]]
    start = np.minimum(first.times[0][pairs[:, 0]], second.times[0][pairs[:, 1]])
    end = np.maximum(first.times[1][pairs[:, 0]], second.times[1][pairs[:, 1]])
    shares, chance, bounds = compare_neighbours(
        _embeddings_of(one, first, pairs[:, 0]),
        _embeddings_of(other, second, pairs[:, 1]),
        n_neighbors=n_neighbors,
        recording=code,
        start=start,
        end=end,
        samples=samples,
    )
    return NeighbourAgreement(pairs, shares, chance, bounds, n_neighbors, matched)


def compare_neighbours(
    one: np.ndarray,
    other: np.ndarray,
    *,
    n_neighbors: int,
    recording: np.ndarray,
    start: np.ndarray,
    end: np.ndarray,
    samples: int,
) -> tuple[np.ndarray, np.ndarray, list[float] | None]:
    """Do what `shared_neighbours` does; also returns the 95 % interval of the mean share.

    Recordings are left out one after the other (or, of more than `samples` or 100, an equal part of
    them), as windows and as neighbours of the others.
    """
    nearest, candidates = _neighbourhoods(
        one, other, _REACH * n_neighbors, recording=recording, start=start, end=end
    )
    shares, chance = _shares(nearest, candidates, n_neighbors)
    names, code = np.unique(recording, return_inverse=True)
    weights = leave_out(Groups(code, len(names)), min(samples, MOST_REPLICATES))
    means = [_mean(shares, chance).share]
    for weight in weights[1:]:
        kept = weight[code] > 0
        # Rows without a neighbour there keep what they have.
        first = nearest[:, :, :n_neighbors]
        moved = kept & ((first >= 0) & ~kept[first]).any(axis=(0, 2))
        # Windows that overlap are of the same recording, and so none of those that are left out.
        left = candidates[moved] - (~kept).sum()
        changed = _shares(_without(nearest[:, moved], kept), left, n_neighbors)
        stayed = kept & ~moved
        both = (np.r_[old[stayed], new] for old, new in zip((shares, chance), changed, strict=True))
        means.append(_mean(*both).share)
    bounds = interval(np.array(means), windows=int(np.isfinite(shares).sum()))
    return shares, chance, bounds


def shared_neighbours(
    one: np.ndarray,
    other: np.ndarray,
    *,
    n_neighbors: int,
    recording: np.ndarray | None = None,
    start: np.ndarray | None = None,
    end: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Share of the nearest neighbours that n paired windows have in common in two spaces.

    Embeddings are of shape (n, any); windows that overlap in time (`start` and `end` in seconds of
    their `recording`) are no neighbours.  Where there are fewer candidates than `n_neighbors`, all
    of them count.  Returns shares and those expected by chance, float64 of shape (n,), NaN for
    windows without candidates.
    """
    nearest, candidates = _neighbourhoods(
        one, other, n_neighbors, recording=recording, start=start, end=end
    )
    return _shares(nearest, candidates, n_neighbors)


def _neighbourhoods(
    one: np.ndarray,
    other: np.ndarray,
    most: int,
    *,
    recording: np.ndarray | None,
    start: np.ndarray | None,
    end: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Nearest windows in both spaces, and how many there are to choose from.

    int32 of shape (2, n, most), the nearest first and -1 where there is none, and int64 of shape
    (n,).
    """
    points = _normalise(one), _normalise(other)
    n = len(points[0])
    k = min(most, n - 1)
    nearest = np.full((2, n, k), -1, np.int32)
    candidates = np.zeros(n, np.int64)
    for first in range(0, n, _CHUNK):
        part = slice(first, min(first + _CHUNK, n))
        rows = np.arange(part.start, part.stop)
        forbidden = rows[:, None] == np.arange(n)
        if recording is not None and start is not None and end is not None:
            same = recording[part, None] == recording
            same &= start[part, None] < end - _TOLERANCE
            same &= end[part, None] > start + _TOLERANCE
            forbidden |= same
        candidates[part] = n - forbidden.sum(axis=1)
        # Beyond the candidates there are only forbidden windows, which come last.
        there = np.arange(k) < candidates[part, None]
        for space, rows_of in zip(points, nearest, strict=True):
            rows_of[part] = np.where(there, _nearest(space, part, forbidden, k), -1)
    return nearest, candidates


def _shares(
    nearest: np.ndarray, candidates: np.ndarray, n_neighbors: int
) -> tuple[np.ndarray, np.ndarray]:
    """Shares in common and by chance of what `_neighbourhoods` found, float64 of shape (n,)."""
    one, other = nearest[:, :, :n_neighbors]
    asked = np.minimum(n_neighbors, candidates)
    common = np.zeros(len(asked), np.int64)
    for first in range(0, len(asked), _CHUNK):
        part = slice(first, first + _CHUNK)
        equal = (one[part, :, None] == other[part, None, :]) & (one[part, :, None] >= 0)
        common[part] = equal.sum(axis=(1, 2))
    return ratio(common, asked, np.nan), ratio(asked, candidates, np.nan)


def _without(nearest: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """The same neighbours without those that are left out; the rest moves up."""
    left = np.where((nearest >= 0) & kept[nearest], nearest, -1)
    order = np.argsort(left < 0, axis=2, kind="stable")
    return np.take_along_axis(left, order, axis=2)


def _nearest(points: torch.Tensor, part: slice, forbidden: np.ndarray, k: int) -> np.ndarray:
    similarity = points[part] @ points.T
    similarity[torch.from_numpy(forbidden)] = -torch.inf
    return similarity.topk(k, dim=1).indices.numpy()


def _normalise(embeds: np.ndarray) -> torch.Tensor:
    length = np.linalg.norm(embeds, axis=1, keepdims=True)
    return torch.from_numpy((embeds / np.where(length > 0, length, 1)).astype(np.float32))


def _embeddings_of(loader: Loader, windows: ModelWindows, rows: np.ndarray) -> np.ndarray:
    """Embeddings of some windows, sorted by row; only files that hold some are read."""
    loader.get_embedding_dir()
    assert loader.embedding_set is not None
    order = np.argsort(rows, kind="stable")
    wanted = rows[order]
    array = np.zeros((len(rows), 0), np.float32)
    for name, span in windows.slices():
        first, stop = np.searchsorted(wanted, [span.start, span.stop])
        if first == stop:
            continue
        part = read_embeddings(loader.embedding_set, windows.entries[name], verify=False)
        if not array.shape[1]:
            array = np.empty((len(rows), part.shape[1]), np.float32)
        array[order[first:stop]] = part[wanted[first:stop] - span.start]
    return array


def _mean(shares: np.ndarray, chance: np.ndarray) -> MeanAgreement:
    use = np.isfinite(shares)
    if not use.any():
        return MeanAgreement(float("nan"), float("nan"), 0)
    return MeanAgreement(float(shares[use].mean()), float(chance[use].mean()), int(use.sum()))
