"""Metrics of class scores, with confidence intervals over recordings.

Macro averages are over the classes that occur in the data.  Windows of one recording are not
independent, so for the intervals whole recordings (or sites) are left out one after the other: the
jackknife, whose interval takes Student's t and is symmetric on the logit scale.  In simulations it
covers the truth in 93 to 97 of 100 cases from 5 recordings on, where a percentile bootstrap of
recordings covers 78 to 88 (5 recordings) to 90 (12); see benchmarks/README.md.  A replicate is a
weight per recording, 1 or 0.  All metrics take weights, so that the metric itself (all weights 1,
where it agrees with scikit-learn) and its replicates are computed by the same code, all at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.special import expit, stdtrit

from bacpipe.errors import counted

_CELLS = 4_000_000  # weights × windows at a time
_BUDGET = 1_000_000_000  # weights × windows × classes altogether
_FEWEST_GROUPS = 50

_FOLDS = 5

_MANY_WINDOWS = 500_000

MOST_REPLICATES = 100
"""Of what is slow to compute, no more than this."""

FEWEST_UNITS = 5
"""There are no intervals of fewer recordings (or sites) than this."""


class Groups(NamedTuple):
    """What is left out as a whole for the intervals: recordings, or sites."""

    code: np.ndarray  # int64, shape (n,): of every window, which one it belongs to
    number: int  # how many there are
    unit: str = "recording"  # what they are: 'recording', 'site' or 'window'


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


def cross_fitted_f1(positive: np.ndarray, score: np.ndarray, groups: Groups) -> float:
    """F1 of the threshold that is best on other recordings; NaN without positives.

    The recordings are divided into at most five parts; each is judged by the threshold that has the
    best F1 on the rest.
    """
    if not positive.any() or groups.number < 2:
        return float("nan")
    part = np.random.default_rng(0).permutation(groups.number)[groups.code] % _FOLDS
    predicted = np.zeros(len(positive), bool)
    for fold in np.unique(part):
        here = part == fold
        threshold, _ = best_threshold(positive[~here], score[~here])
        predicted[here] = score[here] >= threshold  # nothing if it is NaN
    return float(2 * (predicted & positive).sum() / (predicted.sum() + positive.sum()))


def evaluate_scores(
    truth: np.ndarray,
    predicted: np.ndarray,
    scores: np.ndarray,
    classes: Sequence[str],
    groups: Groups,
    *,
    samples: int,
    ignored: np.ndarray | None = None,
) -> dict[str, Any]:
    """All metrics of a classifier, several labels per window allowed.

    Parameters
    ----------
    truth, predicted : np.ndarray, bool, shape (n, classes)
    scores : np.ndarray, float32, shape (n, classes)
    classes : sequence of str
    groups : Groups
    samples : int
        Most parts into which the recordings are divided for the intervals; 0 for no intervals.
    ignored : np.ndarray, bool, shape (n, classes), optional
        Where nobody can say whether the class is there; that is neither right nor wrong.

    Returns
    -------
    dict
        ``overall`` (value by metric), ``intervals`` ([low, high] by metric), ``per_class``,
        ``jackknife`` (what the intervals are based on) and ``notes``.
    """
    affordable = max(_FEWEST_GROUPS, _BUDGET // max(1, truth.shape[0] * truth.shape[1]))
    weights = leave_out(groups, min(samples, affordable))
    overall, per_class = score_replicates(truth, predicted, scores, groups, weights, ignored)
    support = truth.sum(axis=0)
    units = [len(np.unique(groups.code[truth[:, i]])) for i in range(len(classes))]
    summary = summarise(overall, len(truth))
    return {
        **summary,
        "per_class": {
            str(name): {
                "support": int(support[i]),
                f"{groups.unit}s": units[i],
                **{metric: number(values[0, i]) for metric, values in per_class.items()},
                # A class is no better known than from the recordings that it is in.
                **{
                    f"{metric}_interval": interval(per_class[metric][:, i], windows=int(support[i]))
                    if units[i] >= FEWEST_UNITS
                    else None
                    for metric in ("f1", "average_precision")
                },
            }
            for i, name in enumerate(classes)
        },
        "jackknife": {
            "unit": groups.unit,
            "units": groups.number,
            "replicates": len(weights) - 1,
        },
        "notes": notes_on_intervals(groups, samples, summary),
    }


def score_replicates(
    truth: np.ndarray,
    predicted: np.ndarray,
    scores: np.ndarray,
    groups: Groups,
    weights: np.ndarray,
    ignored: np.ndarray | None = None,
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Metrics with each row of weights, over all and by class; shapes as `threshold_metrics`."""
    certain = np.ones_like(truth) if ignored is None else ~ignored
    overall, per_class = threshold_metrics(count(truth, predicted & certain, groups, weights))
    areas, precisions = np.empty((2, len(weights), truth.shape[1]))
    for i in range(truth.shape[1]):
        use = certain[:, i]
        areas[:, i], precisions[:, i] = ranking_metrics(
            truth[use, i], scores[use, i], groups._replace(code=groups.code[use]), weights
        )
    overall["roc_auc_macro"] = mean_of_defined(areas)
    overall["average_precision_macro"] = mean_of_defined(precisions)
    return overall, per_class | {"roc_auc": areas, "average_precision": precisions}


