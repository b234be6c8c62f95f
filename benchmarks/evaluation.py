"""What evaluations conclude, in worlds whose truth is known.

Every line is a question that decides which model a paper recommends: what the obvious way says
(before), what bacpipe says (now), and the truth.  How fast evaluations are is in
`evaluation_speed.py`, how often intervals of single scores hold in `intervals.py`.

    python benchmarks/evaluation.py [--repeats 200] [--probes 8] [--scales]
    python benchmarks/evaluation.py --clusters --classes --events --sites --retrieval --agreement
        [--repeats 400] [--sizes 12 20 40]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from typing import Any

import numpy as np
from scipy.special import stdtrit
from sklearn import config_context
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, f1_score, silhouette_score

from bacpipe.evaluation.agreement import compare_neighbours, shared_neighbours
from bacpipe.evaluation.clustering import (
    cluster_halves,
    clustering_pipeline,
    run_clustering,
)
from bacpipe.evaluation.events import (
    count_events,
    count_intersections,
    evaluate_events,
    pairs_by_iou,
)
from bacpipe.evaluation.labelled_clusters import (
    LabelledClusters,
    adjusted_scores,
)
from bacpipe.evaluation.labelled_windows import LabelledWindows
from bacpipe.evaluation.metrics import (
    best_threshold,
    cross_fitted_f1,
    evaluate_labels,
    evaluate_scores,
    group_by,
    interval,
    leave_out,
    standard_error,
)
from bacpipe.evaluation.probes import TrainingData, make_probe
from bacpipe.evaluation.retrieval import retrieve
from bacpipe.evaluation.shared_ground import (
    Shared,
    on_shared_ground,
    paired_table,
    pairs_of,
    shared_scores,
)
from bacpipe.evaluation.silhouettes import silhouette
from bacpipe.evaluation.standardiser import Standardiser, directions
from bacpipe.evaluation.tested_windows import TestedWindows
from bacpipe.options import make_options
from bacpipe.reduction.reducers import fit, fit_novelty
from bacpipe.store.detections import Intervals

CLASSES = ("a", "b", "c", "d")
WINDOWS = 20


def draw_pair(n: int, lead: float, rng: np.random.Generator) -> list[TestedWindows]:
    """Two models on the same recordings, which are loud or faint for both; one hears better."""
    labels, scores = [], [[], []]
    for _ in range(n):
        mine = rng.choice(4, WINDOWS, p=rng.dirichlet(np.ones(4)))
        loudness = np.exp(0.4 * rng.standard_normal())
        background = 0.7 * rng.standard_normal(4)
        labels.append(mine)
        for model, strength in enumerate((1.5 + lead, 1.5)):
            own = 0.3 * rng.standard_normal(4)
            noise = rng.standard_normal((WINDOWS, 4))
            scores[model].append(strength * loudness * np.eye(4)[mine] + background + own + noise)
    names = np.repeat([f"{i:04}" for i in range(n)], WINDOWS).astype(object)
    truth = np.concatenate(labels)
    return [TestedWindows(CLASSES, truth, np.concatenate(mine), names) for mine in scores]


def result_of(model: str, windows: TestedWindows) -> dict:
    split = {"id": "same", "strategy": "recording", "windows": {"test": len(windows.labels)},
             "recordings": {"test": len(set(windows.recordings))}}  # fmt: skip
    return {"model": model, "probe": "linear", "classes": list(windows.classes), "split": split}


def f1(windows: TestedWindows, weights: np.ndarray | None = None) -> np.ndarray:
    from bacpipe.evaluation.metrics import decide, score_replicates

    groups = group_by(windows.recordings, len(windows.labels))
    weights = np.ones((1, groups.number)) if weights is None else weights
    return score_replicates(
        *decide(windows.labels, windows.scores), windows.scores, groups, weights
    )[0]["f1_macro"]


def pairs(repeats: int, rng: np.random.Generator) -> None:
    """How often the interval of a difference holds it, and how often equal models are told apart.

    Beside it the percentile bootstrap of the same recordings.
    """
    print("difference of two models (macro F1): share of intervals that hold it")
    for lead in (0.0, 0.3):
        large = draw_pair(1500, lead, rng)
        truth = float((f1(large[0]) - f1(large[1]))[0])
        for n in (5, 8, 12, 20):
            held, boot, sure, sure_boot = [], [], [], []
            for _ in range(repeats):
                drawn = draw_pair(n, lead, rng)
                shared = Shared([result_of(m, w) for m, w in zip("AB", drawn, strict=True)], drawn)
                row = paired_table(shared).query("metric == 'f1_macro'").iloc[0]
                sign = 1 if row["better"].startswith("A") else -1
                held.append(row["low"] <= sign * truth <= row["high"])
                sure.append(row["p"] < 0.05)
                weights = rng.multinomial(n, np.full(n, 1 / n), 300).astype(float)
                differences = f1(drawn[0], weights) - f1(drawn[1], weights)
                low, high = np.nanpercentile(differences, [2.5, 97.5])
                boot.append(low <= truth <= high)
                sure_boot.append(not low <= 0 <= high)
            print(f"  truth {truth:.3f}, {n:>2} recordings: {np.mean(held):.2f} (bootstrap "
                  f"{np.mean(boot):.2f}); told apart {np.mean(sure):.2f} "
                  f"({np.mean(sure_boot):.2f})")  # fmt: skip


def rare_species(rng: np.random.Generator) -> None:
    """A model with long windows loses a species that is short and hard."""
    rows = {}
    for model, lost in (("short windows", False), ("long windows", True)):
        n = 1200
        labels = rng.choice(4, n, p=[0.4, 0.3, 0.25, 0.05])
        strength = np.array([3, 3, 3, 0.8])[labels]  # the fourth one is hard for everybody
        scores = strength[:, None] * np.eye(4)[labels] + rng.standard_normal((n, 4))
        scores -= 0.3 * lost * strength[:, None] * np.eye(4)[labels]  # and it is the worse model
        names = np.array([f"{i:03}" for i in rng.integers(0, 20, n)], dtype=object)
        windows = TestedWindows(CLASSES, labels, scores, names)
        rows[model] = windows.of(CLASSES[:3], set(names)) if lost else windows
    results = [{**result_of(model, windows), "dropped": {}} for model, windows in rows.items()]
    before = {model: float(f1(windows)[0]) for model, windows in rows.items()}
    shared = on_shared_ground(results, list(rows.values()), samples=0)
    now = {r["model"]: r["overall"]["f1_macro"] for r in shared.results}
    print("\na rare species that one model loses: macro F1")
    print("  before:", {k: round(v, 3) for k, v in before.items()}, "(of 4 and 3 classes)")
    print("  now:   ", {k: round(v, 3) for k, v in now.items()}, shared.notes[0])


def clusters_with_background(rng: np.random.Generator) -> None:
    """Agreement of k-means with annotations, by the share of windows without any."""
    print("\nAMI of k-means, k from the labels, by share of windows without a label")
    centres = 1.4 * rng.standard_normal((4, 16))
    for share in (0.0, 0.5, 0.9):
        n = 400
        labels = rng.integers(0, 4, n)
        calls = centres[labels] + rng.standard_normal((n, 16))
        m = int(n * share / (1 - share))
        background = rng.standard_normal((m, 16)) * rng.choice([0.5, 1, 2, 3], m)[:, None]
        embeds = np.concatenate([calls, background]).astype(np.float32)
        truth = np.concatenate([labels, np.full(m, -1)])
        names = [f"{i}" for i in rng.integers(0, 12, n + m)]
        result = clustering_pipeline(
            "points", truth, embeds, recordings=names, bootstrap_samples=0,
            clust_configs={"kmeans": {"n_clusters": None}}, evaluate_with_silhouette=False,
        )  # fmt: skip
        from sklearn.cluster import KMeans
        from sklearn.metrics import adjusted_mutual_info_score

        every = KMeans(4, n_init=3, random_state=0).fit_predict(embeds)[:n]
        before = adjusted_mutual_info_score(labels, every)
        print(f"  {share:.0%}: before {before:.3f}, now {result['AMI']['kmeans-ground_truth']:.3f}")


def neighbours_and_silhouettes(repeats: int, rng: np.random.Generator) -> None:
    """How often intervals hold the mean over data sets of their size."""
    for n in (5, 8, 12, 20):
        centres = rng.standard_normal((4, 6))
        held: dict[str, list[tuple[float, list[float] | None]]] = {}
        for _ in range(repeats):
            labels = np.concatenate(
                [rng.choice(4, 12, p=rng.dirichlet(np.ones(4))) for _ in range(n)]
            )
            recording = np.repeat(np.arange(n), 12)
            shift = 0.5 * rng.standard_normal((n, 6))[recording]
            noise = rng.standard_normal((len(labels), 6))
            names = np.array([f"{i:02}.wav" for i in recording], dtype=object)
            models = {}
            for model, strength in (("better", 1.0), ("worse", 0.8)):
                own = 0.5 * rng.standard_normal(noise.shape)
                points = (strength * centres[labels] + shift + noise + own).astype(np.float32)
                data = LabelledWindows(model, points, labels, CLASSES, "species", names)
                result, models[model] = retrieve(data)
            held.setdefault("precision of neighbours", []).append(
                (result["overall"]["neighbour_precision"],
                 result["intervals"]["neighbour_precision"])
            )  # fmt: skip
            pair = pairs_of(models, "neighbour_precision", "recording").iloc[0]
            sign = 1 if pair["better"] == "better" else -1
            bounds = sorted((sign * pair["low"], sign * pair["high"]))
            held.setdefault("its difference", []).append((sign * pair["difference"], bounds))
            standard = Standardiser.of(points)(points)
            about = silhouette(standard, labels, make_options(), names.astype(str))
            held.setdefault("silhouette of labels", []).append((about["score"], about["interval"]))
        for name, scores in held.items():
            truth = np.mean([value for value, _ in scores])
            inside = [low <= truth <= high for _, (low, high) in scores]
            print(f"{n} recordings, {name}: {truth:.3f}, held by {np.mean(inside):.2f}")


WORLDS = 8  # different sets of four classes, an equal part of the repeats each
CLUSTERINGS = {
    "kmeans": {"n_clusters": 4, "n_init": 3},
    "hdbscan": {"min_cluster_size": 5, "min_samples": 2},
}


def intervals_of_clusterings(repeats: int, sizes: Sequence[int], jobs: int = 1) -> None:
    """How often intervals of clusterings hold the mean over data sets of their size.

    Before, recordings were left out and the clusters kept.
    """
    print("intervals of clusterings")
    with ProcessPoolExecutor(jobs, get_context("fork")) as pool:
        for n in sizes:
            ask = partial(_clustered_world, n, repeats // WORLDS)
            show(f"{n} recordings", pool.map(ask, range(WORLDS)))


def _clustered_world(n: int, repeats: int, number: int) -> list[list[Row]]:
    rng = np.random.default_rng([8, n, number])
    centres = 1.2 * rng.standard_normal((4, 6))
    # Most of scikit-learn's time would go into checks of so little data.
    with config_context(skip_parameter_validation=True, assume_finite=True):
        return [_clustered(n, centres, rng) for _ in range(repeats)]


Row = tuple[str, float | None, Sequence[float] | None, Sequence[float] | None]
"""What was scored, its value, its interval and the one that it had before."""


def show(what: str, worlds: Iterable[list[list[Row]]]) -> None:
    """Print how often intervals hold the truth, which is the mean over data sets of their world."""
    held: dict[str, list[list[tuple[bool, float]]]] = {}
    for drawn in worlds:
        for place, (name, *_) in enumerate(drawn[0]):
            values = [rows[place][1] for rows in drawn]
            truth = np.mean([value for value in values if value is not None])
            told = held.setdefault(name, [[], []])
            for rows in drawn:
                for into, bounds in zip(told, rows[place][2:], strict=True):
                    if bounds is not None and None not in bounds:
                        low, high = bounds
                        into.append((bool(low <= truth <= high), high - low))
    for name, told in held.items():
        parts = []
        for word, into in zip(("now", "before"), told, strict=True):
            if into:
                share, width = np.mean([ok for ok, _ in into]), np.median([w for _, w in into])
                parts.append(f"{word} {share:.3f} of {len(into)} (width {width:.3f})")
        print(f"  {what}, {name}: {', '.join(parts) or 'no intervals'}", flush=True)


def in_worlds(
    repeats: int, world: Callable[[], Callable[[], list[Row]]]
) -> Iterable[list[list[Row]]]:
    """Data sets of one world after the other."""
    for _ in range(WORLDS):
        draw = world()
        yield [draw() for _ in range(repeats // WORLDS)]


def _clustered(n: int, centres: np.ndarray, rng: np.random.Generator) -> list[Row]:
    """Scores of a data set and their intervals, as they are and as they were before."""
    labels = np.concatenate([rng.choice(4, 12, p=rng.dirichlet(np.ones(4))) for _ in range(n)])
    recording = np.repeat(np.arange(n), 12)
    names = np.array([f"{i:02}.wav" for i in recording], dtype=object)
    kept = leave_out(group_by(names, len(labels)), 100)[:, recording] > 0
    shift = 0.5 * rng.standard_normal((n, 6))[recording]
    noise = rng.standard_normal((len(labels), 6))
    options = make_options(clust_configs=CLUSTERINGS)
    rows: list[Row] = []
    clusters, fixed = {}, {}
    for model, strength, clusterings in (
        ("better", 1.0, CLUSTERINGS), ("worse", 0.9, {"kmeans": CLUSTERINGS["kmeans"]})
    ):  # fmt: skip
        own = 0.5 * rng.standard_normal(noise.shape)
        points = (strength * centres[labels] + shift + noise + own).astype(np.float32)
        points = Standardiser.of(points)(points)
        for name, each in run_clustering(points, clusterings).items():
            halves = cluster_halves(points, name, labels, names, options)
            of_all = LabelledClusters(CLASSES, labels, each, names, halves)
            ami, ari = np.array([adjusted_scores(labels[use], each[use]) for use in kept]).T
            if name == "kmeans":
                clusters[model], fixed[model] = of_all, ami
            if model == "worse":
                continue
            scores, bounds = shared_scores(of_all, "recording", low=-1.0)
            made = partial(np.asarray, halves)
            about = silhouette(points, each, options, names.astype(str), made)
            of_silhouette = [_silhouette(points[use], each[use]) for use in kept]
            rows += [
                (f"AMI of {name}", scores["AMI"], bounds["AMI"], _signed(ami, labels)),
                (f"ARI of {name}", scores["ARI"], bounds["ARI"], _signed(ari, labels)),
                (f"silhouette of {name}", about["score"] or 0.0, about["interval"],
                 _signed(np.array(of_silhouette), labels)),
            ]  # fmt: skip
    differences = fixed["better"] - fixed["worse"]
    half = stdtrit(n - 1, 0.975) * standard_error(differences[1:])
    before = (differences[0] - half, differences[0] + half)
    pair = pairs_of(clusters, "AMI", "recording").iloc[0]
    rows.append(("difference in AMI of kmeans", differences[0], _bounds_of(pair), before))
    return rows


def _signed(values: np.ndarray, labels: np.ndarray) -> list[float] | None:
    return interval(values, low=-1.0, windows=len(labels))


def _bounds_of(pair: Any) -> tuple[float, float]:
    """Interval of the better model less the worse one, whichever a row calls so."""
    sign = 1 if pair["better"] == "better" else -1
    low, high = sorted((sign * pair["low"], sign * pair["high"]))
    return low, high


def _silhouette(points: np.ndarray, clusters: np.ndarray) -> float:
    there = clusters >= 0
    if not 2 <= len(np.unique(clusters[there])) < there.sum():
        return float("nan")
    return float(silhouette_score(points[there], clusters[there]))


def intervals_by_class(repeats: int, sizes: Sequence[int]) -> None:
    """How often intervals of single classes, and of accuracies, hold the truth."""
    print("intervals of classes and accuracies")
    for n in sizes:
        rng = np.random.default_rng([9, n])

        def world(n: int = n, rng: np.random.Generator = rng) -> Callable[[], list[Row]]:
            often = np.array([1.6, 1.2, 0.8, 0.5])
            strength = rng.uniform(1, 2.5, 4)

            def drawn() -> list[Row]:
                recording, labels, scores = _classified(n, often, strength, rng)
                groups = group_by(recording.astype(str), len(labels))
                result = evaluate_labels(labels, scores, CLASSES, groups, samples=1000)
                rows: list[Row] = [
                    (f"{words} of a class", about[metric], about[f"{metric}_interval"], None)
                    for metric, words in (("f1", "F1"), ("average_precision", "AP"))
                    for about in result["per_class"].values()
                ]
                return rows + [
                    (name, result["overall"][name], result["intervals"][name], None)
                    for name in ("accuracy", "balanced_accuracy", "precision_macro", "f1_micro")
                ]

            return drawn

        show(f"{n} recordings", in_worlds(repeats, world))


def _classified(
    n: int, often: np.ndarray, strength: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Recording, label and scores of windows of recordings that are loud or faint."""
    recording = np.repeat(np.arange(n), WINDOWS)
    labels = np.concatenate([rng.choice(4, WINDOWS, p=rng.dirichlet(often)) for _ in range(n)])
    loudness = np.exp(0.4 * rng.standard_normal(n))[recording]
    background = 0.7 * rng.standard_normal((n, 4))[recording]
    heard = (strength[labels] * loudness)[:, None] * np.eye(4)[labels]
    return recording, labels, heard + background + rng.standard_normal((len(labels), 4))


