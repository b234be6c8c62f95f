"""Metrics against scikit-learn, and intervals that cover what they should."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from bacpipe.evaluation.metrics import (
    accuracy_replicates,
    best_threshold,
    evaluate_scores,
    group_by,
    interval,
    leave_out,
    one_hot,
    ranking_metrics,
    summarise,
)
from bacpipe.evaluation.standardiser import Standardiser, directions

CLASSES = ["a", "b", "c", "d", "e", "f", "g"]


def random_case(seed: int, n: int = 200, *, ties: bool = True):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, len(CLASSES), n)
    scores = rng.random((n, len(CLASSES)))
    scores[np.arange(n), labels] += 0.4
    if ties:
        scores = scores.round(1)
    return labels, scores / scores.sum(axis=1, keepdims=True), rng.integers(0, 9, n).astype(str)


def evaluate(labels, scores, recordings, samples=0):
    n_classes = scores.shape[1]
    predicted = scores.argmax(axis=1)
    groups = group_by(recordings, len(labels))
    return (
        evaluate_scores(
            one_hot(labels, n_classes),
            one_hot(predicted, n_classes),
            scores,
            CLASSES[:n_classes],
            groups,
            samples=samples,
        ),
        summarise(accuracy_replicates(labels, scores, groups, leave_out(groups, samples))),
    )


@pytest.mark.parametrize("seed", range(3))
def test_all_metrics_are_those_of_scikit_learn(seed):
    labels, scores, recordings = random_case(seed)
    result, single = evaluate(labels, scores, recordings)
    predicted = scores.argmax(axis=1)
    truth = one_hot(labels, 7)
    expected = {
        "roc_auc_macro": reference.roc_auc_score(truth, scores, average="macro"),
        "average_precision_macro": reference.average_precision_score(truth, scores),
    }
    for average in ("macro", "micro"):
        for name in ("precision", "recall", "f1"):
            score = getattr(reference, f"{name}_score")
            expected[f"{name}_{average}"] = score(
                labels, predicted, average=average, zero_division=0
            )
    assert result["overall"] == pytest.approx(expected)
    ranks = np.argsort(-scores, axis=1, kind="stable")[:, :5]
    assert single["overall"] == pytest.approx(
        {
            "accuracy": reference.accuracy_score(labels, predicted),
            "balanced_accuracy": reference.balanced_accuracy_score(labels, predicted),
            "top_1_accuracy": reference.accuracy_score(labels, predicted),
            "top_5_accuracy": np.mean(
                [label in row for label, row in zip(labels, ranks, strict=True)]
            ),
        }
    )
    for i, name in enumerate(CLASSES):
        mine = result["per_class"][name]
        precision, recall, f1, support = reference.precision_recall_fscore_support(
            labels, predicted, labels=[i], zero_division=0
        )
        assert (mine["precision"], mine["recall"], mine["f1"]) == pytest.approx(
            (precision[0], recall[0], f1[0])
        )
        assert mine["support"] == support[0]
        assert mine["roc_auc"] == pytest.approx(reference.roc_auc_score(labels == i, scores[:, i]))


@settings(max_examples=30)
@given(seed=st.integers(0, 1000), n=st.integers(3, 60), levels=st.integers(1, 8))
def test_weights_act_like_repeated_recordings(seed, n, levels):
    rng = np.random.default_rng(seed)
    positive, score = rng.random(n) < 0.4, rng.integers(0, levels, n) / levels
    groups = group_by(rng.integers(0, 4, n).astype(str), n)
    weights = rng.integers(0, 3, (3, groups.number)).astype(float)
    auc, precision = ranking_metrics(positive, score, groups, weights)
    for row, weight in enumerate(weights):
        repeated = np.repeat(np.arange(n), weight[groups.code].astype(int))
        truth = positive[repeated]
        if truth.any():
            expected = reference.average_precision_score(truth, score[repeated])
            assert precision[row] == pytest.approx(expected)
        if truth.any() and not truth.all():
            assert auc[row] == pytest.approx(reference.roc_auc_score(truth, score[repeated]))
        else:
            assert np.isnan(auc[row])


def test_random_scores_are_at_chance():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 8000)
    result, single = evaluate(labels, rng.random((8000, 4)), rng.integers(0, 40, 8000).astype(str))
    assert single["overall"]["accuracy"] == pytest.approx(0.25, abs=0.02)
    assert result["overall"]["roc_auc_macro"] == pytest.approx(0.5, abs=0.02)
    assert result["overall"]["average_precision_macro"] == pytest.approx(0.25, abs=0.02)


def test_perfect_scores_have_no_interval_and_that_is_said():
    labels, _, recordings = random_case(0)
    result, single = evaluate(labels, one_hot(labels, 7).astype(float), recordings, samples=50)
    for part in (result, single):
        assert set(part["overall"].values()) == {1.0}
        assert set(part["intervals"].values()) == {None}
    assert "where all is right" in result["notes"][0]


def test_a_class_that_does_not_occur_is_left_out_of_averages():
    labels = np.array([0, 0, 1, 1])
    scores = np.array([[0.8, 0.1, 0.1], [0.2, 0.1, 0.7], [0.1, 0.9, 0], [0.3, 0.7, 0]])
    result, single = evaluate(labels, scores, np.array(list("abab")))
    assert result["per_class"]["c"]["f1"] is None
    assert result["overall"]["recall_macro"] == pytest.approx(0.75)
    assert single["overall"]["balanced_accuracy"] == pytest.approx(0.75)
    assert single["overall"]["top_5_accuracy"] is None


def test_intervals_contain_the_estimate_and_widen_with_dependence():
    labels, scores, recordings = random_case(1, 400)
    result, _ = evaluate(labels, scores, recordings, samples=300)
    for name, (low, high) in result["intervals"].items():
        assert low <= result["overall"][name] <= high, name
    # Five copies of every window say nothing new, when they are of the same recording.
    alone = np.arange(80).astype(str)
    few, many = (
        evaluate(np.tile(labels[:80], k), np.tile(scores[:80], (k, 1)), np.tile(alone, k), 300)[0]
        for k in (1, 5)
    )
    assert few["intervals"]["f1_micro"] == pytest.approx(many["intervals"]["f1_micro"], rel=0.01)


@pytest.mark.parametrize("n_recordings", [5, 8, 30])
def test_an_interval_covers_the_truth_about_as_often_as_it_says(n_recordings):
    hits = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        rate = rng.beta(6, 3, n_recordings)  # of each recording; 2/3 on average
        right = rng.random((n_recordings, 20)) < rate[:, None]
        groups = group_by(np.repeat(np.arange(n_recordings), 20).astype(str), right.size)
        weights = leave_out(groups, 200)
        low, high = interval((weights @ right.mean(axis=1)) / weights.sum(axis=1))
        hits += low <= 2 / 3 <= high
    assert 0.92 <= hits / 300 <= 0.98


@pytest.mark.parametrize("number", [1, 4])
def test_few_recordings_have_no_interval_and_that_is_said(number):
    labels, scores, _ = random_case(0)
    result, _ = evaluate(labels, scores, (np.arange(200) % number).astype(str), samples=100)
    assert set(result["intervals"].values()) == {None}
    assert f"only {number} recording" in result["notes"][0]


def test_a_class_of_few_recordings_has_no_interval():
    labels, scores, recordings = random_case(2)
    labels[labels == 3] = 2
    labels[:3], recordings[:3] = 3, ["0", "0", "1"]
    result, _ = evaluate(labels, scores, recordings, samples=100)
    assert result["per_class"]["d"]["f1_interval"] is None
    assert result["per_class"]["a"]["f1_interval"] is not None
    assert result["per_class"]["d"]["recordings"] == 2


def test_best_threshold_is_the_best_of_all():
    rng = np.random.default_rng(3)
    for _ in range(20):
        positive, score = rng.random(40) < 0.3, rng.random(40).round(1)
        if not positive.any():
            continue
        threshold, f1 = best_threshold(positive, score)
        tried = [reference.f1_score(positive, score >= t) for t in np.unique(score)]
        assert f1 == pytest.approx(max(tried))
        assert reference.f1_score(positive, score >= threshold) == pytest.approx(f1)
    assert np.isnan(best_threshold(np.zeros(3, bool), np.ones(3))).all()


def test_a_dimension_that_does_not_vary_is_not_blown_up() -> None:
    rng = np.random.default_rng(0)
    embeds = rng.normal(0, 2, (5000, 3)).astype(np.float32)
    embeds[:, 1] = 1234.5  # of which sums of squares leave some rounding
    embeds[:, 2] += 1e6
    rows = np.arange(0, 5000, 2)
    fitted = Standardiser.of(embeds, rows)
    expected = embeds[rows].astype(np.float64)
    np.testing.assert_allclose(fitted.mean, expected.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(fitted.deviation[[0, 2]], expected.std(axis=0)[[0, 2]], rtol=1e-9)
    points = fitted(embeds)
    assert points.dtype == np.float32 and not points[:, 1].any()
    np.testing.assert_allclose(points[rows][:, [0, 2]].std(axis=0), 1, rtol=1e-5)
    lengths = np.linalg.norm(directions(embeds), axis=1)
    np.testing.assert_allclose(lengths, 1, rtol=1e-5)
