"""How often 95 % confidence intervals hold the truth, by the number of test recordings.

Recordings differ in which classes they hold, in how loud they are and in their background, so that
windows of one recording are no independent witnesses.  The truth is the score of 3000 recordings;
for retrieval, which finds more in more recordings, the mean of all draws of this size.
Beside the intervals of bacpipe (recordings left out one after the other) stands the percentile
bootstrap of recordings, for retrieval that of the queries alone.

With --splits, of k x r cross-validations and of the difference of two models in them: the truth is
the mean accuracy in 1000 other recordings of probes that learnt from as many recordings.  With
--other as well, in a world of another kind, with which nothing was chosen: the variance that these
intervals use was chosen in the first one.

    python benchmarks/intervals.py [--repeats 200] [--splits [--other]] [--seed 5]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np

from bacpipe.evaluation.cross_validation import cross_validate, paired_difference
from bacpipe.evaluation.labelled_windows import LabelledWindows
from bacpipe.evaluation.metrics import (
    count,
    evaluate_scores,
    group_by,
    mean_of_defined,
    one_hot,
    ranking_metrics,
    threshold_metrics,
)
from bacpipe.evaluation.retrieval import retrieval_quality

CLASSES = ("a", "b", "c", "d")
WINDOWS = 20
METRICS = ("f1_macro", "roc_auc_macro", "average_precision_macro", "recall_micro")
RETRIEVAL = ("neighbour_precision", "same_label_auroc")


def draw(n_recordings: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, scores and recordings of windows."""
    labels, scores = [], []
    for _ in range(n_recordings):
        mine = rng.choice(4, WINDOWS, p=rng.dirichlet(np.ones(4)))
        loudness = np.exp(0.4 * rng.standard_normal())
        background = 0.7 * rng.standard_normal(4)
        noise = rng.standard_normal((WINDOWS, 4))
        labels.append(mine)
        scores.append(1.5 * loudness * np.eye(4)[mine] + background + noise)
    recordings = np.repeat(np.arange(n_recordings), WINDOWS).astype(str)
    return np.concatenate(labels), np.concatenate(scores), recordings


def evaluated(labels: np.ndarray, scores: np.ndarray, recordings: np.ndarray, samples: int) -> dict:
    truth, best = one_hot(labels, 4), one_hot(scores.argmax(axis=1), 4)
    groups = group_by(recordings, len(labels))
    return evaluate_scores(truth, best, scores, CLASSES, groups, samples=samples)


def bootstrap(
    labels: np.ndarray, scores: np.ndarray, recordings: np.ndarray, rng: np.random.Generator
) -> dict[str, tuple[float, float]]:
    """Percentile intervals from recordings drawn with replacement."""
    groups = group_by(recordings, len(labels))
    n = groups.number
    weights = rng.multinomial(n, np.full(n, 1 / n), 300).astype(float)
    truth, best = one_hot(labels, 4), one_hot(scores.argmax(axis=1), 4)
    values, _ = threshold_metrics(count(truth, best, groups, weights))
    areas = [ranking_metrics(truth[:, i], scores[:, i], groups, weights) for i in range(4)]
    values["roc_auc_macro"], values["average_precision_macro"] = (
        mean_of_defined(np.stack([area[which] for area in areas], axis=1)) for which in (0, 1)
    )
    return {name: tuple(np.nanpercentile(values[name], [2.5, 97.5])) for name in METRICS}


def points(labels: np.ndarray, scores: np.ndarray, recordings: np.ndarray) -> LabelledWindows:
    return LabelledWindows(
        "points", scores.astype(np.float32), labels, CLASSES, "species", recordings
    )