def intervals_of_sites(repeats: int, sizes: Sequence[int]) -> None:
    """The same where whole sites were held back: four recordings each that share a background.

    Before, recordings were left out.
    """
    print("intervals with split: site")
    for n in sizes:
        rng = np.random.default_rng([10, n])

        def world(n: int = n, rng: np.random.Generator = rng) -> Callable[[], list[Row]]:
            strength = rng.uniform(1, 2.5, 4)

            def drawn() -> list[Row]:
                recording, labels, scores = _classified(4 * n, np.ones(4), strength, rng)
                site = recording // 4
                scores += rng.standard_normal((n, 4))[site]
                now, before = (
                    evaluate_labels(labels, scores, CLASSES, group_by(unit.astype(str), len(unit)),
                                    samples=1000)
                    for unit in (site, recording)
                )  # fmt: skip
                return [
                    (name, now["overall"][name], now["intervals"][name], before["intervals"][name])
                    for name in ("f1_macro", "average_precision_macro", "roc_auc_macro", "accuracy")
                ]

            return drawn

        show(f"{n} sites", in_worlds(repeats, world))


def intervals_of_events(repeats: int, sizes: Sequence[int]) -> None:
    """How often intervals of scores of events hold the truth."""
    print("intervals of events")
    for n in sizes:
        rng = np.random.default_rng([11, n])

        def world(n: int = n, rng: np.random.Generator = rng) -> Callable[[], list[Row]]:
            easy = rng.uniform(-0.5, 1.5, 2)

            def drawn() -> list[Row]:
                names = [f"{i:03}" for i in range(n)]
                pairs = [_calls(easy, rng) for _ in names]
                found, annotated = (
                    dict(zip(names, each, strict=True)) for each in zip(*pairs, strict=True)
                )
                results = evaluate_events(
                    found, annotated, {}, names, CLASSES[:2],
                    group_by(np.array(names), n), iou=0.5, tolerance=0.2, samples=1000,
                )  # fmt: skip
                return [
                    (f"{metric} by {rule}", about["overall"][f"{metric}_macro"],
                     about["intervals"][f"{metric}_macro"], None)
                    for rule, about in results.items()
                    for metric in ("precision", "recall", "f1")
                ]  # fmt: skip

            return drawn

        show(f"{n} recordings", in_worlds(repeats, world))


