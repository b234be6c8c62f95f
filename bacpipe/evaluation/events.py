"""Scores of events: what was found, interval by interval, against what was annotated.

Windows say in how many seconds a classifier is right; events say how many calls it finds.  Windows
above the threshold that touch are one event.  There are three ways to match them, each within one
class of one recording:

``iou``
    An event and an annotation are a pair if their intersection over union is large enough; each is
    in one pair at most, and as many pairs are made as possible (as in the evaluation of DCASE's
    few-shot task).
``onset``
    They are a pair if they begin at the same time, give or take a tolerance (sed_eval: Mesaros,
    Heittola & Virtanen 2016, Applied Sciences 6(6), 162), pairs as above.
``intersection``
    An event counts if at least half of it is annotated, and an annotation is found if at least
    half of it is covered by such events (the criteria of PSDS: Bilen et al. 2020, ICASSP, 61-65).

Of PSDS only these two criteria are computed, at 50 % and at the threshold of the report, and not
the area that gives the score its name.  That area needs three more choices (what a confusion of
classes costs, how much classes may differ, how many false alarms an hour are the most), for which
there are no agreed values in bioacoustics, so that the areas of two papers could not be compared;
and what does not depend on a threshold is said by the average precision and AUROC of windows.

A window of 3 s around a call of 0.4 s has an intersection over union of 0.13 at most, so with
short calls and long windows only the last one says anything of the classifier.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import maximum_bipartite_matching

from bacpipe.evaluation.metrics import (
    Counts,
    Groups,
    leave_out,
    number,
    summarise,
    threshold_metrics,
)
from bacpipe.store.detections import Intervals

_HALF = 0.5
_TOLERANCE = 1e-9

_NONE = Intervals(np.zeros(0), np.zeros(0), np.zeros(0, np.int64))

Spans = tuple[np.ndarray, np.ndarray]
"""Start and end of events or annotations in seconds, float64, each of shape (n,)."""


def count_events(
    detected: Spans, annotated: Spans, ignored: Spans, pairs: Callable[[Spans, Spans], np.ndarray]
) -> tuple[int, int]:
    """Number of pairs, and of events that are right or wrong.

    `pairs` tells which event fits which annotation, bool of shape (events, annotations).  Events
    that are in no pair and overlap an ignored annotation are neither.
    """
    fits = csr_matrix(pairs(detected, annotated))
    taken = maximum_bipartite_matching(fits, perm_type="column") >= 0
    unsure = ~taken & (_shared(detected, ignored) > 0).any(axis=1)
    return int(taken.sum()), int(len(taken) - unsure.sum())


def pairs_by_iou(least: float) -> Callable[[Spans, Spans], np.ndarray]:
    """Pairs with at least this intersection over union."""

    def pairs(detected: Spans, annotated: Spans) -> np.ndarray:
        shared = _shared(detected, annotated)
        lengths = (detected[1] - detected[0])[:, None] + (annotated[1] - annotated[0])
        return (shared > 0) & (shared >= least * (lengths - shared) - _TOLERANCE)

    return pairs


def pairs_by_onset(tolerance: float) -> Callable[[Spans, Spans], np.ndarray]:
    """Pairs that begin within this many seconds of each other."""
    return lambda detected, annotated: (
        np.abs(detected[0][:, None] - annotated[0]) <= tolerance + _TOLERANCE
    )


def count_intersections(
    detected: Spans, annotated: Spans, ignored: Spans, half: float = _HALF
) -> tuple[int, int]:
    """Number of annotations that are found, and that plus the number of wrong events."""
    shared = _shared(detected, annotated)
    right = (detected[1] - detected[0]) * half <= shared.sum(axis=1) + _TOLERANCE
    right &= (shared > 0).any(axis=1)
    covered = shared[right].sum(axis=0)
    hits = (covered > 0) & (covered >= (annotated[1] - annotated[0]) * half - _TOLERANCE)
    wrong = ~right & ~(_shared(detected, ignored) > 0).any(axis=1)
    return int(hits.sum()), int(hits.sum() + wrong.sum())


def _shared(one: Spans, other: Spans) -> np.ndarray:
    """Seconds that each of `one` shares with each of `other`."""
    last = np.minimum(one[1][:, None], other[1])
    return np.maximum(last - np.maximum(one[0][:, None], other[0]), 0)


def evaluate_events(
    detected: Mapping[str, Intervals],
    annotated: Mapping[str, Intervals],
    ignored: Mapping[str, Intervals],
    recordings: Sequence[str],
    classes: Sequence[str],
    groups: Groups,
    *,
    iou: float,
    tolerance: float,
    samples: int,
) -> dict[str, Any]:
    """Precision, recall and F1 of events by each of the three rules.

    Parameters
    ----------
    detected, annotated, ignored : mapping of str to Intervals
        Intervals by recording, labelled with the number of their class, those of one class joined
        where they touch.
    recordings : sequence of str
    classes : sequence of str
    groups : Groups
        The recording or site of every one of `recordings`, for the intervals.
    iou : float
        Least intersection over union.
    tolerance : float
        Of onsets, in seconds.
    samples : int
        Most parts into which the recordings are divided for the intervals.

    Returns
    -------
    dict
        For ``iou``, ``onset`` and ``intersection``: ``rule``, ``overall`` (value by metric),
        ``intervals`` (95 %) and ``per_class`` with the number of annotated and found events.
    """
    rules: dict[str, tuple[str, Callable[[Spans, Spans, Spans], tuple[int, int]]]] = {
        "iou": (
            f"intersection over union of at least {iou:g}",
            lambda f, a, i: count_events(f, a, i, pairs_by_iou(iou)),
        ),
        "onset": (
            f"onsets within {tolerance:g} s of each other",
            lambda f, a, i: count_events(f, a, i, pairs_by_onset(tolerance)),
        ),
        "intersection": (
            "half of an event annotated, half of an annotation covered",
            count_intersections,
        ),
    }
    hits = {rule: np.zeros((groups.number, len(classes))) for rule in rules}
    events = {rule: np.zeros((groups.number, len(classes))) for rule in rules}
    present = np.zeros((groups.number, len(classes)))
    for name, group in zip(recordings, groups.code, strict=True):
        sets = [source.get(name, _NONE) for source in (detected, annotated, ignored)]
        for i in np.unique(np.concatenate([s.label for s in sets[:2]])).astype(int):
            spans = [(s.start[s.label == i], s.end[s.label == i]) for s in sets]
            present[group, i] += len(spans[1][0])
            for rule, (_, count) in rules.items():
                n_hits, n_events = count(spans[0], spans[1], spans[2])
                hits[rule][group, i] += n_hits
                events[rule][group, i] += n_events
    weights = leave_out(groups, samples)
    result = {}
    for rule, (words, _) in rules.items():
        counts = Counts(weights @ hits[rule], weights @ events[rule], weights @ present)
        overall, per_class = threshold_metrics(counts)
        result[rule] = {
            "rule": words,
            **summarise(overall),
            "per_class": {
                name: {
                    "annotated": int(present[:, i].sum()),
                    "found": int(events[rule][:, i].sum()),
                    "hits": int(hits[rule][:, i].sum()),
                    **{metric: number(values[0, i]) for metric, values in per_class.items()},
                }
                for i, name in enumerate(classes)
            },
        }
    return result