def accuracy_replicates(
    labels: np.ndarray, scores: np.ndarray, groups: Groups, weights: np.ndarray
) -> dict[str, np.ndarray]:
    """Accuracies with each row of weights.

    `labels` is int64 of shape (n,), or bool of shape (n, classes).  Top-1 and top-5 accuracy are
    the share of the windows with a label of which the highest (one of the five highest) scores is
    that of a label; the latter is NaN unless there are more than 5 classes.  Accuracy and balanced
    accuracy are NaN where windows may have several labels.
    """
    n_classes = scores.shape[1]
    undefined = np.full(len(weights), np.nan)
    truth = labels if labels.ndim == 2 else one_hot(labels, n_classes)
    ranked = np.argsort(-scores, axis=1, kind="stable")

    def share(most: int) -> np.ndarray:
        hit = np.take_along_axis(truth, ranked[:, :most], axis=1).any(axis=1)
        has = truth.any(axis=1)
        counts = count(has[:, None], (has & hit)[:, None], groups, weights)
        return ratio(counts.hits[:, 0], counts.present[:, 0], np.nan)

    top_1 = share(1)
    balanced = undefined
    if labels.ndim == 1:
        counts = count(truth, one_hot(ranked[:, 0], n_classes), groups, weights)
        balanced = mean_of_defined(ratio(counts.hits, counts.present, np.nan))
    return {
        "accuracy": top_1 if labels.ndim == 1 else undefined,
        "balanced_accuracy": balanced,
        "top_1_accuracy": top_1,
        "top_5_accuracy": share(5) if n_classes > 5 else undefined,
    }