def _calls(easy: np.ndarray, rng: np.random.Generator) -> tuple[Intervals, Intervals]:
    """What is found and what is annotated in a recording of ten minutes."""
    quality = rng.standard_normal()
    found, annotated = [], []
    for i in range(2):
        start = 20.0 * np.arange(30)[rng.random(30) < rng.uniform(0.1, 0.6)]
        length = rng.uniform(1, 4, len(start))
        annotated.append((start, start + length, np.full(len(start), i)))
        heard = rng.random(len(start)) < 1 / (1 + np.exp(-easy[i] - quality))
        begin = start[heard] + 0.2 * rng.standard_normal(heard.sum())
        end = begin + length[heard] * rng.uniform(0.5, 1.5, heard.sum())
        wrong = 10 + 20.0 * np.arange(30)[rng.random(30) < 0.15 / (1 + np.exp(quality))]
        begin, end = np.r_[begin, wrong], np.r_[end, wrong + 3]
        found.append((begin, end, np.full(len(begin), i)))
    one, other = (
        Intervals(*(np.concatenate(column) for column in zip(*parts, strict=True)))
        for parts in (found, annotated)
    )
    return one, other


def _two_spaces(
    n: int, centres: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[np.ndarray]]:
    """Recording, start and label of windows, and what two models make of them."""
    recording, start = np.repeat(np.arange(n), 12), np.tile(np.arange(12.0), n)
    labels = np.concatenate([rng.choice(4, 12, p=rng.dirichlet(np.ones(4))) for _ in range(n)])
    shift = 0.7 * rng.standard_normal((n, centres.shape[1]))[recording]
    loudness = np.exp(0.5 * rng.standard_normal(n))[recording, None]
    base = centres[labels] + shift + 0.8 * rng.standard_normal(shift.shape)
    return recording, start, labels, [
        (base + 0.7 * loudness * rng.standard_normal(shift.shape)).astype(np.float32)
        for _ in range(2)
    ]  # fmt: skip