class World:
    """Embeddings of two models of recordings that differ in their classes and background."""

    far = 1000  # recordings that say what is true

    def __init__(self, dim: int, apart: float, rng: np.random.Generator) -> None:
        self.rng, self.centres = rng, apart * rng.standard_normal((4, dim))
        self.models = np.array_split(rng.permutation(dim), 2)

    def draw(self, n_recordings: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        rng, recordings = self.rng, np.repeat(np.arange(n_recordings), WINDOWS)
        mixes = rng.dirichlet(np.ones(4), n_recordings)
        labels = np.concatenate([rng.choice(4, WINDOWS, p=mix) for mix in mixes])
        background = 0.6 * rng.standard_normal((n_recordings, self.centres.shape[1]))
        noise = rng.standard_normal((len(labels), self.centres.shape[1]))
        return self.centres[labels] + background[recordings] + noise, labels, recordings


def discriminant(x: np.ndarray, y: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Scores of a linear discriminant, which learns at once."""
    means = np.array([x[y == c].mean(axis=0) if (y == c).any() else np.full(x.shape[1], 1e3)
                      for c in range(4)])  # fmt: skip
    rest = x - means[y]
    weights = np.linalg.solve(rest.T @ rest / len(x) + 0.1 * np.eye(x.shape[1]), means.T)
    bias = -0.5 * np.einsum("cd,dc->c", means, weights)
    return lambda rows: rows @ weights + bias


class OtherWorld(World):
    """Rare and common classes of two call types each, in recordings of unequal length.

    What recordings do to calls multiplies them; noise has heavy tails.
    """

    far = 400

    def __init__(self, dim: int, apart: float, rng: np.random.Generator) -> None:
        super().__init__(dim, apart, rng)
        self.types = 2.2 * apart * rng.standard_normal((4, 2, dim))

    def draw(self, n_recordings: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        rng, dim = self.rng, self.centres.shape[1]
        windows = rng.integers(5, 41, n_recordings)
        recordings = np.repeat(np.arange(n_recordings), windows)
        mixes = rng.dirichlet(3 * np.array([0.5, 0.3, 0.15, 0.05]) + 0.1, n_recordings)
        labels = np.concatenate(
            [rng.choice(4, n, p=mix) for n, mix in zip(windows, mixes, strict=True)]
        )
        # An animal has one call type for all of a recording, most of the time.
        usual = rng.integers(0, 2, (n_recordings, 4))[recordings, labels]
        kind = np.where(rng.random(len(labels)) < 0.8, usual, 1 - usual)
        gain = np.exp(0.5 * rng.standard_normal((n_recordings, dim)))[recordings]
        noise = rng.standard_t(4, (len(labels), dim))
        return gain * self.types[labels, kind] + noise, labels, recordings


def neighbours(x: np.ndarray, y: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Scores of the seven nearest windows, which is no linear learner."""
    squares, one = np.square(x).sum(axis=1), np.eye(4)[y]

    def scores(rows: np.ndarray) -> np.ndarray:
        parts = []
        for part in np.array_split(rows, max(1, len(rows) // 500)):
            near = np.argpartition(squares - 2 * part @ x.T, 7, axis=1)[:, :7]
            parts.append(one[near].sum(axis=1))
        return np.concatenate(parts)

    return scores


def of_cross_validations(repeats: int, rng: np.random.Generator, *, other: bool) -> None:
    kind, learner = (OtherWorld, neighbours) if other else (World, discriminant)
    print("share of intervals of cross-validations that hold the truth: accuracy, difference\n")
    for dim, apart, n, k, r in (
        (16, 0.5, 20, 5, 2), (16, 0.5, 40, 5, 2), (64, 0.2, 20, 5, 2), (64, 0.2, 40, 5, 5),
        (64, 0.25, 30, 10, 1), (16, 0.5, 30, 3, 3),
    ):  # fmt: skip
        world = kind(dim, apart, rng)
        far, right, _ = world.draw(world.far)
        learnt = []
        for _ in range(repeats):
            x, y, _ = world.draw(round(n * (1 - 2 / k)))
            learnt.append([
                (learner(x[:, m], y)(far[:, m]).argmax(axis=1) == right).mean()
                for m in world.models
            ])  # fmt: skip
        mine, theirs = np.mean(learnt, axis=0)
        held: list[tuple[bool, bool]] = []
        for _ in range(repeats):
            x, y, recording = world.draw(n)
            folds = [rng.permutation(np.arange(n) % k)[recording] for _ in range(r)]
            results = []
            for m in world.models:

                def fit(
                    train: np.ndarray, _: np.ndarray, x: np.ndarray = x[:, m], y: np.ndarray = y
                ) -> Callable[[np.ndarray], np.ndarray]:
                    learned = learner(x[train], y[train])
                    return lambda test: learned(x[test])

                results.append(cross_validate(y, folds, k, fit))
            low, high = results[0]["intervals"]["accuracy"]
            pair = paired_difference(*results, "accuracy")
            held.append((low <= mine <= high, pair["low"] <= mine - theirs <= pair["high"]))
        shares = ", ".join(f"{share:.2f}" for share in np.mean(held, axis=0))
        print(f"{dim} dimensions, {n} recordings, {k} x {r}: {shares}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--splits", action="store_true")
    parser.add_argument("--other", action="store_true")
    parser.add_argument("--seed", type=int, default=5)
    args = parser.parse_args()
    rng = np.random.default_rng(args.seed)
    if args.splits:
        of_cross_validations(args.repeats, rng, other=args.other)
        return
    world = draw(3000, rng)
    truth = evaluated(*world, samples=0)["overall"]
    print("share of intervals that hold the truth; in brackets, of the percentile bootstrap\n")
    for n in (5, 8, 12, 20, 40):
        held: dict[str, list[bool]] = {}
        retrieved: list[dict] = []

        def note(kind: str, name: str, low: float, high: float, held: dict = held) -> None:
            held.setdefault(kind + name, []).append(bool(low <= truth[name] <= high))

        for _ in range(args.repeats):
            drawn = draw(n, rng)
            for name, bounds in evaluated(*drawn, samples=1000)["intervals"].items():
                if name in METRICS and bounds:
                    note("", name, *bounds)
            for name, bounds in bootstrap(*drawn, rng).items():
                note("bootstrap ", name, *bounds)
            retrieved.append(retrieval_quality(points(*drawn), samples=1000))
        for name in RETRIEVAL:
            truth[name] = float(np.mean([each["overall"][name] for each in retrieved]))
            for each in retrieved:
                if each["intervals"][name]:
                    note("", name, *each["intervals"][name])
        cells = [
            f"{name} {np.mean(held[name]):.2f}"
            + (f" ({np.mean(held['bootstrap ' + name]):.2f})" if name in METRICS else "")
            for name in (*METRICS, *RETRIEVAL)
        ]
        print(f"{n:>3} recordings: {', '.join(cells)}")


if __name__ == "__main__":
    main()
