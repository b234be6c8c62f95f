"""How fast predictions of many recordings are written and read back.

Compares the sparse Parquet files of the results tree with one JSON file per recording that
holds the same predictions, written with the same guarantees (temporary name, flush, rename)
and read into the same table.  No model is run: the predictions are drawn at random, species
by Zipf's law.

    python benchmarks/predictions.py [--recordings 10000] [--classes 6522] [--repeats 3]
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

import bacpipe
from bacpipe.store.detections import Detections
from bacpipe.store.embedding_set import create_set
from bacpipe.store.entries import DONE, FinishedEntry, StoredEmbeddings, StoredPredictions
from bacpipe.store.files import write_text
from bacpipe.store.journal import Journal
from bacpipe.store.layout import detections_path
from bacpipe.store.predictions import (
    SparsePredictions,
    bring_forward,
    stage_predictions,
)
from bacpipe.store.tables import wide_frame, write_combined_tables

MODEL, WINDOWS, SECONDS = "benchmark", 20, 3.0
PROVENANCE = {"model": MODEL, "version": bacpipe.__version__, "threshold": 0.5}


def draw(rng: np.random.Generator, classes: int) -> SparsePredictions:
    """Predictions of one recording of a minute: 0 to 3 per window."""
    count = int(rng.integers(0, 3 * WINDOWS))
    share = 1 / np.arange(1, classes + 1)
    window = np.sort(rng.integers(0, WINDOWS, count)).astype(np.int32)
    label = rng.choice(classes, count, p=share / share.sum()).astype(np.int32)
    score = rng.uniform(0.5, 1, count).astype(np.float32)
    order = np.lexsort((-score, window))
    return SparsePredictions(window, label[order], score[order])


def write_parquet(folder: Path, drawn: list[SparsePredictions], classes: np.ndarray) -> list[int]:
    """Bytes of each file."""
    sizes = []
    for i, item in enumerate(drawn):
        file, _ = stage_predictions(folder / f"{i:06d}.parquet", item, classes, PROVENANCE)
        file.commit()
        sizes.append(file.size)
    return sizes


def write_json(folder: Path, drawn: list[SparsePredictions], classes: np.ndarray) -> int:
    size = 0
    for i, item in enumerate(drawn):
        content: dict[str, list[list[float]]] = {}
        for window, label, score in zip(*(column.tolist() for column in item), strict=True):
            content.setdefault(classes[label], []).append([window, round(score, 7)])
        text = json.dumps(content)
        write_text(folder / f"{i:06d}.json", text)
        size += len(text)
    return size


def detections_from_json(folder: Path) -> Iterator[Detections]:
    for path in sorted(folder.iterdir()):
        content = json.loads(path.read_bytes())
        rows = [(int(w), name, s) for name, found in content.items() for w, s in found]
        rows.sort(key=lambda row: (row[0], -row[2]))
        window = np.array([row[0] for row in rows], dtype=np.int32)
        label = np.array([row[1] for row in rows], dtype=object)
        score = np.array([row[2] for row in rows], dtype=np.float32)
        start = window * SECONDS
        yield Detections(f"{path.stem}.wav", window, start, start + SECONDS, label, score)


def make_tree(audio_dir: Path, results: Path, sizes: list[int]) -> bacpipe.Loader:
    """The journal of a run over all recordings; no audio, no embeddings."""
    identity = {
        "model": MODEL,
        "sample_rate": 48000,
        "window": int(48000 * SECONDS),
        "hop": None,
        "padding": "wrap",
        "speed": 1,
        "only_annotated": False,
    }
    audio_dir.mkdir()
    parent = results / audio_dir.name / "embeddings"
    found = create_set(parent, MODEL, audio_dir.name, identity, PROVENANCE)
    journal = Journal(found.folder)
    for i, size in enumerate(sizes):
        journal.append(
            FinishedEntry(
                f"{i:06d}.wav",
                DONE,
                size=0,
                mtime_ns=0,
                duration=WINDOWS * SECONDS,
                windows=WINDOWS,
                padded=0,
                truncated=None,
                segments=None,
                segments_hash=None,
                embeddings=StoredEmbeddings(f"{i:06d}_{MODEL}.npy", 4 * WINDOWS, 1),
                predictions=StoredPredictions(f"{i:06d}.parquet", size, None, 0.5, 20),
            )
        )
    journal.close()
    loader = bacpipe.Loader(audio_dir, MODEL, main_results_dir=str(results))
    bring_forward(loader.paths.preds_path, found.folder.name)
    return loader


def count(detections: Iterator[Detections]) -> int:
    return sum(len(item.window) for item in detections)


def timed(function: Callable[[], object]) -> tuple[float, object]:
    start = time.perf_counter()
    value = function()
    return time.perf_counter() - start, value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recordings", type=int, default=10_000)
    parser.add_argument("--classes", type=int, default=6522)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    classes = np.array([f"Species number {i}" for i in range(arguments.classes)], dtype=object)
    drawn = [draw(rng, arguments.classes) for _ in range(arguments.recordings)]
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        sizes_of_files = write_parquet(root / "first", drawn, classes)
        loader = make_tree(root / "audio", root / "results", sizes_of_files)
        parquet, as_json = loader.paths.sparse_predictions_path, root / "json"
        combined = detections_path(loader.paths.preds_path, MODEL)
        times: dict[str, list[float]] = {}
        for _ in range(arguments.repeats):  # interleaved, so that both see the same machine
            combined.unlink(missing_ok=True)
            for what, function in {
                "write, Parquet": lambda: sum(write_parquet(parquet, drawn, classes)),
                "write, JSON": lambda: write_json(as_json, drawn, classes),
                "detections, Parquet, file by file": lambda: count(loader.detections()),
                "write combined tables": lambda: write_combined_tables(
                    loader.paths.preds_path,
                    MODEL,
                    loader.detections(),
                    PROVENANCE,
                    loader.predictions_state,
                ),
                "detections, Parquet": lambda: count(loader.detections()),
                "detections, JSON": lambda: count(detections_from_json(as_json)),
                "table, Parquet": lambda: loader.predictions("dataframe").shape,
                "table, JSON": lambda: wide_frame(detections_from_json(as_json)).shape,
                "array, Parquet": lambda: loader.predictions("array")[0].shape,
            }.items():
                seconds, value = timed(function)
                times.setdefault(what, []).append(seconds)
                print(f"{what:34s} {seconds:8.2f} s  {value}", flush=True)
        middle = {what: statistics.median(values) for what, values in times.items()}
        sizes = {f.name: sum(p.stat().st_size for p in f.iterdir()) for f in (parquet, as_json)}
    print(f"\n{arguments.recordings} recordings, {arguments.classes} classes; medians")
    for what in ("write", "detections", "table"):
        ratio = middle[f"{what}, JSON"] / middle[f"{what}, Parquet"]
        print(f"{what:10s} JSON takes {ratio:.2f} x the time of Parquet")
    print(f"size on disk: Parquet {sizes[parquet.name]:,} bytes, JSON {sizes['json']:,} bytes")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")


if __name__ == "__main__":
    main()