def intervals_of_agreement(repeats: int, sizes: Sequence[int]) -> None:
    """How often the interval of the agreement of two models holds the truth.

    Before, recordings were left out, and the neighbours of the others stayed.
    """
    print("intervals of the agreement of two models")
    rng = np.random.default_rng(12)
    recording, start, _, (one, _) = _two_spaces(12, rng.standard_normal((4, 8)), rng)
    where = {"recording": recording, "start": start, "end": start + 1}
    for words, other in (
        ("the same space, turned and stretched",
         3 * one @ np.linalg.qr(rng.standard_normal((8, 8)))[0]),
        ("a space of noise", rng.standard_normal(one.shape)),
    ):  # fmt: skip
        shares, chance = shared_neighbours(one, other, n_neighbors=10, **where)
        print(f"  {words}: {shares.mean():.3f} (chance {chance.mean():.3f})")
    for n in sizes:
        rng = np.random.default_rng([12, n])

        def world(n: int = n, rng: np.random.Generator = rng) -> Callable[[], list[Row]]:
            centres = rng.standard_normal((4, 8))

            def drawn() -> list[Row]:
                recording, start, _, (one, other) = _two_spaces(n, centres, rng)
                shares, _, now = compare_neighbours(
                    one, other, n_neighbors=10, recording=recording, start=start, end=start + 1,
                    samples=1000,
                )  # fmt: skip
                # All recordings have as many windows.
                means = shares.reshape(n, -1).mean(axis=1)
                values = np.r_[means.mean(), (means.sum() - means) / (n - 1)]
                before = interval(values, windows=len(shares))
                return [("share of common neighbours", values[0], now, before)]

            return drawn

        show(f"{n} recordings", in_worlds(repeats, world))


