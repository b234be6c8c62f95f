"""Learning from few labels: ours beside the recipe of perch-hoplite, on sets of known truth.

An annotator that knows the truth starts from one window of a class, and says yes or no to the
windows that a strategy chooses, five at a time.  After each round the learner's average precision
on held-out windows is taken, and averaged over classes.  The peers' recipe is a linear classifier
on centred embeddings of unit mean length with 500 weak negatives at weight 0.05, which chooses at
the margin (logit 0).

    python benchmarks/labelled_sounds.py AUDIO_FOLDER sounds.npz
    python benchmarks/few_labels.py --speed
    python benchmarks/few_labels.py sounds.npz [--seeds 3] [--classes 6] [--sets mix shift]
                                               [--batch 5] [--recipes peers ours margin]

It prints the average precision after 10, 25, 50 and 100 labels, the paired difference to the peers'
recipe with its standard error over seeds and classes, and the labels that either needs for 90 % of
the best score that all labels give.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from itertools import islice
from typing import NamedTuple

import numpy as np
from labelled_sounds import LabelledSet, labelled_sets
from sklearn.metrics import average_precision_score

from bacpipe.recognisers import learner
from bacpipe.recognisers.learner import Examples, Whitening, fit
from bacpipe.recognisers.suggestions import LeastSure

ROUNDS = (5, 10, 15, 20, 25, 35, 50, 75, 100, 150, 200)
SHOWN = (10, 25, 50, 100)
CANDIDATES = 30  # times as many as are wanted, as `suggest` looks at


class Scored(NamedTuple):
    """What a recipe has learnt: logits, and how unsure some of them are."""

    pool: np.ndarray
    test: np.ndarray
    spread: Callable[[np.ndarray], np.ndarray]  # of rows of the pool, shape (n, n)


Recipe = Callable[[np.ndarray, np.ndarray, Examples, "Pool"], Scored]
Choice = Callable[[Scored, np.ndarray, int], list[int]]


class Plain(NamedTuple):
    """Features of the peers: embeddings, centred, of mean square length 1."""

    mean: np.ndarray
    scale: float

    @classmethod
    def of(cls, embeddings: np.ndarray) -> Plain:
        """Of windows, float32 of shape (n, dim)."""
        mean = embeddings.mean(axis=0)
        return cls(mean, float(np.square(embeddings - mean).sum(axis=1).mean()) ** -0.5)

    def features(self, embeddings: np.ndarray) -> np.ndarray:
        """Of embeddings, of their shape."""
        return (embeddings - self.mean) * self.scale


class Pool(NamedTuple):
    """Windows to be searched, and what features need to know of them."""

    plain: Plain
    whitening: Whitening

    @classmethod
    def of(cls, embeddings: np.ndarray) -> Pool:
        """Of windows, float32 of shape (n, dim)."""
        return cls(Plain.of(embeddings), Whitening.of(embeddings))


def peers(pool: np.ndarray, test: np.ndarray, examples: Examples, known: Pool) -> Scored:
    """The recipe of perch-hoplite."""
    features = known.plain.features
    weights = np.where(np.arange(len(examples.present)) < examples.labelled, 1, 0.05)
    weight, bias = fit(features(examples.embeddings), examples.present, weights)
    nothing = np.zeros((0, 0))
    return Scored(features(pool) @ weight + bias, features(test) @ weight + bias, lambda _: nothing)


def ours(pool: np.ndarray, test: np.ndarray, examples: Examples, known: Pool) -> Scored:
    """That of `bacpipe.train_recogniser`."""
    learnt = learner.learn(examples, known.whitening)

    def spread(rows: np.ndarray) -> np.ndarray:
        return learner.logit_covariance(examples, learnt, known.whitening, pool[rows])

    return Scored(learnt.logits(pool), learnt.logits(test), spread)


def margin(scored: Scored, free: np.ndarray, count: int) -> list[int]:
    """Nearest to logit 0."""
    order = free[np.argsort(np.abs(scored.pool[free]), kind="stable")]
    return [int(row) for row in order[:count]]


def mixed(scored: Scored, free: np.ndarray, count: int) -> list[int]:
    """As ``suggest(strategy='mixed')``, without sites and times: where the class is least sure."""
    rows = np.array(margin(scored, free, CANDIDATES * count))
    nobody = np.zeros((len(rows), 2), np.int64)
    unsure = LeastSure(scored.pool[rows], scored.spread(rows), nobody)
    chosen = []
    for i in islice(unsure, count):
        chosen.append(int(rows[i]))
        unsure.take(i)
    return chosen


RECIPES: dict[str, tuple[Recipe, Choice]] = {
    "peers": (peers, margin),
    "ours": (ours, mixed),
    "margin": (ours, margin),
}


def simulate(
    data: LabelledSet, column: int, recipe: str, seed: int, windows: Pool, batch: int
) -> np.ndarray:
    """Average precision after each round."""
    learn, choice = RECIPES[recipe]
    rng = np.random.default_rng([seed, column])
    known = data.truth[:, column] >= 0
    pool, truth = data.pool[known], data.truth[known, column] == 1
    judged = data.test_truth[:, column] >= 0
    test, expected = data.test[judged], data.test_truth[judged, column] == 1
    labelled = [int(rng.choice(np.flatnonzero(truth)))]
    weak = rng.choice(len(pool), min(learner.WEAK_NEGATIVES, len(pool)), replace=False)
    found = []
    for budget in ROUNDS:
        while True:
            rest = weak[~np.isin(weak, labelled)]
            rows = np.concatenate([labelled, rest]).astype(int)
            present = np.concatenate([truth[labelled], np.zeros(len(rest), bool)])
            examples = Examples(pool[rows], present, len(labelled))
            scored = learn(pool, test, examples, windows)
            if len(labelled) >= budget:
                break
            free = np.setdiff1d(np.arange(len(pool)), labelled)
            labelled += choice(scored, free, min(batch, budget - len(labelled)))
        found.append(average_precision_score(expected, scored.test))
    return np.array(found)


def ceiling(data: LabelledSet, column: int, windows: Pool) -> float:
    """The better of both features with all labels."""
    known = data.truth[:, column] >= 0
    judged = data.test_truth[:, column] >= 0
    present = data.truth[known, column] == 1
    best = 0.0
    for features in (windows.plain.features, windows.whitening.features):
        weight, bias = fit(features(data.pool[known]), present, np.ones(len(present)))
        logits = features(data.test[judged]) @ weight + bias
        best = max(best, average_precision_score(data.test_truth[judged, column] == 1, logits))
    return best


def labels_needed(curve: np.ndarray, wanted: float) -> float:
    """Labels at which a curve reaches a score, interpolated; those of the last round if never."""
    reached = np.flatnonzero(curve >= wanted)
    if not len(reached):
        return float(ROUNDS[-1])
    i = int(reached[0])
    if i == 0:
        return float(ROUNDS[0])
    low, high = curve[i - 1], curve[i]
    return ROUNDS[i - 1] + (ROUNDS[i] - ROUNDS[i - 1]) * (wanted - low) / (high - low)


def speed() -> None:
    """CPU seconds of learning from 1000 labels, whatever the number of windows to be searched."""
    rng, dim = np.random.default_rng(0), 1024
    mixing = rng.standard_normal((64, dim), dtype=np.float32)

    def draw(n: int) -> np.ndarray:
        rows = rng.standard_normal((n, 64), dtype=np.float32) @ mixing / 8
        rows += np.float32(0.4) * rng.standard_normal((n, dim), dtype=np.float32)
        return np.maximum(rows, 0)

    pool, labelled = draw(32_768), draw(1000)  # as many as `searched_windows` reads
    started = time.process_time()
    whitening = Whitening.of(pool)
    print(f"covariance of {len(pool)} windows, once: {time.process_time() - started:.2f} s")
    embeddings = np.concatenate([labelled, pool[: learner.WEAK_NEGATIVES]])
    seconds = []
    for _ in range(6):
        score = embeddings @ rng.standard_normal(dim)
        present = score > np.quantile(score, 0.8)
        present[1000:] = False
        started = time.process_time()
        learner.learn(Examples(embeddings, present, 1000), whitening)
        seconds.append(time.process_time() - started)
    print(f"a class of 1000 labels: {np.median(seconds):.2f} s")


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", nargs="?")
    parser.add_argument("--speed", action="store_true", help="only how long learning takes")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--classes", type=int, default=6)
    parser.add_argument("--batch", type=int, default=5, help="labels between two lessons")
    parser.add_argument("--sets", nargs="*")
    parser.add_argument("--recipes", nargs="*", default=["peers", "ours"])
    arguments = parser.parse_args()
    if arguments.speed:
        speed()
        return
    if arguments.file is None:
        parser.error("a file of labelled_sounds.py is missing")
    with np.load(arguments.file) as file:
        sets = labelled_sets(dict(file))
    at = [ROUNDS.index(n) for n in SHOWN]
    ratios = []
    print(f"{'set':7s} {'recipe':7s} " + " ".join(f"AP {n:>4d}" for n in SHOWN) + "   to 90 %")
    for name, data in sets.items():
        if arguments.sets and name not in arguments.sets:
            continue
        windows = Pool.of(data.pool)
        usable = [
            j
            for j in range(data.truth.shape[1])
            if (data.truth[:, j] == 1).sum() >= 5 and (data.test_truth[:, j] == 1).sum() >= 3
        ]
        columns = [
            usable[i] for i in np.linspace(0, len(usable) - 1, arguments.classes).astype(int)
        ]
        columns = sorted(set(columns))
        top = np.mean([ceiling(data, j, windows) for j in columns])
        curves = {
            recipe: np.array(
                [
                    simulate(data, j, recipe, seed, windows, arguments.batch)
                    for seed in range(arguments.seeds)
                    for j in columns
                ]
            )
            for recipe in arguments.recipes
        }
        needed = {r: labels_needed(c.mean(axis=0), 0.9 * top) for r, c in curves.items()}
        for recipe, curve in curves.items():
            shown = " ".join(f"{v:7.3f}" for v in curve.mean(axis=0)[at])
            print(f"{name:7s} {recipe:7s} {shown}   {needed[recipe]:6.0f}  (all labels {top:.3f})")
            if recipe != "peers" and "peers" in curves:
                paired = (curve - curves["peers"])[:, at]
                error = paired.std(axis=0, ddof=1) / np.sqrt(len(paired))
                shown = " ".join(
                    f"{d:+.2f}±{e:.2f}" for d, e in zip(paired.mean(axis=0), error, strict=True)
                )
                print(f"{'':15s} {shown}", flush=True)
        if {"peers", "ours"} <= needed.keys():
            ratios.append(needed["ours"] / needed["peers"])
    if ratios:
        print(f"labels to 90 %, ours / peers, mean over sets: {np.mean(ratios):.2f}")


if __name__ == "__main__":
    main()