def decide(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Truth and decisions, bool of shape (n, classes).

    A window that has one label gets the class of the highest score; where it may have several,
    every class with a score of 0.5 or more.
    """
    if labels.ndim == 2:
        return labels, scores >= 0.5
    n_classes = scores.shape[1]
    return one_hot(labels, n_classes), one_hot(scores.argmax(axis=1), n_classes)


def evaluate_labels(
    labels: np.ndarray, scores: np.ndarray, classes: Sequence[str], groups: Groups, *, samples: int
) -> dict[str, Any]:
    """Do what `evaluate_scores` does, with `accuracy_replicates`; `labels` as for these."""
    truth, predicted = decide(labels, scores)
    rest = evaluate_scores(truth, predicted, scores, classes, groups, samples=samples)
    weights = leave_out(groups, samples)
    accuracies = summarise(accuracy_replicates(labels, scores, groups, weights), len(labels))
    return {
        **rest,
        "overall": {**accuracies["overall"], **rest["overall"]},
        "intervals": {**accuracies["intervals"], **rest["intervals"]},
    }


def precision_threshold(positive: np.ndarray, score: np.ndarray, wanted: float) -> float:
    """Lowest threshold (score ≥ threshold) whose precision is the wanted one; NaN if none is."""
    if not len(score):
        return float("nan")
    order = np.argsort(-score, kind="stable")
    ranked, hits = score[order], positive[order].cumsum()
    last = np.flatnonzero(np.r_[ranked[1:] != ranked[:-1], True])
    enough = last[hits[last] >= wanted * (last + 1) - 1e-9]
    return float(ranked[enough[-1]]) if len(enough) and positive.any() else float("nan")


def one_hot(labels: np.ndarray, n_classes: int) -> np.ndarray:
    """Bool array of shape (n, classes) with one True per row."""
    return labels[:, None] == np.arange(n_classes)


def summarise(overall: dict[str, np.ndarray], windows: int = _MANY_WINDOWS) -> dict[str, Any]:
    """Values (first of each array) and intervals (from the replicates after it).

    `windows` is the number that the scores are based on.
    """
    return {
        "overall": {name: number(values[0]) for name, values in overall.items()},
        "intervals": {name: interval(values, windows=windows) for name, values in overall.items()},
    }


def notes_on_intervals(
    groups: Groups, samples: int, summary: dict[str, Any] | None = None
) -> list[str]:
    """What a reader of the intervals, or of scores without one, should know."""
    if groups.number < FEWEST_UNITS:
        are = "is" if groups.number == 1 else "are"
        return [
            f"No confidence intervals: there {are} only {counted(groups.number, groups.unit)} to "
            f"test with, fewer than {FEWEST_UNITS}; a score from so few says little."
        ]
    if samples and summary is not None and 1.0 in summary["overall"].values():
        return ["A score of 1 has no confidence interval: where all is right, nothing varies."]
    return []


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


# ---------------------------------------------------------------------- intervals


def group_by(names: np.ndarray | None, n_windows: int, unit: str = "recording") -> Groups:
    """Number the recordings (or sites); without them, every window counts by itself."""
    if names is None:
        return Groups(np.arange(n_windows), n_windows, "window")
    known, code = np.unique(np.asarray(names, dtype=str), return_inverse=True)
    return Groups(code.astype(np.int64), len(known), unit)


def leave_out(groups: Groups, samples: int) -> np.ndarray:
    """Weights of the recordings, float64 of shape (1 + replicates, recordings).

    The first row is the data as they are; in each further one, one recording has the weight 0 (or,
    of more than `samples` recordings, an equal part of them); none of fewer than `FEWEST_UNITS`.
    """
    replicates = min(samples, groups.number)
    if replicates < FEWEST_UNITS:
        return np.ones((1, groups.number))
    # Dealt out at random: neighbours in the alphabet are neighbours in space and time.
    part = np.random.default_rng(0).permutation(np.arange(groups.number) % replicates)
    return np.concatenate([np.ones((1, groups.number)), part != np.arange(replicates)[:, None]])


def standard_error(replicates: np.ndarray, left_out: float | None = None) -> float:
    """Standard error of a score from its values without some of the recordings.

    They are those of the jackknife, or `left_out` is the share of the recordings that each of them
    leaves out at random.
    """
    n = len(replicates)
    share = 1 / n if left_out is None else left_out
    drawn = n if left_out is None else n - 1
    deviations = np.square(replicates - replicates.mean())
    return float(np.sqrt((1 - share) / share * deviations.sum() / drawn))


def interval(
    values: np.ndarray,
    low: float = 0.0,
    high: float = 1.0,
    *,
    windows: int = _MANY_WINDOWS,
    left_out: float | None = None,
) -> list[float] | None:
    """95 % interval of a score between two bounds, from its value and its replicates.

    `windows` is the number that the score is based on: near its bounds it is no better known than
    half a window.  For `left_out` see `standard_error`.  None if there are too few replicates, or
    if they do not vary.
    """
    share = ((values - low) / (high - low) * windows + 0.5) / (windows + 1)
    logit = np.log(share / (1 - share))
    replicates = logit[1:][np.isfinite(logit[1:])]
    n = len(replicates)
    if n < FEWEST_UNITS or not np.isfinite(values[0]) or np.ptp(replicates) == 0:
        return None
    half = stdtrit(n - 1, 0.975) * standard_error(replicates, left_out)
    bounds = logit[0] + np.array([-1, 1]) * half
    least, most = low + (high - low) * expit(bounds)
    return [float(min(least, values[0])), float(max(most, values[0]))]