def intervals_of_retrieval(repeats: int, sizes: Sequence[int]) -> None:
    """How often intervals of retrieval hold the truth; before, only queries were resampled."""
    print("intervals of retrieval")
    for n in sizes:
        rng = np.random.default_rng([13, n])

        def world(n: int = n, rng: np.random.Generator = rng) -> Callable[[], list[Row]]:
            centres = rng.standard_normal((4, 8))

            def drawn() -> list[Row]:
                recording, _, labels, (points, _) = _two_spaces(n, centres, rng)
                names = np.array([f"{i:03}.wav" for i in recording], dtype=object)
                data = LabelledWindows("points", points, labels, CLASSES, "species", names)
                result, _ = retrieve(data)
                before = _queries_resampled(points, labels, recording, rng)
                return [
                    (words, result["overall"][name], result["intervals"][name], before[name])
                    for name, words in (("neighbour_precision", "precision of neighbours"),
                                        ("same_label_auroc", "AUROC of pairs"))
                ]  # fmt: skip

            return drawn

        show(f"{n} recordings", in_worlds(repeats, world))


def _queries_resampled(
    points: np.ndarray, labels: np.ndarray, recording: np.ndarray, rng: np.random.Generator
) -> dict[str, tuple[float, float]]:
    """Percentile intervals of retrieval when recordings are drawn among the queries alone."""
    unit = directions(points)
    similarity = unit @ unit.T
    other = recording[:, None] != recording
    same = (labels[:, None] == labels) & other
    n = int(recording.max()) + 1
    drawn = rng.multinomial(n, np.full(n, 1 / n), 300).astype(float)
    nearest = np.argsort(np.where(other, -similarity, np.inf), axis=1)[:, :10]
    right = np.take_along_axis(same, nearest, axis=1).mean(axis=1)
    cell = recording * 4 + labels
    hits, windows = (
        np.bincount(cell, values, 4 * n).reshape(n, 4) for values in (right, np.ones(len(right)))
    )
    weighted = drawn @ windows
    shares = np.divide(drawn @ hits, weighted, out=np.full_like(weighted, np.nan),
                       where=weighted > 0)  # fmt: skip
    place = np.clip((similarity + 1) * 500, 0, 999).astype(int) + 1000 * recording[:, None]
    equal, different = (
        drawn @ np.bincount(place[use], minlength=1000 * n).reshape(n, 1000)
        for use in (same, other & ~same)
    )
    below = different.cumsum(axis=1) - different / 2
    areas = (equal * below).sum(axis=1) / (equal.sum(axis=1) * different.sum(axis=1))
    low, high = np.percentile(np.stack([np.nanmean(shares, axis=1), areas]), [2.5, 97.5], axis=1)
    return {
        name: (low[i], high[i]) for i, name in enumerate(("neighbour_precision",
                                                          "same_label_auroc"))
    }  # fmt: skip


