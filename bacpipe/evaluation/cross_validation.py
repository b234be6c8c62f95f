"""Repeated cross-validation of probes, whole recordings (or sites) at a time.

One division into training and testing says nothing of how much the score depends on it.  Here the
recordings are divided into k parts, r times; each part is tested by a probe that has learnt from
the others, of which one chooses what is tuned (nested).

The k tests of one repetition are on different recordings, but share most of their training
windows; those of another repetition are on the same recordings again and add little.  So the
variance of the k · r scores is divided by k for the tests, and a third is added for what they
share, for Student's t with k · r - 1 degrees of freedom.  How much scores of the same training
windows have in common cannot be estimated from one data set (Bengio & Grandvalet 2004, Journal of
Machine Learning Research 5, 1089-1105); the third is from simulations, whose results
``benchmarks/README.md`` has.  The correction of
Nadeau & Bengio (2003, Machine Learning 52, 239-281) takes 1 / (k · r) + 1 / (k - 1), which is for
r random divisions; here its intervals hold up to 99 %.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.special import stdtr, stdtrit

from bacpipe.evaluation.metrics import (
    accuracy_replicates,
    decide,
    group_by,
    number,
    score_replicates,
)

_SHARED = 1 / 3  # of the variance of the tests, for what they have in common

Fit = Callable[[np.ndarray, np.ndarray], Callable[[np.ndarray], np.ndarray]]
"""Trains with some rows, tunes with others, and returns what gives the scores of further rows."""


def cross_validate(
    labels: np.ndarray, folds: Sequence[np.ndarray], k: int, fit: Fit
) -> dict[str, Any]:
    """Test every part with what is learnt from the others.

    Parameters
    ----------
    labels : np.ndarray
        int64 of shape (n,), or bool of shape (n, classes) where windows have several.
    folds : sequence of np.ndarray, int64, shape (n,)
        Part of every window for each repetition; -1 for windows that are not used.
    k : int
        Number of parts, from 3.
    fit : callable

    Returns
    -------
    dict
        ``splits``, ``overall`` (mean by metric), ``intervals`` and ``folds``: the scores of each
        test.
    """
    tests = []
    for repetition, fold in enumerate(folds):
        for part in range(k):
            tuned, test = fold == (part + 1) % k, np.flatnonzero(fold == part)
            train = np.flatnonzero((fold >= 0) & (fold != part) & ~tuned)
            if not len(test) or not len(train):
                continue
            scores = fit(train, np.flatnonzero(tuned))(test)
            groups, weights = group_by(None, len(test)), np.ones((1, len(test)))
            overall = {
                **accuracy_replicates(labels[test], scores, groups, weights),
                **score_replicates(*decide(labels[test], scores), scores, groups, weights)[0],
            }
            values = {metric: number(value[0]) for metric, value in overall.items()}
            tests.append({"repetition": repetition, "part": part, "windows": len(test), **values})
    metrics = [key for key in tests[0] if key not in ("repetition", "part", "windows")]
    of_metric = {m: np.array([test[m] for test in tests], dtype=float) for m in metrics}
    return {
        "splits": f"{k} x {len(folds)}",
        "overall": {m: number(np.nanmean(v)) if np.isfinite(v).any() else None
                    for m, v in of_metric.items()},
        "intervals": {m: corrected_interval(v, k, 0, 1) for m, v in of_metric.items()},
        "folds": tests,
    }  # fmt: skip


def _error(values: np.ndarray, k: int) -> float:
    """Corrected standard error of the mean."""
    return float(np.sqrt((1 + _SHARED) / k * values.var(ddof=1)))


def corrected_interval(
    values: np.ndarray, k: int, low: float = -1, high: float = 1
) -> list[float] | None:
    """95 % interval of the mean of the tests; None if they do not vary or are not defined."""
    values = values[np.isfinite(values)]
    if len(values) < 3 or np.ptp(values) == 0:
        return None
    half = stdtrit(len(values) - 1, 0.975) * _error(values, k)
    return [float(np.clip(values.mean() + sign * half, low, high)) for sign in (-1, 1)]


def paired_difference(
    one: Mapping[str, Any], other: Mapping[str, Any], metric: str
) -> dict[str, Any] | None:
    """Mean difference of two cross-validations with the same parts, its interval and probability.

    None if they have not tested the same parts.
    """

    def at(result: Mapping[str, Any]) -> list[tuple[int, int]]:
        return [(test["repetition"], test["part"]) for test in result["folds"]]

    if one["splits"] != other["splits"] or at(one) != at(other):
        return None
    pairs = zip(one["folds"], other["folds"], strict=True)
    values = np.array([[a[metric], b[metric]] for a, b in pairs], dtype=float)
    difference = (values[:, 0] - values[:, 1])[np.isfinite(values).all(axis=1)]
    k = int(one["splits"].split(" x ")[0])
    bounds = corrected_interval(difference, k)
    if bounds is None:
        return None
    t = difference.mean() / _error(difference, k)
    better = float(stdtr(len(difference) - 1, t))
    return {"difference": float(difference.mean()), "low": bounds[0], "high": bounds[1],
            "probability": better}  # fmt: skip
