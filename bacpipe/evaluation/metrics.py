"""Metrics of class scores, with confidence intervals over recordings.

Macro averages are over the classes that occur in the data.  Windows of one recording are not
independent, so for the intervals whole recordings are drawn with replacement (bootstrap).  A
resample is a weight per recording: how often it was drawn.  All metrics take weights, so that the
metric itself (all weights 1, where it agrees with scikit-learn) and its resamples are computed by
the same code, all at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

_CELLS = 4_000_000  # weights × windows at a time
_RANKING_BUDGET = 1_000_000_000  # weights × windows × classes altogether
_FEWEST_RANKINGS = 50


FEW_RECORDINGS = 5
"""Intervals from fewer recordings than this are hardly worth the name."""


class Groups(NamedTuple):
    """Recordings of the evaluated windows.

    The index of the recording of every window, int64 of shape (n,), and how many there are.
    """

    code: np.ndarray
    number: int


class Counts(NamedTuple):
    """Windows with a class that were found, that were said to have it, and that have it.

    All weighted, float64 of shape (resamples, classes).
    """

    hits: np.ndarray
    predicted: np.ndarray
    present: np.ndarray


def count(truth: np.ndarray, predicted: np.ndarray, groups: Groups, weights: np.ndarray) -> Counts:
    """Count by class: `truth` and `predicted` are bool of shape (n, classes)."""

    def total(what: np.ndarray) -> np.ndarray:
        sums = np.zeros((groups.number, what.shape[1]))
        if len(what):
            order = np.argsort(groups.code, kind="stable")
            here, first = np.unique(groups.code[order], return_index=True)
            sums[here] = np.add.reduceat(what[order], first, axis=0, dtype=np.float64)
        return weights @ sums

    return Counts(total(truth & predicted), total(predicted), total(truth))


def threshold_metrics(counts: Counts) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Precision, recall and F1.

    Macro and micro averages are of shape (resamples,), values by class (resamples, classes).  Those
    of classes that do not occur are NaN; precision is 0 where nothing was predicted.
    """
    there = counts.present > 0
    per_class = {
        "precision": np.where(there, ratio(counts.hits, counts.predicted, 0), np.nan),
        "recall": ratio(counts.hits, counts.present, np.nan),
        "f1": np.where(there, ratio(2 * counts.hits, counts.predicted + counts.present, 0), np.nan),
    }
    hits, predicted, present = (values.sum(axis=1) for values in counts)
    overall = {f"{name}_macro": mean_of_defined(values) for name, values in per_class.items()}
    overall["precision_micro"] = ratio(hits, predicted, 0)
    overall["recall_micro"] = ratio(hits, present, np.nan)
    overall["f1_micro"] = ratio(2 * hits, predicted + present, np.nan)
    return overall, per_class