def scales(repeats: int) -> None:
    """AMI of k-means where dimensions have scales of their own, raw and standardised."""
    rng, found = np.random.default_rng(14), []
    for _ in range(repeats):
        labels = rng.integers(0, 4, 400)
        centres = 0.9 * rng.standard_normal((4, 16))
        points = (centres[labels] + rng.standard_normal((400, 16))).astype(np.float32)
        points *= np.exp(rng.normal(0, 1.5, 16)).astype(np.float32)
        found.append([
            adjusted_scores(
                labels, run_clustering(each, {"kmeans": {"n_clusters": 4}})["kmeans"]
            )[0]
            for each in (points, Standardiser.of(points)(points))
        ])  # fmt: skip
    raw, standard = np.mean(found, axis=0)
    error = np.std(np.diff(found, axis=1)) / repeats**0.5
    print(f"AMI of k-means, dimensions of unequal scale: raw {raw:.2f}, standardised "
          f"{standard:.2f} (difference ± {error:.2f})")  # fmt: skip


def thresholds(repeats: int, rng: np.random.Generator) -> None:
    """F1 at the best threshold, chosen and judged on the same 150 windows, 5 % positive."""
    same, fitted, truth = [], [], []
    for _ in range(repeats):
        positive = rng.random(150) < 0.05
        score = positive + rng.standard_normal(150)
        groups = group_by(np.repeat([f"{i:02}" for i in range(15)], 10), 150)
        if not positive.any():
            continue
        threshold, best = best_threshold(positive, score)
        same.append(best)
        fitted.append(cross_fitted_f1(positive, score, groups))
        more = rng.random(20_000) < 0.05
        found = more + rng.standard_normal(20_000) >= threshold
        truth.append(2 * (found & more).sum() / (found.sum() + more.sum()))
    print(f"\nF1 of the best threshold: on its own data {np.mean(same):.3f}, cross-fitted "
          f"{np.nanmean(fitted):.3f}, on new data {np.mean(truth):.3f}")  # fmt: skip


