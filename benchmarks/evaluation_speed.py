"""How fast probes are trained and evaluated, and what fetching rows one by one would cost.

The data are Gaussian clusters of 20 000 windows × 1024 numbers in 50 classes, spread over 400
recordings; overlapping enough that a linear probe is right about two times out of three.  The
comparison trains the same probe with the same optimiser, batch size and stopping rule from a
`torch.utils.data.DataLoader` that fetches single rows.

    python benchmarks/evaluation_speed.py [--windows 20000] [--classes 50] [--repeats 3]
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from bacpipe.evaluation.clustering import run_clustering
from bacpipe.evaluation.labelled_windows import LabelledWindows
from bacpipe.evaluation.probes import (
    LinearProbe,
    Probe,
    TrainingData,
    load_probe,
    make_probe,
    save_probe,
)
from bacpipe.evaluation.probing import probing_pipeline
from bacpipe.evaluation.retrieval import retrieval_quality
from bacpipe.evaluation.splits import SplitRule, split_windows


def make_data(n: int, dim: int, n_classes: int, n_recordings: int) -> LabelledWindows:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, n_classes, n)
    centres = 0.1 * rng.standard_normal((n_classes, dim)).astype(np.float32)
    embeds = centres[labels] + rng.standard_normal((n, dim), dtype=np.float32)
    recordings = np.array([f"{r:04}.wav" for r in range(n_recordings)], dtype=object)
    return LabelledWindows(
        model="points",
        embeds=embeds,
        labels=labels,
        classes=tuple(f"class {i}" for i in range(n_classes)),
        kind="species",
        recordings=recordings[rng.integers(0, n_recordings, n)],
    )


def timed(what: str, repeats: int, function: Callable[[], object]) -> object:
    seconds, result = [], None
    for _ in range(repeats):
        started = time.perf_counter()
        result = function()
        seconds.append(time.perf_counter() - started)
    print(f"{what:<52} {statistics.median(seconds):8.2f} s   (first {seconds[0]:.2f} s)")
    return result


def train_row_by_row(data: TrainingData, epochs: int) -> None:
    """The same probe from a data loader that fetches one row at a time.

    One thread, as the probe has while it trains, so that only the fetching differs.
    """
    torch.set_num_threads(1)
    probe = LinearProbe(data.embeds.shape[1], data.n_classes)
    x, y = torch.from_numpy(data.embeds[data.train]), torch.from_numpy(data.labels[data.train])
    loader = DataLoader(TensorDataset(x, y), batch_size=256, shuffle=True)
    optimiser = torch.optim.Adam(probe.parameters(), lr=0.001, weight_decay=0.0001)
    for _ in range(epochs):
        for rows, labels in loader:
            optimiser.zero_grad()
            nn.functional.cross_entropy(probe(rows), labels).backward()
            optimiser.step()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--windows", type=int, default=20_000)
    parser.add_argument("--dim", type=int, default=1024)
    parser.add_argument("--classes", type=int, default=50)
    parser.add_argument("--recordings", type=int, default=400)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    data = make_data(args.windows, args.dim, args.classes, args.recordings)
    load = f"{os.getloadavg()[0]:.1f}"
    print(f"{args.windows} × {args.dim}, {args.classes} classes, {torch.get_num_threads()} threads,"
          f" load {load}\n")  # fmt: skip
    rule = SplitRule("recording", 0.65, 0.2, 42)
    split = timed("split by recording", args.repeats, lambda: split_windows(data, rule))
    training = TrainingData(
        data.embeds, split.labels, split.rows("train"), split.rows("val"), len(split.classes)
    )
    test = split.rows("test")
    epochs = 0
    for name in ("linear", "knn"):

        def train(name: str = name) -> tuple[Probe, dict]:
            probe = make_probe(name, args.dim, split.classes)
            return probe, probe.learn(training, seed=42)

        probe, about = timed(f"{name} probe: train", args.repeats, train)
        epochs = about.get("epochs", epochs)
        scores = timed(
            f"{name} probe: {len(test)} test windows",
            args.repeats,
            lambda probe=probe: probe.predict(data.embeds[test]),
        )
        right = np.mean(scores.argmax(axis=1) == split.labels[test])
        print(f"    accuracy {right:.3f}, {about}")
        with tempfile.TemporaryDirectory() as folder:
            path = save_probe(Path(folder), probe, {})
            size = path.stat().st_size / 2**20
            same = np.array_equal(load_probe(path)[0].predict(data.embeds[test]), scores)
        print(f"    {size:.1f} MiB on disk; loads back to identical scores: {same}")
    truth = {
        "label:species": data.labels,
        "label_dict:species": {name: i for i, name in enumerate(data.classes)},
    }
    timed(
        "probing_pipeline, all metrics, 1000 resamples",
        1,
        lambda: probing_pipeline("points", truth, data.embeds, recordings=data.recordings),
    )
    timed("retrieval, 1000 resamples", 1, lambda: retrieval_quality(data))
    timed(
        "kmeans, 3 starts",
        1,
        lambda: run_clustering(data.embeds, {"kmeans": {"n_clusters": args.classes, "n_init": 3}}),
    )
    timed(f"linear probe, {epochs} epochs, rows fetched one by one", 1,
          lambda: train_row_by_row(training, epochs))  # fmt: skip


if __name__ == "__main__":
    main()