def ranking_metrics(
    positive: np.ndarray, score: np.ndarray, groups: Groups, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Area under the ROC curve and average precision of one class, ties included.

    Both are of shape (resamples,), and NaN where there are no positives (or, for the former, no
    negatives); `positive` (bool) and `score` are of shape (n,).
    """
    auc = np.full(len(weights), np.nan)
    precision = np.full(len(weights), np.nan)
    if not len(score):
        return auc, precision
    order = np.argsort(-score, kind="stable")
    ranked = score[order]
    first = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])
    is_positive, group = positive[order], groups.code[order]
    step = max(1, _CELLS // len(score))
    for begin in range(0, len(weights), step):
        part = slice(begin, begin + step)
        weight = weights[part][:, group]
        right = np.add.reduceat(weight * is_positive, first, axis=1)
        wrong = np.add.reduceat(weight, first, axis=1) - right
        hits, misses = right.cumsum(axis=1), wrong.cumsum(axis=1)
        n_positive, n_negative = hits[:, -1], misses[:, -1]
        area = (wrong * (hits - right / 2)).sum(axis=1)
        auc[part] = ratio(area, n_positive * n_negative, np.nan)
        at_threshold = ratio(hits, hits + misses, 0)
        precision[part] = ratio((right * at_threshold).sum(axis=1), n_positive, np.nan)
    return auc, precision


def best_threshold(positive: np.ndarray, score: np.ndarray) -> tuple[float, float]:
    """Threshold (score ≥ threshold) that maximises F1, and that F1; NaN without positives."""
    if not positive.any():
        return float("nan"), float("nan")
    order = np.argsort(-score, kind="stable")
    ranked, hits = score[order], positive[order].cumsum()
    last = np.flatnonzero(np.r_[ranked[1:] != ranked[:-1], True])
    f1 = 2 * hits[last] / (last + 1 + positive.sum())
    best = int(f1.argmax())
    return float(ranked[last[best]]), float(f1[best])


def evaluate_scores(
    truth: np.ndarray,
    predicted: np.ndarray,
    scores: np.ndarray,
    classes: Sequence[str],
    groups: Groups,
    *,
    samples: int,
    seed: int,
) -> dict[str, Any]:
    """All metrics of a classifier, several labels per window allowed.

    Parameters
    ----------
    truth, predicted : np.ndarray, bool, shape (n, classes)
    scores : np.ndarray, float32, shape (n, classes)
    classes : sequence of str
    groups : Groups
    samples, seed : int
        Bootstrap resamples and their seed.

    Returns
    -------
    dict
        ``overall`` (value by metric), ``intervals`` ([low, high] by metric), ``per_class``,
        ``bootstrap`` and ``notes``.
    """
    weights = draw_weights(groups, samples, seed)
    overall, per_class = threshold_metrics(count(truth, predicted, groups, weights))
    work = max(1, truth.shape[0] * truth.shape[1])
    rankings = min(len(weights), 1 + max(_FEWEST_RANKINGS, _RANKING_BUDGET // work))
    areas, precisions = np.empty((2, rankings, len(classes)))
    for i in range(len(classes)):
        areas[:, i], precisions[:, i] = ranking_metrics(
            truth[:, i], scores[:, i], groups, weights[:rankings]
        )
    overall["roc_auc_macro"] = mean_of_defined(areas)
    overall["average_precision_macro"] = mean_of_defined(precisions)
    per_class |= {"roc_auc": areas, "average_precision": precisions}
    support = truth.sum(axis=0)
    return {
        **summarise(overall),
        "per_class": {
            str(name): {
                "support": int(support[i]),
                **{metric: number(values[0, i]) for metric, values in per_class.items()},
                "f1_interval": interval(per_class["f1"][1:, i], per_class["f1"][0, i]),
                "average_precision_interval": interval(precisions[1:, i], precisions[0, i]),
            }
            for i, name in enumerate(classes)
        },
        "bootstrap": {
            "unit": "recording",
            "recordings": groups.number,
            "resamples": len(weights) - 1,
            "resamples_of_ranking_metrics": rankings - 1,
        },
        "notes": notes_on_intervals(groups, samples),
    }


def single_label_metrics(
    labels: np.ndarray, scores: np.ndarray, groups: Groups, *, samples: int, seed: int
) -> dict[str, Any]:
    """Metrics that exist when every window has one label: accuracies, and their intervals.

    `labels` is int64 of shape (n,), the rest as for `evaluate_scores`.  Top-5 accuracy is None
    unless there are more than 5 classes.
    """
    n_classes = scores.shape[1]
    weights = draw_weights(groups, samples, seed)
    best = scores.argmax(axis=1)
    truth, predicted = one_hot(labels, n_classes), one_hot(best, n_classes)
    counts = count(truth, predicted, groups, weights)
    accuracy = ratio(counts.hits.sum(axis=1), counts.present.sum(axis=1), np.nan)
    overall = {
        "accuracy": accuracy,
        "balanced_accuracy": mean_of_defined(ratio(counts.hits, counts.present, np.nan)),
        "top_1_accuracy": accuracy,
        "top_5_accuracy": np.full(len(weights), np.nan),
    }
    if n_classes > 5:
        five = np.argsort(-scores, axis=1, kind="stable")[:, :5]
        hit = (five == labels[:, None]).any(axis=1)
        hits = count(truth, truth & hit[:, None], groups, weights)
        overall["top_5_accuracy"] = ratio(hits.hits.sum(axis=1), hits.present.sum(axis=1), np.nan)
    return summarise(overall)


def one_hot(labels: np.ndarray, n_classes: int) -> np.ndarray:
    """Bool array of shape (n, classes) with one True per row."""
    return labels[:, None] == np.arange(n_classes)


def summarise(overall: dict[str, np.ndarray]) -> dict[str, Any]:
    """Values (first of each array) and intervals (the rest)."""
    return {
        "overall": {name: number(values[0]) for name, values in overall.items()},
        "intervals": {name: interval(values[1:], values[0]) for name, values in overall.items()},
    }


def notes_on_intervals(groups: Groups, samples: int) -> list[str]:
    """What a reader of the intervals should know."""
    if samples < 1 or groups.number >= FEW_RECORDINGS:
        return []
    if groups.number < 2:
        return ["No confidence intervals: all test windows are of one recording."]
    return [
        f"The confidence intervals come from {groups.number} recordings only; they are rough, and "
        f"rather too narrow."
    ]


def number(value: float) -> float | None:
    """Number for JSON; None where it is not defined."""
    return float(value) if np.isfinite(value) else None


def ratio(above: np.ndarray, below: np.ndarray, otherwise: float) -> np.ndarray:
    """Quotient; `otherwise` where the denominator is not positive."""
    result = np.full(np.shape(above), otherwise, dtype=np.float64)
    return np.divide(above, below, out=result, where=np.asarray(below) > 0)


def mean_of_defined(values: np.ndarray) -> np.ndarray:
    """Mean of the values of each row that are defined; NaN if none is."""
    defined = np.isfinite(values)
    return ratio(np.where(defined, values, 0).sum(axis=1), defined.sum(axis=1), np.nan)


# ---------------------------------------------------------------------- bootstrap


def group_by(recordings: np.ndarray | None, n_windows: int) -> Groups:
    """Number the recordings; without them, every window counts by itself."""
    if recordings is None:
        return Groups(np.arange(n_windows), n_windows)
    names, code = np.unique(np.asarray(recordings, dtype=str), return_inverse=True)
    return Groups(code.astype(np.int64), len(names))


def draw_weights(groups: Groups, samples: int, seed: int) -> np.ndarray:
    """How often each recording was drawn, float64 of shape (1 + samples, recordings).

    The first row is the data as they are; no further row for a single recording, which cannot be
    drawn in two ways.
    """
    once = np.ones((1, groups.number))
    if samples < 1 or groups.number < 2:
        return once
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(groups.number, np.full(groups.number, 1 / groups.number), samples)
    return np.concatenate([once, drawn.astype(np.float64)])


def interval(values: np.ndarray, estimate: float) -> list[float] | None:
    """95 % interval of a score in [0, 1] (or [-1, 1]); None if there are too few resamples.

    Resamples hold some recordings twice, which makes ranking metrics look better than they are.
    So the percentiles are shifted until the median of the resamples is the estimate.
    """
    defined = values[np.isfinite(values)]
    if len(defined) < 10 or not np.isfinite(estimate):
        return None
    low, middle, high = np.percentile(defined, [2.5, 50, 97.5])
    shift = estimate - middle
    return [float(max(low + shift, -1 if low < 0 else 0)), float(min(high + shift, 1))]