def maps(rng: np.random.Generator) -> None:
    """A species 17 deviations away from all others, on a map that has never met it."""
    print("\nnew species on a map of others")
    centres = rng.standard_normal((6, 64))
    centres *= 17 / np.linalg.norm(centres, axis=1, keepdims=True) / np.sqrt(2)
    label = np.repeat(np.arange(6), 80)
    embeds = (centres[label] + rng.standard_normal((480, 64))).astype(np.float32)
    known, new = embeds[label < 5], embeds[label == 5]
    again = (centres[rng.integers(0, 5, 400)] + rng.standard_normal((400, 64))).astype(np.float32)
    for name in ("pca", "t_sne", "umap"):
        fitted = fit(name, known, 2, seed=0)
        places, novelty = fitted.map.transform(new), fit_novelty(known, fitted)
        assert novelty is not None
        of = label[label < 5]
        middles = np.stack([fitted.coordinates[of == i].mean(axis=0) for i in range(5)])
        away = np.linalg.norm(places[:, None] - middles, axis=2).min(axis=1)
        apart = np.linalg.norm(middles[:, None] - middles, axis=2)
        flagged, wrong = novelty.distances(new) > 1, novelty.distances(again) > 1
        print(f"  {name}: {np.median(away):.1f} from the nearest centre (centres "
              f"{np.median(apart[apart > 0]):.1f} apart); flagged {flagged.mean():.0%} of the new, "
              f"{wrong.mean():.1%} of further known windows")  # fmt: skip


