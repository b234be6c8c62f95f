"""What it costs to store the results of a recording of one window: its files and its journal line.

Every round writes a results tree of its own, with the disk told to keep each file, as runs do.
CPU time is of the whole process, in which nothing else happens.  To compare with another commit,
run it there, too, in turns.

    python benchmarks/short_recordings.py --rounds 12
    python benchmarks/short_recordings.py --found 0      # recordings in which nothing was found
    python benchmarks/short_recordings.py --classes 0    # a model without classes
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from bacpipe.store.embedding_set import create_set
from bacpipe.store.entries import PredictionSettings
from bacpipe.store.layout import ResultPaths
from bacpipe.store.plan import Source, StreamEnd
from bacpipe.store.predictions import SparsePredictions
from bacpipe.store.writer import ResultWriter

RECORDINGS, BATCH = 256, 8
IDENTITY = {"model": "m", "sample_rate": 48000, "window": 144000, "hop": None, "speed": 1}
SETTINGS = PredictionSettings(threshold=0.1, top=5, sensitivity=1.0)


def written(base: Path, dim: int, classes: int, found: int) -> tuple[float, float]:
    """CPU and wall milliseconds per recording."""
    names = [f"{number:05}.wav" for number in range(RECORDINGS)]
    rng = np.random.default_rng(0)
    embeddings = rng.standard_normal((BATCH, dim), dtype=np.float32)
    predictions = SparsePredictions(
        np.zeros(found, np.int32),
        np.arange(found, dtype=np.int32),
        np.linspace(0.9, 0.2, found, dtype=np.float32),
    )
    writer = ResultWriter(
        create_set(base / "embeddings", "m", "field", IDENTITY, {}),
        ResultPaths(*[base / folder for folder in "abcdefghij"]),
        "m",
        names,
        classes=[f"Species of number {number}" for number in range(classes)],
        prediction_settings=SETTINGS,
        provenance={**IDENTITY, **SETTINGS},
    )
    cpu, wall = time.process_time(), time.perf_counter()
    for number, name in enumerate(names):
        source, row = Source(base, name, 288_044, number), number % BATCH
        writer.add(source, embeddings[row : row + 1], predictions if classes else None)
        writer.finish(source, StreamEnd(3.0, 0, read=(288_044, number, "0" * 64)))
    writer.close()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return 1000 * cpu / RECORDINGS, 1000 * wall / RECORDINGS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--dim", type=int, default=1024)
    parser.add_argument("--classes", type=int, default=6522)
    parser.add_argument("--found", type=int, default=3, help="predictions in each recording")
    parser.add_argument("--rounds", type=int, default=12)
    arguments = parser.parse_args()
    given = arguments.dim, arguments.classes, arguments.found
    # Deleted at the end: ext4 searches long for a place for files made just after others went.
    with tempfile.TemporaryDirectory() as scratch:
        rounds = [written(Path(scratch) / str(i), *given) for i in range(arguments.rounds)]
    cpu, wall = zip(*rounds, strict=True)
    print(
        f"CPU {min(cpu):.2f} ms a recording at best, {np.median(cpu):.2f} median; "
        f"wall {min(wall):.2f} and {np.median(wall):.2f} ms"
    )


if __name__ == "__main__":
    main()
