"""Events against cases that were worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from bacpipe.evaluation.events import (
    count_events,
    count_intersections,
    evaluate_events,
    pairs_by_iou,
    pairs_by_onset,
)
from bacpipe.evaluation.metrics import group_by
from bacpipe.store.detections import Intervals


def spans(*pairs):
    return tuple(np.array(column, float) for column in zip(*pairs, strict=True))


NONE = (np.zeros(0), np.zeros(0))


def test_pairs_by_intersection_over_union():
    annotated = spans((0, 2), (10, 14))
    # 1.5 of 2 s shared (IoU .75); 2 of 4 s (IoU .5); one that touches nothing.
    found = spans((0, 1.5), (12, 14), (20, 21))
    assert count_events(found, annotated, NONE, pairs_by_iou(0.5)) == (2, 3)
    assert count_events(found, annotated, NONE, pairs_by_iou(0.51)) == (1, 3)
    assert count_events(found, annotated, spans((20.5, 22)), pairs_by_iou(0.5)) == (2, 2)
    assert count_events(NONE, annotated, NONE, pairs_by_iou(0.5)) == (0, 0)
    assert count_events(found, NONE, NONE, pairs_by_iou(0.5)) == (0, 3)


def test_as_many_pairs_as_possible_and_each_once():
    # The first event fits both annotations, the second one only the first of them.
    annotated, found = spans((1.0, 2), (1.3, 2)), spans((1.15, 2), (0.9, 2))
    assert count_events(found, annotated, NONE, pairs_by_onset(0.2)) == (2, 2)
    # Two events at one annotation are one pair.
    assert count_events(found, spans((1.0, 2)), NONE, pairs_by_onset(0.2)) == (1, 2)
    assert count_events(found, annotated, NONE, pairs_by_onset(0.09)) == (0, 2)


def test_intersections():
    # Two calls within one long event: together they are half of it, and both are found.
    annotated = spans((0, 1), (2, 3))
    assert count_intersections(spans((0, 4)), annotated, NONE) == (2, 2)
    # Less than half of the event is annotated: it is wrong, and nothing is found.
    assert count_intersections(spans((0, 4.1)), annotated, NONE) == (0, 1)
    # A quarter of a call is covered: the event is right, the call is missed.
    assert count_intersections(spans((0, 0.25)), annotated, NONE) == (0, 0)
    assert count_intersections(spans((5, 6)), annotated, spans((5.5, 7))) == (0, 0)


def test_scores_by_class_and_over_all():
    def intervals(*rows):
        start, end, label = zip(*rows, strict=True)
        return Intervals(np.array(start, float), np.array(end, float), np.array(label))

    annotated = {"a": intervals((0, 1, 0), (5, 6, 0), (0, 1, 1)), "b": intervals((0, 1, 0))}
    found = {"a": intervals((0, 1, 0), (8, 9, 0)), "b": intervals((0, 1, 1))}
    result = evaluate_events(
        found, annotated, {}, ["a", "b"], ["x", "y"], group_by(np.array(["a", "b"]), 2),
        iou=0.5, tolerance=0.2, samples=0,
    )  # fmt: skip
    for rule in ("iou", "onset", "intersection"):
        x, y = result[rule]["per_class"].values()
        assert (x["hits"], x["annotated"], x["found"]) == (1, 3, 2)
        assert (x["precision"], x["recall"], x["f1"]) == pytest.approx((1 / 2, 1 / 3, 2 / 5))
        assert (y["hits"], y["precision"], y["recall"]) == (0, 0, 0)
        assert result[rule]["overall"]["f1_micro"] == pytest.approx(2 / (3 + 4))