def short_calls(rng: np.random.Generator) -> None:
    """A perfect classifier with windows of 3 s, and calls of 0.4 s."""
    calls = rng.choice(200, 60, replace=False)  # windows with a call
    long, short = (np.isin(np.arange(200), part) for part in (calls[:10], calls[10:]))
    heard = long | short
    print("\nshort calls: 10 windows with one of 1 s and 50 with one of 0.4 s, all of them heard:")
    for what, truth, ignored in (
        ("min_annotation_length 0.65, short ones negative, as before", long, np.zeros(200, bool)),
        ("min_annotation_length 0.65, short ones ignored", long, short),
        ("min_annotation_length 0, the default", heard, np.zeros(200, bool)),
    ):
        found = evaluate_scores(
            truth[:, None], heard[:, None], heard[:, None].astype(np.float32), ["call"],
            group_by(None, 200), samples=0, ignored=ignored[:, None],
        )["per_class"]["call"]  # fmt: skip
        print(f"  {what}: average precision {found['average_precision']:.3f}, "
              f"precision {found['precision']:.3f}")  # fmt: skip
    start = np.sort(rng.choice(600, 60, replace=False)).astype(float)
    events = (start, start + 0.4)
    first = np.unique(start // 3) * 3
    none = (np.zeros(0), np.zeros(0))
    iou = count_events((first, first + 3.0), events, none, pairs_by_iou(0.5))
    inside = count_intersections((events[0] - 0.1, events[1] + 0.1), events, none)
    print(f"  as events: of 3 s by IoU {iou[0]} of {len(start)}, of 0.6 s by intersection "
          f"{inside[0]} of {len(start)}")  # fmt: skip


def probes(repeats: int, rng: np.random.Generator) -> None:
    """The linear probe beside scikit-learn's logistic regression, tuned by cross-validation.

    Both get the same windows to learn from and to tune with; negative is behind.
    """
    rows = (
        (100, 64, 3, False), (300, 64, 3, False), (1000, 64, 6, True), (1000, 512, 6, True),
        (600, 1024, 4, False), (20_000, 128, 10, False),
    )  # fmt: skip
    print("\nlinear probe less tuned logistic regression (means, ± standard error):")
    for n, dim, classes, uneven in rows:
        differences = []
        for _ in range(repeats if n < 5000 else 2):
            share = 0.55 ** np.arange(classes) if uneven else np.ones(classes)
            labels = rng.choice(classes, n + 4000, p=share / share.sum())
            apart = 3.0 / dim**0.5 if dim > 300 else 0.35
            x = apart * rng.standard_normal((classes, dim))[labels]
            x = (x + rng.standard_normal((n + 4000, dim))).astype(np.float32)
            if uneven and dim > 300:  # as some models' embeddings are
                x *= np.exp(rng.normal(0, 1.5, dim)).astype(np.float32)
            differences.append(_behind(x, labels, n, classes))
        mean = np.mean(differences, axis=0)
        error = np.std(differences, axis=0, ddof=1) / len(differences) ** 0.5
        print(f"  {n} × {dim}, {classes} classes{', uneven' if uneven else ''}: " + ", ".join(
            f"{name} {m:+.3f} ± {e:.3f}"
            for name, m, e in zip(("accuracy", "F1", "AP"), mean, error, strict=True)
        ))  # fmt: skip


def _behind(x: np.ndarray, labels: np.ndarray, n: int, classes: int) -> np.ndarray:
    """Accuracy, F1 and AP of the probe less those of scikit-learn, on the same test windows."""
    probe = make_probe("linear", x.shape[1], [str(i) for i in range(classes)])
    rows = np.arange(n)
    probe.learn(
        TrainingData(x, labels, rows[: int(0.8 * n)], rows[int(0.8 * n) :], classes), seed=0
    )
    # Tuned as people do, with the same validation windows, and fitted to all.
    mean, deviation = x[:n].mean(axis=0), x[:n].std(axis=0)
    scaled, tried = (x - mean) / deviation, {}
    for c in (1e-4, 1e-3, 1e-2, 0.1, 1, 10):
        theirs = LogisticRegression(C=c, max_iter=2000, class_weight="balanced")
        theirs.fit(scaled[: int(0.8 * n)], labels[: int(0.8 * n)])
        seen = theirs.predict_proba(scaled[int(0.8 * n) : n])
        weight = (len(labels[:n]) / np.bincount(labels[:n], minlength=classes))[theirs.classes_]
        found = np.searchsorted(theirs.classes_, labels[int(0.8 * n) : n])
        known = theirs.classes_[np.minimum(found, len(theirs.classes_) - 1)]
        known = known == labels[int(0.8 * n) : n]
        loss = -np.log(np.maximum(seen[np.arange(len(found))[known], found[known]], 1e-12))
        tried[c] = np.average(loss, weights=weight[found[known]])
    theirs = LogisticRegression(
        C=min(tried, key=tried.__getitem__), max_iter=2000, class_weight="balanced"
    ).fit(scaled[:n], labels[:n])
    truth, scores = labels[n:], []
    for found in (probe.predict(x[n:]), theirs.predict_proba(scaled[n:])):
        chosen = found.argmax(axis=1)
        scores.append(
            [
                np.mean(chosen == truth),
                f1_score(truth, chosen, average="macro"),
                average_precision_score(np.eye(classes)[truth], found),
            ]
        )
    return np.subtract(*scores)


_COVERAGE = {
    "classes": intervals_by_class,
    "events": intervals_of_events,
    "sites": intervals_of_sites,
    "retrieval": intervals_of_retrieval,
    "agreement": intervals_of_agreement,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--neighbours", action="store_true", help="only retrieval and silhouettes")
    parser.add_argument("--scales", action="store_true", help="only raw against standardised")
    for name in ("clusters", *_COVERAGE):
        parser.add_argument(f"--{name}", action="store_true", help="only these intervals")
    parser.add_argument("--sizes", type=int, nargs="+", default=[12, 20, 40],
                        help="recordings, or sites, of those")  # fmt: skip
    parser.add_argument("--jobs", type=int, default=1, help="processes, for clusters")
    parser.add_argument("--probes", type=int, metavar="SEEDS", help="only the linear probe")
    args = parser.parse_args()
    if args.probes:
        probes(args.probes, np.random.default_rng(7))
        return
    if args.neighbours:
        neighbours_and_silhouettes(args.repeats, np.random.default_rng(6))
        return
    if args.scales:
        scales(args.repeats)
        return
    if args.clusters:
        intervals_of_clusterings(args.repeats, args.sizes, args.jobs)
    if chosen := [measure for name, measure in _COVERAGE.items() if getattr(args, name)]:
        for measure in chosen:
            measure(args.repeats, args.sizes)
    if args.clusters or chosen:
        return
    rng = np.random.default_rng(5)
    pairs(args.repeats, rng)
    rare_species(rng)
    clusters_with_background(rng)
    neighbours_and_silhouettes(args.repeats, np.random.default_rng(6))
    thresholds(args.repeats, rng)
    short_calls(rng)
    maps(rng)


if __name__ == "__main__":
    main()
